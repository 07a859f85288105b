"""An agent store of chapter 14, read.

::

    with open_agent_store("agent_store.db") as source:
        for item in source.messages():
            if isinstance(item, Problem):
                ...  # a row that was set aside, or rows that cannot be read
            else:
                ...  # a MessageRecord

Each iterator may be started as often as one likes and gives the same each time. Every row of the five tables comes out
as a record or as a Problem.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final, TypeVar

from agentos_store.errors import InvalidValueError
from agentos_store.importers.chapter14.reading import (
    read_message,
    read_session,
    read_task,
    read_tool_log,
    read_user,
)
from agentos_store.importers.chapter14.records import SessionRecord, TaskRecord, ToolLogRecord
from agentos_store.importers.chapter14.references import COLUMNS, References, row_of
from agentos_store.importers.database import Database
from agentos_store.importers.keys import KeySets
from agentos_store.importers.problems import Problem, SetAside
from agentos_store.importers.records import MessageRecord, UserRecord
from agentos_store.importers.row import Row
from agentos_store.importers.source import Found, SourceFile

T = TypeVar("T")

TABLES: Final[Mapping[str, str]] = {
    "users": "users",
    "sessions": "sessions",
    "messages": "messages",
    "tasks": "tasks",
    "tool_calls": "tool_logs",
}
"""By kind."""

_MARK: Final = ("messages", "tool_calls_json")
"""A column that no other system has."""


def open_agent_store(path: str | os.PathLike[str]) -> AgentStore:
    """Open a database of chapter 14 for reading; the file stays as it is, and nothing appears beside it.

    NotFoundError: there is no such file. InvalidValueError: it is no SQLite database, damaged where all of it hangs on,
    or not of chapter 14. UnavailableError: the system refuses the file, or somebody keeps writing to it.
    """
    return AgentStore(path)


class AgentStore(Database):
    """An open database of chapter 14; close it, or use it in a ``with`` block."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with ExitStack() as stack:
            self._source = stack.enter_context(SourceFile(path))
            table, column = _MARK
            if "sessions" not in self._source.tables or column not in self._source.tables.get(table, ()):
                raise InvalidValueError("path", "it is no agent store of chapter 14")
            self._keys = stack.enter_context(KeySets())
            self._references = References(self._source, self._keys)
            self.problems = (*self._source.problems, *self._odd_columns(COLUMNS))
            """Of the file as a whole and of the definitions of its tables."""
            self._summed = ""
            self._stack = stack.pop_all()

    def users(self) -> Iterator[UserRecord | Problem]:
        """Give the users."""
        ids, emails = self._keys.fresh("id"), self._keys.fresh("email")
        return self._records("users", lambda row: read_user(row, self._references, ids, emails))

    def sessions(self) -> Iterator[SessionRecord | Problem]:
        """Give the sessions, with what their messages do not account for."""
        ids = self._keys.fresh("id")
        return self._records("sessions", lambda row: read_session(row, self._references, ids, self._messages_of(row)))

    def messages(self) -> Iterator[MessageRecord | Problem]:
        """Give the messages in the order of their numbers, which is that in which they were written."""
        ids = self._keys.fresh("id")

        def read(row: Row) -> MessageRecord:
            record = read_message(row, self._references)
            if not self._keys.add(ids, record.id):
                raise SetAside("an earlier row has the same id")
            return record

        return self._records("messages", read)

    def tasks(self, *, keep_status: bool = False) -> Iterator[TaskRecord | Problem]:
        """Give the tasks. Those that waited or ran come paused, or with ``keep_status`` as they were."""
        ids = self._keys.fresh("id")
        return self._records("tasks", lambda row: read_task(row, self._references, ids, keep_status=keep_status))

    def tool_calls(self) -> Iterator[ToolLogRecord | Problem]:
        """Give the logged calls of tools."""
        ordinals = self._keys.fresh("ordinal")
        ids = self._keys.fresh("id")

        def read(row: Row) -> ToolLogRecord:
            record = read_tool_log(row, self._references, ordinals)
            if not self._keys.add(ids, f"{record.session_id}/{record.tool_call_id}"):
                raise SetAside("an earlier row has the same id")
            return record

        return self._records("tool_logs", read)

    def total(self, kind: str) -> int:
        """Return how many rows the iterator of this kind will read, for a progress bar."""
        table = TABLES[kind]
        return self._source.count(table) if table in self._source.tables else 0

    def no_place(self) -> dict[str, int]:
        """Count the rows of tables that are not of chapter 14."""
        others = sorted(set(self._source.tables) - set(COLUMNS))
        return {table: self._source.count(table) for table in others}

    def _messages_of(self, row: Row) -> tuple[int, int]:
        if not self._summed:
            self._summed = self._keys.fresh("sum")
            for item in self.messages():
                if isinstance(item, MessageRecord):
                    self._keys.tally(f"{self._summed} count", item.session_id)
                    self._keys.tally(f"{self._summed} tokens", item.session_id, item.token_count)
        session_id = row.text("id") or ""
        return (
            self._keys.tally(f"{self._summed} count", session_id, 0),
            self._keys.tally(f"{self._summed} tokens", session_id, 0),
        )

    def _take(self, found: Found) -> Row:
        return row_of(found)
