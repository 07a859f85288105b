"""Another system's SQLite file, opened and read table by table; what each system's rows mean is its reader's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self, TypeVar

from agentos_store.importers.problems import Problem, SetAside
from agentos_store.importers.row import Row
from agentos_store.importers.source import Found, SourceFile

T = TypeVar("T")


class Opened:
    """Something that is open; close it, or use it in a ``with`` block."""

    _stack: ExitStack
    """What is closed with it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, and forget what was met."""
        self._stack.close()


class Database(Opened):
    """An open SQLite file. It stays as it is."""

    _source: SourceFile

    @property
    def changed(self) -> bool:
        """Whether somebody wrote to what was read, which is then not to be relied on; a copy stays what it was."""
        return self._source.changed and not self._source.is_copy

    def _take(self, found: Found) -> Row:
        """Return a row on its way to a record."""
        raise NotImplementedError

    def _records(
        self, table: str, read: Callable[[Row], T], *, take: Callable[[Found], Row] | None = None
    ) -> Iterator[T | Problem]:
        """Give each row of a table as its record, or as the Problem for which it is set aside."""
        take = take or self._take
        for found in self._source.rows(table):
            if isinstance(found, Problem):
                yield found
                continue
            row = take(found)
            try:
                yield read(row)
            except SetAside as aside:
                yield Problem(table, row.key, aside.reason)

    def _merged_records(self, table: str, read: Callable[[Row], T | None]) -> Iterator[T | Problem]:
        """Give records as above, without rows that came with an earlier one."""
        for item in self._records(table, read):
            if item is not None:
                yield item

    def _odd_columns(self, columns: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
        """Give what differs from these columns by table."""
        for table, expected in columns.items():
            there = self._source.tables.get(table)
            if there is None:
                yield Problem(table, "*", "the table cannot be read, or is not there")
                continue
            for column in expected:
                if column not in there:
                    yield Problem(table, f"column {column}", "it is not there")
            for column in there:
                if column not in expected:
                    yield Problem(table, f"column {column}", "it is not known, so it is not read")
