"""The new file: rows go in one by one, and what the schema does not allow stays out, with the reason."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.sqlite.functions import register_functions
from agentos_store.operations.salvage.report import SalvagedTable
from agentos_store.operations.salvage.rows import Row

NUMBERS = "sqlite_sequence"


class NewFile:
    """A file with an empty schema that is being filled; nobody else knows it."""

    def __init__(self, raw: sqlite3.Connection, left_out: LeftOut) -> None:
        self._raw = raw
        self._left_out = left_out
        self._triggers: list[tuple[str, str]] = []
        self._inserts: dict[str, tuple[str, Sequence[str]]] = {}

    def begin(self) -> None:
        """Take down what would act on the rows: they are what they were, and search is made anew from them."""
        self._raw.execute("PRAGMA foreign_keys=OFF")
        self._raw.execute("BEGIN")
        self._triggers = self._raw.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid"
        ).fetchall()
        for name, _ in self._triggers:
            self._raw.execute(f'DROP TRIGGER "{name}"')

    def end(self) -> None:
        """Put up again what was taken down."""
        for _, made in self._triggers:
            self._raw.execute(made)
        self._raw.execute("COMMIT")

    def columns(self, table: str) -> Sequence[str]:
        """Return the columns of a table."""
        return [name for (name,) in self._raw.execute("SELECT name FROM pragma_table_info(?)", (table,))]

    def add(self, table: str, row: Row, told: SalvagedTable) -> bool:
        """Put a row in; tell whether it is there now, and count it as left out where not."""
        found = self._inserts.get(table)
        if found is None:
            names: Sequence[str] = [name for name in self.columns(table) if name in row]
            listed = ", ".join(f'"{name}"' for name in names)
            found = f'INSERT INTO "{table}" ({listed}) VALUES ({", ".join("?" * len(names))})', names
            self._inserts[table] = found
        statement, names = found
        try:
            self._raw.execute(statement, [row[name] for name in names])
        except sqlite3.IntegrityError as error:
            self.leave_out(table, row, f"the schema refuses it ({_constraint(error)})", told)
            return False
        return True

    def leave_out(self, table: str, row: Row, why: str, told: SalvagedTable) -> None:
        """Count a row that cannot be kept, and write it beside."""
        told.leave_out(why)
        self._left_out.write(table, row, why)

    def mend_links(self, tables: Mapping[str, SalvagedTable]) -> None:
        """See to the rows whose parents are gone: unlink what the schema lets stand alone, leave out what it does not.

        Rows that are left out may have been parents themselves, so it goes on until nothing is found.
        """
        while broken := self._raw.execute("PRAGMA foreign_key_check").fetchall():
            seen: set[tuple[str, int]] = set()
            for table, number, parent, link in broken:
                if (table, number) in seen:
                    # It was left out just now, or another look will show what is left to do.
                    continue
                seen.add((table, number))
                self._mend(table, number, parent, link, tables[table])

    def _mend(self, table: str, number: int, parent: str, link: int, told: SalvagedTable) -> None:
        links = self._raw.execute(
            'SELECT "from", on_delete FROM pragma_foreign_key_list(?) WHERE id = ? ORDER BY seq', (table, link)
        ).fetchall()
        columns = [column for column, _ in links]
        if links[0][1] != "CASCADE":
            cleared = ", ".join(f'"{column}" = NULL' for column in columns)
            try:
                self._raw.execute(f'UPDATE "{table}" SET {cleared} WHERE rowid = ?', (number,))
            except sqlite3.IntegrityError:
                pass
            else:
                name = ", ".join(columns)
                told.unlinked[name] = told.unlinked.get(name, 0) + 1
                return
        cursor = self._raw.execute(f'SELECT * FROM "{table}" WHERE rowid = ?', (number,))
        names = [each[0] for each in cursor.description]
        row = dict(zip(names, cursor.fetchone(), strict=True))
        self._raw.execute(f'DELETE FROM "{table}" WHERE rowid = ?', (number,))
        told.kept -= 1
        self.leave_out(table, row, f"its row of {parent} is gone", told)

    def set_number(self, table: str, number: int) -> None:
        """See that the next row of a table gets a greater number than this one."""
        self._raw.execute(f"UPDATE {NUMBERS} SET seq = max(seq, ?) WHERE name = ?", (number, table))
        if not self._raw.execute("SELECT changes()").fetchone()[0]:
            self._raw.execute(f"INSERT INTO {NUMBERS} (name, seq) VALUES (?, ?)", (table, number))


@contextlib.contextmanager
def filling(path: Path, left_out: LeftOut) -> Iterator[NewFile]:
    """Open the new file for its filling; it is all committed at the end of the block, or nothing is."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
        register_functions(raw)
        try:
            # Half of it is thrown away, and the whole is synced when it gets its name.
            raw.execute("PRAGMA synchronous=OFF")
            raw.execute("PRAGMA cache_size=-65536")
            new = NewFile(raw, left_out)
            new.begin()
            yield new
            new.end()
        except sqlite3.Error as error:
            raise translate(error) from None


class LeftOut:
    """The rows that could be read and cannot be kept, as JSON lines: nothing that was read is thrown away."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None

    def write(self, table: str, row: Row, why: str) -> None:
        """Add a row."""
        if self._file is None:
            self._file = self._path.open("w", encoding="utf-8")
        line = json.dumps({"table": table, "why": why, "row": row}, ensure_ascii=False, default=_as_text)
        self._file.write(line + "\n")

    def close(self) -> bool:
        """Complete the file; tell whether there is one."""
        if self._file is None:
            return False
        self._file.close()
        return True


def _as_text(value: object) -> object:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else str(value)


def _constraint(error: sqlite3.IntegrityError) -> str:
    # Its text names a constraint or columns, and no value.
    return str(error).removesuffix(")")
