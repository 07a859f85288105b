"""Reads on a replica, which are answered there only when it has whatever this store wrote.

A replica replays what the primary wrote, somewhat later. So after a write the store asks the primary once for its
position in the log, and a connection to the replica is used when the replica has come that far; it is waited for
briefly, and then the primary is asked instead. What a connection has seen replayed stays so, which makes most reads one
round trip. What other processes write is seen when the replica has it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from sqlalchemy import URL
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import PoolProxiedConnection

from agentos_store.engine.capabilities import Capabilities
from agentos_store.engine.postgresql.connect import new_pool
from agentos_store.engine.postgresql.connection import BEGIN_READING, POOL_EXHAUSTED, PostgreSQLConnection
from agentos_store.engine.postgresql.faults import translate_connect
from agentos_store.engine.session import Call, Session
from agentos_store.engine.statement import Prepared, Statement
from agentos_store.engine.urls import display
from agentos_store.errors import InvalidValueError, SchemaMismatchError, UnavailableError
from agentos_store.operation import Access, run_body

if TYPE_CHECKING:
    from agentos_store.engine.postgresql.backend import PostgreSQLBackend

M = TypeVar("M")

AWAY = 5.0
"""Seconds for which a replica that failed is left alone."""

LAGGING = 1.0
"""Seconds for which nobody waits for a replica that has just been waited for in vain."""

FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.02
"""Seconds between two looks at how far the replica is."""

NO_ANSWER = object()
"""What comes instead of a result when the primary has to be asked."""

CANCELLED = "57014"
"""A statement took too long; on the primary it would take as long again."""

# A commit is acknowledged when it was flushed, unless the role does not wait for that.
_POSITION = (
    b"SELECT (CASE WHEN current_setting('synchronous_commit') = 'off' THEN pg_current_wal_insert_lsn()"
    b" ELSE pg_current_wal_flush_lsn() END)::text"
)
_REPLAYED = (
    b"SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END)::text"
)
_WHOSE = b"SELECT system_identifier::text || '/' || current_database() FROM pg_control_system()"

_SEEN = "agentos_store_replayed"

log = logging.getLogger("agentos_store.replica")


class Replica:
    """A pool of connections to the replica, and what its reads have to have seen."""

    def __init__(self, primary: PostgreSQLBackend, url: URL, settings: Any) -> None:
        self.url = url
        self.schema = primary.schema
        self.lock_timeout: float = settings.lock_timeout
        self.max_payload = primary.max_payload
        self._primary = primary
        self._settings = settings
        self._wait: float = settings.read_wait
        self._cluster: str | None = None
        self._lock = threading.Lock()
        self._written = object()
        self._asked: object = None
        self._position = 0
        self._away_until = 0.0
        self._impatient_until = 0.0
        self._pool = new_pool(url, settings, reading=True)

    # --- what a connection asks of whoever lends it

    @property
    def capabilities(self) -> Capabilities:
        """What the primary can do."""
        return self._primary.capabilities

    @property
    def fails_over(self) -> bool:
        """Whether a refused write may find another server: nothing is written here."""
        return False

    def prepared(self, statement: Statement[M]) -> Prepared[M]:
        """Return the statement as it is compiled for the schema."""
        return self._primary.prepared(statement)

    def prepare(self, raw: psycopg.Connection[Any]) -> None:
        """Set up the driver's side of a connection."""
        self._primary.prepare(raw)

    def lost(self, borrowed: PoolProxiedConnection) -> None:
        """None of the connections that were made before now is lent again."""
        self._pool._invalidate(borrowed)  # noqa: SLF001  the pool has no public name for it

    # --- reads

    def wrote(self) -> None:
        """Take note that this store has written: the next read has to see it."""
        self._written = object()

    def verify(self) -> None:
        """Raise InvalidValueError for a server that is no replica of this database; one that is down may come back."""
        with contextlib.suppress(UnavailableError):
            # Not every role may ask.
            self._cluster = self._primary.ask(_WHOSE)
        try:
            self._connect().give_back()
        except UnavailableError as error:
            log.warning("reads go to the primary for now: %s", error.why)
            self._away_until = time.monotonic() + AWAY

    def run(self, access: Access, body: Callable[[Session], Any], call: Call) -> Any:
        """Run a body that only reads, or return NO_ANSWER when the primary has to be asked."""
        if time.monotonic() < self._away_until:
            return NO_ANSWER
        position = self._newest()
        connection = self._borrow()
        if connection is None:
            return NO_ANSWER
        try:
            if not self._has_seen(connection, position):
                return NO_ANSWER
            return _run(access, body, connection, call)
        except SchemaMismatchError:
            # The primary was migrated just now.
            return NO_ANSWER
        except UnavailableError as error:
            if error.code == CANCELLED:
                raise
            log.info("a read is left to the primary: %s", error.why)
            return NO_ANSWER
        finally:
            connection.give_back()

    def _newest(self) -> int:
        """Return the position up to which this store may have written."""
        if self._asked is not self._written:
            with self._lock:
                written = self._written
                if self._asked is not written:
                    self._position = _number(self._primary.ask(_POSITION))
                    self._asked = written
        return self._position

    def _borrow(self) -> PostgreSQLConnection | None:
        """Return a connection to the replica; None when it is not to be had, and then nobody asks for a while."""
        is_back = self._away_until > 0.0
        if is_back:
            # The others leave it alone while this one tries.
            self._away_until = time.monotonic() + AWAY
        try:
            connection = self._connect()
        except (UnavailableError, InvalidValueError) as error:
            if isinstance(error, UnavailableError) and error.code == POOL_EXHAUSTED:
                raise
            log.log(
                logging.INFO if is_back else logging.WARNING,
                "reads go to the primary, and the replica is asked again in %g s: %s",
                AWAY,
                error.why,
            )
            self._away_until = time.monotonic() + AWAY
            return None
        if is_back:
            self._away_until = 0.0
            log.warning("the replica %s answers again", display(self.url))
        return connection

    def _connect(self) -> PostgreSQLConnection:
        try:
            borrowed = self._pool.connect()
        except PoolTimeoutError:
            raise UnavailableError(
                f"no connection to the replica came free within {self._settings.pool_timeout:g} s; raise the pool size",
                code=POOL_EXHAUSTED,
            ) from None
        except psycopg.Error as error:
            raise translate_connect(error, display(self.url)) from None
        try:
            connection = PostgreSQLConnection(self, borrowed)
            if _SEEN not in borrowed.info:
                # Positions in the log of another database mean nothing.
                if self._cluster is not None and connection.ask(_WHOSE) != self._cluster:
                    raise InvalidValueError("DATABASE_READ_URL", "is no replica of this database")  # noqa: TRY301
                borrowed.info[_SEEN] = -1
        except BaseException:
            borrowed.invalidate()
            borrowed.close()
            raise
        return connection

    def _has_seen(self, connection: PostgreSQLConnection, position: int) -> bool:
        """Tell whether the replica has come that far, waiting for it briefly."""
        info = connection.info
        if info[_SEEN] >= position:
            return True
        began = time.monotonic()
        patience = self._wait if began >= self._impatient_until else 0.0
        pause = FIRST_PAUSE
        while True:
            info[_SEEN] = _number(connection.ask(_REPLAYED))
            if info[_SEEN] >= position:
                return True
            if time.monotonic() - began + pause > patience:
                break
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
        if patience:
            self._impatient_until = time.monotonic() + LAGGING
        # After a failover the log may have begun again before this position.
        self._asked = None
        return False

    # --- ends

    def close(self) -> None:
        """Close the connections."""
        self._pool.dispose()

    def after_fork(self) -> object:
        """Go on, in the child, with a pool of its own; return the parent's, to be kept."""
        inherited, self._pool = self._pool, new_pool(self.url, self._settings, reading=True)
        self._lock = threading.Lock()
        return inherited


def _run(access: Access, body: Callable[[Session], Any], connection: PostgreSQLConnection, call: Call) -> Any:
    if access is Access.READ:
        return run_body(body, Session(connection, call, read_only=True, single=True))
    connection.command(BEGIN_READING)
    result = run_body(body, Session(connection, call, read_only=True))
    connection.command("COMMIT")
    return result


def _number(position: str | None) -> int:
    """Return a position in the log as a number; -1 where there is none."""
    if position is None:
        return -1
    high, _, low = position.partition("/")
    return (int(high, 16) << 32) + int(low, 16)
