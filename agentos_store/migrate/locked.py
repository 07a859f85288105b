"""The connection that migrates: it holds the lock, and all its revisions are one transaction."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection, NullPool, create_engine, text

from agentos_store.engine.sqlite.connect import connect_writer, open_turnstile, prepare_file
from agentos_store.engine.sqlite.faults import translate as translate_sqlite
from agentos_store.errors import LockTimeoutError, SchemaMismatchError
from agentos_store.migrate.target import Target


@contextlib.contextmanager
def locked_connection(target: Target) -> Iterator[Connection]:
    """Yield a connection inside a transaction that no other migrator can enter; commit at the end of the block."""
    if target.path is not None:
        with _sqlite(target.path, target.settings) as connection:
            yield connection
    else:
        with _postgresql(target) as connection:
            yield connection


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
        try:
            # A deferred BEGIN locks too late: two migrators both see an empty file.
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise translate_sqlite(error) from None
        with connection.begin():
            yield connection
            broken = raw.execute("PRAGMA foreign_key_check").fetchone()
            if broken is not None:
                raise SchemaMismatchError(
                    found=None, expected="", why=f"rows of {broken[0]} refer to rows of {broken[2]} that do not exist"
                )


@contextlib.contextmanager
def _postgresql(target: Target) -> Iterator[Connection]:
    from agentos_store.engine.postgresql.backend import lent_engine
    from agentos_store.engine.postgresql.faults import translate

    assert target.schema is not None
    milliseconds = round(target.settings.migration_timeout * 1000)
    with lent_engine(target.url, target.settings) as engine, engine.connect() as connection, connection.begin():
        # Local to the transaction: through a pooler the session is somebody else's next.
        connection.execute(text(f"SET LOCAL lock_timeout = {milliseconds}"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        try:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_lock_key(target.schema),))
        except Exception as error:
            cause = getattr(error, "orig", error)
            if isinstance(cause, psycopg.errors.LockNotAvailable):
                raise LockTimeoutError(
                    "another migrator", waited=target.settings.migration_timeout, code=cause.sqlstate
                ) from None
            if isinstance(cause, psycopg.Error):
                raise translate(cause) from None
            raise
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        known = connection.execute(
            text("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = :name"), {"name": target.schema}
        )
        if known.first() is None:
            quoted = connection.dialect.identifier_preparer.quote_identifier(target.schema)
            connection.execute(text(f"CREATE SCHEMA {quoted}"))
        yield connection


def _lock_key(schema: str) -> int:
    """Return the number of the advisory lock: one for each schema, so that tenants migrate beside each other."""
    digest = hashlib.sha256(f"agentos_store migrations {schema}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
