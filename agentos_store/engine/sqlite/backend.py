"""An open SQLite file: readers from a pool, writers through the queue."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from sqlalchemy import URL
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from agentos_store.engine.door import Door
from agentos_store.engine.fork import register
from agentos_store.engine.meter import BEGIN, Meter
from agentos_store.engine.retry import OnRetry, RetryPolicy
from agentos_store.engine.session import Call, Session
from agentos_store.engine.sqlite.connect import (
    connect_reader,
    connect_writer,
    open_turnstile,
    prepare_file,
    roll_back_journal,
)
from agentos_store.engine.sqlite.connection import CAPABILITIES, DIALECT, SQLiteConnection
from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.sqlite.queue import Job, WriteQueue, Writer
from agentos_store.engine.sqlite.transaction import SQLiteSnapshot, SQLiteTransaction
from agentos_store.engine.sqlite.vitals import examine
from agentos_store.engine.sqlite.watching import SQLiteBell
from agentos_store.engine.version import read_revision_sqlite
from agentos_store.engine.vitals import PoolState, Vitals, pool_state
from agentos_store.errors import LockTimeoutError, StoreError, UnavailableError, UsageError
from agentos_store.operation import Access, run_body

PATIENCE_OF_FORKS = 1.0
"""Seconds that a fork waits for running operations to end."""


class SQLiteBackend:
    """One SQLite file that this process has open, shared by all its stores."""

    capabilities = CAPABILITIES
    schema = None

    def __init__(self, path: Path, settings: Any, *, temporary: bool = False) -> None:
        self.path = path
        self.durability = settings.durability
        self._settings = settings
        self.policy = RetryPolicy.of(settings, self._tell)
        self._told: list[OnRetry] = []
        self._temporary = temporary
        self._references = 1
        self._closed = False
        self._set_up()
        register(self)

    def _set_up(self) -> None:
        settings = self._settings
        self._door = Door()
        self.meter = Meter(settings.slow_operation)
        found = self.path.stat()
        self.identity = found.st_dev, found.st_ino
        """Which file it is that was opened, whatever comes to bear its name."""
        self._turnstile = open_turnstile(self.path)
        self.queue = WriteQueue(self._turnstile, self._connect_writer, timeout=settings.lock_timeout)
        self._connections: weakref.WeakSet[sqlite3.Connection] = weakref.WeakSet()
        self._watched: sqlite3.Connection | None = None
        self.bell = SQLiteBell(self._data_version)
        # A reader that is not pooled would be closed after each use; closing and opening cost more than a small read.
        self._readers = QueuePool(
            self._connect_reader,
            pool_size=settings.pool_size + settings.max_overflow,
            max_overflow=0,
            timeout=settings.pool_timeout,
            reset_on_return=None,
            dialect=DIALECT,
        )

    def _connect_writer(self) -> SQLiteConnection:
        settings = self._settings
        raw = connect_writer(self.path, durability=settings.durability, busy_timeout=settings.busy_timeout)
        self._connections.add(raw)
        return SQLiteConnection(raw, settings.max_payload)

    def _connect_reader(self) -> Any:
        raw = connect_reader(self.path, busy_timeout=self._settings.busy_timeout)
        self._connections.add(raw)
        return raw

    # --- running bodies

    def run(
        self,
        access: Access,
        what: str,
        body: Callable[[Session], Any],
        *,
        repeatable: bool,
        may_lag: bool = False,
    ) -> Any:
        """Run a body: a read on a connection of its own, a write in its turn.

        It is tried again only when a stranger held the file for longer than the busy timeout. Nothing was stored then,
        and no connection can be lost, so ``repeatable`` makes no difference. Nor does ``may_lag``: a file has no
        replica.
        """
        del repeatable, may_lag
        call, started = Call(), perf_counter()
        try:
            with self._door:
                result = self.policy.run(what, lambda number: self._run(access, what, body, call, number))
        except BaseException as error:
            self.meter.record(access, what, started, call, error)
            raise
        self.meter.record(access, what, started, call)
        if call.announced:
            self.bell.ring()
        return result

    def _run(self, access: Access, what: str, body: Callable[[Session], Any], call: Call, number: int) -> Any:
        call.retries = number
        if access is Access.READ:
            # Without a context manager of a generator, which would take a tenth of what the shortest read takes.
            borrowed = self._borrow(call)
            try:
                connection = SQLiteConnection(borrowed.dbapi_connection, self._settings.max_payload)
                return run_body(body, Session(connection, call, read_only=True))
            finally:
                borrowed.close()
        if access is Access.SNAPSHOT:
            with self._snapshot(call) as session:
                return run_body(body, session)
        return self.queue.run(what, lambda session: run_body(body, session), call)

    def begin(self, *, read_only: bool) -> SQLiteTransaction | SQLiteSnapshot:
        """Begin an explicit transaction; a writing one takes its place in the queue."""
        call, started = Call(), perf_counter()
        try:
            begun = self._begin(call, read_only=read_only)
        except BaseException as error:
            self.meter.record(Access.WRITE, BEGIN, started, call, error)
            raise
        self.meter.record(Access.WRITE, BEGIN, started, call)
        return begun

    def _begin(self, call: Call, *, read_only: bool) -> SQLiteTransaction | SQLiteSnapshot:
        if read_only:
            return SQLiteSnapshot(self._snapshot(call), self._door)
        transaction = SQLiteTransaction(self.queue, self._door, self.bell, call)
        try:
            transaction.begin()
        except BaseException:
            transaction.end(commit=False)
            raise
        return transaction

    @contextlib.contextmanager
    def _snapshot(self, call: Call) -> Iterator[Session]:
        with self._reader(call) as raw:
            try:
                # A deferred BEGIN takes its snapshot at the first SELECT and holds it for the others.
                raw.execute("BEGIN")
            except sqlite3.Error as error:
                raise translate(error) from None
            try:
                yield Session(SQLiteConnection(raw, self._settings.max_payload), Call(), read_only=True)
            finally:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")

    @contextlib.contextmanager
    def raw_connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that cannot write."""
        with self._door, self._reader() as raw:
            yield raw

    @contextlib.contextmanager
    def alone(self, what: str) -> Iterator[sqlite3.Connection]:
        """Lend the connection that writes, outside of a transaction, while every other writer waits in line."""
        job = Job(what, None, Call())
        with self._door:
            try:
                raw = self.queue.begin(job).raw
                raw.execute("ROLLBACK")
                yield raw
            except sqlite3.Error as error:
                raise translate(error) from None
            finally:
                self.queue.end(job, commit=False)

    @contextlib.contextmanager
    def _reader(self, call: Call | None = None) -> Iterator[sqlite3.Connection]:
        borrowed = self._borrow(call)
        try:
            yield borrowed.dbapi_connection
        finally:
            borrowed.close()

    def _borrow(self, call: Call | None) -> Any:
        try:
            return self.meter.borrow(self._readers.connect, call)
        except PoolTimeoutError:
            raise UnavailableError(
                f"no connection came free within {self._settings.pool_timeout:g} s; raise the pool size"
            ) from None

    def _data_version(self) -> object:
        """Return what is another value after each commit of another connection: only one connection can compare."""
        with self._door:
            try:
                raw = self._watched
                if raw is None:
                    raw = self._watched = self._connect_reader()
                return raw, raw.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error as error:
                raise translate(error) from None

    def pool_state(self) -> PoolState:
        """Return how the readers are, and who waits to write."""
        waiting, first = self.queue.waiting()
        return pool_state(self._readers, self.meter, queue=waiting, queue_wait=first)

    def examine(self, vitals: Vitals) -> None:
        """Look whether the file is there, can be read, and takes a write."""
        examine(self, vitals)

    def server_state(self) -> None:
        """Return None: there is no server."""

    def entered(self) -> Door:
        """Return what to be inside of while working with the file: closing waits for it."""
        return self._door

    def revision(self) -> str | None:
        """Return the revision in the file."""
        with self.raw_connection() as raw:
            try:
                return read_revision_sqlite(raw)
            except sqlite3.Error as error:
                raise translate(error) from None

    def is_blank(self) -> bool:
        """Tell whether the file has no table at all, ours or anybody else's."""
        with self.raw_connection() as raw:
            return raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None

    @property
    def settings(self) -> Any:
        """The settings that the file was opened with, by its first store in this process."""
        return self._settings

    @property
    def url(self) -> URL:
        """Where the file is, a temporary one included."""
        return URL.create("sqlite", database=str(self.path))

    def describe(self) -> str:
        """Return where the database is."""
        return str(self.path)

    def size(self) -> int:
        """Return the bytes of the file and of its log."""
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise UnavailableError(f"{self.path}: {error.strerror}") from None
        with contextlib.suppress(FileNotFoundError):
            size += Path(f"{self.path}-wal").stat().st_size
        return size

    # --- ends

    def acquire(self) -> None:
        """Count one more user."""
        self._references += 1

    def tell_of_retries(self, on_retry: OnRetry | None) -> None:
        """Tell it of each further try until the file is closed: also of those of the other stores that share it."""
        if on_retry is not None:
            self._told.append(on_retry)

    def _tell(self, error: StoreError, attempt: int, wait: float) -> None:
        for each in tuple(self._told):
            each(error, attempt, wait)

    def close(self) -> None:
        """Close when the last user has closed; only whoever holds the queue does, for closing checkpoints.

        While a transaction holds the queue for longer than the limit, LockTimeoutError is raised and all stays open.
        """
        with _opening:
            if self._references > 1 or self._closed:
                self._references -= 1
                return
            deadline = time.monotonic() + self._settings.lock_timeout
            self._door.shut(self._settings.lock_timeout)
            try:
                self._close_connections(max(deadline - time.monotonic(), 0.0))
            except BaseException:
                self._door.reopen()
                raise
            self.bell.close()
            self._references = 0
            self._closed = True
            _open.pop(self.path, None)
            self._turnstile.close()
        if self._temporary:
            shutil.rmtree(self.path.parent, ignore_errors=True)

    def _close_connections(self, timeout: float) -> None:
        def work(writer: Writer | None) -> None:
            self._readers.dispose()
            watched, self._watched = self._watched, None
            if watched is not None:
                watched.close()
            if writer is not None:
                self.queue.writer = None
                writer.raw.close()

        self.queue.exclusively("closing the store", work, timeout=timeout)

    # --- forks

    def before_fork(self) -> Callable[[], None] | None:
        """Let running operations end and close every connection that is idle.

        SQLite keeps books for each process on which locks it has, and a child inherits them with the connections. With
        a wrong entry it would not lock at all, so every connection goes: here, or in the child, if a transaction rests
        on it.
        """
        if self._closed:
            return None
        self._quiet = self._door.hold(PATIENCE_OF_FORKS)
        with contextlib.suppress(LockTimeoutError):
            self._close_connections(0.0)
        return self._door.release

    def after_fork(self) -> None:
        """Drop, in the child, what it inherited; the next call opens connections of its own."""
        if self._closed:
            return
        self.queue.disown()
        self._turnstile.abandon()
        if self._quiet:
            for raw in self._connections:
                raw.close()
        # A thread of the parent was inside one of them, so that closing it here could wait for that thread for ever.
        inherited = self._connections, self._watched, self.bell, self.bell.abandon()
        _inherited.append((self.queue, self._readers, *inherited))
        self._set_up()


_opening = threading.RLock()
"""Held while a file is opened or closed."""
_open: dict[Path, SQLiteBackend] = {}
_inherited: list[Any] = []

if hasattr(os, "register_at_fork"):
    # Registered last, so first to be called: whoever opens a file takes this lock before that of engine/fork.py, too.
    os.register_at_fork(before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_opening.release)


def open_sqlite(path: Path | None, settings: Any, on_retry: OnRetry | None = None) -> SQLiteBackend:
    """Open the file, or share it when this process has it open: there is one queue of writers for a file.

    Without a path the database lives in a temporary directory that is removed when the store is closed.
    """
    temporary = path is None
    if path is None:
        path = Path(tempfile.mkdtemp(prefix="agentos-store-")) / "registry.sqlite"
    path = path.absolute()
    with _opening:
        prepare_file(path, create=True)
        roll_back_journal(path, busy_timeout=settings.busy_timeout)
        path = path.resolve()
        found = _open.get(path)
        if found is not None:
            if found.durability != settings.durability:
                raise UsageError(f"this process has {path} open with durability={found.durability}")
            found.acquire()
            found.tell_of_retries(on_retry)
            return found
        backend = SQLiteBackend(path, settings, temporary=temporary)
        backend.tell_of_retries(on_retry)
        _open[path] = backend
        return backend


def find_open(path: Path) -> SQLiteBackend | None:
    """Return the file's backend when this process has it open."""
    # realpath takes half as long as Path.resolve, and a service that looks for migrations pays for little else.
    return _open.get(Path(os.path.realpath(path)))
