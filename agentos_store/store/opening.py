"""Opening: from a URL, settings or an engine to a backend whose schema is the one that the code knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import URL, Engine

from agentos_store.engine.backend import Backend
from agentos_store.engine.retry import OnRetry
from agentos_store.engine.urls import parse_url, sqlite_path
from agentos_store.engine.version import HEAD
from agentos_store.errors import InvalidValueError
from agentos_store.migrate.revisions import check_revision
from agentos_store.migrate.target import Target, chosen_schema

if TYPE_CHECKING:
    from agentos_store.settings import Settings


def open_backend(
    url: str | URL | Settings | None,
    *,
    schema: str | None,
    settings: Settings | None,
    engine: Engine | None,
    on_retry: OnRetry | None = None,
) -> Backend:
    """Open a database and see that its schema is right; raise, with nothing left open, when it is not."""
    # pydantic takes 0.1 s to import, which whoever only imports the library should not pay for.
    from agentos_store.settings import Settings

    if isinstance(url, Settings):
        url, settings = None, url
    if engine is not None:
        if url is not None:
            raise InvalidValueError("engine", "give a URL or an engine, not both")
        url = engine.url
    settings = Settings.load() if settings is None else settings
    target = parse_url(settings.to_url() if url is None else url)
    read_url = settings.to_read_url() if url is None or _is_meant(target, settings) else None
    backend = _connect(target, schema, settings, engine, on_retry, read_url)
    try:
        _ensure_schema(backend, Target(backend.url, backend.schema, settings))
    except BaseException:
        backend.close()
        raise
    return backend


def _is_meant(target: URL, settings: Settings) -> bool:
    """Tell whether the replica that the settings name is one of this database: of their own, or they name none."""
    if settings.read_url is None:
        return False
    if settings.url is None and settings.type == "sqlite":
        return target.drivername != "sqlite"
    return target == parse_url(settings.to_url())


def _connect(
    url: URL,
    schema: str | None,
    settings: Settings,
    engine: Engine | None,
    on_retry: OnRetry | None,
    read_url: URL | None,
) -> Backend:
    if url.drivername == "sqlite":
        from agentos_store.engine.sqlite.backend import open_sqlite

        if schema is not None:
            raise InvalidValueError("schema", "SQLite has none; give each tenant a file of its own")
        if engine is not None:
            raise InvalidValueError("engine", "an SQLite file is opened by its URL: all writers share one queue")
        if read_url is not None:
            raise InvalidValueError("DATABASE_READ_URL", "an SQLite file has no replica; leave it unset")
        return open_sqlite(sqlite_path(url), settings, on_retry)
    from agentos_store.engine.postgresql.backend import PostgreSQLBackend

    name = chosen_schema(schema, settings)
    if read_url is not None:
        read_url = parse_url(read_url)
        if read_url.drivername == "sqlite":
            raise InvalidValueError("DATABASE_READ_URL", "is no PostgreSQL URL")
    return PostgreSQLBackend(url, name, settings, engine=engine, on_retry=on_retry, read_url=read_url)


def _ensure_schema(backend: Backend, target: Target) -> None:
    settings = target.settings
    if settings.auto_migrate == "off":
        return
    found = backend.revision()
    if found == HEAD:
        return
    if settings.auto_migrate == "on" or (found is None and backend.is_blank()):
        from agentos_store.migrate.upgrade import upgrade

        upgrade(target, HEAD)
        found = backend.revision()
    check_revision(found, where=backend.describe())
