"""Databases by their URLs, opened whatever revision they are at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sqlalchemy import URL

from agentos_store.engine.backend import Backend
from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.migrate.revisions import check_revision
from agentos_store.migrate.target import Target
from agentos_store.settings import Settings


def place(url: str | URL, schema: str | None, settings: Settings | None, name: str) -> Target:
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
