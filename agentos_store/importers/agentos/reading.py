"""How the rows of a table become records, or are set aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from agentos_store.importers.agentos.references import References
from agentos_store.importers.agentos.shapes import KEYS
from agentos_store.importers.problems import Problem, SetAside
from agentos_store.importers.row import Row
from agentos_store.importers.source import Found, SourceFile

T = TypeVar("T")


class Reading:
    """An open registry as its iterators see it."""

    _source: SourceFile
    _references: References

    def _merged_records(self, table: str, read: Callable[[Row], T | None]) -> Iterator[T | Problem]:
        for item in self._records(table, read):
            if item is not None:
                yield item

    def _records(
        self, table: str, read: Callable[[Row], T], *, take: Callable[[Found], Row] | None = None
    ) -> Iterator[T | Problem]:
        for found in self._source.rows(table):
            if isinstance(found, Problem):
                yield found
                continue
            row = take(found) if take is not None else Row(found, KEYS.get(table))
            try:
                yield read(row)
            except SetAside as aside:
                yield Problem(table, row.key, aside.reason)
