"""Consistency: what no constraint of the database holds together, checked and repaired.

A check reads a batch at a time, by key, so that neither memory nor one statement grows with the database. What is
repaired is looked at again within the transaction that repairs it, so that nobody's work of meanwhile is undone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Select, bindparam, case, cast, delete, func, literal, or_, select, text, tuple_, update

from agentos_store.agents.models import Agent, Snapshot
from agentos_store.agents.snapshots import existed_then
from agentos_store.conversations import rewrite
from agentos_store.conversations.message_models import CURRENT, Message
from agentos_store.conversations.models import QuotaReservation, User
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_dangling import NOTE, settle, unrecorded
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.backend import Backend, Runs
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import NotFoundError
from agentos_store.operation import Access

BATCH = 500
LISTED = 1000
"""Findings that are listed one by one; the counts are always complete."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not fit together."""

    kind: str
    """counters, gaps, tool_calls, bookmarks, snapshots or quotas."""
    entity: str
    key: str | tuple[str, ...]
    """Which row it is."""
    what: str
    remedy: str | None
    """What repair does about it; None where people have to decide."""


@dataclass(slots=True)
class ConsistencyReport:
    """What a check found, or what a repair has put right."""

    counts: dict[str, int] = field(default_factory=dict)
    """By kind; a kind of which nothing was found is left out."""
    findings: list[Finding] = field(default_factory=list)
    unlisted: int = 0
    """Findings beyond those that are listed."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.counts

    def add(self, finding: Finding) -> None:
        """Count a finding, and list it while there is room."""
        self.counts[finding.kind] = self.counts.get(finding.kind, 0) + 1
        if len(self.findings) < LISTED:
            self.findings.append(finding)
        else:
            self.unlisted += 1


def check_consistency(backend: Runs, agent_id: str | None = None) -> ConsistencyReport:
    """Return what does not fit together, in the whole store or for one agent and its conversation.

    Raises NotFoundError for an unknown agent.
    """
    report = ConsistencyReport()
    for finding, _ in _find(backend, agent_id):
        report.add(finding)
    return report


def repair(backend: Backend, agent_id: str | None = None) -> ConsistencyReport:
    """Put right what has a remedy, each thing in a transaction of its own, and return what was put right.

    Raises NotFoundError for an unknown agent.
    """
    report = ConsistencyReport()
    last: Mend | None = None
    for finding, mend in _find(backend, agent_id):
        if mend is None:
            continue
        try:
            # What mends one finding of an agent mends the others that follow it.
            if mend != last:
                backend.run(Access.WRITE, f"repair {finding.kind}", mend, repeatable=True)
        except NotFoundError:
            # It was removed meanwhile.
            continue
        last = mend
        report.add(finding)
    return report


Mend = Callable[[Session], object]
Found = Iterator[tuple[Finding, Mend | None]]


def _find(backend: Runs, agent_id: str | None) -> Found:
    look = _Look(backend, agent_id)
    yield from _conversations(look)
    yield from _tool_calls(look)
    yield from _bookmarks(look)
    yield from _snapshots(look)
    if agent_id is None:
        yield from _quotas(look)


class _Look:
    """Reads rows in batches: all, or those of one agent."""

    def __init__(self, backend: Runs, agent_id: str | None) -> None:
        self._backend = backend
        self.agent_id = agent_id
        self.session_id: str | None = None
        if agent_id is not None:
            found = self.read(lambda session: session.first(_AGENT, {"agent_id": agent_id}))
            if found is None:
                raise NotFoundError("agent", agent_id)
            self.session_id = found[0]

    def read(self, body: Callable[[Session], Any]) -> Any:
        """Read at one moment."""
        return self._backend.run(Access.SNAPSHOT, "check_consistency", body, repeatable=True)

    def walk(self, walk: _Walk, only: str | None) -> Iterator[Sequence[Any]]:
        """Give the rows of a walk: all, or those of the one that is meant, if there is one."""
        if self.agent_id is not None:
            if only is not None:
                yield from self.read(_asking(walk.only, {"only": only}))
            return
        rows = self.read(_asking(walk.first, {}))
        yield from rows
        while len(rows) == walk.batch:
            last = {f"after_{i}": rows[-1][i] for i in range(walk.keys)}
            rows = self.read(_asking(walk.next, last))
            yield from rows


def _asking(statement: Statement[Any], binds: Mapping[str, Any]) -> Callable[[Session], Any]:
    return lambda session: session.all(statement, binds)


class _Walk:
    """A query whose first columns are its key, run a batch at a time, or for one value of its first column."""

    def __init__(self, query: Select[Any], *keys: Any, batch: int = BATCH) -> None:
        after = [bindparam(f"after_{i}", type_=key.type) for i, key in enumerate(keys)]
        ordered = query.order_by(*keys)
        self.keys = len(keys)
        self.batch = batch
        self.first: Statement[Any] = Statement(ordered.limit(literal(batch)))
        self.next: Statement[Any] = Statement(ordered.where(tuple_(*keys) > tuple_(*after)).limit(literal(batch)))
        self.only: Statement[Any] = Statement(ordered.where(keys[0] == bindparam("only", type_=keys[0].type)))


def _conversations(look: _Look) -> Found:
    """Counters that tell something else than the messages do, and numbers that are missing."""
    for key, message_count, next_seq, tokens, cost, count, last, own_tokens, own_cost in look.walk(
        _SESSIONS_WALK, look.session_id
    ):
        behind = -1 if last is None else last
        if count != behind + 1:
            what = f"{count:,} messages, of which the last has the number {behind:,}"
            remedy = "number the messages anew, as a new generation"
            yield Finding("gaps", "session", key, what, remedy), _renumbering(key)
        if (message_count, next_seq) != (count, behind + 1) or tokens < own_tokens or cost < own_cost:
            told = f"message_count {message_count:,}, next_seq {next_seq:,}, total_tokens {tokens:,}, total_cost {cost}"
            there = f"{count:,} messages, {own_tokens:,} tokens, cost {own_cost}"
            remedy = "count anew; tokens and cost never become less"
            yield Finding("counters", "session", key, f"{told}; there are {there}", remedy), _counting(key)


def _renumbering(session_id: str) -> Mend:
    return lambda session: rewrite.renumber(session, session_id)


def _counting(session_id: str) -> Mend:
    def mend(session: Session) -> None:
        binds = {"id": session_id, "now": session.now()}
        session.first(_LOCK_SESSION, binds)
        session.execute(_COUNT_ANEW, binds)

    return mend


def _tool_calls(look: _Look) -> Found:
    """Calls that nobody is at work on and that have not ended, and calls of messages that nobody recorded.

    Calls of no agent are left alone: nobody tells whether someone is at work on them.
    """
    for agent_id, key, state in look.walk(_CALLS_WALK, look.agent_id):
        what = f"{state}, while its agent is not at work"
        yield Finding("tool_calls", "tool call", (agent_id, key), what, "seal it"), _Settling(agent_id)
    for agent_id, session_id in look.walk(_IDLE_WALK, look.agent_id):
        for use in look.read(_unrecorded(session_id, agent_id)):
            what = f"called by message {use.message_id}, with neither a result nor a record"
            found = Finding("tool_calls", "tool call", (agent_id, use.tool_call_id), what, "record it as sealed")
            yield found, _Settling(agent_id)


def _unrecorded(session_id: str, agent_id: str) -> Callable[[Session], Any]:
    return lambda session: unrecorded(session, session_id, agent_id)


@dataclass(frozen=True, slots=True)
class _Settling:
    """Settles the calls of an agent, if it is still not at work."""

    agent_id: str

    def __call__(self, session: Session) -> None:
        if session.first(_LOCK_IDLE, {"agent_id": self.agent_id}) is not None:
            settle(session, self.agent_id, None, note=NOTE, by=None, waiting=False)


def _bookmarks(look: _Look) -> Found:
    """Safe fork points behind the last message."""
    for key, index, count in look.walk(_BOOKMARKS_WALK, look.agent_id):
        what = f"last_sfp_index {index:,}, and {count:,} messages"
        yield Finding("bookmarks", "agent", key, what, "set it to the last message"), _marking(key)


def _marking(agent_id: str) -> Mend:
    return lambda session: session.execute(_MARK, {"agent_id": agent_id, "now": session.now()})


def _snapshots(look: _Look) -> Found:
    """Snapshots whose messages are gone."""
    for agent_id, key, expected, count in look.walk(_SNAPSHOTS_WALK, look.agent_id):
        if count == expected:
            continue
        # Of some messages people may still make something; a snapshot of nothing is of no use.
        nothing = count == 0
        what = f"{count:,} of its {expected:,} messages are there"
        finding = Finding("snapshots", "snapshot", (agent_id, key), what, "remove it" if nothing else None)
        yield finding, _removing(agent_id, key) if nothing else None


def _removing(agent_id: str, snapshot_id: str) -> Mend:
    return lambda session: session.execute(_REMOVE, {"agent_id": agent_id, "snapshot_id": snapshot_id})


def _quotas(look: _Look) -> Found:
    """Reserved tokens that no reservation holds."""
    for key, reserved, held in look.walk(_QUOTAS_WALK, None):
        if reserved != held:
            what = f"quota_reserved {reserved:,}, and reservations of {held:,} tokens"
            yield Finding("quotas", "user", key, what, "count anew"), _reserving(key)


def _reserving(user_id: str) -> Mend:
    def mend(session: Session) -> None:
        binds = {"id": user_id, "now": session.now()}
        session.first(_LOCK_USER, binds)
        session.execute(_RESERVE_ANEW, binds)

    return mend


_AGENTS = Agent.table()
_CALLS = ToolCallRecord.table()
_MESSAGES = Message.table()
_RESERVATIONS = QuotaReservation.table()
_SESSIONS = Conversation.table()
_SNAPSHOTS = Snapshot.table()
_USERS = User.table()

_IS_CURRENT = text(f"{_MESSAGES.name}.{CURRENT}")
_NOW = bindparam("now", type_=_SESSIONS.c.updated_at.type)


def _of_messages(value: Any, *conditions: Any) -> Any:
    return select(value).where(_MESSAGES.c.session_id == _SESSIONS.c.id, *conditions).scalar_subquery()


def _sum(column: Any) -> Any:
    # PostgreSQL gives the sum of integers another type.
    return cast(func.coalesce(func.sum(column), literal(0, column.type)), column.type)


_COUNT = _of_messages(func.count(), _IS_CURRENT)
_LAST = _of_messages(func.max(_MESSAGES.c.seq), _IS_CURRENT)
# Copies were paid for where they were made.
_TOKENS = _of_messages(_sum(_MESSAGES.c.token_count), _MESSAGES.c.copied_from.is_(None))
_COST = _of_messages(_sum(_MESSAGES.c.cost), _MESSAGES.c.copied_from.is_(None))

_AGENT: Statement[Any] = Statement(
    select(_AGENTS.c.session_id).where(_AGENTS.c.agent_id == bindparam("agent_id", type_=_AGENTS.c.agent_id.type))
)
_SESSIONS_WALK = _Walk(
    select(
        _SESSIONS.c.id,
        _SESSIONS.c.message_count,
        _SESSIONS.c.next_seq,
        _SESSIONS.c.total_tokens,
        _SESSIONS.c.total_cost,
        _COUNT,
        _LAST,
        _TOKENS,
        _COST,
    ),
    _SESSIONS.c.id,
)
_IS_SESSION = _SESSIONS.c.id == bindparam("id", type_=_SESSIONS.c.id.type)
_LOCK_SESSION: Statement[Any] = Statement(select(_SESSIONS.c.id).where(_IS_SESSION).with_for_update())
_COUNT_ANEW: Statement[Any] = Statement(
    update(_SESSIONS)
    .where(_IS_SESSION)
    .values(
        message_count=_COUNT,
        next_seq=func.coalesce(_LAST, literal(-1, _SESSIONS.c.next_seq.type)) + 1,
        total_tokens=case((_SESSIONS.c.total_tokens < _TOKENS, _TOKENS), else_=_SESSIONS.c.total_tokens),
        total_cost=case((_SESSIONS.c.total_cost < _COST, _COST), else_=_SESSIONS.c.total_cost),
        # Whatever came about beside the store is looked at by the next search.
        unindexed_from=literal(0, _SESSIONS.c.unindexed_from.type),
        updated_at=_NOW,
    )
)

# Who waits for a person's word is not at fault, and a busy agent is at work; what it says may be in nobody's name.
_OTHERS = _AGENTS.alias("others")
_IDLE = (
    _AGENTS.c.state != "busy",
    _AGENTS.c.deleted_at.is_(None),
    ~select(literal(1))
    .where(_OTHERS.c.session_id == _AGENTS.c.session_id, _OTHERS.c.state == "busy", _OTHERS.c.deleted_at.is_(None))
    .exists(),
)
_LOCK_IDLE: Statement[Any] = Statement(
    select(_AGENTS.c.agent_id)
    .where(_AGENTS.c.agent_id == bindparam("agent_id", type_=_AGENTS.c.agent_id.type), *_IDLE)
    .with_for_update(key_share=True, of=_AGENTS)
)
_CALLS_WALK = _Walk(
    select(_CALLS.c.agent_id, _CALLS.c.tool_call_id, _CALLS.c.state)
    .join(_AGENTS, _AGENTS.c.agent_id == _CALLS.c.agent_id)
    .where(or_(*(_CALLS.c.state == state for state in ("pending", "approved", "executing"))), *_IDLE),
    _CALLS.c.agent_id,
    _CALLS.c.tool_call_id,
)
_IDLE_WALK = _Walk(
    select(_AGENTS.c.agent_id, _AGENTS.c.session_id).where(_AGENTS.c.session_id.is_not(None), *_IDLE),
    _AGENTS.c.agent_id,
)

_BOOKMARKS_WALK = _Walk(
    select(_AGENTS.c.agent_id, _AGENTS.c.last_sfp_index, _SESSIONS.c.message_count)
    .join(_SESSIONS, _SESSIONS.c.id == _AGENTS.c.session_id)
    .where(_AGENTS.c.last_sfp_index >= _SESSIONS.c.message_count),
    _AGENTS.c.agent_id,
)
_LAST_MESSAGE = select(_SESSIONS.c.message_count - 1).where(_SESSIONS.c.id == _AGENTS.c.session_id).scalar_subquery()
_MARK: Statement[Any] = Statement(
    update(_AGENTS)
    .where(
        _AGENTS.c.agent_id == bindparam("agent_id", type_=_AGENTS.c.agent_id.type),
        _AGENTS.c.last_sfp_index > _LAST_MESSAGE,
    )
    .values(last_sfp_index=_LAST_MESSAGE, version=_AGENTS.c.version + 1, updated_at=_NOW)
)

_OF_SNAPSHOT = (
    select(func.count())
    .where(
        _MESSAGES.c.session_id == _SNAPSHOTS.c.session_id,
        *existed_then(_SNAPSHOTS.c.generation, _SNAPSHOTS.c.up_to_seq),
    )
    .scalar_subquery()
)
_SNAPSHOTS_WALK = _Walk(
    select(_SNAPSHOTS.c.agent_id, _SNAPSHOTS.c.snapshot_id, _SNAPSHOTS.c.up_to_seq + 1, _OF_SNAPSHOT),
    _SNAPSHOTS.c.agent_id,
    _SNAPSHOTS.c.snapshot_id,
    # Each counts the messages of its conversation.
    batch=20,
)
_REMOVE: Statement[Any] = Statement(
    delete(_SNAPSHOTS).where(
        _SNAPSHOTS.c.agent_id == bindparam("agent_id", type_=_SNAPSHOTS.c.agent_id.type),
        _SNAPSHOTS.c.snapshot_id == bindparam("snapshot_id", type_=_SNAPSHOTS.c.snapshot_id.type),
        _OF_SNAPSHOT == 0,
    )
)

_HELD = (
    select(_sum(_RESERVATIONS.c.tokens))
    .where(_RESERVATIONS.c.user_id == _USERS.c.id)
    .correlate(_USERS)
    .scalar_subquery()
)
_QUOTAS_WALK = _Walk(select(_USERS.c.id, _USERS.c.quota_reserved, _HELD), _USERS.c.id)
_IS_USER = _USERS.c.id == bindparam("id", type_=_USERS.c.id.type)
_LOCK_USER: Statement[Any] = Statement(select(_USERS.c.id).where(_IS_USER).with_for_update())
_RESERVE_ANEW: Statement[Any] = Statement(update(_USERS).where(_IS_USER).values(quota_reserved=_HELD, updated_at=_NOW))
