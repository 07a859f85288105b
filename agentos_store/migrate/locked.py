"""The connection that migrates: it holds the lock, and all its revisions are one transaction."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection, NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError

from agentos_store.engine.advisory import lock_number
from agentos_store.engine.sqlite.connect import connect_reader, connect_writer, open_turnstile, prepare_file
from agentos_store.engine.sqlite.faults import translate as translate_sqlite
from agentos_store.engine.version import HEAD, quote_name
from agentos_store.engine.violations import IntegrityViolation
from agentos_store.errors import LockTimeoutError, SchemaMismatchError, StoreError
from agentos_store.migrate.target import Target

log = logging.getLogger("agentos_store.migrate")


@contextlib.contextmanager
def locked_connection(target: Target) -> Iterator[Connection]:
    """Yield a connection inside a transaction that no other migrator can enter; commit at the end of the block.

    An error of the database that leaves the block becomes the store's own; nothing of the transaction is left then.
    """
    with (
        _typed_errors(target),
        _sqlite(target.path, target.settings) if target.path is not None else _postgresql(target) as connection,
    ):
        yield connection


@contextlib.contextmanager
def looking_connection(target: Target) -> Iterator[Connection]:
    """Yield a connection that holds no lock, for a look at what is there."""
    with _typed_errors(target), contextlib.ExitStack() as stack:
        if target.path is not None:
            raw = connect_reader(target.path, busy_timeout=target.settings.busy_timeout)
            stack.callback(raw.close)
            engine = create_engine("sqlite://", creator=lambda: raw, poolclass=NullPool)
        else:
            from agentos_store.engine.postgresql.backend import lent_engine

            engine = stack.enter_context(lent_engine(target.url, target.settings))
        yield stack.enter_context(engine.connect())


@contextlib.contextmanager
def _typed_errors(target: Target) -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if error.statement is not None:
            # The statement only: its parameters may be values of rows.
            log.error("%s: nothing was changed, for this failed: %s", target.describe(), error.statement)  # noqa: TRY400
        raise _typed(error.orig, target) from None
    except (sqlite3.Error, psycopg.Error) as error:
        raise _typed(error, target) from None


def _typed(error: BaseException | None, target: Target) -> BaseException:
    from agentos_store.engine.postgresql.faults import translate as translate_postgresql

    found: StoreError
    if isinstance(error, sqlite3.Error):
        found = translate_sqlite(error, waited=target.settings.busy_timeout)
    else:
        assert isinstance(error, psycopg.Error)
        found = translate_postgresql(error)
    if isinstance(found, IntegrityViolation):
        why = f"{target.describe()}: rows stand against the revision ({found.constraint or found.kind})"
        return SchemaMismatchError(found=None, expected=HEAD, why=why)
    if isinstance(found, LockTimeoutError) and isinstance(error, psycopg.Error):
        what = "another migrator, or whoever uses the tables"
        return LockTimeoutError(what, waited=target.settings.migration_timeout, code=error.sqlstate)
    return found


@contextlib.contextmanager
def _sqlite(path: Path, settings: Any) -> Iterator[Connection]:
    prepare_file(path, create=True)
    turnstile = open_turnstile(path.resolve())
    try:
        turnstile.acquire(settings.migration_timeout)
        try:
            raw = connect_writer(path, durability="full", busy_timeout=settings.busy_timeout)
            try:
                with _sqlite_transaction(raw) as connection:
                    yield connection
            finally:
                # It may checkpoint, which takes the turn.
                raw.close()
        finally:
            turnstile.release()
    finally:
        turnstile.close()


@contextlib.contextmanager
def _sqlite_transaction(raw: sqlite3.Connection) -> Iterator[Connection]:
    # Rewriting a table drops it, and with foreign keys on that deletes its children by cascade. The pragma does nothing
    # inside a transaction, so it comes first; what it would have caught is checked before the commit.
    raw.execute("PRAGMA foreign_keys=OFF")
    engine = create_engine("sqlite://", creator=lambda: raw, poolclass=NullPool)
    with engine.connect() as connection:
        # A deferred BEGIN locks too late: two migrators both see an empty file.
        raw.execute("BEGIN IMMEDIATE")
        with connection.begin():
            yield connection
            broken = raw.execute("PRAGMA foreign_key_check").fetchone()
            if broken is not None:
                why = f"rows of {broken[0]} refer to rows of {broken[2]} that do not exist"
                raise SchemaMismatchError(found=None, expected=HEAD, why=why)


@contextlib.contextmanager
def _postgresql(target: Target) -> Iterator[Connection]:
    from agentos_store.engine.postgresql.backend import lent_engine

    assert target.schema is not None
    milliseconds = round(target.settings.migration_timeout * 1000)
    with lent_engine(target.url, target.settings) as engine, engine.connect() as connection:
        # A role or a database may have a stricter level as its default; the snapshot would then be older than the
        # lock, and a migrator that had waited would do the work of the one before it again.
        connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            # Local to the transaction: through a pooler the session is somebody else's next.
            connection.execute(text(f"SET LOCAL lock_timeout = {milliseconds}"))
            # Asked for by way of the view, for not every server knows the last of them.
            connection.exec_driver_sql(
                "SELECT set_config(name, '0', true) FROM pg_catalog.pg_settings WHERE name IN"
                " ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"
            )
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (lock_key(target.schema),))
            known = connection.execute(
                text("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = :name"), {"name": target.schema}
            )
            if known.first() is None:
                connection.exec_driver_sql(f"CREATE SCHEMA {quote_name(target.schema)}".replace("%", "%%"))
            yield connection


def lock_key(schema: str) -> int:
    """Return the number of the advisory lock: one for each schema, so that tenants migrate beside each other."""
    return lock_number("migrations", schema)
