"""A connection borrowed from the pool: prepared statements in, rows out, faults as the store's errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy.pool import PoolProxiedConnection

from agentos_store.engine.capabilities import Capabilities
from agentos_store.engine.postgresql.connect import cursor_of
from agentos_store.engine.postgresql.faults import is_disconnect, translate
from agentos_store.engine.statement import Prepared, Statement
from agentos_store.engine.version import quote_name
from agentos_store.errors import StoreError

if TYPE_CHECKING:
    from agentos_store.engine.postgresql.backend import PostgreSQLBackend

M = TypeVar("M")


class PostgreSQLConnection:
    """A driver connection, borrowed from the pool, that runs prepared statements."""

    __slots__ = ("_backend", "_borrowed", "_found", "cursor", "raw")

    def __init__(self, backend: PostgreSQLBackend, borrowed: PoolProxiedConnection) -> None:
        raw: Any = borrowed.dbapi_connection
        assert isinstance(raw, psycopg.Connection)
        self._backend = backend
        self._borrowed = borrowed
        self.raw = raw
        self._found: tuple[bool, int | None] | None = None
        if not raw.autocommit:
            # Of an engine that belongs to somebody else, who gets it back as it was.
            self._found = raw.autocommit, raw.prepare_threshold
            raw.autocommit = True
            backend.prepare(raw)
        self.cursor = cursor_of(raw, borrowed.info)

    @property
    def capabilities(self) -> Capabilities:
        """What this database can do."""
        return self._backend.capabilities

    @property
    def max_payload(self) -> int:
        """Bytes of the largest value."""
        return self._backend.max_payload

    def prepared(self, statement: Statement[M]) -> Prepared[M]:
        """Return the statement as it is compiled for this schema."""
        return self._backend.prepared(statement)

    def execute(self, prepared: Prepared[Any], values: list[object]) -> tuple[list[Any], int]:
        """Execute and fetch everything, in one round trip."""
        cursor = self.cursor
        try:
            cursor.execute(prepared.text, values)
            result = cursor.pgresult
            # Whether rows came is asked of libpq: psycopg's description of the columns is made anew at each look.
            if result is None or result.nfields == 0:
                return [], cursor.rowcount
            rows = cursor.fetchall()
        except psycopg.Error as error:
            raise self.meaning(error) from None
        return rows, len(rows)

    def execute_many(self, prepared: Prepared[Any], values: Sequence[Sequence[object]]) -> int:
        """Execute once for each list of values, without waiting for each answer."""
        try:
            self.cursor.executemany(prepared.text, values)
        except psycopg.Error as error:
            raise self.meaning(error) from None
        return self.cursor.rowcount

    def copy(self, table: str, columns: Sequence[str], chunks: Iterable[str]) -> int:
        """Stream rows in, in COPY's text format; an empty field is NULL."""
        names = ", ".join(map(quote_name, columns))
        where = f"{quote_name(self._backend.schema)}.{quote_name(table)}"
        text = f"COPY {where} ({names}) FROM STDIN WITH (NULL '')"
        try:
            with self.cursor.copy(text.encode()) as stream:
                for chunk in chunks:
                    stream.write(chunk)
        except psycopg.Error as error:
            raise self.meaning(error) from None
        return self.cursor.rowcount

    def command(self, text: str) -> None:
        """Send a command that starts or ends something."""
        try:
            self.cursor.execute(text.encode(), prepare=False)
        except psycopg.Error as error:
            raise self.meaning(error) from None

    def meaning(self, error: psycopg.Error) -> StoreError:
        """Return the store's error for one of the driver's, and give up a connection that is of no more use."""
        if is_disconnect(error):
            self._backend.lost(self._borrowed)
        return translate(error, waited=self._backend.lock_timeout)

    def give_back(self) -> None:
        """Return the connection to the pool, with nothing open on it."""
        borrowed, raw = self._borrowed, self.raw
        try:
            if not borrowed.is_valid:
                return
            status = raw.info.transaction_status
            if status is TransactionStatus.IDLE:
                self._restore()
            elif status in (TransactionStatus.INTRANS, TransactionStatus.INERROR) and not raw.closed:
                try:
                    self.cursor.execute(b"ROLLBACK", prepare=False)
                    self._restore()
                except psycopg.Error:
                    borrowed.invalidate()
            else:
                # Closed, or in the middle of a statement that was interrupted.
                borrowed.invalidate()
        finally:
            borrowed.close()

    def _restore(self) -> None:
        if self._found is not None:
            self.raw.autocommit, self.raw.prepare_threshold = self._found
