"""The version table, read without Alembic: which revision a database is at."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg

TABLE = "agentos_store_version"
"""Its columns are ``revision`` and ``applied_at``. A name of our own lets two applications share a database."""

HEAD = "0017_forget"
"""The newest revision in ``migrations/versions``, which this code is written for; a test holds the two together."""


UNFINISHED = "unfinished-move"
"""What the version table holds while rows are brought in from elsewhere: no code knows it, so none opens the database
before all of them are there."""


def read_revision_sqlite(raw: sqlite3.Connection) -> str | None:
    """Return the revision in an SQLite file; None when there is no version table or no row in it."""
    try:
        row = raw.execute(f"SELECT revision FROM {TABLE}").fetchone()
    except sqlite3.OperationalError as error:
        if raw.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (TABLE,)).fetchone():
            raise
        del error
        return None
    return None if row is None else str(row[0])


def quote_name(name: str) -> str:
    """Return a PostgreSQL name as SQL has it between quotes."""
    return '"' + name.replace('"', '""') + '"'


def revision_query(schema: str) -> str:
    """Return the query for the revision in a PostgreSQL schema."""
    return f"SELECT revision FROM {quote_name(schema)}.{TABLE}"


def read_revision_postgresql(cursor: psycopg.Cursor[Any], schema: str) -> str | None:
    """Return the revision in a PostgreSQL schema; None when there is no version table or no row in it."""
    # psycopg takes 65 ms to import, which a start on SQLite should not pay for.
    import psycopg

    try:
        row = cursor.execute(revision_query(schema)).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return None
    return None if row is None else str(row[0])
