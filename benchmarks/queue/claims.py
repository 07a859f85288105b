"""Sixteen workers that claim tasks of one queue, each claim with its audit."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from typing import Any, LiteralString

from agentos_store import Store
from benchmarks import rows
from benchmarks.drivers import PostgreSQLDriver, SQLiteDriver
from benchmarks.handwritten import TASKS
from benchmarks.measure import NotHonestError
from benchmarks.places import FIRST_TASK, Place
from benchmarks.raw_sqlite import ADD_AUDIT, HEAD, MOVE_HEAD
from benchmarks.tables import engine_of
from benchmarks.works import OURS, RAW
from benchmarks.writers import Chore

QUEUED = 60_000
"""Tasks that wait in the beginning: more than are claimed."""
LEASE = dt.timedelta(minutes=30)

CHOSEN: LiteralString = """
    SELECT task_id FROM tasks
    WHERE status NOT IN ('created', 'running', 'paused', 'blocked', 'failed', 'completed', 'cancelled')
        AND run_after IS NULL AND attempts < max_attempts
        AND (SELECT 1 FROM task_dependency link JOIN tasks needed ON needed.task_id = link.depends_on_task_id
             WHERE link.task_id = tasks.task_id AND link.dependency_type <> 'suggests'
                 AND needed.status <> 'completed' LIMIT 1) IS NULL
    ORDER BY priority DESC, created_at, task_id LIMIT 1"""
CHANGES: LiteralString = """
    status = 'running', version = version + 1, attempts = attempts + 1, lease_token = lease_token + 1,
    exit_reason = NULL, claimed_by = {by}, lease_until = {until}, updated_at = {at},
    started_at = coalesce(started_at, {at})"""
ON_POSTGRESQL: LiteralString = f"""
    WITH moved AS (
        UPDATE tasks SET {CHANGES.format(by="%(by)s", until="clock_timestamp() + %(lease)s", at="%(at)s")}
        WHERE task_id = ({CHOSEN} FOR NO KEY UPDATE SKIP LOCKED) RETURNING *),
    said AS (SELECT task_id, %(payload)s || lease_token || '}}' AS payload, encode(sha256(convert_to(
        '["' || task_id || %(before)s || lease_token || %(after)s, 'UTF8')), 'hex') AS content FROM moved),
    head AS (
        INSERT INTO task_audit_heads (task_id, length, head_hash, head_prev_hash, pruned_to)
        SELECT task_id, 1, encode(sha256(convert_to(repeat('0', 64) || content, 'UTF8')), 'hex'), repeat('0', 64), 0
        FROM said
        ON CONFLICT (task_id) DO UPDATE SET length = task_audit_heads.length + 1,
            head_hash = encode(sha256(convert_to(task_audit_heads.head_hash || (SELECT content FROM said), 'UTF8')),
                'hex'),
            head_prev_hash = task_audit_heads.head_hash
        RETURNING head_hash, head_prev_hash),
    entry AS (
        INSERT INTO task_audits (task_id, level, event_type, payload, created_at, prev_hash, row_hash)
        SELECT task_id, 'info', %(event_type)s, payload::json, %(at)s, head_prev_hash, head_hash FROM said, head)
    SELECT * FROM moved"""
ON_SQLITE = (
    f"UPDATE tasks SET {CHANGES.format(by=':by', until=':until', at=':at')} WHERE task_id = ({CHOSEN}) RETURNING *"
)


class OurQueue:
    """A store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def open(cls, url: str) -> OurQueue:
        """Open a database."""
        return cls(Store.open(url))

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def claim(self, by: str) -> object:
        """Claim a task."""
        return self.store.tasks.claim(by=by, lease=LEASE)


class RawSQLiteQueue(SQLiteDriver):
    """One connection."""

    def claim(self, by: str) -> object:
        """Claim a task."""
        execute = self.connection.execute
        with self._transaction():
            now = rows.now()
            at = rows.written(now)
            task = execute(ON_SQLITE, {"by": by, "at": at, "until": rows.written(now + LEASE)}).fetchone()
            if task is None:
                return None
            # The columns lie in the order in which the revision made them.
            task_id, token = task[0], 1
            payload = rows.compact({"from": "pending", "to": "running", "by": by, "token": token})
            previous, length = execute(HEAD, (task_id,)).fetchone() or (rows.GENESIS, 0)
            row_hash = rows.chained(previous, rows.content_hash(task_id, rows.STEP, payload, at))
            execute(ADD_AUDIT, (task_id, rows.STEP, payload, at, previous, row_hash))
            execute(MOVE_HEAD, (task_id, length + 1, row_hash, previous))
        return task


class RawPostgreSQLQueue(PostgreSQLDriver):
    """One connection and one cursor."""

    def claim(self, by: str) -> object:
        """Claim a task."""
        at = rows.now()
        payload = rows.compact({"from": "pending", "to": "running", "by": by})[:-1] + ',"token":'
        values = {
            "by": by,
            "lease": LEASE,
            "at": at,
            "event_type": rows.STEP,
            "payload": payload,
            "before": f'", null, "info", "{rows.STEP}", {json.dumps(payload)[:-1]}',
            "after": '}", null, null, null, null, "' + rows.written(at) + '"]',
        }
        return self._execute(ON_POSTGRESQL, values).fetchone()


RAW_OF: dict[str, Callable[[str], Any]] = {"sqlite": RawSQLiteQueue.open, "postgresql": RawPostgreSQLQueue.open}


def claim_tasks(place: Place) -> Chore:
    """Claim tasks."""
    return Chore("claim tasks", "claims", {OURS: OurQueue.open, RAW: RAW_OF[place.name]}, _begin, _prepare, _verify)


def _prepare(place: Place) -> str:
    url = place.database()
    with Store.open(url) as store:
        store.tasks.delete(FIRST_TASK)
    engine = engine_of(url)
    keys = rows.numbered_keys("Q")
    task = {"title": rows.TITLE, "task_type": "", "payload": rows.PAYLOAD, "attempts": 0, "status": "pending"}
    task |= {"max_attempts": 3, "lease_token": 0, "version": 1, "metadata": rows.METADATA}
    with engine.begin() as connection:
        many = [
            {**task, "task_id": next(keys), "priority": number % 3, "created_at": at, "updated_at": at}
            for number in range(QUEUED)
            for at in (rows.now(),)
        ]
        connection.execute(TASKS.insert(), many)
    engine.dispose()
    place.settle(url)
    return url


def _begin(queue: Any, number: int) -> Callable[[], object]:
    def operate() -> None:
        if queue.claim(f"worker {number}") is None:
            raise NotHonestError("there was nothing left to claim")

    return operate


def _verify(name: str, url: str, expected: int) -> None:
    with Store.open(url) as store:
        verification = store.audits.verify()
        if not verification.ok or not verification.chains == verification.entries == expected:
            raise NotHonestError(f"{name} has claimed {expected} times: {verification}")
        if store.tasks.count(status="running") != expected:
            raise NotHonestError(f"{name} has not claimed {expected} tasks")
