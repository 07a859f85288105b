"""What the rows of an agent store may refer to, by a pass over its tables."""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from agentos_store.importers.keys import KeySets
from agentos_store.importers.problems import Problem, SetAside
from agentos_store.importers.row import Row
from agentos_store.importers.source import Found, SourceFile
from agentos_store.importers.times import EPOCH

ORIGIN_KEY: Final = "chapter14"

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    table: tuple(columns.split())
    for table, columns in {
        "users": "id name email api_key_hash quota_total quota_used preferences_json created_at updated_at",
        "sessions": "id user_id title status model total_tokens total_cost message_count metadata_json created_at"
        " updated_at",
        "messages": "id session_id role content tool_calls_json tool_call_id token_count created_at",
        "tasks": "id session_id type payload_json status result_json priority max_retries retry_count created_at"
        " started_at completed_at",
        "tool_logs": "id session_id message_id tool_name input_json output_json elapsed_ms success error_message"
        " created_at",
    }.items()
}
"""The columns that are read, by table."""


def row_of(found: Found) -> Row:
    """Return a row on its way to a record."""
    return Row(found, "id", origin=ORIGIN_KEY)


class References:
    """Answers whether a user or a session is among the records, and finds the rows of sessions and messages."""

    def __init__(self, source: SourceFile, keys: KeySets) -> None:
        self._source = source
        self.keys = keys
        self._known: set[str] = set()

    def has_user(self, user_id: str) -> bool:
        """Tell whether a record is this user."""
        return self._has("user", user_id, self._find_users)

    def has_session(self, session_id: str) -> bool:
        """Tell whether a record is this session."""
        return self._has("session", session_id, self._find_sessions)

    def session_began(self, session_id: str) -> dt.datetime:
        """Return when a session that there is began; where it does not tell, the same time in each run."""
        if self.has_session(session_id):
            for _, rowid in self.keys.places("session", session_id):
                found = self._source.row("sessions", rowid)
                moment = None if found is None else row_of(found).time("created_at")
                if moment is not None:
                    return moment
        return EPOCH

    def message(self, number: int) -> Row | None:
        """Return the row of the message with this number, or None."""
        found = self._source.row("messages", number) if "messages" in self._source.tables else None
        return row_of(found) if found is not None and found.values.get("id") == number else None

    @functools.cached_property
    def around(self) -> dt.datetime:
        """The time for rows that tell of none: when the newest user or session was made."""
        tables = ("users", "sessions")
        moments = [row.time("created_at") for table in tables for row in self._rows(table)]
        return max((moment for moment in moments if moment is not None), default=EPOCH)

    def _has(self, kind: str, key: str, find: Callable[[], None]) -> bool:
        if kind not in self._known:
            find()
            self._known.add(kind)
        return self.keys.has(kind, key)

    def _rows(self, table: str) -> Iterator[Row]:
        for found in self._source.rows(table):
            if not isinstance(found, Problem):
                yield row_of(found)

    def _identified(self, table: str) -> Iterator[tuple[Row, str]]:
        for row in self._rows(table):
            try:
                yield row, row.identifier("id")
            except SetAside:
                continue

    def _find_users(self) -> None:
        for _, user_id in self._identified("users"):
            self.keys.add("user", user_id)

    def _find_sessions(self) -> None:
        for row, session_id in self._identified("sessions"):
            if self.keys.add("session", session_id):
                self.keys.stand("session", session_id, "sessions", row.rowid)
