"""The rows of one table of a damaged file: what can be read, and what is known to be lost."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Table

from agentos_store.engine.sqlite.connection import DIALECT
from agentos_store.errors import InvalidValueError
from agentos_store.models import metadata
from agentos_store.operations.salvage.catalogue import Column, Found
from agentos_store.operations.salvage.pages import INDEX_INNER, INDEX_LEAF, DamageError, Page
from agentos_store.operations.salvage.trees import GREATEST, LEAST, Forest, Hole, Tree

EXAMPLES = 20

Row = dict[str, object]


@dataclass(slots=True)
class Known:
    """The rows that indexes know of."""

    keys: dict[int, object] = field(default_factory=dict)
    """By the number of the row its key."""
    is_whole: bool = False
    """Whether an index of every row could be read to the end."""


class Reading:
    """One table, and the places where its rows are looked for."""

    def __init__(self, forest: Forest, found: Found) -> None:
        self.found = found
        self._forest = forest
        self._pages = forest.pages
        self.tree = forest.table(found.root) if found.root else Tree()
        if not found.root or (self._is_empty() and self._has_keys()):
            # Another page, which is sound, may have been written to the place of the root.
            self.tree = Tree(holes=[Hole(found.root or 0, LEAST - 1, GREATEST)])
        self.gate = Gate(found)
        self.seen: set[int] | None = set() if self.tree.holes else None
        """The numbers of the rows that were read; None while no row of the table is missing."""
        self.broken = 0
        """Rows whose page could be read and whose values could not."""

    def _is_empty(self) -> bool:
        return self.tree.is_whole and not any(self._pages.page(number).cells for number in self.tree.leaves)

    def _has_keys(self) -> bool:
        for root, has_all in self.found.indexes.values():
            with contextlib.suppress(DamageError):
                page = self._pages.page(root)
                if has_all and page.cells and page.kind in {INDEX_INNER, INDEX_LEAF}:
                    return True
        return False

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield each row that can be reached, with its number."""
        for number in self.tree.leaves:
            yield from self.of_page(self._pages.page(number))

    def of_page(self, page: Page) -> Iterator[tuple[int, Row]]:
        """Yield the rows of a leaf."""
        self.broken += page.missing
        for cell in page.cells:
            number = self._pages.rowid(page, cell)
            try:
                row = self.gate.name(number, self._pages.record(page, cell))
            except DamageError:
                self.broken += 1
                continue
            if self.seen is not None:
                self.seen.add(number)
            yield number, row

    def has_room_for(self, numbers: Sequence[int]) -> bool:
        """Tell whether rows of these numbers may be in a hole."""
        return any(hole.above < numbers[0] and numbers[-1] <= hole.upto for hole in self.tree.holes)

    def could_be(self, page: Page) -> bool:
        """Tell whether the rows of a leaf that nothing leads to may be rows of this table."""
        tried = False
        for cell in itertools.islice(page.cells, 5):
            try:
                row = self.gate.name(self._pages.rowid(page, cell), self._pages.record(page, cell))
            except DamageError:
                continue
            if self.gate.refuse(row) is not None:
                return False
            tried = True
        return tried

    def known(self) -> Known:
        """Return what the indexes know of the rows."""
        known = Known()
        for name, (root, has_all) in sorted(self.found.indexes.items()):
            if not has_all:
                continue
            numbers, is_whole = self._forest.index(root)
            is_key = name == f"sqlite_autoindex_{self.found.name}_1"
            for each in numbers:
                page = self._pages.page(each)
                for cell in page.cells:
                    try:
                        *key, number = self._pages.record(page, cell)
                    except (DamageError, ValueError):
                        is_whole = False
                        continue
                    if not isinstance(number, int) or number < 1:
                        # The first row has the number 1; a page of which the end is missing reads as zeros.
                        is_whole = False
                        continue
                    if is_key:
                        known.keys[number] = key[0] if len(key) == 1 else tuple(key)
                    else:
                        known.keys.setdefault(number, None)
            known.is_whole = known.is_whole or is_whole
        return known


class Gate:
    """What our types say of the values of a table."""

    def __init__(self, found: Found) -> None:
        self._columns: Sequence[Column] = found.columns
        table: Table | None = metadata.tables.get(found.name)
        self._checks: list[tuple[str, bool, Callable[[Any], Any] | None, Callable[[object, str], object]]] = []
        if table is not None:
            for column in table.columns:
                kind: Any = column.type
                if any(each.name == column.name for each in self._columns):
                    self._checks.append(
                        (column.name, bool(column.nullable), kind.decoder(DIALECT), kind.strict_encoder(DIALECT))
                    )

    def name(self, number: int, values: Sequence[object]) -> Row:
        """Return the values by the names of their columns; DamageError when there are more than columns."""
        if len(values) > len(self._columns):
            raise DamageError
        row: Row = {}
        for column, value in itertools.zip_longest(self._columns, values, fillvalue=_ABSENT):
            assert isinstance(column, Column)
            if column.is_rowid:
                row[column.name] = number
            elif value is _ABSENT:
                row[column.name] = column.default
            elif column.is_real and isinstance(value, int):
                # SQLite stores a whole number in fewer bytes.
                row[column.name] = float(value)
            else:
                row[column.name] = value
        return row

    def refuse(self, row: Row) -> str | None:
        """Return why the store would not take the row; None when it would, as far as its types can tell."""
        for name, is_nullable, decode, encode in self._checks:
            value = row[name]
            if value is None:
                if not is_nullable:
                    return f"{name}: is missing"
                continue
            try:
                encode(value if decode is None else decode(value), name)
            except InvalidValueError as error:
                return f"{name}: {error.why}"
            except Exception:  # noqa: BLE001  a decoder may fail in any way on what nobody ever wrote
                return f"{name}: cannot be read"
        return None


_ABSENT = object()
