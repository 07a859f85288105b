"""psycopg alone: autocommit, prepared statements, one round trip for each operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, LiteralString

from benchmarks import rows
from benchmarks.agents import content
from benchmarks.conversations.content import SESSION, keys
from benchmarks.drivers import PostgreSQLDriver
from benchmarks.measure import NotHonestError

RECORD: LiteralString = """
    INSERT INTO tool_call_records (id, agent_id, session_id, tool_call_id, ordinal, tool_name, state, input, output,
        has_output, is_error, audit_trail, duration_ms, created_at, updated_at, completed_at)
    VALUES (%(id)s, %(agent_id)s, %(session_id)s, %(tool_call_id)s, 0, %(tool_name)s, 'completed', %(input)s::json,
        %(output)s::json, true, false, %(trail)s::jsonb, %(duration)s, %(at)s, %(at)s, %(at)s)
    ON CONFLICT DO NOTHING"""
BEGIN: LiteralString = """
    INSERT INTO tool_call_records (id, agent_id, session_id, tool_call_id, ordinal, tool_name, state, input, has_output,
        audit_trail, created_at, updated_at, started_at)
    SELECT id, %(agent_id)s, %(session_id)s, tool_call_id, 0, %(tool_name)s, 'executing', %(input)s::json, false,
        %(trail)s::jsonb, %(at)s, %(at)s, %(at)s
    FROM unnest(%(ids)s::text[], %(tool_call_ids)s::text[]) AS given(id, tool_call_id)"""
COMPLETE: LiteralString = """
    UPDATE tool_call_records SET state = 'completed', updated_at = %(at)s, completed_at = %(at)s,
        output = %(output)s::json, has_output = true, is_error = false,
        duration_ms = extract(epoch FROM %(at)s - started_at) * 1000, audit_trail = audit_trail || %(entry)s::jsonb
    WHERE agent_id = %(agent_id)s AND tool_call_id = %(tool_call_id)s AND state IN ('pending', 'executing')
    RETURNING *"""
SAVE: LiteralString = """
    INSERT INTO agents (agent_id, state, lineage, last_sfp_index, stats, metadata, version, created_at, updated_at)
    VALUES (%(agent_id)s, %(state)s, '[]', %(place)s, '{}', '{}', 1, %(at)s, %(at)s)
    ON CONFLICT (agent_id) DO UPDATE SET state = excluded.state, last_sfp_index = excluded.last_sfp_index,
        version = agents.version + 1, deleted_at = NULL, updated_at = excluded.updated_at
    RETURNING *"""
COLUMNS: LiteralString = (
    "id, agent_id, input, approval, audit_trail, output, session_id, tool_call_id, ordinal, message_id, tool_name,"
    " state, has_output, is_error, error_message, duration_ms, started_at, completed_at, created_at, updated_at"
)
WAITING: LiteralString = f"""
    SELECT {COLUMNS} FROM tool_call_records
    WHERE (SELECT deleted_at FROM agents WHERE agents.agent_id = tool_call_records.agent_id) IS NULL
        AND (SELECT deleted_at FROM sessions WHERE sessions.id = tool_call_records.session_id) IS NULL
        AND state = 'approval_required'
    ORDER BY created_at, id LIMIT %s"""


class RawPostgreSQL(PostgreSQLDriver):
    """One connection and one cursor."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._keys = keys()

    def record(self, tool_call_id: str) -> object:
        """Record a call that has ended."""
        at = rows.now()
        values = {
            "id": next(self._keys),
            "agent_id": content.AGENT,
            "session_id": SESSION,
            "tool_call_id": tool_call_id,
            "tool_name": content.TOOL,
            "input": rows.compact(content.INPUT),
            "output": rows.compact(content.OUTPUT),
            "trail": rows.compact([content.entry("completed", at)]),
            "duration": content.DURATION,
            "at": at,
        }
        return self._execute(RECORD, values)

    def begin(self, tool_call_ids: Sequence[str]) -> None:
        """Record calls that are executing."""
        at = rows.now()
        values = {
            "ids": [next(self._keys) for _ in tool_call_ids],
            "agent_id": content.AGENT,
            "session_id": SESSION,
            "tool_call_ids": list(tool_call_ids),
            "tool_name": content.TOOL,
            "input": rows.compact(content.INPUT),
            "trail": rows.compact([content.entry("pending", at), content.entry("executing", at)]),
            "at": at,
        }
        self._execute(BEGIN, values)

    def complete(self, tool_call_id: str) -> object:
        """End a call that is executing."""
        at = rows.now()
        values = {
            "agent_id": content.AGENT,
            "tool_call_id": tool_call_id,
            "output": rows.compact(content.OUTPUT),
            "entry": rows.compact(content.entry("completed", at)),
            "at": at,
        }
        found = self._execute(COMPLETE, values).fetchone()
        if found is None:
            raise NotHonestError("the call is not executing")
        return found

    def save(self, number: int) -> object:
        """Save the agent with another state and another safe fork point."""
        values = {"agent_id": content.AGENT, "state": content.state(number), "place": number, "at": rows.now()}
        return self._execute(SAVE, values).fetchone()

    def waiting(self) -> Sequence[Any]:
        """Return the first page of the calls that wait; one row more tells whether others follow.

        The driver reads JSON with ``json.loads``.
        """
        return self._execute(WAITING, (content.PAGE + 1,)).fetchall()[: content.PAGE]

    @staticmethod
    def values(calls: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return what tells calls from others."""
        return [tuple(call[:5]) for call in calls]
