"""SQLAlchemy written by hand for the same work: Core, and the ORM."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any, Self

from sqlalchemy import Connection, Engine, Table, insert, select, update
from sqlalchemy.orm import Session

from benchmarks import rows
from benchmarks.measure import NotHonestError
from benchmarks.tables import Audit, Head, Task, engine_of

TASKS: Table = Task.metadata.tables["tasks"]
AUDITS: Table = Task.metadata.tables["task_audits"]
HEADS: Table = Task.metadata.tables["task_audit_heads"]


class Handwritten:
    """An engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, url: str) -> Self:
        """Make an engine."""
        return cls(engine_of(url))

    def close(self) -> None:
        """Dispose of the engine."""
        self.engine.dispose()


class Core(Handwritten):
    """Statements of Core, built at each call as they stand in the code."""

    def record(self, task_id: str) -> None:
        """Add an audit and move the head."""
        with self.engine.begin() as connection:
            _append(connection, task_id, rows.EVENT, rows.PAYLOAD, rows.now())

    def move(self, task_id: str, origin: str, to: str) -> Any:
        """Take a step from a status that the caller knows."""
        at = rows.now()
        changes: dict[str, Any] = {"status": to, "version": TASKS.c.version + 1, "updated_at": at, "exit_reason": None}
        changes |= {"completed_at": None, "duration": None}
        if to == "running":
            changes["started_at"] = TASKS.c.started_at
        else:
            changes |= {"claimed_by": None, "lease_until": None}
        wanted = (TASKS.c.task_id == task_id, TASKS.c.status == origin)
        with self.engine.begin() as connection:
            task = connection.execute(update(TASKS).where(*wanted).values(changes).returning(TASKS)).one_or_none()
            if task is None:
                raise NotHonestError(f"the task is not {origin}")
            _append(connection, task_id, rows.STEP, {"from": origin, "to": to}, at)
        return task


def _append(
    connection: Connection, task_id: str, event_type: str, payload: Mapping[str, object], at: dt.datetime
) -> None:
    head = connection.execute(select(HEADS).where(HEADS.c.task_id == task_id).with_for_update()).one_or_none()
    previous = rows.GENESIS if head is None else head.head_hash
    content = rows.content_hash(task_id, event_type, rows.compact(payload), rows.written(at))
    row_hash = rows.chained(previous, content)
    entry = {"task_id": task_id, "level": "info", "event_type": event_type, "payload": payload, "created_at": at}
    connection.execute(insert(AUDITS).values(**entry, prev_hash=previous, row_hash=row_hash))
    moved = {"head_hash": row_hash, "head_prev_hash": previous}
    if head is None:
        connection.execute(insert(HEADS).values(task_id=task_id, length=1, pruned_to=0, **moved))
    else:
        connection.execute(update(HEADS).where(HEADS.c.task_id == task_id).values(length=head.length + 1, **moved))


class ORM(Handwritten):
    """Objects and a unit of work."""

    def record(self, task_id: str) -> None:
        """Add an audit and move the head."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            _add(session, task_id, rows.EVENT, dict(rows.PAYLOAD), rows.now())

    def move(self, task_id: str, origin: str, to: str) -> Task:
        """Take a step from a status that the caller knows."""
        at = rows.now()
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            task = session.get_one(Task, task_id, with_for_update=True)
            if task.status != origin:
                raise NotHonestError(f"the task is not {origin}")
            task.status = to
            task.version += 1
            task.updated_at = at
            task.exit_reason = task.completed_at = task.duration = None
            if to == "running":
                task.started_at = task.started_at or at
            else:
                task.claimed_by = task.lease_until = None
            _add(session, task_id, rows.STEP, {"from": origin, "to": to}, at)
        return task


def _add(session: Session, task_id: str, event_type: str, payload: dict[str, Any], at: dt.datetime) -> None:
    head = session.get(Head, task_id, with_for_update=True)
    previous = rows.GENESIS if head is None else head.head_hash
    content = rows.content_hash(task_id, event_type, rows.compact(payload), rows.written(at))
    row_hash = rows.chained(previous, content)
    entry = Audit(task_id=task_id, level="info", event_type=event_type, payload=payload, created_at=at)
    entry.prev_hash, entry.row_hash = previous, row_hash
    session.add(entry)
    if head is None:
        head = Head(task_id=task_id, length=0, pruned_to=0)
        session.add(head)
    head.length += 1
    head.head_hash, head.head_prev_hash = row_hash, previous
