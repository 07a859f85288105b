"""How each table is pruned: which rows may go, in which order, and what goes with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Column, bindparam, delete, func, literal, null, select, text, update

from agentos_store.agents.models import Agent, Snapshot
from agentos_store.agents.snapshots import existed_then
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.among import among
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.events.models import SEVERITY, Event
from agentos_store.governance.models import SupervisorInboxEntry
from agentos_store.housekeeping.models import MaintenanceRun
from agentos_store.operations.retention.candidates import Candidates, Limits, Place
from agentos_store.operations.retention.policies import Policy
from agentos_store.search import index
from agentos_store.tasks.models import Task, TaskAudit
from agentos_store.tasks.pruning import FORGET_CHAIN, prune_chain
from agentos_store.types import UTCDateTime

MESSAGE = "message"
"""What the search calls the documents of messages."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one transaction did."""

    rows: int
    after: Place | None
    """Where the next step begins; None from the start."""
    done: bool


class Rule(Protocol):
    """How the rows of a table in one state are pruned."""

    @property
    def candidates(self) -> Candidates:
        """Which rows may go."""

    def take(self, session: Session, limits: Limits, after: Place | None, number: int) -> Step:
        """Remove some of the next rows, about so many with what goes with them."""


class Plain:
    """Rows that go by themselves, and the database takes along what belongs to them."""

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates

    def take(self, session: Session, limits: Limits, after: Place | None, number: int) -> Step:
        """Remove the next rows in one statement."""
        gone = self.candidates.remove(session, limits, after, number)
        self.follow(session, [key for _, key in gone])
        return Step(len(gone), max(gone, default=after), done=len(gone) < number)

    def follow(self, session: Session, keys: Sequence[Any]) -> None:
        """Do what no foreign key does for the rows that went."""


class Tasks(Plain):
    """Tasks, of which the heads of their audit chains stay."""

    def follow(self, session: Session, keys: Sequence[Any]) -> None:
        """Note that the chains went as a whole."""
        session.execute_many(FORGET_CHAIN, [{"task_id": key} for key in keys])


class Messages(Plain):
    """Messages, which the search forgets too."""

    def follow(self, session: Session, keys: Sequence[Any]) -> None:
        """Take them out of the index."""
        index.remove(session, MESSAGE, keys)


class Audits:
    """Audit entries, which go from the beginning of their chains only."""

    def __init__(self, candidates: Candidates) -> None:
        self.candidates = candidates

    def take(self, session: Session, limits: Limits, after: Place | None, number: int) -> Step:
        """Prune the chains of the next old entries."""
        assert limits.age is not None
        found = self.candidates.next(session, limits, after, number)
        left = number
        done: set[str] = set()
        for time, key, task_id in found:
            if task_id not in done:
                left -= prune_chain(session, task_id, limits.age, left)
                if left == 0:
                    return Step(number, after, done=False)
                done.add(task_id)
            # It went, or something that is not old stands before it in its chain.
            after = (time, key)
        return Step(number - left, after, done=len(found) < number)


class Owners:
    """Rows with many others that are theirs, which go before them, as many at a time as one step may take.

    ``parts`` are the columns by which other rows are theirs; ``named`` those by which rows only name them, which forget
    it as many at a time.
    """

    def __init__(
        self, candidates: Candidates, *, parts: Sequence[Column[Any]], named: Sequence[Column[Any]], hide: Any
    ) -> None:
        self.candidates = candidates
        key = bindparam("key", type_=candidates.key.type)
        self._parts: list[tuple[Statement[Any], bool]] = []
        """What takes the next of these rows, and whether it removes messages."""
        for column in (*parts, *named):
            table = column.table
            (own,) = table.primary_key
            some = among(own, select(own).where(column == key).limit(bindparam("limit_")).correlate(None))
            goes = any(column is each for each in parts)
            change = delete(table) if goes else update(table).values({column.name: null()})
            self._parts.append((Statement(change.where(some).returning(own)), goes and table is _MESSAGES))
        is_it = candidates.key == key
        self._hide: Statement[Any] = Statement(update(candidates.table).where(is_it).values(hide))
        self._remove: Statement[Any] = Statement(delete(candidates.table).where(is_it))

    def take(self, session: Session, limits: Limits, after: Place | None, number: int) -> Step:
        """Remove the next row, and further ones while the step is short."""
        rows = 0
        left = number
        while left > 0:
            found = self.candidates.next(session, limits, after, 1)
            if not found:
                return Step(rows, after, done=True)
            (place,) = found
            for statement, are_messages in self._parts:
                gone = [row[0] for row in session.all(statement, {"key": place[1], "limit_": left})]
                if are_messages:
                    index.remove(session, MESSAGE, gone)
                left -= len(gone)
                if left <= 0:
                    # Nobody should read what is no longer whole. It is still among the rows that may go.
                    session.execute(self._hide, {"key": place[1], "now": session.now()})
                    return Step(rows, after, done=False)
            session.execute(self._remove, {"key": place[1]})
            rows += 1
            left -= 1
            after = place
        return Step(rows, after, done=False)


_TASKS, _INBOX, _SESSIONS, _AGENTS = Task.table(), SupervisorInboxEntry.table(), Conversation.table(), Agent.table()
_MESSAGES, _CALLS, _SNAPSHOTS = Message.table(), ToolCallRecord.table(), Snapshot.table()
_EVENTS, _RUNS, _AUDITS = Event.table(), MaintenanceRun.table(), TaskAudit.table()
_HIDE = {"deleted_at": func.coalesce(text("deleted_at"), bindparam("now", type_=UTCDateTime()))}


def _tasks(status: str) -> Rule:
    ended = func.coalesce(_TASKS.c.completed_at, _TASKS.c.updated_at)
    return Tasks(Candidates(Task, time=_TASKS.c.created_at, age=ended, where=(_TASKS.c.status == literal(status),)))


def _inbox(status: str) -> Rule:
    done = func.coalesce(_INBOX.c.processed_at, _INBOX.c.event_ts)
    where = (_INBOX.c.status == literal(status),)
    return Plain(Candidates(SupervisorInboxEntry, time=_INBOX.c.event_ts, age=done, where=where))


def _sessions(candidates: Candidates) -> Rule:
    parts = (_MESSAGES.c.session_id, _CALLS.c.session_id)
    return Owners(candidates, parts=parts, named=(_TASKS.c.session_id,), hide=_HIDE)


def _agents(candidates: Candidates) -> Rule:
    named = (_MESSAGES.c.agent_id, _TASKS.c.agent_id)
    return Owners(candidates, parts=(_CALLS.c.agent_id,), named=named, hide=_HIDE)


def _closed_messages() -> Rule:
    needed = (
        select(literal(1))
        .select_from(_SNAPSHOTS)
        .where(
            _SNAPSHOTS.c.session_id == _MESSAGES.c.session_id,
            *existed_then(_SNAPSHOTS.c.generation, _SNAPSHOTS.c.up_to_seq),
        )
        .exists()
    )
    return Messages(
        Candidates(Message, time=_MESSAGES.c.created_at, where=(text("to_generation IS NOT NULL"), ~needed))
    )


def _events(*where: Any) -> Rule:
    return Plain(Candidates(Event, time=_EVENTS.c.created_at, where=where))


_DELETED = (text("deleted_at IS NOT NULL"),)

RULES: Mapping[str, Mapping[str, Rule]] = {
    "agents": {
        "deleted": _agents(Candidates(Agent, time=_AGENTS.c.deleted_at, where=_DELETED)),
        "archived": _agents(
            Candidates(
                Agent,
                time=_AGENTS.c.created_at,
                age=_AGENTS.c.updated_at,
                where=(_AGENTS.c.state == literal("archived"),),
            )
        ),
    },
    "events": {severity: _events(_EVENTS.c.severity == literal(severity)) for severity in SEVERITY.values},
    "maintenance_runs": {
        "finished": Plain(
            Candidates(
                MaintenanceRun,
                time=_RUNS.c.started_at,
                age=_RUNS.c.finished_at,
                where=(text("finished_at IS NOT NULL"),),
            )
        )
    },
    "messages": {"closed": _closed_messages()},
    "sessions": {
        "deleted": _sessions(Candidates(Conversation, time=_SESSIONS.c.deleted_at, where=_DELETED)),
        **{
            status: _sessions(
                Candidates(
                    Conversation,
                    time=_SESSIONS.c.created_at,
                    age=_SESSIONS.c.updated_at,
                    where=(_SESSIONS.c.status == literal(status),),
                )
            )
            for status in ("completed", "cancelled")
        },
    },
    "supervisor_inbox": {status: _inbox(status) for status in ("processed", "failed", "parked")},
    "task_audits": {"recorded": Audits(Candidates(TaskAudit, time=_AUDITS.c.created_at, also=(_AUDITS.c.task_id,)))},
    "tasks": {status: _tasks(status) for status in ("completed", "failed", "cancelled")},
}
"""By table and state. Live rows are in none: a task that waits, a session that is open."""

IN_ANY_STATE: Mapping[str, Rule] = {"events": _events()}
"""For a policy without states: one walk instead of one for each state."""


def takes_all(policy: Policy) -> bool:
    """Tell whether a partition of the table may go whole once its newest row is old enough."""
    return policy.table == "events" and not policy.states and policy.keep is None
