"""One pool of connections for the stores of many tenants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import URL, Engine, create_engine

from agentos_store.engine.urls import parse_url
from agentos_store.errors import InvalidValueError

if TYPE_CHECKING:
    import psycopg

    from agentos_store.settings import Settings


def shared_engine(url: str | URL | None = None, *, settings: Settings | None = None) -> Engine:
    """Return an engine for all stores of one PostgreSQL server: ``Store.open(engine=engine, schema="tenant_a")``.

    It connects as a store does that has a pool of its own: with the timeouts, the TLS and the size of the pool that the
    settings say. So all of these stores together take no more connections than that, and one more for each on which
    somebody waits for news. It belongs to the caller, who disposes of it when the stores are closed. Raises
    InvalidValueError for SQLite, whose files have no server.
    """
    from agentos_store.settings import Settings

    settings = Settings.load() if settings is None else settings
    target = parse_url(settings.to_url() if url is None else url)
    if target.drivername == "sqlite":
        raise InvalidValueError("url", "an SQLite file is opened by its URL: all writers share one queue")
    from agentos_store.engine.postgresql.connect import connector

    connect = connector(target, settings)

    def begin_by_itself() -> psycopg.Connection[object]:
        raw: psycopg.Connection[object] = connect()
        # As SQLAlchemy expects it; a store switches it for as long as it has the connection.
        raw.autocommit = False
        return raw

    return create_engine(
        target,
        creator=begin_by_itself,
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        pool_timeout=settings.pool_timeout,
        pool_recycle=settings.pool_recycle,
    )
