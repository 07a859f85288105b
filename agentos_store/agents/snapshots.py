"""Operations on snapshots: what an agent's conversation was, whatever happened to it since."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, literal, or_, select, text
from sqlalchemy.dialects import postgresql

from agentos_store.agents.models import Agent, Snapshot
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import ConflictError, InvalidValueError, NotFoundError
from agentos_store.operation import F, Repository, reads, reads_together, repeatable, walks, writes_once
from agentos_store.page import DEFAULT_LIMIT, Filter, Listing, Page, at_least, below, equals
from agentos_store.types import Boolean

_AGENTS = Agent.table()
_MESSAGES = Message.table()
_SESSIONS = Conversation.table()
_SNAPSHOTS = Snapshot.table()
_AGENT = bindparam("agent_id", type_=_SNAPSHOTS.c.agent_id.type)
_OPEN_AGENT: Any = select(_AGENTS.c.agent_id).where(_AGENTS.c.agent_id == _AGENT, _AGENTS.c.deleted_at.is_(None))

_LISTING = Listing(
    Snapshot,
    filters={
        "agent_id": equals(Snapshot.agent_id),
        "created_after": at_least(Snapshot.created_at),
        "created_before": below(Snapshot.created_at),
        "open": Filter(Boolean(), lambda _: _OPEN_AGENT.exists()),
    },
    # Unique within an agent, and an agent is always given.
    orders={"created_at": (_SNAPSHOTS.c.created_at, _SNAPSHOTS.c.snapshot_id)},
    default="created_at",
)


@dataclass(frozen=True, slots=True)
class LoadedSnapshot:
    """A snapshot with the conversation as it was then."""

    snapshot: Snapshot
    messages: Sequence[Message]
    """In their order. Where the conversation was rewritten since, some rows are closed ones."""


class SnapshotRepository(Repository[F]):
    """Snapshots: moments of agents to which they, or forks of them, can go back."""

    name = "snapshots"

    @writes_once
    @repeatable
    def save(
        self,
        session: Session,
        agent_id: str,
        snapshot_id: str | None = None,
        *,
        parent_snapshot_id: str | None = None,
        up_to_seq: int | None = None,
        last_sfp_index: int | None = None,
        last_bookmark: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        created_at: dt.datetime | None = None,
    ) -> Snapshot:
        """Record what the agent and its conversation are now; a snapshot under the same identifier is replaced.

        The identifier is made unless given. ``up_to_seq`` is the number of the last message that belongs to it, -1
        for none: unless given the conversation's last. Safe fork point and bookmark are the agent's own unless given.
        Nothing is copied, so it costs the same for a long conversation.

        Raises NotFoundError for an agent or a conversation that is unknown or softly deleted, ConflictError for an
        agent without a conversation, and InvalidValueError for a message that the conversation does not have.
        """
        _check("up_to_seq", up_to_seq)
        _check("last_sfp_index", last_sfp_index)
        row = {
            "agent_id": agent_id,
            "snapshot_id": session.new_ulid() if snapshot_id is None else snapshot_id,
            "parent_snapshot_id": parent_snapshot_id,
            "given_up_to_seq": up_to_seq,
            "given_last_sfp_index": last_sfp_index,
            "given_last_bookmark": plain_json(last_bookmark),
            "metadata": {} if metadata is None else plain_json(metadata),
            "created_at": session.now() if created_at is None else created_at,
        }
        while True:
            try:
                saved = session.first(_SAVE, row)
            except IntegrityViolation as violation:
                raise explain(violation, Snapshot, row | {"session_id": None}, session) from None
            if saved is not None:
                return saved
            _refuse(session, agent_id, up_to_seq)
            # Whatever stood in the way is gone by now.

    @reads_together
    def load(self, session: Session, agent_id: str, snapshot_id: str) -> LoadedSnapshot:
        """Return the snapshot with the messages of which the conversation consisted then, whatever happened since."""
        snapshot = required(session, agent_id, snapshot_id)
        binds = {
            "session_id": snapshot.session_id,
            "generation": snapshot.generation,
            "up_to_seq": snapshot.up_to_seq,
        }
        return LoadedSnapshot(snapshot, session.all(_MESSAGES_THEN, binds))

    @reads
    def get(self, session: Session, agent_id: str, snapshot_id: str) -> Snapshot:
        """Return the snapshot, whose agent may be softly deleted; raise NotFoundError when there is none."""
        return required(session, agent_id, snapshot_id)

    @reads
    def find(self, session: Session, agent_id: str, snapshot_id: str) -> Snapshot | None:
        """Return the snapshot, or None."""
        return session.first(_GET, {"agent_id": agent_id, "snapshot_id": snapshot_id})

    @reads
    def exists(self, session: Session, agent_id: str, snapshot_id: str) -> bool:
        """Tell whether there is such a snapshot."""
        return session.first(_EXISTS, {"agent_id": agent_id, "snapshot_id": snapshot_id}) is not None

    @reads
    def list(
        self,
        session: Session,
        agent_id: str,
        *,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        include_deleted: bool = False,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[Snapshot]:
        """Return a page of the agent's snapshots, the oldest first; ``order="-created_at"`` turns that round.

        ``created_after`` is inclusive and ``created_before`` is not. Those of a softly deleted agent are left out
        unless ``include_deleted``.
        """
        filters = {
            "agent_id": agent_id,
            "created_after": created_after,
            "created_before": created_before,
            "open": None if include_deleted else True,
        }
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    @reads
    def count(self, session: Session, agent_id: str, *, include_deleted: bool = False) -> int:
        """Return how many snapshots the agent has."""
        return _LISTING.count(session, {"agent_id": agent_id, "open": None if include_deleted else True})

    @writes_once
    @repeatable
    def delete(self, session: Session, agent_id: str, snapshot_id: str) -> None:
        """Remove a snapshot; the conversation and what was forked from it stay."""
        binds = {"agent_id": agent_id, "snapshot_id": snapshot_id}
        if session.execute(_DELETE, binds) == 0 and not session.repeated:
            raise NotFoundError("snapshot", (agent_id, snapshot_id))


def required(session: Session, agent_id: str, snapshot_id: str) -> Snapshot:
    """Return the snapshot; raise NotFoundError when there is none."""
    found = session.first(_GET, {"agent_id": agent_id, "snapshot_id": snapshot_id})
    if found is None:
        raise NotFoundError("snapshot", (agent_id, snapshot_id))
    return found


def existed_then(generation: Any, up_to_seq: Any) -> tuple[Any, ...]:
    """Return the conditions that a message was part of its conversation in this generation, up to this number."""
    return (
        _MESSAGES.c.seq <= up_to_seq,
        _MESSAGES.c.from_generation <= generation,
        or_(_MESSAGES.c.to_generation.is_(None), _MESSAGES.c.to_generation > generation),
    )


def _check(name: str, value: object) -> None:
    if isinstance(value, int) and value < -1:
        raise InvalidValueError(name, "must be at least -1")


def _refuse(session: Session, agent_id: str, up_to_seq: int | None) -> None:
    """Raise what kept the snapshot from being taken; return when nothing does any more."""
    found = session.first(_STATE, {"agent_id": agent_id})
    if found is None:
        raise NotFoundError("agent", agent_id)
    session_id, next_seq = found
    if session_id is None:
        raise ConflictError("agent", agent_id, "it has no conversation")
    if next_seq is None:
        raise NotFoundError("session", session_id)
    if up_to_seq is not None and up_to_seq >= next_seq:
        raise InvalidValueError("up_to_seq", f"the conversation has {next_seq:,} messages")


_THIS = (
    _SNAPSHOTS.c.agent_id == _AGENT,
    _SNAPSHOTS.c.snapshot_id == bindparam("snapshot_id", type_=_SNAPSHOTS.c.snapshot_id.type),
)
_GET: Statement[Snapshot] = Statement(select(_SNAPSHOTS).where(*_THIS), returns=Snapshot)
_EXISTS: Statement[Any] = Statement(select(literal(1)).where(*_THIS))
_DELETE: Statement[Any] = Statement(delete(_SNAPSHOTS).where(*_THIS))
_OPEN_SESSION = (_SESSIONS.c.id == _AGENTS.c.session_id) & _SESSIONS.c.deleted_at.is_(None)
_STATE: Statement[Any] = Statement(
    select(_AGENTS.c.session_id, _SESSIONS.c.next_seq)
    .select_from(_AGENTS)
    .outerjoin(_SESSIONS, _OPEN_SESSION)
    .where(_AGENTS.c.agent_id == _AGENT, text(f"{_AGENTS.name}.deleted_at IS NULL"))
)


def _save() -> Statement[Snapshot]:
    values: dict[str, Any] = {c.name: bindparam(c.name, type_=c.type) for c in _SNAPSHOTS.c}
    optional = {
        name: bindparam(f"given_{name}", type_=_SNAPSHOTS.c[name].type)
        for name in ("up_to_seq", "last_sfp_index", "last_bookmark")
    }
    values |= {
        "session_id": _SESSIONS.c.id,
        "generation": _SESSIONS.c.generation,
        "up_to_seq": func.coalesce(optional["up_to_seq"], _SESSIONS.c.next_seq - 1),
        "last_sfp_index": func.coalesce(optional["last_sfp_index"], _AGENTS.c.last_sfp_index),
        "last_bookmark": func.coalesce(optional["last_bookmark"], _AGENTS.c.last_bookmark),
    }
    source = (
        select(*values.values())
        .select_from(_AGENTS)
        .join(_SESSIONS, _OPEN_SESSION)
        .where(
            _AGENTS.c.agent_id == _AGENT,
            text(f"{_AGENTS.name}.deleted_at IS NULL"),
            func.coalesce(optional["up_to_seq"], -1) < _SESSIONS.c.next_seq,
        )
    )
    # One spelling serves both dialects.
    query = postgresql.insert(_SNAPSHOTS).from_select([*values], source, include_defaults=False)
    replaced = {name: query.excluded[name] for name in values if name not in {"agent_id", "snapshot_id"}}
    query = query.on_conflict_do_update(index_elements=[*_SNAPSHOTS.primary_key.columns], set_=replaced)
    called = {f"given_{name}": name for name in optional}
    return Statement(query.returning(*_SNAPSHOTS.c), returns=Snapshot, called=called)


_SAVE = _save()
_MESSAGES_THEN: Statement[Message] = Statement(
    select(_MESSAGES)
    .where(
        _MESSAGES.c.session_id == bindparam("session_id", type_=_MESSAGES.c.session_id.type),
        *existed_then(
            bindparam("generation", type_=_MESSAGES.c.from_generation.type),
            bindparam("up_to_seq", type_=_MESSAGES.c.seq.type),
        ),
    )
    .order_by(_MESSAGES.c.seq),
    returns=Message,
)
