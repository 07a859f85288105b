"""``sqlite3`` alone: the same rows, the same indexes and the same durability, and nothing that could be left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks import rows
from benchmarks.drivers import SQLiteDriver
from benchmarks.measure import NotHonestError

HEAD = "SELECT head_hash, length FROM task_audit_heads WHERE task_id = ?"
ADD_AUDIT = (
    "INSERT INTO task_audits (task_id, level, event_type, payload, created_at, prev_hash, row_hash)"
    " VALUES (?, 'info', ?, ?, ?, ?, ?)"
)
MOVE_HEAD = (
    "INSERT INTO task_audit_heads (task_id, length, head_hash, head_prev_hash, pruned_to) VALUES (?, ?, ?, ?, 0)"
    " ON CONFLICT (task_id) DO UPDATE SET length = excluded.length, head_hash = excluded.head_hash,"
    " head_prev_hash = excluded.head_prev_hash"
)
MOVE = (
    "UPDATE tasks SET status = :to, version = version + 1, updated_at = :at, exit_reason = NULL, completed_at = NULL,"
    " duration = NULL, started_at = CASE WHEN :to = 'running' THEN coalesce(started_at, :at) ELSE started_at END,"
    " claimed_by = CASE WHEN :to = 'running' THEN claimed_by END,"
    " lease_until = CASE WHEN :to = 'running' THEN lease_until END"
    " WHERE task_id = :task_id AND status = :origin RETURNING *"
)
CREATE = (
    "INSERT INTO tasks (task_id, title, status, task_type, priority, payload, attempts, max_attempts, lease_token,"
    " version, metadata, created_at, updated_at) VALUES (?, ?, 'created', '', 0, ?, 0, 3, 0, 1, ?, ?, ?)"
)
GET = "SELECT * FROM tasks WHERE task_id = ?"
FIRST_PAGE = "SELECT * FROM tasks WHERE status = ? ORDER BY created_at, task_id LIMIT ?"
NEXT_PAGE = (
    "SELECT * FROM tasks WHERE status = ? AND (created_at, task_id) > (?, ?) ORDER BY created_at, task_id LIMIT ?"
)
OFFSET_PAGE = "SELECT * FROM tasks WHERE status = ? ORDER BY created_at, task_id LIMIT ? OFFSET ?"
LAST_KEY = "SELECT created_at, task_id FROM tasks WHERE status = ? ORDER BY created_at, task_id LIMIT 1 OFFSET ?"


class RawSQLite(SQLiteDriver):
    """One connection."""

    def record(self, task_id: str) -> None:
        """Add an audit and move the head."""
        payload, created_at = rows.compact(rows.PAYLOAD), rows.written(rows.now())
        content = rows.content_hash(task_id, rows.EVENT, payload, created_at)
        with self._transaction():
            self._append(task_id, rows.EVENT, payload, created_at, content)

    def _append(self, task_id: str, event_type: str, payload: str, created_at: str, content: str) -> None:
        execute = self.connection.execute
        previous, length = execute(HEAD, (task_id,)).fetchone() or (rows.GENESIS, 0)
        row_hash = rows.chained(previous, content)
        execute(ADD_AUDIT, (task_id, event_type, payload, created_at, previous, row_hash))
        execute(MOVE_HEAD, (task_id, length + 1, row_hash, previous))

    def move(self, task_id: str, origin: str, to: str) -> Any:
        """Take a step from a status that the caller knows."""
        payload, at = rows.compact({"from": origin, "to": to}), rows.written(rows.now())
        content = rows.content_hash(task_id, rows.STEP, payload, at)
        values = {"task_id": task_id, "origin": origin, "to": to, "at": at}
        with self._transaction():
            task = self.connection.execute(MOVE, values).fetchone()
            if task is None:
                raise NotHonestError(f"the task is not {origin}")
            self._append(task_id, rows.STEP, payload, at, content)
        return task

    def create(self, task_id: str) -> None:
        """Create a task; a statement alone is a transaction."""
        at, payload, metadata = rows.written(rows.now()), rows.compact(rows.PAYLOAD), rows.compact(rows.METADATA)
        self.connection.execute(CREATE, (task_id, rows.TITLE, payload, metadata, at, at))

    def get(self, task_id: str) -> Any:
        """Get a task."""
        return self.connection.execute(GET, (task_id,)).fetchone()

    def page(self, after: Any) -> list[Any]:
        """List one page of tasks."""
        if after is None:
            return self.connection.execute(FIRST_PAGE, (rows.LISTED, rows.PAGE)).fetchall()
        return self.connection.execute(NEXT_PAGE, (rows.LISTED, *after, rows.PAGE)).fetchall()

    def page_by_offset(self, number: int) -> list[Any]:
        """List one page of tasks by counting through all before it."""
        return self.connection.execute(OFFSET_PAGE, (rows.LISTED, rows.PAGE, (number - 1) * rows.PAGE)).fetchall()

    def seek(self, number: int) -> Any:
        """Return the key of the last task before a page."""
        return self.connection.execute(LAST_KEY, (rows.LISTED, (number - 1) * rows.PAGE - 1)).fetchone()

    def revision(self) -> Any:
        """Ask for the revision."""
        return self.connection.execute("SELECT revision FROM agentos_store_version").fetchone()

    @staticmethod
    def keys(page: Sequence[Any]) -> Sequence[str]:
        """Return the keys of a page's tasks."""
        return [task[0] for task in page]
