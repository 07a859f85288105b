"""Rows on their way: a line of JSON for each, the same for both databases, and hashes over the lines.

A line is a JSON array of the moved columns' values in their canonical form (see ``forms``), in the model's order, in
UTF-8 and without spaces. The hash of a table is the number of its rows and the sum of their lines' SHA-256, modulo
2**256: the order of rows does not matter, and it can be added to as rows come.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from agentos_store.errors import InvalidValueError
from agentos_store.operations.moving.tables import MovedTable, moved_table

Row = Sequence[Any]
"""A row's values in their canonical form."""

BATCH_BYTES = 1_000_000
"""Of the lines that are held, and written in one transaction, at a time; a single longer one is let pass."""

BATCH_ROWS = 5_000

_MODULUS = 1 << 256
_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":")).encode
_decode = json.JSONDecoder().decode


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a table, in the order of their keys, with their lines."""

    rows: Sequence[Row]
    lines: Sequence[bytes]
    """Without line ends."""


@dataclass(frozen=True, slots=True)
class TableHash:
    """How many rows, and what they hold."""

    rows: int = 0
    sum: int = 0

    def plus(self, lines: Iterable[bytes]) -> TableHash:
        """Return the hash with more rows."""
        count = total = 0
        for line in lines:
            count += 1
            total += int.from_bytes(sha256(line).digest(), "big")
        return TableHash(self.rows + count, (self.sum + total) % _MODULUS)

    @property
    def hex(self) -> str:
        """The sum, as 64 hexadecimal digits."""
        return f"{self.sum:064x}"

    @classmethod
    def of(cls, rows: int, digits: str) -> TableHash:
        """Return the hash of which ``rows`` and ``hex`` are these."""
        return cls(rows, int(digits, 16))


def root_hash(hashes: Mapping[str, TableHash]) -> str:
    """Return the hash over tables: their names, their columns, and their hashes; 64 hexadecimal digits."""
    lines = [f"{name} {','.join(moved_table(name).names)} {each.rows} {each.hex}\n" for name, each in hashes.items()]
    return sha256("".join(sorted(lines)).encode()).hexdigest()


def line_of(table: MovedTable, row: Row) -> bytes:
    """Return the line of a row; raise InvalidValueError for what no line can hold: a NaN, a lone surrogate."""
    try:
        return _encode(row).encode()
    except (ValueError, TypeError):
        raise InvalidValueError(_called(table, row), "holds a value that only this database can store") from None


def row_of(table: MovedTable, line: bytes) -> Row:
    """Return the row of a line; raise InvalidValueError for what is no line of this table."""
    try:
        row: Any = _decode(line.decode())
    except (ValueError, RecursionError):
        raise InvalidValueError(table.name, "a line is not JSON") from None
    if not isinstance(row, list) or len(row) != len(table.columns):
        raise InvalidValueError(table.name, f"a line is not an array of {len(table.columns)} values")
    for value, column, form in zip(row, table.columns, table.forms, strict=True):
        if value is not None and not form.admit(value):
            raise InvalidValueError(f"{table.name}.{column.name}", "holds a value that the column cannot have")
    if _encode(row).encode() != line:
        raise InvalidValueError(table.name, "a line is not written as lines are")
    return row


def in_batches(table: MovedTable, rows: Iterator[Row]) -> Iterator[Batch]:
    """Yield rows in batches of about ``BATCH_BYTES``, so that memory does not grow with the table."""
    taken: list[Row] = []
    lines: list[bytes] = []
    size = 0
    for row in rows:
        line = line_of(table, row)
        taken.append(row)
        lines.append(line)
        size += len(line)
        if size >= BATCH_BYTES or len(taken) >= BATCH_ROWS:
            yield Batch(taken, lines)
            taken, lines, size = [], [], 0
    if taken:
        yield Batch(taken, lines)


def _called(table: MovedTable, row: Row) -> str:
    key = ", ".join(map(str, table.key_of(row)))
    return f"{table.name} ({key})"
