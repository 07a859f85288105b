"""Databases by their URLs, opened whatever revision they are at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from sqlalchemy import URL, func, inspect, select

from agentos_store.engine.backend import Backend
from agentos_store.errors import DamagedFileError, InvalidValueError, NotFoundError
from agentos_store.migrate.locked import looking_connection
from agentos_store.migrate.revisions import check_revision
from agentos_store.migrate.target import Target
from agentos_store.operations.backups import looking
from agentos_store.operations.moving.tables import STAYING, moved_tables
from agentos_store.settings import Settings


def place(url: str | URL | None, schema: str | None, settings: Settings | None, name: str) -> Target:
    """Return the database of a URL, for work that takes its time: no statement of it is cut off for being long."""
    found = Settings.load() if settings is None else settings
    # And no replica: what was written a moment ago is read back.
    changes = {"statement_timeout": None, "idle_in_transaction_timeout": None, "read_url": None}
    unhurried = found.model_copy(update=changes)
    try:
        return Target.of(url, schema=schema, settings=unhurried)
    except InvalidValueError as error:
        raise InvalidValueError(name if error.name == "url" else f"{name} {error.name}", error.why) from None


def check_source(target: Target) -> None:
    """Raise NotFoundError for a file that is not there, SchemaMismatchError for one of another revision."""
    if target.path is not None and not target.path.exists():
        raise NotFoundError("database file", str(target.path))
    check_revision(target.revision(), where=target.describe())


def rows_at(target: Target, *, whole_file: bool = False) -> Mapping[str, int] | None:
    """Return by table how many rows a database holds that a move would remove; tables without any are left out.

    Where the ``whole_file`` of an SQLite database goes, other programs' tables count as well, and None is the answer
    for one that cannot be read; else that is a DamagedFileError.
    """
    ours = [table.table for table in moved_tables()]
    found: Mapping[str, int] = {}
    if target.path is None:
        with looking_connection(target) as connection:
            there = inspect(connection).get_table_names(schema=target.schema)
            asked = connection.execution_options(schema_translate_map={None: target.schema})
            found = {
                table.name: asked.execute(select(func.count()).select_from(table)).scalar_one()
                for table in ours
                if table.name in there
            }
    elif target.path.exists() and target.path.stat().st_size:
        try:
            with looking.reading(target.path) as raw:
                found = looking.count_rows(raw)
        except DamagedFileError:
            if whole_file:
                return None
            raise
    names = {table.name for table in ours}
    others = whole_file and target.path is not None
    return {name: rows for name, rows in found.items() if rows and (name in names or (others and name not in STAYING))}


@contextlib.contextmanager
def connect(target: Target) -> Iterator[Backend]:
    """Open a database and close it again; whether its revision is the right one the caller has seen."""
    backend = _open(target)
    try:
        yield backend
    finally:
        backend.close()


def _open(target: Target) -> Backend:
    if target.path is not None:
        from agentos_store.engine.sqlite.backend import open_sqlite

        return open_sqlite(target.path, target.settings)
    from agentos_store.engine.postgresql.backend import PostgreSQLBackend

    assert target.schema is not None
    return PostgreSQLBackend(target.url, target.schema, target.settings)
