"""The drivers alone: one connection each, as durable as the library's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString, Self

import psycopg
from sqlalchemy import make_url

from agentos_store.testing.postgres import connect


class SQLiteDriver:
    """One connection of ``sqlite3``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    @classmethod
    def open(cls, url: str) -> Self:
        """Connect as durably as the library does."""
        path = make_url(url).database
        assert path is not None
        connection = sqlite3.connect(path, isolation_level=None, timeout=30.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA recursive_triggers=ON")
        connection.execute("PRAGMA journal_size_limit=67108864")
        return cls(connection)

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")


class PostgreSQLDriver:
    """One connection and one cursor of psycopg: autocommit, prepared statements."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.cursor = connection.cursor()

    @classmethod
    def open(cls, url: str) -> Self:
        """Connect in autocommit mode."""
        return cls(connect(url))

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def _execute(self, text: LiteralString, values: Any) -> psycopg.Cursor[Any]:
        return self.cursor.execute(text, values, prepare=True)

    def setting(self, name: str) -> str:
        """Ask for a setting of the server."""
        (found,) = self._execute("SELECT current_setting(%s)", (name,)).fetchall()
        return str(found[0])
