"""What is migrated: a URL, a schema, and the settings that say how."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from agentos_store.engine.urls import display, parse_url, sqlite_path
from agentos_store.engine.version import read_revision_postgresql, read_revision_sqlite
from agentos_store.errors import InvalidValueError
from agentos_store.types import Identifier

DEFAULT_SCHEMA = "public"
"""The PostgreSQL schema where none is named. It is always written out, so that no search_path matters."""

LONGEST_NAME = 63
"""Bytes; PostgreSQL cuts a longer name, and two tenants whose names begin alike would share one schema."""


def check_schema(name: str) -> str:
    """Return the name of a PostgreSQL schema; InvalidValueError for one that would not stay what it is.

    It may hold dots, quotes, spaces and capitals, and be in any script: it is always quoted.
    """
    Identifier().check(name, "schema")
    if len(name.encode()) > LONGEST_NAME:
        raise InvalidValueError("schema", f"is longer than {LONGEST_NAME} bytes, which PostgreSQL would cut")
    if name.startswith("pg_") or name == "information_schema":
        raise InvalidValueError("schema", "is PostgreSQL's own")
    if "[" in name or "]" in name:
        # SQLAlchemy marks the place of the schema in a statement with them.
        raise InvalidValueError("schema", "must not hold square brackets")
    return name


def chosen_schema(schema: str | None, settings: Any) -> str:
    """Return the schema that was named, or that of the settings; an empty name is refused and not the default one.

    Otherwise a tenant whose name a program failed to fill in would find itself in somebody else's store.
    """
    return check_schema((settings.schema_name or DEFAULT_SCHEMA) if schema is None else schema)


@dataclass(frozen=True, slots=True)
class Target:
    """One database to migrate."""

    url: URL
    schema: str | None
    """None on SQLite."""
    settings: Any
    path: Path | None = field(init=False)
    """The SQLite file; None on PostgreSQL. Read out of the URL once, for a service asks it at each look."""

    def __post_init__(self) -> None:
        """Refuse a schema that cannot be one of ours."""
        if self.schema is not None:
            check_schema(self.schema)
        object.__setattr__(self, "path", sqlite_path(self.url) if self.schema is None else None)

    @classmethod
    def of(cls, url: str | URL | None, *, schema: str | None = None, settings: Any = None) -> Target:
        """Resolve what a caller said, and what the environment says where the caller said nothing."""
        from agentos_store.settings import Settings

        settings = Settings.load() if settings is None else settings
        parsed = parse_url(settings.to_url() if url is None else url)
        if parsed.drivername != "sqlite":
            return cls(parsed, chosen_schema(schema, settings), settings)
        # A schema in the environment is no mistake: it may be there for another database of the same program.
        if schema is not None:
            raise InvalidValueError("schema", "SQLite has none; give each tenant a file of its own")
        if sqlite_path(parsed) is None:
            raise InvalidValueError("url", "a database in memory is initialised by the store that opens it")
        return cls(parsed, None, settings)

    def describe(self) -> str:
        """Return where it is, for people."""
        return str(self.path) if self.schema is None else f"{display(self.url)} (schema {self.schema})"

    def revision(self) -> str | None:
        """Return the revision that the database is at, with one small query and no lock.

        A store that this process has open lends its connection.
        """
        if self.path is not None:
            return _revision_of_file(self.path, self.settings)
        assert self.schema is not None
        return _revision_of_schema(self.url, self.schema, self.settings)


def _revision_of_file(path: Path, settings: Any) -> str | None:
    import sqlite3

    from agentos_store.engine.sqlite.backend import find_open
    from agentos_store.engine.sqlite.connect import connect_reader, roll_back_journal
    from agentos_store.engine.sqlite.faults import translate

    backend = find_open(path)
    if backend is not None:
        return backend.revision()
    if not path.exists() or path.stat().st_size == 0:
        return None
    roll_back_journal(path, busy_timeout=settings.busy_timeout)
    raw = connect_reader(path, busy_timeout=settings.busy_timeout)
    try:
        return read_revision_sqlite(raw)
    except sqlite3.Error as error:
        raise translate(error) from None
    finally:
        raw.close()


def _revision_of_schema(url: URL, schema: str, settings: Any) -> str | None:
    import psycopg

    from agentos_store.engine.postgresql.backend import find_open
    from agentos_store.engine.postgresql.connect import connector
    from agentos_store.engine.postgresql.faults import translate

    backend = find_open(url, schema)
    try:
        if backend is not None:
            return backend.revision()
        with connector(url, settings)() as raw:
            return read_revision_postgresql(raw.cursor(), schema)
    except psycopg.Error as error:
        raise translate(error) from None
