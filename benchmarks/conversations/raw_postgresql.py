"""psycopg alone: autocommit, prepared statements, one round trip for each operation that needs no more.

Of the ways to add a hundred rows one JSON text, made rows again by ``json_to_recordset``, was the fastest: 2.2 ms. With
arrays in binary it was 2.3 ms, with COPY 2.5, with arrays as text or VALUES 3.4, with ``executemany`` 6.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

from benchmarks import rows
from benchmarks.conversations import content
from benchmarks.drivers import PostgreSQLDriver
from benchmarks.measure import NotHonestError

DRAW: LiteralString = """
    UPDATE sessions SET next_seq = next_seq + {count}, message_count = message_count + {count},
        total_tokens = total_tokens + %(tokens)s, updated_at = %(at)s,
        unindexed_from = coalesce(unindexed_from, next_seq)
    WHERE id = %(session_id)s AND deleted_at IS NULL {condition}
    RETURNING next_seq - {count} AS seq, generation"""
COLUMNS: LiteralString = (
    "id, session_id, seq, from_generation, role, content, tool_call_id, content_types, tool_names, token_count,"
    " metadata, created_at"
)
APPEND: LiteralString = f"""
    WITH drawn AS ({DRAW.format(count="1", condition="")})
    INSERT INTO messages ({COLUMNS})
    SELECT %(id)s, %(session_id)s, seq, generation, %(role)s, %(content)s::json, %(tool_call_id)s, %(types)s,
        %(tools)s::jsonb, %(tokens)s, '{{}}', %(at)s
    FROM drawn RETURNING seq"""
ADD: LiteralString = """
    WITH drawn AS ({draw}), added AS (
        INSERT INTO messages ({columns})
        SELECT id, %(session_id)s, seq + i, generation, role, content, tool_call_id, types, tools, tokens, '{{}}',
            %(at)s
        FROM drawn, json_to_recordset(%(added)s::json) AS given(id text, i bigint, role text, content json,
            tool_call_id text, types bigint, tools jsonb, tokens bigint))
    SELECT seq FROM drawn"""
MANY: LiteralString = "%(count)s::bigint"
APPEND_MANY: LiteralString = ADD.format(draw=DRAW.format(count=MANY, condition=""), columns=COLUMNS)
# Whoever was faster has changed the number that was read.
APPEND_AT: LiteralString = ADD.format(
    draw=DRAW.format(count=MANY, condition="AND next_seq = %(next_seq)s"), columns=COLUMNS
)
OF_SESSION: LiteralString = "FROM messages WHERE session_id = %s AND to_generation IS NULL ORDER BY seq"
LIST: LiteralString = f"SELECT role, content::text, tool_call_id, seq {OF_SESSION}"
LAST: LiteralString = f"SELECT role, content, name, tool_calls, tool_call_id {OF_SESSION} DESC LIMIT %s"
LATEST: LiteralString = (
    "SELECT * FROM sessions WHERE user_id = %s AND deleted_at IS NULL ORDER BY updated_at DESC, id DESC LIMIT %s"
)


class RawPostgreSQL(PostgreSQLDriver):
    """One connection and one cursor."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._keys = content.keys()

    def append(self, session_id: str) -> object:
        """Add a message and move the counters."""
        message = content.MESSAGE
        values = {
            "id": next(self._keys),
            "session_id": session_id,
            "role": message["role"],
            "content": rows.compact(message["content"]),
            "tool_call_id": None,
            "types": content.ITS_TYPES,
            "tools": None,
            "tokens": message["token_count"],
            "at": rows.now(),
        }
        return self._execute(APPEND, values).fetchone()

    def append_many(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> object:
        """Add many at once."""
        return self._execute(APPEND_MANY, self._added(session_id, messages, 0)).fetchone()

    def _added(self, session_id: str, messages: Sequence[Mapping[str, Any]], first: int) -> dict[str, Any]:
        """Return the values for messages, of which the first is at this place of the conversation that all know."""
        added = [
            {
                "id": next(self._keys),
                "i": i,
                "role": message["role"],
                "content": message["content"],
                "tool_call_id": message.get("tool_call_id"),
                "types": types,
                "tools": tools,
                "tokens": message["token_count"],
            }
            for i, message in enumerate(messages)
            for types, tools in (content.found_by(first + i),)
        ]
        return {
            "session_id": session_id,
            "count": len(messages),
            "tokens": content.TOKENS * len(messages),
            "at": rows.now(),
            "added": rows.compact(added),
        }

    def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Read the list, compare it and add what is new, in two round trips."""
        there = self._execute(LIST, (session_id,)).fetchall()
        given = [content.written_key(message) for message in messages]
        content.expect_same([row[:3] for row in there], given)
        values = self._added(session_id, messages[len(there) :], len(there))
        values["next_seq"] = there[-1][3] + 1 if there else 0
        if self._execute(APPEND_AT, values).fetchone() is None:
            raise NotHonestError("somebody else has written to the session")

    def last(self, session_id: str) -> list[dict[str, Any]]:
        """Return the last messages as a language model wants them; the driver reads JSON with ``json.loads``."""
        found = self._execute(LAST, (session_id, content.LAST)).fetchall()
        return [content.plain(*row) for row in reversed(found)]

    def latest(self, user_id: str) -> Sequence[Any]:
        """Return the sessions of a user that were in use last."""
        return self._execute(LATEST, (user_id, content.LATEST)).fetchall()

    @staticmethod
    def keys(sessions: Sequence[Any]) -> list[str]:
        """Return the keys of sessions."""
        return [session[0] for session in sessions]
