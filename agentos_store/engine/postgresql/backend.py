"""An open PostgreSQL database: a pool of connections, and bodies run with as few round trips as they need."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import psycopg
from sqlalchemy import URL, Engine, NullPool, create_engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import Pool, PoolProxiedConnection

from agentos_store.engine.capabilities import Capabilities
from agentos_store.engine.door import Door
from agentos_store.engine.fork import register
from agentos_store.engine.meter import BEGIN, Meter
from agentos_store.engine.postgresql.connect import DIALECT, connector, has_several_hosts, new_pool, prepare
from agentos_store.engine.postgresql.connection import (
    BEGIN_READING,
    BEGIN_WRITING,
    POOL_EXHAUSTED,
    PostgreSQLConnection,
)
from agentos_store.engine.postgresql.faults import translate_connect
from agentos_store.engine.postgresql.listening import PostgreSQLBell
from agentos_store.engine.postgresql.reconnecting import Outage
from agentos_store.engine.postgresql.replica import NO_ANSWER, Replica
from agentos_store.engine.postgresql.transaction import PostgreSQLTransaction
from agentos_store.engine.postgresql.vitals import examine, server_state
from agentos_store.engine.retry import OnRetry, RetryPolicy
from agentos_store.engine.session import Call, Session
from agentos_store.engine.statement import Prepared, Statement
from agentos_store.engine.urls import display
from agentos_store.engine.version import read_revision_postgresql
from agentos_store.engine.vitals import PoolState, ServerState, Vitals, pool_state
from agentos_store.errors import LockTimeoutError, TransientError, UnavailableError
from agentos_store.operation import Access, run_body

M = TypeVar("M")


class PostgreSQLBackend:
    """One schema of one PostgreSQL database."""

    def __init__(
        self,
        url: URL,
        schema: str,
        settings: Any,
        *,
        engine: Engine | None = None,
        on_retry: OnRetry | None = None,
        read_url: URL | None = None,
    ) -> None:
        self.url = url
        self.schema = schema
        self.lock_timeout = settings.lock_timeout
        self.max_payload: int = settings.max_payload
        self._settings = settings
        self._engine = engine
        self._door = Door()
        self._statements: dict[Statement[Any], Prepared[Any]] = {}
        self.policy = RetryPolicy.of(settings, on_retry)
        self.fails_over = has_several_hosts(url)
        """Whether another connection may lead to another server."""
        # Whoever wants no retries wants no waiting either.
        self._outage = Outage(settings.reconnect_timeout if settings.retries else 0.0)
        self._own_pool: Pool | None = new_pool(url, settings) if engine is None else None
        self._replica = None if read_url is None else Replica(self, read_url, settings)
        self.bell = self._new_bell()
        self.meter = Meter(settings.slow_operation)
        try:
            self.capabilities = self._ask_capabilities()
            if self._replica is not None:
                self._replica.verify()
        except BaseException:
            self._dispose()
            raise
        register(self)
        _open[_key(url, schema)] = self

    @property
    def _pool(self) -> Pool:
        if self._own_pool is not None:
            return self._own_pool
        # An engine that is disposed of by its owner goes on with another pool.
        assert self._engine is not None
        return self._engine.pool

    @property
    def settings(self) -> Any:
        """The settings that it was opened with."""
        return self._settings

    def prepare(self, raw: psycopg.Connection[Any]) -> None:
        """Set up the driver's side of a connection that was not made here."""
        prepare(raw, prepared=self._settings.prepare_statements)

    def _new_bell(self) -> PostgreSQLBell:
        # Who listens has a connection of its own, which no pooled work waits for.
        return PostgreSQLBell(self.schema, connector(self.url, self._settings), self._notify)

    def _notify(self, channel: str, payload: str) -> None:
        lent = self._borrow()
        try:
            lent.cursor.execute("SELECT pg_notify(%s, %s)", (channel, payload), prepare=False)
        except psycopg.Error as error:
            raise lent.meaning(error) from None
        finally:
            lent.give_back()

    def _ask_capabilities(self) -> Capabilities:
        with self.raw_connection() as cursor:
            row = cursor.execute(
                "SELECT current_setting('server_version'), current_setting('server_version_num')::int,"
                " EXISTS (SELECT 1 FROM pg_extension WHERE extname = 'vector')"
            ).fetchone()
        assert row is not None
        version, number, vector = row
        if number < 110000:
            raise UnavailableError(f"PostgreSQL {version} is too old; 11 or newer is needed")
        return Capabilities(
            backend="postgresql",
            server_version=version,
            data_modifying_cte=True,
            skip_locked=True,
            notify=True,
            advisory_locks=True,
            row_locks=True,
            ordered_commits=False,
            copy=True,
            full_text_table=False,
            partitions=True,
            vector_index=vector,
        )

    def prepared(self, statement: Statement[M]) -> Prepared[M]:
        """Return the statement as it is compiled for this schema, which is written out in it."""
        found = self._statements.get(statement)
        if found is None:
            found = statement.prepare(DIALECT, self.schema)
            if statement.lasting:
                self._statements[statement] = found
        return found

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
        """Run a body, again after a passing fault when that can do no harm.

        One that ``may_lag`` is answered by the replica, where there is one and it has what this store wrote.
        """
        call, started = Call(), perf_counter()
        replica = self._replica

        def attempt(number: int) -> Any:
            call.retries = number
            try:
                if may_lag and replica is not None and not number:
                    found = replica.run(access, body, call)
                    if found is not NO_ANSWER:
                        return found
                return self._run_once(access, body, call)
            except TransientError as error:
                call.in_doubt = call.in_doubt or error.outcome_unknown
                raise

        try:
            with self._door:
                try:
                    result = self.policy.run(what, attempt, repeatable=repeatable)
                finally:
                    # Also when it failed: it may have been stored nevertheless.
                    if replica is not None and not access.reads:
                        replica.wrote()
        except BaseException as error:
            self.meter.record(access, what, started, call, error)
            raise
        self.meter.record(access, what, started, call)
        if call.announced:
            self.bell.ring()
        return result

    def _run_once(self, access: Access, body: Callable[[Session], Any], call: Call) -> Any:
        """Run a body on one connection, in a transaction where it has to be one or the body begins one."""
        single = access in (Access.READ, Access.STATEMENT)
        connection = self._borrow(call)
        try:
            session = Session(connection, call, read_only=access.reads, single=single)
            try:
                if not single:
                    connection.command(BEGIN_READING if access.reads else BEGIN_WRITING)
                result = run_body(body, session)
            except TransientError as error:
                if session.in_transaction:
                    # The COMMIT was not sent yet, so whatever happened to the connection, nothing was stored.
                    error.outcome_unknown = False
                raise
            if session.in_transaction:
                connection.command("COMMIT")
            return result
        finally:
            connection.give_back()

    def begin(self, *, read_only: bool) -> PostgreSQLTransaction:
        """Begin an explicit transaction; a connection that was cut while it lay in the pool is replaced."""
        call, started = Call(), perf_counter()
        door = self._door
        try:
            door.__enter__()
            connection = None
            try:
                connection = self.policy.run("begin", lambda number: self._begin(call, number, read_only=read_only))
                self.meter.record(Access.WRITE, BEGIN, started, call)
            except BaseException:
                if connection is not None:
                    connection.give_back()
                door.__exit__()
                raise
        except BaseException as error:
            self.meter.record(Access.WRITE, BEGIN, started, call, error)
            raise
        return PostgreSQLTransaction(connection, door, self.bell, self._wrote, read_only=read_only)

    def _wrote(self) -> None:
        if self._replica is not None:
            self._replica.wrote()

    def _begin(self, call: Call, number: int, *, read_only: bool) -> PostgreSQLConnection:
        call.retries = number
        connection = self._borrow(call)
        try:
            connection.command(BEGIN_READING if read_only else BEGIN_WRITING)
        except BaseException:
            connection.give_back()
            raise
        return connection

    def _borrow(self, call: Call | None = None) -> PostgreSQLConnection:
        tries = 0
        while True:
            try:
                borrowed = self.meter.borrow(self._take, call)
                break
            except UnavailableError as error:
                if error.code == POOL_EXHAUSTED:
                    raise
                # It was there when the store was opened: the server may be starting again, or a standby become it.
                if self._door.is_shut or not self._outage.wait(tries, error):
                    raise TransientError(error.why, code=error.code) from None
            tries += 1
        self._outage.end()
        try:
            return PostgreSQLConnection(self, borrowed)
        except BaseException:
            borrowed.invalidate()
            raise

    def ask(self, question: bytes) -> Any:
        """Return the one value that a question without parameters gives."""
        connection = self._borrow()
        try:
            return connection.ask(question)
        finally:
            connection.give_back()

    def _take(self) -> PoolProxiedConnection:
        try:
            return self._pool.connect()
        except PoolTimeoutError:
            raise UnavailableError(
                f"no connection came free within {self._settings.pool_timeout:g} s; raise the pool size",
                code=POOL_EXHAUSTED,
            ) from None
        except psycopg.Error as error:
            raise translate_connect(error, display(self.url)) from None

    def lost(self, borrowed: PoolProxiedConnection) -> None:
        """One connection broke, so those made before now are broken too, most likely: none of them is lent again."""
        # What a SQLAlchemy engine does when its dialect sees a disconnect. Others may be working on the older ones,
        # which are closed when they come back.
        self._pool._invalidate(borrowed)  # noqa: SLF001  the pool has no public name for it

    # --- questions

    @contextlib.contextmanager
    def raw_connection(self) -> Iterator[psycopg.Cursor[Any]]:
        """Lend a cursor in autocommit mode, on a connection that answers."""
        lent = self._lend()
        try:
            yield lent.cursor
        except psycopg.Error as error:
            raise lent.meaning(error) from None
        finally:
            # Whatever was done with it.
            self._wrote()
            lent.give_back()

    def _lend(self) -> PostgreSQLConnection:
        try:
            return self._lend_checked()
        except TransientError:
            # It may have been cut while it lay in the pool, which is no news about the server; now all are new.
            return self._lend_checked()

    def _lend_checked(self) -> PostgreSQLConnection:
        lent = PostgreSQLConnection(self, self._take())
        try:
            lent.command("SELECT")
        except BaseException:
            lent.give_back()
            raise
        return lent

    def pool_state(self) -> PoolState:
        """Return how the connections to the primary are."""
        return pool_state(self._pool, self.meter)

    def examine(self, vitals: Vitals) -> None:
        """Look whether the server answers, and takes writes from this role."""
        examine(self, vitals)

    def server_state(self) -> ServerState:
        """Return how many are connected to the server, and how many wait for a lock there."""
        return server_state(self)

    def revision(self) -> str | None:
        """Return the revision in the schema."""
        try:
            return self._read_revision()
        except TransientError:
            # The connection may have been cut while it lay in the pool, which is no news about the server.
            return self._read_revision()

    def _read_revision(self) -> str | None:
        lent = PostgreSQLConnection(self, self._take())
        try:
            return read_revision_postgresql(lent.cursor, self.schema)
        except psycopg.Error as error:
            raise lent.meaning(error) from None
        finally:
            lent.give_back()

    def is_blank(self) -> bool:
        """Return False: a server's database is never initialised unasked."""
        return False

    def describe(self) -> str:
        """Return where the database is, without its password."""
        return f"{display(self.url)} (schema {self.schema})"

    def size(self) -> int:
        """Return the bytes that the schema's tables take, indexes included."""
        with self.raw_connection() as cursor:
            row = cursor.execute(
                "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c"
                " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind IN ('r', 'p')",
                (self.schema,),
            ).fetchone()
        assert row is not None
        return int(row[0])

    # --- ends

    def close(self) -> None:
        """Let running operations end, then close the connections, unless the engine belongs to somebody else.

        While a transaction stays open for longer than the limit, LockTimeoutError is raised and all stays open.
        """
        if not self._door.shut(self._settings.lock_timeout):
            self._door.reopen()
            holder = "an operation or a transaction that is still open"
            raise LockTimeoutError("closing the store", waited=self._settings.lock_timeout, holder=holder)
        self.bell.close()
        key = _key(self.url, self.schema)
        if _open.get(key) is self:
            del _open[key]
        self._dispose()

    def _dispose(self) -> None:
        if self._replica is not None:
            self._replica.close()
        if self._own_pool is not None:
            self._own_pool.dispose()

    def before_fork(self) -> None:
        """Nothing: the sockets stay the parent's."""

    def after_fork(self) -> None:
        """Drop, in the child, the parent's sockets without closing them; the next call opens its own."""
        if self._engine is not None:
            self._engine.dispose(close=False)
        elif self._own_pool is not None:
            _inherited.append(self._own_pool)
            self._own_pool = new_pool(self.url, self._settings)
        if self._replica is not None:
            _inherited.append(self._replica.after_fork())
        _inherited.append((self.bell, self.bell.abandon()))
        self.bell = self._new_bell()
        self._door = Door()
        self.meter = Meter(self._settings.slow_operation)


_inherited: list[object] = []
_open: WeakValueDictionary[tuple[object, ...], PostgreSQLBackend] = WeakValueDictionary()


def find_open(url: URL, schema: str) -> PostgreSQLBackend | None:
    """Return a backend of this schema that this process has open."""
    return _open.get(_key(url, schema))


def _key(url: URL, schema: str) -> tuple[object, ...]:
    # Not the URL itself, which renders itself to be hashed. A password may be an object that is only told by its text.
    where = url.drivername, url.username, url.password and str(url.password), url.host, url.port, url.database
    return (*where, *sorted(url.query.items()), schema)


@contextlib.contextmanager
def lent_engine(url: URL, settings: Any) -> Iterator[Engine]:
    """Lend an engine for the work that needs SQLAlchemy's own connections: migrations, questions to the catalogue."""

    def connect() -> psycopg.Connection[Any]:
        raw: psycopg.Connection[Any] = connector(url, settings)()
        raw.autocommit = False
        return raw

    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()
