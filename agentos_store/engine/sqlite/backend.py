"""An open SQLite file: readers from a pool, writers through the queue."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from agentos_store.engine.capabilities import Capabilities
from agentos_store.engine.door import Door
from agentos_store.engine.fork import register
from agentos_store.engine.session import Call, Session
from agentos_store.engine.sqlite.connect import connect_reader, connect_writer, open_turnstile, prepare_file
from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.sqlite.queue import WriteQueue
from agentos_store.engine.statement import Prepared, Statement
from agentos_store.engine.version import read_revision_sqlite
from agentos_store.errors import LockTimeoutError, StoreError, UnavailableError, UsageError
from agentos_store.operation import Access, run_body

M = TypeVar("M")

CAPABILITIES = Capabilities(
    backend="sqlite",
    server_version=sqlite3.sqlite_version,
    data_modifying_cte=False,
    skip_locked=False,
    notify=False,
    advisory_locks=False,
    row_locks=False,
    vector_index=False,
)

DIALECT = SQLiteDialect_pysqlite()
_prepared: dict[Statement[Any], Prepared[Any]] = {}


class SQLiteConnection:
    """A driver connection that runs prepared statements."""

    __slots__ = ("raw",)
    capabilities = CAPABILITIES

    def __init__(self, raw: sqlite3.Connection) -> None:
        self.raw = raw

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
        except sqlite3.Error as error:
            raise translate(error) from None
        return rows, len(rows) or cursor.rowcount

    def execute_many(self, prepared: Prepared[Any], values: Sequence[list[object]]) -> int:
        """Execute once for each list of values."""
        try:
            return self.raw.executemany(prepared.text, values).rowcount
        except sqlite3.Error as error:
            raise translate(error) from None


class SQLiteBackend:
    """One SQLite file that this process has open, shared by all its stores."""

    capabilities = CAPABILITIES
    schema = None

    def __init__(self, path: Path, settings: Any, *, temporary: bool = False) -> None:
        self.path = path
        self._settings = settings
        self._temporary = temporary
        self._references = 1
        self._closed = False
        self._set_up()
        register(self)

    def _set_up(self) -> None:
        settings = self._settings
        self._door = Door()
        self._turnstile = open_turnstile(self.path)
        self.queue = WriteQueue(self._turnstile, self._connect_writer, timeout=settings.lock_timeout)
        # A reader that is not pooled would be closed after each use; closing and opening cost more than a small read.
        self._readers = QueuePool(
            lambda: connect_reader(self.path, busy_timeout=settings.busy_timeout),
            pool_size=settings.pool_size + settings.max_overflow,
            max_overflow=0,
            timeout=settings.pool_timeout,
            reset_on_return=None,
            dialect=DIALECT,
        )

    def _connect_writer(self) -> SQLiteConnection:
        settings = self._settings
        return SQLiteConnection(
            connect_writer(self.path, durability=settings.durability, busy_timeout=settings.busy_timeout)
        )

    # --- running bodies

    def run(self, access: Access, what: str, body: Callable[[Session], Any], *, repeatable: bool) -> Any:
        """Run a body: a read on a connection of its own, a write in its turn.

        Nothing is tried again: a writer waits in the queue for as long as the limit allows, and no connection can be
        lost, so ``repeatable`` makes no difference.
        """
        del repeatable
        with self._door:
            if access.reads:
                with self._snapshot() as session:
                    return run_body(body, session)
            return self.queue.run(what, lambda session: run_body(body, session), Call())

    def begin(self, *, read_only: bool) -> SQLiteTransaction | SQLiteSnapshot:
        """Begin an explicit transaction; a writing one takes its place in the queue."""
        self._door.__enter__()
        try:
            if read_only:
                return SQLiteSnapshot(self._snapshot(), self._door)
            name = f"a transaction of thread {threading.current_thread().name}"
            return SQLiteTransaction(self.queue, self.queue.begin(name, Call()), self._door)
        except BaseException:
            self._door.__exit__()
            raise

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[Session]:
        with self.raw_connection() as raw:
            try:
                # A deferred BEGIN takes its snapshot at the first SELECT and holds it for the others.
                raw.execute("BEGIN")
            except sqlite3.Error as error:
                raise translate(error) from None
            try:
                yield Session(SQLiteConnection(raw), Call(), read_only=True)
            finally:
                if raw.in_transaction:
                    raw.execute("ROLLBACK")

    @contextlib.contextmanager
    def raw_connection(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that cannot write."""
        try:
            borrowed = self._readers.connect()
        except PoolTimeoutError:
            raise UnavailableError(
                f"no connection came free within {self._settings.pool_timeout:g} s; raise the pool size"
            ) from None
        try:
            raw = borrowed.dbapi_connection
            assert isinstance(raw, sqlite3.Connection)
            yield raw
        finally:
            borrowed.close()

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

    def describe(self) -> str:
        """Return where the database is."""
        return str(self.path)

    def size(self) -> int:
        """Return the bytes of the file and of its log."""
        log = Path(f"{self.path}-wal")
        return self.path.stat().st_size + (log.stat().st_size if log.exists() else 0)

    # --- ends

    def acquire(self) -> None:
        """Count one more user."""
        self._references += 1

    def close(self) -> None:
        """Close when the last user has closed; only whoever holds the queue does, for closing checkpoints."""
        with _opening:
            self._references -= 1
            if self._references > 0 or self._closed:
                return
            _open.pop(self.path, None)
            self._door.shut(self._settings.lock_timeout)
            self._close_connections(self._settings.lock_timeout)
            self._closed = True
            self._turnstile.close()
        if self._temporary:
            shutil.rmtree(self.path.parent, ignore_errors=True)

    def _close_connections(self, timeout: float) -> None:
        def work(raw: sqlite3.Connection) -> None:
            self._readers.dispose()
            raw.close()
            self.queue.forget_writer()

        self.queue.exclusively("closing the store", work, timeout=timeout)

    def before_fork(self) -> None:
        """Close what is idle: SQLite's locks do not survive a fork, so a child had better inherit no connection."""
        if not self._closed:
            with contextlib.suppress(LockTimeoutError, StoreError):
                self._close_connections(1.0)
                self._readers = self._readers.recreate()

    def after_fork(self) -> None:
        """Drop, in the child, what it inherited; the next call opens connections of its own."""
        if not self._closed:
            self._turnstile.abandon()
            # Closing or collecting an inherited connection could checkpoint, so it is kept and never used.
            _inherited.append((self.queue, self._readers))
            self._set_up()


class SQLiteTransaction:
    """An explicit transaction that holds the queue."""

    def __init__(self, queue: WriteQueue, session: Session, door: Door) -> None:
        self._queue = queue
        self._door = door
        self._session = session
        self._connection = session._connection

    def run(self, access: Access, body: Callable[[Session], Any]) -> Any:
        """Run a body in a savepoint, so that one that fails leaves nothing behind."""
        connection = self._connection
        assert isinstance(connection, SQLiteConnection)
        raw = connection.raw
        if access.reads:
            return run_body(body, Session(connection, Call(), read_only=True))
        try:
            raw.execute("SAVEPOINT operation")
            try:
                result = run_body(body, Session(connection, Call()))
            except BaseException:
                if raw.in_transaction:
                    raw.execute("ROLLBACK TO operation")
                    raw.execute("RELEASE operation")
                raise
            raw.execute("RELEASE operation")
        except sqlite3.Error as error:
            raise translate(error) from None
        return result

    def end(self, *, commit: bool) -> None:
        """Commit or roll back, and let the next writer begin."""
        try:
            self._queue.end(commit=commit)
        finally:
            self._door.__exit__()


class SQLiteSnapshot:
    """An explicit transaction that only reads: everything as it was at its first read."""

    def __init__(self, snapshot: contextlib.AbstractContextManager[Session], door: Door) -> None:
        self._snapshot = snapshot
        self._door = door
        self._session = snapshot.__enter__()

    def run(self, access: Access, body: Callable[[Session], Any]) -> Any:
        """Run a body on the snapshot."""
        return run_body(body, self._session)

    def end(self, *, commit: bool) -> None:
        """Give the connection back."""
        self._snapshot.__exit__(None, None, None)
        self._door.__exit__()


_opening = threading.RLock()
_open: dict[Path, SQLiteBackend] = {}
_inherited: list[Any] = []


def open_sqlite(path: Path | None, settings: Any) -> SQLiteBackend:
    """Open the file, or share it when this process has it open: there is one queue of writers for a file.

    Without a path the database lives in a temporary directory that is removed when the store is closed.
    """
    temporary = path is None
    if path is None:
        path = Path(tempfile.mkdtemp(prefix="agentos-store-")) / "registry.sqlite"
    path = path.absolute()
    with _opening:
        prepare_file(path, create=True)
        path = path.resolve()
        found = _open.get(path)
        if found is not None:
            if found._settings.durability != settings.durability:
                raise UsageError(f"this process has {path} open with durability={found._settings.durability}")
            found.acquire()
            return found
        backend = SQLiteBackend(path, settings, temporary=temporary)
        _open[path] = backend
        return backend


def find_open(path: Path) -> SQLiteBackend | None:
    """Return the file's backend when this process has it open."""
    return _open.get(path.absolute().resolve())
