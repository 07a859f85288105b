"""One step of a task's life: a compare-and-set on its status, with its audit entry in the same transaction."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from sqlalchemy import Float, and_, bindparam, case, cast, extract, func, null, or_, select, update
from sqlalchemy import Text as PlainText
from sqlalchemy.dialects.postgresql import ARRAY

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import ConflictError, InvalidTransitionError, InvalidValueError, NotFoundError
from agentos_store.tasks.models import TASK_STATUS, Task
from agentos_store.tasks.states import ENDED, TRANSITIONS, sources
from agentos_store.tasks.trail import AUDITS, Entry, added_entry, append, moved_head
from agentos_store.types import Text

TASKS = Task.table()
EVENT_TYPE = "task.transition"

_KEY = bindparam("task_id", type_=TASKS.c.task_id.type)
GET: Statement[Task] = Statement(select(TASKS).where(TASKS.c.task_id == _KEY), returns=Task)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that is asked for."""

    task_id: str
    to: str
    expected: str | None = None
    """Only from this status."""
    version: int | None = None
    """Only when the row is still at this version."""
    by: str | None = None
    exit_reason: str | None = None
    error_message: str | None = None
    result: Any = None
    duration: float | None = None

    def __post_init__(self) -> None:
        # Everything is checked before the first statement, which on one database only reads the task.
        for name, column in _CHECKS:
            value = getattr(self, name)
            if value is not None:
                column.check(value, name)
        TASK_STATUS.check(self.to, "to")
        if self.to == "failed" and not self.exit_reason:
            raise InvalidValueError("exit_reason", "a task that failed needs the reason")

    @property
    def statements(self) -> Statements:
        """The statements that take the step."""
        return _PLAIN

    def refuse(self, task: Task) -> None:
        """Raise when the step cannot be taken from where the task is."""
        if self.version is not None and task.version != self.version:
            raise ConflictError("task", self.task_id, f"it is at version {task.version}, not {self.version}")
        if task.status != self.to and task.status not in sources(self.to):
            raise InvalidTransitionError(
                "task", self.task_id, current=task.status, requested=self.to, allowed=TRANSITIONS[task.status]
            )
        if self.expected is not None and task.status != self.expected:
            raise ConflictError("task", self.task_id, f"it is {task.status}, not {self.expected}")

    def origins(self) -> tuple[str, ...]:
        """Return the statuses from which the step is legal and asked for."""
        legal = sources(self.to)
        return legal if self.expected is None else tuple(status for status in legal if status == self.expected)

    def entry(self, origin: str, time: dt.datetime) -> Entry:
        """Return the audit entry of the step from this status."""
        payload = self.payload(origin)
        return Entry(task_id=self.task_id, event_type=EVENT_TYPE, level=self.level, payload=payload, created_at=time)

    @property
    def level(self) -> str:
        """How much the step is worth a look."""
        return "warning" if self.to in {"failed", "blocked"} else "info"

    def payload(self, origin: str) -> dict[str, Any]:
        """Return what the audit entry of the step from this status says."""
        payload: dict[str, Any] = {"from": origin, "to": self.to}
        payload |= {"by": self.by} if self.by is not None else {}
        payload |= {"reason": self.exit_reason} if self.exit_reason is not None else {}
        return payload

    def values(self, time: dt.datetime) -> dict[str, Any]:
        """Return the values that both databases' statements take."""
        return {
            "task_id": self.task_id,
            "to": self.to,
            "at": time,
            "given_reason": self.exit_reason,
            "given_error": self.error_message,
            "given_result": self.result,
            "given_duration": self.duration,
            "given_version": self.version,
        }


_CHECKS: tuple[tuple[str, Any], ...] = (
    ("task_id", TASKS.c.task_id.type),
    ("expected", TASK_STATUS),
    ("version", TASKS.c.version.type),
    ("by", Text()),
    ("exit_reason", TASKS.c.exit_reason.type),
    ("error_message", TASKS.c.error_message.type),
    ("result", TASKS.c.result.type),
    ("duration", TASKS.c.duration.type),
)


@dataclass(frozen=True, slots=True)
class Statements:
    """A kind of step, in SQL."""

    move: Statement[Task]
    """Changes the task, where all writers stand in one queue."""
    take: Statement[Task]
    """Changes the task and adds the entry, where a statement can do both."""


def take(session: Session, step: Step) -> Task:
    """Take the step and return the task as it is then; the status that it has already is no step and leaves no audit.

    Of two callers that race for different steps one comes first; the other's is judged by what it finds then.
    """
    time = session.now()
    return taken_before(session, step.task_id, time) or take_at(session, step, time)


def taken_before(session: Session, task_id: str, time: dt.datetime) -> Task | None:
    """Return the task when an earlier try of this very call has taken its step."""
    if not session.repeated:
        return None
    # The time was drawn for this call alone, so an entry that has it tells that the step was taken. The task may
    # have gone on since, to where the step would be legal once more.
    taken = session.first(_TAKEN, {"task_id": task_id, "at": time, "event_type": EVENT_TYPE})
    return None if taken is None else session.first(GET, {"task_id": task_id})


def take_at(session: Session, step: Step, time: dt.datetime) -> Task:
    """Take the step at this time."""
    while True:
        moved = take_in_one(session, step, time) if session.capabilities.data_modifying_cte else None
        if moved is not None:
            return moved
        task = session.first(GET, {"task_id": step.task_id})
        if task is None:
            raise NotFoundError("task", step.task_id)
        step.refuse(task)
        if task.status == step.to:
            return task
        if not session.capabilities.data_modifying_cte:
            changed = session.first(step.statements.move, {**step.values(time), "origin": task.status})
            assert changed is not None, "nobody else can write while the queue is ours"
            append(session, step.entry(task.status, time))
            return changed
        # The task was changed between the two statements, to a status from which the step is legal: try again.


def take_in_one(session: Session, step: Step, time: dt.datetime) -> Task | None:
    """Take the step in one round trip: the entry is prepared for each status that the task may be found in."""
    origins = step.origins()
    if not origins:
        return None
    first = step.entry(origins[0], time)
    entries = [first, *(first.with_payload(step.payload(origin)) for origin in origins[1:])]
    values = step.values(time) | {
        "event_type": EVENT_TYPE,
        "level": first.level,
        "origins": list(origins),
        "payloads": [entry.payload_text for entry in entries],
        "contents": [entry.digest() for entry in entries],
    }
    return session.first(step.statements.take, values)


def assignments(duration: Any) -> dict[str, Any]:
    """Return what a step sets, in terms of the values that it is given and of the row as it was."""
    columns = TASKS.c
    to, at = bindparam("to", type_=columns.status.type), bindparam("at", type_=columns.updated_at.type)
    ended = or_(*(to == status for status in ENDED))
    error = bindparam("given_error", type_=columns.error_message.type)
    result = bindparam("given_result", type_=columns.result.type)
    return {
        "status": to,
        "version": columns.version + 1,
        "updated_at": at,
        "started_at": case((to == "running", func.coalesce(columns.started_at, at)), else_=columns.started_at),
        "completed_at": case((ended, at), else_=null()),
        "exit_reason": bindparam("given_reason", type_=columns.exit_reason.type),
        # What an earlier try left behind is no part of the next one, and a task that completed has no error.
        "error_message": case(
            (or_(columns.status == "failed", to == "completed"), error),
            else_=func.coalesce(error, columns.error_message),
        ),
        "result": case((columns.status == "failed", result), else_=func.coalesce(result, columns.result)),
        "duration": case(
            (ended, func.coalesce(bindparam("given_duration", type_=columns.duration.type), duration)), else_=null()
        ),
        # A task that waits has a try left: all of them after a failure, one more when somebody lets it go on.
        "attempts": case(
            (and_(to == "pending", columns.status == "failed"), 0),
            (and_(to == "pending", columns.attempts >= columns.max_attempts), columns.max_attempts - 1),
            else_=columns.attempts,
        ),
        # Whoever had claimed the task loses it with every step but the one into running.
        "claimed_by": case((to == "running", columns.claimed_by), else_=null()),
        "lease_until": case((to == "running", columns.lease_until), else_=null()),
    }


def _wanted() -> list[Any]:
    version = bindparam("given_version", type_=TASKS.c.version.type)
    return [TASKS.c.task_id == _KEY, func.coalesce(version, TASKS.c.version) == TASKS.c.version]


def moving(where: Sequence[Any] = (), values: Mapping[str, Any] = MappingProxyType({})) -> Statement[Task]:
    """Return a step where all writers stand in one queue: the status has just been read and cannot have changed.

    ``where`` and ``values`` are what a kind of step asks and sets besides.
    """
    at = bindparam("at", type_=TASKS.c.updated_at.type)
    elapsed = func.agentos_seconds_between(TASKS.c.started_at, at)
    statement = (
        update(TASKS)
        .where(*_wanted(), TASKS.c.status == bindparam("origin", type_=TASKS.c.status.type), *where)
        .values({**assignments(elapsed), **values})
        .returning(*TASKS.c)
    )
    return Statement(statement, returns=Task)


def taking(where: Sequence[Any] = (), values: Mapping[str, Any] = MappingProxyType({})) -> Statement[Task]:
    """Return the whole step in one statement, for databases where a statement can change several tables."""
    texts = ARRAY(PlainText())
    origins, payloads, contents = (bindparam(name, type_=texts) for name in ("origins", "payloads", "contents"))
    unnested = func.unnest(origins, payloads, contents)
    candidate = unnested.table_valued("origin", "payload", "content", name="candidate").render_derived()
    at = bindparam("at", type_=TASKS.c.updated_at.type)
    elapsed = cast(extract("epoch", at - TASKS.c.started_at), Float(53))
    moved = (
        update(TASKS)
        .where(*_wanted(), TASKS.c.status == candidate.c.origin, *where)
        .values({**assignments(elapsed), **values})
        .returning(*TASKS.c, candidate.c.payload.label("audit_payload"), candidate.c.content.label("audit_content"))
        .cte("moved")
    )
    head = moved_head(select(moved.c.task_id), select(moved.c.audit_content).scalar_subquery())
    entry = added_entry(
        {
            "task_id": moved.c.task_id,
            "event_type": bindparam("event_type", type_=AUDITS.c.event_type.type),
            "level": bindparam("level", type_=AUDITS.c.level.type),
            "payload": cast(moved.c.audit_payload, AUDITS.c.payload.type),
            "created_at": at,
        },
        head,
        moved,
    ).cte("entry")
    return Statement(select(*(moved.c[column.name] for column in TASKS.c)).add_cte(entry), returns=Task, writes=True)


_PLAIN = Statements(moving(), taking())
_TAKEN: Statement[Any] = Statement(
    select(AUDITS.c.audit_id).where(
        AUDITS.c.task_id == _KEY,
        AUDITS.c.created_at == bindparam("at", type_=AUDITS.c.created_at.type),
        AUDITS.c.event_type == bindparam("event_type", type_=AUDITS.c.event_type.type),
    )
)
