"""``sqlite3`` alone: the same rows, the same indexes and the same durability, and nothing that could be left out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import rows
from benchmarks.conversations import content
from benchmarks.drivers import SQLiteDriver

DRAW = (
    "UPDATE sessions SET next_seq = next_seq + ?1, message_count = message_count + ?1,"
    " total_tokens = total_tokens + ?2, updated_at = ?3, unindexed_from = coalesce(unindexed_from, next_seq)"
    " WHERE id = ?4 AND deleted_at IS NULL RETURNING next_seq - ?1, generation"
)
ADD = (
    "INSERT INTO messages (id, session_id, seq, from_generation, role, content, tool_call_id, content_types,"
    " tool_names, token_count, metadata, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '{}', ?)"
)
OF_SESSION = "FROM messages WHERE session_id = ? AND to_generation IS NULL ORDER BY seq"
LIST = f"SELECT role, content, tool_call_id {OF_SESSION}"
LAST = f"SELECT role, content, name, tool_calls, tool_call_id {OF_SESSION} DESC LIMIT ?"
LATEST = "SELECT * FROM sessions WHERE user_id = ? AND deleted_at IS NULL ORDER BY updated_at DESC, id DESC LIMIT ?"


class RawSQLite(SQLiteDriver):
    """One connection."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._keys = content.keys()

    def append(self, session_id: str) -> object:
        """Add a message and move the counters."""
        message, at = content.MESSAGE, rows.written(rows.now())
        role, text, tokens = message["role"], rows.compact(message["content"]), message["token_count"]
        with self._transaction():
            seq, generation = self.connection.execute(DRAW, (1, tokens, at, session_id)).fetchone()
            values = (
                next(self._keys),
                session_id,
                seq,
                generation,
                role,
                text,
                None,
                content.ITS_TYPES,
                None,
                tokens,
                at,
            )
            self.connection.execute(ADD, values)
        return seq

    def append_many(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> object:
        """Add many at once."""
        with self._transaction():
            return self._add(session_id, messages, 0)

    def _add(self, session_id: str, messages: Sequence[Mapping[str, Any]], first: int) -> int:
        """Add messages, of which the first is at this place of the conversation that all contestants know."""
        at = rows.written(rows.now())
        tokens = content.TOKENS * len(messages)
        seq, generation = self.connection.execute(DRAW, (len(messages), tokens, at, session_id)).fetchone()
        added = [
            (
                next(self._keys),
                session_id,
                seq + i,
                generation,
                message["role"],
                rows.compact(message["content"]),
                message.get("tool_call_id"),
                *content.found_by_text(first + i),
                message["token_count"],
                at,
            )
            for i, message in enumerate(messages)
        ]
        self.connection.executemany(ADD, added)
        return int(seq)

    def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Read the list, compare it and add what is new."""
        with self._transaction():
            there = self.connection.execute(LIST, (session_id,)).fetchall()
            given = [content.written_key(message) for message in messages]
            content.expect_same(there, given)
            self._add(session_id, messages[len(there) :], len(there))

    def last(self, session_id: str) -> list[dict[str, Any]]:
        """Return the last messages as a language model wants them."""
        found = self.connection.execute(LAST, (session_id, content.LAST)).fetchall()
        return [
            content.plain(role, json.loads(text), name, calls and json.loads(calls), call)
            for role, text, name, calls, call in reversed(found)
        ]

    def latest(self, user_id: str) -> Sequence[Any]:
        """Return the sessions of a user that were in use last."""
        return self.connection.execute(LATEST, (user_id, content.LATEST)).fetchall()

    @staticmethod
    def keys(sessions: Sequence[Any]) -> list[str]:
        """Return the keys of sessions."""
        return [session[0] for session in sessions]
