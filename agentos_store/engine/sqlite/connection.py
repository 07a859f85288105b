"""The connection to SQLite as sessions use it: prepared statements in, rows out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from agentos_store.engine.capabilities import Capabilities
from agentos_store.engine.session import Call, Session
from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.statement import Prepared, Statement

M = TypeVar("M")

CAPABILITIES = Capabilities(
    backend="sqlite",
    server_version=sqlite3.sqlite_version,
    data_modifying_cte=False,
    skip_locked=False,
    notify=False,
    advisory_locks=False,
    row_locks=False,
    ordered_commits=True,
    copy=False,
    full_text_table=True,
    partitions=False,
    vector_index=False,
)

DIALECT = SQLiteDialect_pysqlite()
_prepared: dict[Statement[Any], Prepared[Any]] = {}


class SQLiteConnection:
    """A driver connection that runs prepared statements."""

    __slots__ = ("max_payload", "raw")
    capabilities = CAPABILITIES

    def __init__(self, raw: sqlite3.Connection, max_payload: int) -> None:
        self.raw = raw
        self.max_payload = max_payload

    def session(self, call: Call) -> Session:
        """Return a session that may write."""
        return Session(self, call)

    def prepared(self, statement: Statement[M]) -> Prepared[M]:
        """Return the statement as it is compiled for SQLite."""
        found = _prepared.get(statement)
        if found is None:
            found = statement.prepare(DIALECT, None)
            if statement.lasting:
                _prepared[statement] = found
        return found

    def execute(self, prepared: Prepared[Any], values: list[object]) -> tuple[list[Any], int]:
        """Execute and fetch everything."""
        try:
            cursor = self.raw.execute(prepared.text, values)
            rows = cursor.fetchall()
            count = len(rows) or cursor.rowcount
            if count < 0 and prepared.writes:
                # The module takes what begins with WITH for a SELECT and does not count.
                count = self.raw.execute("SELECT changes()").fetchone()[0]
        except sqlite3.Error as error:
            raise translate(error) from None
        return rows, count

    def stream(self, prepared: Prepared[Any], values: list[object]) -> Iterator[Any]:
        """Execute and yield each row as it is read."""
        try:
            yield from self.raw.execute(prepared.text, values)
        except sqlite3.Error as error:
            raise translate(error) from None

    def copy(self, table: str, columns: Sequence[str], chunks: Iterable[str], *, null: str) -> int:
        """Refuse: there is no such thing."""
        raise NotImplementedError

    def begin(self) -> None:
        """Refuse: a body that writes is always in a transaction."""
        raise NotImplementedError

    def execute_many(self, prepared: Prepared[Any], values: Sequence[Sequence[object]]) -> int:
        """Execute once for each list of values."""
        try:
            return self.raw.executemany(prepared.text, values).rowcount
        except sqlite3.Error as error:
            raise translate(error) from None
