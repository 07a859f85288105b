"""Operations on agents."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, literal, select, text

from agentos_store.agents.changes import (
    AGENTS,
    GET,
    GET_ANY,
    KEY,
    OPEN,
    add,
    change,
    check_place,
    merge,
    put,
    required,
)
from agentos_store.agents.fork import forks
from agentos_store.agents.models import Agent
from agentos_store.agents.statistics import AgentStats, aggregate
from agentos_store.engine.prefix import behind
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.errors import NotFoundError
from agentos_store.operation import F, Repository, reads, repeatable, walks, writes, writes_once
from agentos_store.page import DEFAULT_LIMIT, Filter, Listing, Page, at_least, below, contains, equals
from agentos_store.types import Boolean, Identifier, Text, check_whole
from agentos_store.unset import UNSET, Unset, given

_ACTIVE: Any = text(f"{AGENTS.name}.state <> 'archived'")
# Text, for what begins an identifier, or comes behind all that begin so, need not be one itself.
_PREFIX = Text()
_IDENTIFIER = Identifier()

_LISTING = Listing(
    Agent,
    filters={
        "prefix": Filter(_PREFIX, lambda name: AGENTS.c.agent_id >= bindparam(name, type_=_PREFIX)),
        "behind": Filter(_PREFIX, lambda name: AGENTS.c.agent_id < bindparam(name, type_=_PREFIX)),
        "template_id": equals(Agent.template_id),
        "state": equals(Agent.state),
        "parent_id": equals(Agent.parent_id),
        "session_id": equals(Agent.session_id),
        "lineage": contains(Agent.lineage),
        "created_after": at_least(Agent.created_at),
        "created_before": below(Agent.created_at),
        "metadata": contains(Agent.metadata_),
        "active": Filter(Boolean(), lambda _: _ACTIVE),
        "open": Filter(Boolean(), lambda _: OPEN),
    },
    orders={"created_at": (AGENTS.c.created_at, AGENTS.c.agent_id), "agent_id": (AGENTS.c.agent_id,)},
    default="created_at",
)


class AgentRepository(Repository[F]):
    """Agents: what they are, where they stand, and whom they descend from."""

    name = "agents"

    @writes_once
    @repeatable
    def save(
        self,
        session: Session,
        agent_id: str,
        *,
        version: int | None = None,
        template_id: str | None | Unset = UNSET,
        role: str | None | Unset = UNSET,
        goal: str | None | Unset = UNSET,
        backstory: str | None | Unset = UNSET,
        state: str | Unset = UNSET,
        lineage: Sequence[str] | Unset = UNSET,
        parent_id: str | None | Unset = UNSET,
        session_id: str | None | Unset = UNSET,
        config_version: str | None | Unset = UNSET,
        last_sfp_index: int | Unset = UNSET,
        last_bookmark: Mapping[str, Any] | None | Unset = UNSET,
        breakpoint: str | None | Unset = UNSET,
        last_task_id: str | None | Unset = UNSET,
        stats: Mapping[str, Any] | Unset = UNSET,
        metadata: Mapping[str, Any] | Unset = UNSET,
        created_at: dt.datetime | None = None,
    ) -> Agent:
        """Make the agent have what is given, whether it was there or not, and return it as it is then.

        What is left out stays as it is, or has its default where the agent is new: state ``idle``, an empty lineage,
        no safe fork point. ``created_at`` is kept once it is there. Of parallel savings each counts, the last one wins
        where they give the same. An agent that was softly deleted is restored. Messages, tool calls, snapshots and
        documents are not touched.

        With ``version`` the agent must be there, at that version, or NotFoundError or ConflictError is raised. Raises
        NotFoundError also for a parent, session or task that does not exist.
        """
        changes = given(
            template_id=template_id,
            role=role,
            goal=goal,
            backstory=backstory,
            state=state,
            lineage=plain_json(lineage),
            parent_id=parent_id,
            session_id=session_id,
            config_version=config_version,
            last_sfp_index=last_sfp_index,
            last_bookmark=plain_json(last_bookmark),
            breakpoint=breakpoint,
            last_task_id=last_task_id,
            stats=plain_json(stats),
            metadata=plain_json(metadata),
        )
        check_place(changes)
        if version is not None:
            return change(session, agent_id, changes | {"deleted_at": None}, version=version, which="any")
        return put(session, agent_id, changes, created_at=created_at)

    @writes_once
    @repeatable
    def create(
        self,
        session: Session,
        agent_id: str | None = None,
        *,
        template_id: str | None = None,
        role: str | None = None,
        goal: str | None = None,
        backstory: str | None = None,
        state: str = "idle",
        lineage: Sequence[str] = (),
        parent_id: str | None = None,
        session_id: str | None = None,
        config_version: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        created_at: dt.datetime | None = None,
    ) -> Agent:
        """Add an agent; its identifier is made unless given.

        Raises AlreadyExistsError for an identifier that is taken, be it by an agent that was softly deleted, and
        NotFoundError for a parent or session that does not exist.
        """
        values = {
            "agent_id": session.new_ulid() if agent_id is None else agent_id,
            "template_id": template_id,
            "role": role,
            "goal": goal,
            "backstory": backstory,
            "state": state,
            "lineage": plain_json(lineage),
            "parent_id": parent_id,
            "session_id": session_id,
            "config_version": config_version,
            "metadata": {} if metadata is None else plain_json(metadata),
        }
        return add(session, values, created_at=created_at)

    @reads
    def get(self, session: Session, agent_id: str, *, include_deleted: bool = False) -> Agent:
        """Return the agent; raise NotFoundError for one that is unknown or softly deleted."""
        return required(session.first(GET_ANY if include_deleted else GET, {"agent_id": agent_id}), agent_id)

    @reads
    def find(self, session: Session, agent_id: str, *, include_deleted: bool = False) -> Agent | None:
        """Return the agent, or None."""
        return session.first(GET_ANY if include_deleted else GET, {"agent_id": agent_id})

    @reads
    def exists(self, session: Session, agent_id: str, *, include_deleted: bool = False) -> bool:
        """Tell whether there is such an agent."""
        return session.first(_EXISTS_ANY if include_deleted else _EXISTS, {"agent_id": agent_id}) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        prefix: str | None = None,
        template_id: str | None = None,
        state: str | None = None,
        active_only: bool = False,
        parent_id: str | None = None,
        ancestor_id: str | None = None,
        session_id: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        include_deleted: bool = False,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[Agent]:
        """Return a page of agents, the oldest first; with a ``prefix`` they come in the order of their identifiers.

        ``prefix`` is what identifiers begin with, character by character: no character of it stands for another.
        ``created_after`` is inclusive and ``created_before`` is not. ``active_only`` leaves out the archived ones.
        ``ancestor_id`` keeps the agents that have it in their lineage, ``metadata`` those whose metadata contains it;
        on SQLite these two narrow what the other filters leave. Orders are ``created_at``, which serves the other
        filters best, and ``agent_id``, which serves the prefix; a ``-`` before it turns it round.
        """
        filters = _filters(
            prefix=prefix,
            template_id=template_id,
            state=state,
            active_only=active_only,
            parent_id=parent_id,
            ancestor_id=ancestor_id,
            session_id=session_id,
            created_after=created_after,
            created_before=created_before,
            metadata=metadata,
            include_deleted=include_deleted,
        )
        if order is None and filters.get("prefix") is not None:
            order = "agent_id"
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    @reads
    def count(
        self,
        session: Session,
        *,
        prefix: str | None = None,
        template_id: str | None = None,
        state: str | None = None,
        active_only: bool = False,
        parent_id: str | None = None,
        ancestor_id: str | None = None,
        session_id: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        include_deleted: bool = False,
    ) -> int:
        """Return how many agents pass the filters."""
        filters = _filters(
            prefix=prefix,
            template_id=template_id,
            state=state,
            active_only=active_only,
            parent_id=parent_id,
            ancestor_id=ancestor_id,
            session_id=session_id,
            created_after=created_after,
            created_before=created_before,
            metadata=metadata,
            include_deleted=include_deleted,
        )
        return _LISTING.count(session, filters)

    @writes_once
    @repeatable
    def set_state(self, session: Session, agent_id: str, state: str, *, expected: str | None = None) -> Agent:
        """Change the agent's state; with ``expected``, only if it has that one, else ConflictError.

        Of callers that race from one expected state to another, one comes through.
        """
        return change(session, agent_id, {"state": state}, expected=expected)

    @writes_once
    @repeatable
    def update_stats(self, session: Session, agent_id: str, stats: Mapping[str, Any]) -> Agent:
        """Set these keys of the agent's statistics and keep the others; parallel calls keep each other's keys."""
        return merge(session, agent_id, "stats", stats)

    @writes_once
    @repeatable
    def merge_metadata(self, session: Session, agent_id: str, metadata: Mapping[str, Any]) -> Agent:
        """Set these keys of the agent's metadata and keep the others; parallel merges keep each other's keys."""
        return merge(session, agent_id, "metadata", metadata)

    @writes_once
    @repeatable
    def delete(self, session: Session, agent_id: str) -> Agent:
        """Mark the agent deleted: lists, statistics and approvals leave it out until it is restored or saved."""
        return change(session, agent_id, {"deleted_at": session.now()})

    @writes_once
    @repeatable
    def restore(self, session: Session, agent_id: str) -> Agent:
        """Bring an agent back that was softly deleted; one that was not is left as it is."""
        return change(session, agent_id, {"deleted_at": None}, which="deleted")

    @writes_once
    @repeatable
    def purge(self, session: Session, agent_id: str) -> None:
        """Remove the agent for good, with its snapshots, documents, contexts and tool calls.

        Its conversation stays, as do its forks and its tasks, which no longer name it.
        """
        if session.execute(_PURGE, {"agent_id": agent_id}) == 0 and not session.repeated:
            raise NotFoundError("agent", agent_id)

    @reads
    def aggregate_stats(self, session: Session, agent_id: str) -> AgentStats:
        """Return what the agent's conversation and its tool calls come to; NotFoundError for an unknown agent."""
        return aggregate(session, agent_id)

    @writes
    @repeatable
    def fork(
        self,
        session: Session,
        agent_id: str,
        new_agent_id: str | None = None,
        *,
        snapshot_id: str | None = None,
        up_to_seq: int | None = None,
    ) -> Agent:
        """Make an agent that goes on from here, from a snapshot, or from behind a message, and return it.

        It gets a conversation of its own with a copy of the messages up to that point, and a copy of the tool calls
        that these made, in the state that those have now; parent and fork share nothing afterwards. What the messages
        cost stays with the parent's conversation. Template, role, configuration, metadata and the point itself are
        the parent's; state, statistics, breakpoint and documents begin anew. The number of statements does not grow
        with the conversation.

        Raises NotFoundError for an agent or a snapshot that does not exist, ConflictError for an agent without a
        conversation, and AlreadyExistsError for an identifier that is taken.
        """
        (made,) = forks(session, agent_id, [new_agent_id], snapshot_id=snapshot_id, up_to_seq=up_to_seq)
        return made

    @writes
    @repeatable
    def batch_fork(
        self,
        session: Session,
        agent_id: str,
        n: int,
        *,
        snapshot_id: str | None = None,
        up_to_seq: int | None = None,
    ) -> Sequence[Agent]:
        """Make ``n`` forks of one point, all or none, as ``fork`` makes one."""
        check_whole("n", n, 1, MOST_FORKS)
        return forks(session, agent_id, [None] * n, snapshot_id=snapshot_id, up_to_seq=up_to_seq)


MOST_FORKS = 1000
"""That one call makes."""


def _filters(
    *, prefix: Any, ancestor_id: Any, active_only: bool, metadata: Any, include_deleted: bool, **filters: Any
) -> dict[str, Any]:
    if ancestor_id is not None:
        filters["lineage"] = [_IDENTIFIER.check(ancestor_id, "ancestor_id")]
    if prefix is not None and _PREFIX.check(prefix, "prefix"):
        filters |= {"prefix": prefix, "behind": behind(prefix)}
    filters["metadata"] = plain_json(metadata)
    filters["active"] = True if active_only else None
    filters["open"] = None if include_deleted else True
    return filters


_EXISTS_ANY: Statement[Any] = Statement(select(literal(1)).where(AGENTS.c.agent_id == KEY))
_EXISTS: Statement[Any] = Statement(select(literal(1)).where(AGENTS.c.agent_id == KEY, OPEN))
_PURGE: Statement[Any] = Statement(delete(AGENTS).where(AGENTS.c.agent_id == KEY))
