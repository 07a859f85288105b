"""An AIOS database, read.

::

    with AiosDatabase("aios.db") as source:
        for item in source.tasks():
            if isinstance(item, Problem):
                ...  # a row that was set aside, or rows that cannot be read
            else:
                ...  # a TaskRecord

Each iterator may be started as often as one likes and gives the same each time. Every row of the four tables comes out
as a record or as a Problem.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Final, TypeVar

from agentos_store.errors import InvalidValueError
from agentos_store.importers.aios.reading import read_agent, read_context, read_event, read_task
from agentos_store.importers.aios.records import AgentRecord, ContextRecord, EventRecord, SessionRecord, TaskRecord
from agentos_store.importers.aios.references import COLUMNS, References, row_of
from agentos_store.importers.database import Database
from agentos_store.importers.keys import KeySets
from agentos_store.importers.problems import Problem
from agentos_store.importers.row import Row
from agentos_store.importers.source import Found, SourceFile

T = TypeVar("T")

TABLES: Final[Mapping[str, str]] = {
    "agents": "agent_states",
    "tasks": "task_history",
    "sessions": "contexts",
    "contexts": "contexts",
    "events": "events",
}
"""By kind."""

_MARKS: Final = ("agent_states", "task_history")
"""Tables that no other system has; damage may have taken one."""


class AiosDatabase(Database):
    """An open ``aios.db``; close it, or use it in a ``with`` block. The file stays as it is."""

    shape: Final = "sqlite"

    def __init__(self, path: str | os.PathLike[str], *, keep_status: bool = False, keep_secrets: bool = False) -> None:
        self._keep_status = keep_status
        self._keep_secrets = keep_secrets
        with ExitStack() as stack:
            self._source = stack.enter_context(SourceFile(path))
            if not any(table in self._source.tables for table in _MARKS):
                raise InvalidValueError("path", "it is no database of the AIOS Storage Manager")
            self._keys = stack.enter_context(KeySets())
            self._references = References(self._source, self._keys)
            self.problems = (*self._source.problems, *self._odd_columns(COLUMNS))
            """Of the file as a whole and of the definitions of its tables."""
            self._stack = stack.pop_all()

    def agents(self) -> Iterator[AgentRecord | Problem]:
        """Give the agents."""
        ids = self._keys.fresh("id")
        return self._records(
            "agent_states", lambda row: read_agent(row, self._references, ids, keep_secrets=self._keep_secrets)
        )

    def tasks(self) -> Iterator[TaskRecord | Problem]:
        """Give the tasks. Those that waited or ran come paused, unless their status is to be kept."""
        ids = self._keys.fresh("id")
        return self._records(
            "task_history", lambda row: read_task(row, self._references, ids, keep_status=self._keep_status)
        )

    def sessions(self) -> Iterator[SessionRecord]:
        """Give the sessions that contexts name, each once."""
        ids = self._keys.fresh("session")
        for item in self.contexts():
            if not isinstance(item, Problem) and item.session_id is not None and self._keys.add(ids, item.session_id):
                yield SessionRecord(id=item.session_id, created_at=item.created_at)

    def contexts(self) -> Iterator[ContextRecord | Problem]:
        """Give the contexts, those that have expired too."""
        ids = self._keys.fresh("id")
        return self._records("contexts", lambda row: read_context(row, self._references, ids))

    def events(self) -> Iterator[EventRecord | Problem]:
        """Give the events in the order in which they were written."""
        ids = self._keys.fresh("id")
        return self._records("events", lambda row: read_event(row, self._references, ids))

    def total(self, kind: str) -> int:
        """Return how many rows the iterator of this kind will read, at most, for a progress bar."""
        table = TABLES[kind]
        return self._source.count(table) if table in self._source.tables else 0

    def no_place(self) -> dict[str, int]:
        """Count the rows of tables that are not AIOS's."""
        others = sorted(set(self._source.tables) - set(COLUMNS))
        return {table: self._source.count(table) for table in others}

    def _take(self, found: Found) -> Row:
        return row_of(found)
