"""A connection borrowed from the pool: prepared statements in, rows out, faults as the store's errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy.pool import PoolProxiedConnection

from agentos_store.engine.capabilities import Capabilities
from agentos_store.engine.postgresql.connect import cursor_of
from agentos_store.engine.postgresql.faults import is_disconnect, translate
from agentos_store.engine.statement import Prepared, Statement
from agentos_store.engine.version import quote_name
from agentos_store.errors import StoreError, TransientError

M = TypeVar("M")

STREAMED = 8
"""Rows that are asked for at a time while many are streamed: few, for each may be large."""

BEGIN_READING = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

BEGIN_WRITING = "BEGIN ISOLATION LEVEL READ COMMITTED"

POOL_EXHAUSTED = "pool"
"""The code of the error that says that all connections were in use for too long."""

READ_ONLY = "25006"
"""The server takes no writes: it is a standby, or was made one."""


class Lender(Protocol):
    """Whose connection it is: the primary's pool, or the replica's."""

    schema: str
    lock_timeout: float
    max_payload: int

    @property
    def capabilities(self) -> Capabilities:
        """What the database can do."""

    @property
    def fails_over(self) -> bool:
        """Whether another connection may lead to another server, which takes what this one refused."""

    def prepared(self, statement: Statement[M]) -> Prepared[M]:
        """Return the statement as it is compiled for the schema."""

    def prepare(self, raw: psycopg.Connection[Any]) -> None:
        """Set up the driver's side of a connection that was not made here."""

    def lost(self, borrowed: PoolProxiedConnection) -> None:
        """Lend none of the connections again that were made before now."""


class PostgreSQLConnection:
    """A driver connection, borrowed from the pool, that runs prepared statements."""

    __slots__ = ("_backend", "_borrowed", "_found", "cursor", "raw")

    def __init__(self, backend: Lender, borrowed: PoolProxiedConnection) -> None:
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

    def stream(self, prepared: Prepared[Any], values: list[object]) -> Iterator[Any]:
        """Execute and yield each row as it is read; the server sends no more than is taken."""
        size = STREAMED if psycopg.capabilities.has_stream_chunked() else 1
        try:
            yield from self.cursor.stream(prepared.text, values, size=size)
        except psycopg.Error as error:
            raise self.meaning(error) from None

    def copy(self, table: str, columns: Sequence[str], chunks: Iterable[str], *, null: str) -> int:
        """Stream rows in, in COPY's text format; ``null`` stands for NULL."""
        names = ", ".join(map(quote_name, columns))
        where = f"{quote_name(self._backend.schema)}.{quote_name(table)}"
        text = f"COPY {where} ({names}) FROM STDIN WITH (NULL '{null}')"
        try:
            with self.cursor.copy(text.encode()) as stream:
                for chunk in chunks:
                    stream.write(chunk)
        except psycopg.Error as error:
            raise self.meaning(error) from None
        return self.cursor.rowcount

    def begin(self) -> None:
        """Begin a transaction that writes."""
        self.command(BEGIN_WRITING)

    def command(self, text: str) -> None:
        """Send a command that starts or ends something."""
        try:
            self.cursor.execute(text.encode(), prepare=False)
        except psycopg.Error as error:
            raise self.meaning(error) from None

    def ask(self, question: bytes) -> Any:
        """Return the one value that a question without parameters gives."""
        try:
            row = self.cursor.execute(question).fetchone()
        except psycopg.Error as error:
            raise self.meaning(error) from None
        return None if row is None else row[0]

    @property
    def info(self) -> dict[Any, Any]:
        """What is remembered of the connection for as long as it lives."""
        return self._borrowed.info

    def meaning(self, error: psycopg.Error) -> StoreError:
        """Return the store's error for one of the driver's, and give up a connection that is of no more use."""
        if error.sqlstate == READ_ONLY and self._backend.fails_over:
            # Another server took its place. Nothing was stored here.
            self._backend.lost(self._borrowed)
            return TransientError("the server only accepts reads by now", code=READ_ONLY)
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
