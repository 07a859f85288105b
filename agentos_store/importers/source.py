"""The tables of another system's SQLite file and their rows, read past whatever damage there is."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias

from agentos_store.errors import UsageError
from agentos_store.importers.jsontext import UNSTORABLE
from agentos_store.importers.opening import DAMAGE, named, open_file, state_of
from agentos_store.importers.problems import Problem

Value: TypeAlias = "str | int | float | bytes | None"

_LOWEST: Final = -(2**63)
_HIGHEST: Final = 2**63 - 1
_SINGLE_STEPS: Final = 2_000
"""Rows after damage that are tried one by one before the steps double."""


@dataclass(frozen=True, slots=True)
class Found:
    """A row as it was found; a text that is no UTF-8 holds its bytes as lone surrogates (``surrogateescape``)."""

    table: str
    rowid: int
    values: Mapping[str, Value]


class SourceFile:
    """The open file: its tables, their columns and their rows."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._columns: dict[str, tuple[str, ...]] = {}
        self._stack = ExitStack()
        self._closed = False
        self._state = state_of(self.path)
        try:
            self._connection, self.problems = open_file(self.path, self._stack)
            """The problems of the file as a whole and of its tables' definitions."""
            self._read_schema()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and remove the copy, if there was need of one."""
        self._closed = True
        self._stack.close()

    @property
    def tables(self) -> Mapping[str, tuple[str, ...]]:
        """The columns of each table, without SQLite's own tables and those that full-text search keeps for itself."""
        return self._columns

    @property
    def changed(self) -> bool:
        """Whether the file, or a log beside it, is no longer what it was when it was opened."""
        return state_of(self.path) != self._state

    @property
    def is_copy(self) -> bool:
        """Whether a copy is read, as the file and its log were at one moment; what is written since does no harm."""
        _, _, opened = self._connection.execute("PRAGMA database_list").fetchone()
        return Path(opened) != self.path.resolve()

    def rows(self, table: str) -> Iterator[Found | Problem]:
        """Give the rows in the order of their numbers; what cannot be read is given as a Problem in its place."""
        names = self._columns.get(table)
        if names is None:
            return
        chosen = ", ".join(f"{_quoted(name)} AS c{number}" for number, name in enumerate(names))
        # NOT INDEXED: an index may be damaged where the table is not.
        select = f"SELECT rowid AS r, {chosen} FROM {_quoted(table)} NOT INDEXED WHERE rowid >= ? ORDER BY rowid"
        first = _LOWEST
        while first <= _HIGHEST:
            reason = ""
            try:
                cursor = self._connection.execute(select, (first,))
                try:
                    for rowid, *values in cursor:
                        if rowid < first:
                            reason = "the rows are out of order"
                            break
                        yield Found(table, rowid, dict(zip(names, values, strict=True)))
                        first = rowid + 1
                    else:
                        return
                finally:
                    # An iterator that was left half read may outlive the connection.
                    with suppress(sqlite3.Error):
                        cursor.close()
            except DAMAGE as damage:
                reason = named(damage)
            if self._closed:
                raise UsageError("the file was closed while it was being read; read it inside the with block")
            # Python's cursor is one row ahead: what it stumbled over may be the row after the next.
            single = self._at_or_after(f"{select} LIMIT 1", first)
            if single is not None:
                rowid, *values = single
                yield Found(table, rowid, dict(zip(names, values, strict=True)))
                first = rowid + 1
                continue
            onward = self._first_readable(f"{select} LIMIT 1", first)
            if onward is None:
                yield Problem(table, f"rowid {first} on" if first > _LOWEST else "*", f"unreadable: {reason}")
                return
            yield Problem(table, _span(first, onward - 1), f"unreadable: {reason}")
            first = onward

    def row(self, table: str, rowid: int) -> Found | None:
        """Return one row, or None when there is none that can be read."""
        names = self._columns[table]
        chosen = ", ".join(f"{_quoted(name)} AS c{number}" for number, name in enumerate(names))
        select = f"SELECT rowid AS r, {chosen} FROM {_quoted(table)} NOT INDEXED WHERE rowid = ?"
        try:
            found = self._connection.execute(select, (rowid,)).fetchone()
        except DAMAGE:
            return None
        return None if found is None else Found(table, rowid, dict(zip(names, found[1:], strict=True)))

    def count(self, table: str) -> int:
        """Return the number of rows that can be read."""
        try:
            # Damage inside a row does not hinder this count, so it may be higher than that of the rows given.
            (number,) = self._connection.execute(f"SELECT count(*) FROM {_quoted(table)} NOT INDEXED").fetchone()
            return int(number)
        except DAMAGE:
            return sum(isinstance(found, Found) for found in self.rows(table))

    def check(self) -> tuple[Problem, ...]:
        """Let SQLite walk through the whole file and return what it finds wrong with it."""
        try:
            found = self._connection.execute("PRAGMA quick_check(100)").fetchall()
        except DAMAGE as damage:
            return (Problem("*", "*", f"unreadable: {named(damage)}"),)
        return tuple(Problem("*", "*", _clean(str(text))) for (text,) in found if text != "ok")

    def _at_or_after(self, probe: str, start: int) -> tuple[int, *tuple[Value, ...]] | None:
        """Return the number and values of the next row; None when it cannot be read."""
        try:
            found: tuple[int, *tuple[Value, ...]] | None = self._connection.execute(probe, (start,)).fetchone()
        except DAMAGE:
            return None
        return found if found is not None and found[0] >= start else None

    def _first_readable(self, probe: str, first: int) -> int | None:
        """Return the least row number after ``first``, as far as probing tells, from which on a row can be read.

        Just after the damage each number is tried; further on the steps double, and the last of them is halved back.
        """

        def works(start: int) -> bool:
            return self._at_or_after(probe, start) is not None

        bad, start = first, max(first + 1, 1)  # None of these systems numbers rows below 1.
        tries, step = 0, 1
        while not works(start):
            if start >= _HIGHEST:
                return None
            bad = start
            tries += 1
            if tries > _SINGLE_STEPS:
                step *= 2
            start = min(start + step, _HIGHEST)
        good = start
        while good - bad > 1:
            middle = (good + bad) // 2
            if works(middle):
                good = middle
            else:
                bad = middle
        return good

    def _read_schema(self) -> None:
        master = "sqlite_master"
        self._columns[master] = ("type", "name", "rootpage", "sql")
        definitions = []
        for found in self.rows(master):
            if isinstance(found, Problem):
                self.problems.append(found)
            else:
                definitions.append(found.values)
        del self._columns[master]
        if any(definition["type"] not in {"table", "index", "view", "trigger"} for definition in definitions):
            self.problems.append(Problem(master, "*", "unreadable in part: it defines something of no known type"))
        tables = [definition for definition in definitions if definition["type"] == "table"]
        virtual = [
            str(table["name"]) for table in tables if str(table["sql"]).lstrip().upper().startswith("CREATE VIRTUAL")
        ]
        roots = Counter(str(definition["rootpage"]) for definition in definitions if definition["rootpage"])
        for table in tables:
            name = str(table["name"])
            if name.startswith("sqlite_") or name in virtual or _is_shadow(name, virtual):
                continue
            if UNSTORABLE.search(name):
                self.problems.append(Problem(_clean(name), "*", "unreadable: its name is damaged"))
            elif roots[str(table["rootpage"])] > 1:
                self.problems.append(Problem(name, "*", "unreadable: it shares its first page with another"))
            else:
                self._read_columns(name)

    def _read_columns(self, table: str) -> None:
        try:
            found = self._connection.execute(f"PRAGMA table_info({_quoted(table)})").fetchall()
            names = [name for _, name, *_ in found if not UNSTORABLE.search(name)]
            if len(names) < len(found):
                self.problems.append(Problem(table, "*", "unreadable in part: the name of a column is damaged"))
            if names:
                self._connection.execute(f"SELECT rowid FROM {_quoted(table)} NOT INDEXED LIMIT 0")
                self._columns[table] = tuple(names)
            else:
                self.problems.append(Problem(table, "*", "unreadable: its definition is damaged"))
        except DAMAGE as damage:
            self.problems.append(Problem(table, "*", f"unreadable: {named(damage)}"))


def _span(first: int, last: int) -> str:
    if first == _LOWEST:
        return f"rowid up to {last}"
    return f"rowid {first}" if first == last else f"rowid {first} to {last}"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _clean(text: str) -> str:
    return UNSTORABLE.sub("\ufffd", text)


def _is_shadow(name: str, virtual: Sequence[str]) -> bool:
    endings = ("data", "idx", "content", "docsize", "config", "segments", "segdir", "stat", "node", "parent", "rowid")
    return any(name == f"{table}_{ending}" for table in virtual for ending in endings)
