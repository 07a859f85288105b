"""What a damaged file says of its tables and indexes, and what a sound one of the same revision says."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentos_store.engine.sqlite.functions import register_functions
from agentos_store.engine.version import TABLE as VERSION
from agentos_store.operations.salvage.pages import DamageError
from agentos_store.operations.salvage.trees import Forest, Hole

_KINDS = {"table", "index", "trigger", "view"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column as its table has it in the file."""

    name: str
    is_real: bool
    is_rowid: bool
    """Whether the number of the row is its value."""
    default: object
    """What a row has that was written before the column was added."""


@dataclass(slots=True)
class Found:
    """A table of the damaged file."""

    name: str
    root: int | None
    """None where the file does not say any more where it begins."""
    columns: Sequence[Column]
    indexes: Mapping[str, tuple[int, bool]]
    """By name where each begins, and whether every row is in it."""


class Catalogue:
    """The schema of a damaged file, as far as it can be read."""

    def __init__(self, forest: Forest) -> None:
        self._forest = forest
        self.entries: dict[tuple[str, str], tuple[str, int, str | None]] = {}
        """By kind and name: the table, where it begins, and how it was made."""
        self.is_whole = True
        tree = forest.table(1)
        for number in tree.leaves:
            self._read(number)
        if tree.holes:
            self.is_whole = False
            self._read_strays(tree.holes)

    def _read(self, number: int) -> None:
        pages = self._forest.pages
        page = pages.page(number)
        if page.missing:
            self.is_whole = False
        for cell in page.cells:
            try:
                entry = pages.record(page, cell)
            except DamageError:
                self.is_whole = False
                continue
            if not self._add(entry):
                self.is_whole = False

    def _read_strays(self, holes: Sequence[Hole]) -> None:
        pages = self._forest.pages
        for page in self._forest.strays():
            try:
                entries = [pages.record(page, cell) for cell in page.cells]
            except DamageError:
                continue
            within = any(hole.above < number <= hole.upto for hole in holes for number in self._forest.numbers(page))
            if within and all(map(_is_entry, entries)):
                self._forest.taken.add(page.number)
                for entry in entries:
                    self._add(entry)

    def _add(self, entry: Sequence[object]) -> bool:
        if not _is_entry(entry):
            return False
        kind, name, table, root, made = entry
        assert isinstance(root, int)
        assert made is None or isinstance(made, str)
        self.entries[str(kind), str(name)] = (str(table), root, made)
        return True

    def tables(self, sound: Mapping[str, tuple[str, Sequence[Column]]]) -> Iterator[Found]:
        """Yield the tables of a sound file as they stand in this one."""
        for name, (_, columns) in sound.items():
            entry = self.entries.get(("table", name))
            root, made = (entry[1], entry[2]) if entry is not None else (None, None)
            own = None if made is None else _ours(columns, columns_of(name, made))
            indexes = {
                index: (where, condition is None or " WHERE " not in condition.upper())
                for (kind, index), (table, where, condition) in self.entries.items()
                if kind == "index" and table == name
            }
            yield Found(name, root, own or columns, indexes)

    def root_of(self, name: str) -> int | None:
        """Return where a table begins."""
        entry = self.entries.get(("table", name))
        return None if entry is None else entry[1]


def _is_entry(entry: Sequence[object]) -> bool:
    if len(entry) != 5:
        return False
    kind, name, table, root, made = entry
    return (
        kind in _KINDS
        and isinstance(name, str)
        and isinstance(table, str)
        and isinstance(root, int)
        and (made is None or isinstance(made, str))
    )


def read_sound(path: Path) -> dict[str, tuple[str, Sequence[Column]]]:
    """Return the tables of a sound file, those of virtual tables left out: how each was made, and its columns."""
    with contextlib.closing(sqlite3.connect(path)) as raw:
        found = raw.execute(
            "SELECT name, sql FROM sqlite_master AS t WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
            " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND NOT EXISTS"
            " (SELECT 1 FROM sqlite_master AS v WHERE v.sql LIKE 'CREATE VIRTUAL%' AND t.name GLOB v.name || '_*')"
        ).fetchall()
    return {name: (made, columns_of(name, made) or ()) for name, made in found if name != VERSION}


def _ours(sound: Sequence[Column], found: Sequence[Column] | None) -> Sequence[Column] | None:
    """Return the columns in the order of the file; None when it has one that is not ours, so that its text is damaged.

    A changed letter of a name leaves a statement that SQLite takes; only the values would be left without a place.
    """
    ours = {column.name: column for column in sound}
    if found is None or any(column.name not in ours for column in found):
        return None
    return [ours[column.name] for column in found]


def columns_of(table: str, made: str) -> Sequence[Column] | None:
    """Return the columns of a table by the statement that made it; None when that is none."""
    if not made.upper().startswith("CREATE TABLE "):
        return None
    with contextlib.closing(sqlite3.connect(":memory:")) as raw:
        register_functions(raw)
        try:
            raw.execute(made)
            found = raw.execute("SELECT name, type, dflt_value, pk FROM pragma_table_info(?)", (table,)).fetchall()
            keys = sum(1 for *_, key in found if key)
            return [
                Column(
                    name,
                    is_real=kind.upper() == "REAL",
                    is_rowid=bool(key) and keys == 1 and kind.upper() == "INTEGER",
                    default=None if default is None else raw.execute(f"SELECT {default}").fetchone()[0],
                )
                for name, kind, default, key in found
            ]
        except sqlite3.Error:
            return None
