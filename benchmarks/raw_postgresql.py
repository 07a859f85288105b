"""psycopg alone: autocommit, prepared statements, one round trip for each operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from benchmarks import rows
from benchmarks.drivers import PostgreSQLDriver
from benchmarks.measure import NotHonestError

# The head is moved and read in one go: of two writers the second sees what the first has left.
MOVED_HEAD: LiteralString = """
    INSERT INTO task_audit_heads (task_id, length, head_hash, head_prev_hash, pruned_to)
    SELECT %(task_id)s, 1, encode(sha256(convert_to(repeat('0', 64) || %(content)s::text, 'UTF8')), 'hex'),
        repeat('0', 64), 0
    {source}
    ON CONFLICT (task_id) DO UPDATE SET length = task_audit_heads.length + 1,
        head_hash = encode(sha256(convert_to(task_audit_heads.head_hash || %(content)s::text, 'UTF8')), 'hex'),
        head_prev_hash = task_audit_heads.head_hash
    RETURNING head_hash, head_prev_hash"""
ENTRY: LiteralString = """
    INSERT INTO task_audits (task_id, level, event_type, payload, created_at, prev_hash, row_hash)
    SELECT %(task_id)s, 'info', %(event_type)s, %(payload)s::json, %(at)s, head_prev_hash, head_hash FROM head"""
RECORD: LiteralString = f"WITH head AS ({MOVED_HEAD.format(source='')}) {ENTRY} RETURNING audit_id, prev_hash, row_hash"
STEP: LiteralString = """
    UPDATE tasks SET status = %(to)s, version = version + 1, updated_at = %(at)s, exit_reason = NULL,
        completed_at = NULL, duration = NULL,
        started_at = CASE WHEN %(to)s = 'running' THEN coalesce(started_at, %(at)s) ELSE started_at END,
        claimed_by = CASE WHEN %(to)s = 'running' THEN claimed_by END,
        lease_until = CASE WHEN %(to)s = 'running' THEN lease_until END
    WHERE task_id = %(task_id)s AND status = %(origin)s
    RETURNING *"""
MOVE: LiteralString = (
    f"WITH moved AS ({STEP}), head AS ({MOVED_HEAD.format(source='FROM moved')}), entry AS ({ENTRY})"
    " SELECT * FROM moved"
)
CREATE: LiteralString = """
    INSERT INTO tasks (task_id, title, status, task_type, priority, payload, attempts, max_attempts, lease_token,
        version, metadata, created_at, updated_at)
    VALUES (%(task_id)s, %(title)s, 'created', '', 0, %(payload)s::json, 0, 3, 0, 1, %(metadata)s::jsonb, %(at)s,
        %(at)s)"""
GET: LiteralString = "SELECT * FROM tasks WHERE task_id = %s"
FIRST_PAGE: LiteralString = "SELECT * FROM tasks WHERE status = %s ORDER BY created_at, task_id LIMIT %s"
NEXT_PAGE: LiteralString = """
    SELECT * FROM tasks WHERE status = %s AND (created_at, task_id) > (%s, %s) ORDER BY created_at, task_id LIMIT %s"""
OFFSET_PAGE: LiteralString = "SELECT * FROM tasks WHERE status = %s ORDER BY created_at, task_id LIMIT %s OFFSET %s"
LAST_KEY: LiteralString = """
    SELECT created_at, task_id FROM tasks WHERE status = %s ORDER BY created_at, task_id LIMIT 1 OFFSET %s"""


class RawPostgreSQL(PostgreSQLDriver):
    """One connection and one cursor."""

    def record(self, task_id: str) -> None:
        """Add an audit and move the head."""
        payload, at = rows.compact(rows.PAYLOAD), rows.now()
        content = rows.content_hash(task_id, rows.EVENT, payload, rows.written(at))
        values = {"task_id": task_id, "event_type": rows.EVENT, "payload": payload, "at": at, "content": content}
        self._execute(RECORD, values).fetchone()

    def move(self, task_id: str, origin: str, to: str) -> Any:
        """Take a step from a status that the caller knows."""
        payload, at = rows.compact({"from": origin, "to": to}), rows.now()
        content = rows.content_hash(task_id, rows.STEP, payload, rows.written(at))
        values = {"task_id": task_id, "event_type": rows.STEP, "payload": payload, "at": at, "content": content}
        task = self._execute(MOVE, values | {"origin": origin, "to": to}).fetchone()
        if task is None:
            raise NotHonestError(f"the task is not {origin}")
        return task

    def create(self, task_id: str) -> None:
        """Create a task."""
        payload, metadata = rows.compact(rows.PAYLOAD), rows.compact(rows.METADATA)
        values = {"task_id": task_id, "title": rows.TITLE, "payload": payload, "metadata": metadata, "at": rows.now()}
        self._execute(CREATE, values)

    def get(self, task_id: str) -> Any:
        """Get a task."""
        return self._execute(GET, (task_id,)).fetchone()

    def page(self, after: Any) -> list[Any]:
        """List one page of tasks."""
        if after is None:
            return self._execute(FIRST_PAGE, (rows.LISTED, rows.PAGE)).fetchall()
        return self._execute(NEXT_PAGE, (rows.LISTED, *after, rows.PAGE)).fetchall()

    def page_by_offset(self, number: int) -> list[Any]:
        """List one page of tasks by counting through all before it."""
        return self._execute(OFFSET_PAGE, (rows.LISTED, rows.PAGE, (number - 1) * rows.PAGE)).fetchall()

    def seek(self, number: int) -> Any:
        """Return the key of the last task before a page."""
        return self._execute(LAST_KEY, (rows.LISTED, (number - 1) * rows.PAGE - 1)).fetchone()

    def revision(self) -> Any:
        """Ask for the revision."""
        return self._execute("SELECT revision FROM agentos_store_version", ()).fetchone()

    @staticmethod
    def keys(page: Sequence[Any]) -> Sequence[str]:
        """Return the keys of a page's tasks."""
        return [task[0] for task in page]
