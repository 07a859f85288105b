"""One step of a task's life: a compare-and-set on its status, with its audit entry in the same transaction."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Float, Text as PlainText, bindparam, case, cast, extract, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import ARRAY

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import ConflictError, InvalidTransitionError, InvalidValueError, NotFoundError
from agentos_store.tasks.models import TASK_STATUS, Task
from agentos_store.tasks.states import ENDED, TRANSITIONS, sources
from agentos_store.tasks.trail import AUDITS, Entry, added_entry, append, moved_head

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
        TASK_STATUS.check(self.to, "to")
        if self.expected is not None:
            TASK_STATUS.check(self.expected, "expected")
        if self.to == "failed" and not self.exit_reason:
            raise InvalidValueError("exit_reason", "a task that failed needs the reason")

    def origins(self) -> tuple[str, ...]:
        """Return the statuses from which the step is legal and asked for."""
        legal = sources(self.to)
        return legal if self.expected is None else tuple(status for status in legal if status == self.expected)

    def entry(self, origin: str, time: dt.datetime) -> Entry:
        """Return the audit entry of the step from this status."""
        payload: dict[str, Any] = {"from": origin, "to": self.to}
        payload |= {"by": self.by} if self.by is not None else {}
        payload |= {"reason": self.exit_reason} if self.exit_reason is not None else {}
        level = "warning" if self.to in {"failed", "blocked"} else "info"
        return Entry(task_id=self.task_id, event_type=EVENT_TYPE, level=level, payload=payload, created_at=time)

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


def take(session: Session, step: Step) -> Task:
    """Take the step and return the task as it is then; the status that it has already is no step and leaves no audit.

    Of two callers that race for different steps one comes first; the other's is judged by what it finds then.
    """
    time = session.now()
    while True:
        moved = _take_in_one(session, step, time) if session.capabilities.data_modifying_cte else None
        if moved is not None:
            return moved
        task = session.first(GET, {"task_id": step.task_id})
        if task is None:
            raise NotFoundError("task", step.task_id)
        if task.status == step.to and (step.version is None or session.repeated or task.version == step.version):
            return task
        _refuse(step, task)
        if not session.capabilities.data_modifying_cte:
            changed = session.first(_MOVE, {**step.values(time), "origin": task.status})
            assert changed is not None, "nobody else can write while the queue is ours"
            append(session, step.entry(task.status, time))
            return changed
        # The task was changed between the two statements, to a status from which the step is legal: try again.


def _refuse(step: Step, task: Task) -> None:
    if step.version is not None and task.version != step.version:
        raise ConflictError("task", step.task_id, f"it is at version {task.version}, not {step.version}")
    if task.status not in sources(step.to):
        raise InvalidTransitionError(
            "task", step.task_id, current=task.status, requested=step.to, allowed=TRANSITIONS[task.status]
        )
    if step.expected is not None and task.status != step.expected:
        raise ConflictError("task", step.task_id, f"it is {task.status}, not {step.expected}")


def _take_in_one(session: Session, step: Step, time: dt.datetime) -> Task | None:
    """Take the step in one round trip: the entry is prepared for each status that the task may be found in."""
    origins = step.origins()
    if not origins:
        return None
    entries = [step.entry(origin, time) for origin in origins]
    values = step.values(time) | {
        "event_type": EVENT_TYPE,
        "level": entries[0].level,
        "origins": list(origins),
        "payloads": [entry.payload_text for entry in entries],
        "contents": [entry.digest() for entry in entries],
    }
    return session.first(_TAKE, values)


def _assignments(duration: Any) -> dict[str, Any]:
    """Return what a step sets, in terms of the values that it is given and of the row as it was."""
    columns = TASKS.c
    to, at = bindparam("to", type_=columns.status.type), bindparam("at", type_=columns.updated_at.type)
    ended = or_(*(to == status for status in ENDED))
    return {
        "status": to,
        "version": columns.version + 1,
        "updated_at": at,
        "started_at": case((to == "running", func.coalesce(columns.started_at, at)), else_=columns.started_at),
        "completed_at": case((ended, at), else_=null()),
        "exit_reason": bindparam("given_reason", type_=columns.exit_reason.type),
        "error_message": func.coalesce(
            bindparam("given_error", type_=columns.error_message.type), columns.error_message
        ),
        "result": func.coalesce(bindparam("given_result", type_=columns.result.type), columns.result),
        "duration": case(
            (ended, func.coalesce(bindparam("given_duration", type_=columns.duration.type), duration)), else_=null()
        ),
        # Whoever had claimed the task loses it with every step but the one into running.
        "claimed_by": case((to == "running", columns.claimed_by), else_=null()),
        "lease_until": case((to == "running", columns.lease_until), else_=null()),
    }


def _wanted() -> list[Any]:
    version = bindparam("given_version", type_=TASKS.c.version.type)
    return [TASKS.c.task_id == _KEY, func.coalesce(version, TASKS.c.version) == TASKS.c.version]


def _move() -> Statement[Task]:
    """The step where all writers stand in one queue: the status has just been read and cannot have changed."""
    at = bindparam("at", type_=TASKS.c.updated_at.type)
    elapsed = func.agentos_seconds_between(TASKS.c.started_at, at)
    statement = (
        update(TASKS)
        .where(*_wanted(), TASKS.c.status == bindparam("origin", type_=TASKS.c.status.type))
        .values(_assignments(elapsed))
        .returning(*TASKS.c)
    )
    return Statement(statement, returns=Task)


def _take() -> Statement[Task]:
    """The whole step in one statement, for databases where a statement can change several tables."""
    texts = ARRAY(PlainText())
    origins, payloads, contents = (bindparam(name, type_=texts) for name in ("origins", "payloads", "contents"))
    unnested = func.unnest(origins, payloads, contents)
    candidate = unnested.table_valued("origin", "payload", "content", name="candidate").render_derived()
    at = bindparam("at", type_=TASKS.c.updated_at.type)
    elapsed = cast(extract("epoch", at - TASKS.c.started_at), Float(53))
    moved = (
        update(TASKS)
        .where(*_wanted(), TASKS.c.status == candidate.c.origin)
        .values(_assignments(elapsed))
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


_MOVE = _move()
_TAKE = _take()
