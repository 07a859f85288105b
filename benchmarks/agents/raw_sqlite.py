"""``sqlite3`` alone: the same rows, the same indexes and the same durability, and nothing that could be left out.

An operation is one statement, which commits by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from benchmarks import rows
from benchmarks.agents import content
from benchmarks.conversations.content import SESSION, keys
from benchmarks.drivers import SQLiteDriver
from benchmarks.measure import NotHonestError

RECORD = (
    "INSERT INTO tool_call_records (id, agent_id, session_id, tool_call_id, ordinal, tool_name, state, input, output,"
    " has_output, is_error, audit_trail, duration_ms, created_at, updated_at, completed_at)"
    " VALUES (?1, ?2, ?3, ?4, 0, ?5, 'completed', ?6, ?7, 1, 0, ?8, ?9, ?10, ?10, ?10) ON CONFLICT DO NOTHING"
)
BEGIN = (
    "INSERT INTO tool_call_records (id, agent_id, session_id, tool_call_id, ordinal, tool_name, state, input,"
    " has_output, audit_trail, created_at, updated_at, started_at)"
    " VALUES (?1, ?2, ?3, ?4, 0, ?5, 'executing', ?6, 0, ?7, ?8, ?8, ?8)"
)
COMPLETE = (
    "UPDATE tool_call_records SET state = 'completed', updated_at = ?1, completed_at = ?1, output = ?2,"
    " has_output = 1, is_error = 0,"
    # SQLite's own times are rounded to milliseconds, so the whole seconds are taken apart from the microseconds.
    " duration_ms = (unixepoch(substr(?1, 1, 19)) - unixepoch(substr(started_at, 1, 19))) * 1000"
    " + (substr(?1, 21, 6) - substr(started_at, 21, 6)) / 1000.0,"
    " audit_trail = json_insert(audit_trail, '$[#]', json(?3))"
    " WHERE agent_id = ?4 AND tool_call_id = ?5 AND state IN ('pending', 'executing') RETURNING *"
)
SAVE = (
    "INSERT INTO agents (agent_id, state, lineage, last_sfp_index, stats, metadata, version, created_at, updated_at)"
    " VALUES (?1, ?2, '[]', ?3, '{}', '{}', 1, ?4, ?4) ON CONFLICT (agent_id) DO UPDATE SET"
    " state = excluded.state, last_sfp_index = excluded.last_sfp_index, version = agents.version + 1,"
    " deleted_at = NULL, updated_at = excluded.updated_at RETURNING *"
)
COLUMNS = (
    "id, agent_id, input, approval, audit_trail, output, session_id, tool_call_id, ordinal, message_id, tool_name,"
    " state, has_output, is_error, error_message, duration_ms, started_at, completed_at, created_at, updated_at"
)
OF_LIVING = (
    "(SELECT deleted_at FROM agents WHERE agents.agent_id = tool_call_records.agent_id) IS NULL"
    " AND (SELECT deleted_at FROM sessions WHERE sessions.id = tool_call_records.session_id) IS NULL"
)
WAITING = (
    f"SELECT {COLUMNS} FROM tool_call_records WHERE {OF_LIVING} AND state = 'approval_required'"
    " ORDER BY created_at, id LIMIT ?"
)


class RawSQLite(SQLiteDriver):
    """One connection."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._keys = keys()

    def record(self, tool_call_id: str) -> object:
        """Record a call that has ended."""
        at = rows.now()
        values = (
            next(self._keys),
            content.AGENT,
            SESSION,
            tool_call_id,
            content.TOOL,
            rows.compact(content.INPUT),
            rows.compact(content.OUTPUT),
            rows.compact([content.entry("completed", at)]),
            content.DURATION,
            rows.written(at),
        )
        return self.connection.execute(RECORD, values)

    def begin(self, tool_call_ids: Sequence[str]) -> None:
        """Record calls that are executing."""
        at = rows.now()
        trail = rows.compact([content.entry("pending", at), content.entry("executing", at)])
        given = rows.compact(content.INPUT)
        added = [
            (next(self._keys), content.AGENT, SESSION, key, content.TOOL, given, trail, rows.written(at))
            for key in tool_call_ids
        ]
        with self._transaction():
            self.connection.executemany(BEGIN, added)

    def complete(self, tool_call_id: str) -> object:
        """End a call that is executing."""
        at = rows.now()
        entry = rows.compact(content.entry("completed", at))
        values = (rows.written(at), rows.compact(content.OUTPUT), entry, content.AGENT, tool_call_id)
        # Not before the last row was fetched is the statement committed.
        found = self.connection.execute(COMPLETE, values).fetchall()
        if not found:
            raise NotHonestError("the call is not executing")
        return found[0]

    def save(self, number: int) -> object:
        """Save the agent with another state and another safe fork point."""
        values = (content.AGENT, content.state(number), number, rows.written(rows.now()))
        return self.connection.execute(SAVE, values).fetchall()[0]

    def waiting(self) -> Sequence[Any]:
        """Return the first page of the calls that wait; one row more tells whether others follow."""
        found = self.connection.execute(WAITING, (content.PAGE + 1,)).fetchall()
        read = json.loads
        return [
            (
                key,
                agent_id,
                read(given),
                None if approval is None else read(approval),
                read(trail),
                None if output is None else read(output),
                *others,
            )
            for key, agent_id, given, approval, trail, output, *others in found[: content.PAGE]
        ]

    @staticmethod
    def values(calls: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return what tells calls from others."""
        return [tuple(call[:5]) for call in calls]
