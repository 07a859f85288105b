"""Copying a store into another database, and comparing two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentos_store.engine.backend import Backend
from agentos_store.errors import ConflictError
from agentos_store.migrate.target import Target
from agentos_store.operations.moving.move import MoveReport, Progress, move
from agentos_store.operations.moving.places import check_source, connect, place
from agentos_store.operations.moving.rows import TableHash, root_hash
from agentos_store.operations.moving.sources import DatabaseSource, snapshot
from agentos_store.operations.moving.tables import MovedTable, moved_tables

if TYPE_CHECKING:
    from sqlalchemy import URL

    from agentos_store.settings import Settings

NAMED = 10
"""Rows of a table that are named when they differ."""


def copy_store(
    source: str | URL,
    target: str | URL,
    *,
    source_schema: str | None = None,
    target_schema: str | None = None,
    settings: Settings | None = None,
    restart: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
) -> MoveReport:
    """Copy all rows of one database into another, on SQLite or PostgreSQL alike; return what is there then.

    The source is only read, at one moment; what is written there meanwhile is not copied, so it should be at rest. The
    target is made if it is not there, and must be empty, or hold a copy of the same rows that was stopped: that goes on
    where it stopped, if the source is still the same. Until all is copied, indexed and read back, no store opens the
    target. ``restart`` begins a stopped copy anew; ``replace`` removes whatever the target holds. ``progress`` is told
    the stage, how far it is, and how far it goes.

    Raises ConflictError when source and target are one database, when the target is not empty or somebody else copies
    into it, and when the source has changed since a copy was stopped; SchemaMismatchError when either is at another
    revision; NotFoundError for a file that is not there.
    """
    origin = place(source, source_schema, settings, "source")
    goal = place(target, target_schema, settings, "target")
    check_source(origin)
    with connect(origin) as backend:
        return _copy(backend, goal, restart=restart, replace=replace, progress=progress)


def copy_into(
    backend: Backend,
    target: str | URL,
    schema: str | None,
    *,
    restart: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
) -> MoveReport:
    """Copy what an open database holds, as ``copy_store`` does."""
    goal = place(target, schema, None, "target")
    return _copy(backend, goal, restart=restart, replace=replace, progress=progress)


def _copy(backend: Backend, target: Target, *, restart: bool, replace: bool, progress: Progress | None) -> MoveReport:
    _refuse_same(backend, target)
    with snapshot(backend) as source:
        return move(source, target, restart=restart, replace=replace, progress=progress)


@dataclass(frozen=True, slots=True)
class TableComparison:
    """A table of two databases, side by side."""

    source: TableHash
    target: TableHash
    differing: int
    """Rows that only one of them has, or that hold something else."""
    first: Sequence[str]
    """The first of these: their keys, and what is different."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two databases, side by side."""

    source: str
    target: str
    tables: Mapping[str, TableComparison]

    @property
    def ok(self) -> bool:
        """Whether both hold the same."""
        return not any(table.differing for table in self.tables.values())

    @property
    def source_root_hash(self) -> str:
        """The hash over all tables of the source."""
        return root_hash({name: table.source for name, table in self.tables.items()})

    @property
    def target_root_hash(self) -> str:
        """The hash over all tables of the target."""
        return root_hash({name: table.target for name, table in self.tables.items()})


def compare_stores(
    source: str | URL,
    target: str | URL,
    *,
    source_schema: str | None = None,
    target_schema: str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two databases row by row, each at one moment, and name the first rows of each table that differ.

    What belongs to the place is left out: search indexes, and the numbers of a server.
    """
    places = place(source, source_schema, settings, "source"), place(target, target_schema, settings, "target")
    for each in places:
        check_source(each)
    with connect(places[0]) as one, connect(places[1]) as other, snapshot(one) as left, snapshot(other) as right:
        total = sum(left.counts.values()) + sum(right.counts.values())
        done = 0
        tables = {}
        for table in moved_tables():
            found = tables[table.name] = _compare(table, left, right)
            done += found.source.rows + found.target.rows
            if progress is not None:
                progress("comparing", done, total)
        return Comparison(left.name, right.name, tables)


class _Side:
    """The rows of one side, one after another, with their hash."""

    def __init__(self, table: MovedTable, source: DatabaseSource) -> None:
        self._rows = self._walk(table, source)
        self.hash = TableHash()
        self.next: tuple[Any, Any, bytes] | None = None
        self.advance()

    def _walk(self, table: MovedTable, source: DatabaseSource) -> Iterator[tuple[Any, Any, bytes]]:
        for batch in source.batches(table):
            self.hash = self.hash.plus(batch.lines)
            for row, line in zip(batch.rows, batch.lines, strict=True):
                yield table.key_of(row), row, line

    def advance(self) -> None:
        """Go on to the next row."""
        self.next = next(self._rows, None)


def _compare(table: MovedTable, source: DatabaseSource, target: DatabaseSource) -> TableComparison:
    left, right = _Side(table, source), _Side(table, target)
    count = 0
    first: list[str] = []
    while left.next is not None or right.next is not None:
        what = None
        if right.next is None or (left.next is not None and left.next[0] < right.next[0]):
            assert left.next is not None
            key, what = left.next[0], "is only in the source"
            left.advance()
        elif left.next is None or right.next[0] < left.next[0]:
            key, what = right.next[0], "is only in the target"
            right.advance()
        else:
            key = left.next[0]
            if left.next[2] != right.next[2]:
                names = [
                    name
                    for name, one, other in zip(table.names, left.next[1], right.next[1], strict=True)
                    if one != other or type(one) is not type(other)
                ]
                what = f"differs in {', '.join(names)}"
            left.advance()
            right.advance()
        if what is not None:
            count += 1
            if len(first) < NAMED:
                first.append(f"{', '.join(map(str, key))}: {what}")
    return TableComparison(left.hash, right.hash, count, first)


def _refuse_same(backend: Backend, target: Target) -> None:
    if target.path is not None:
        source = Target(backend.url, None, target.settings).path if backend.schema is None else None
        same = source is not None and target.path.exists() and source.samefile(target.path)
    else:
        # By another name of the same server it is found not to be empty.
        same = backend.schema == target.schema and backend.url == target.url
    if same:
        raise ConflictError("database", target.describe(), "is both the source and the target")
