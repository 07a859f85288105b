"""Connections to a PostgreSQL server, and what each is told when it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.rows import tuple_row
from psycopg.types.string import TextLoader
from sqlalchemy import URL
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from agentos_store.engine.postgresql.faults import translate_connect
from agentos_store.engine.urls import display

_Dialect: Any = PGDialect_psycopg
DIALECT = _Dialect(paramstyle="format")
"""Compiles statements; positional, for the driver takes a list faster than a dictionary."""

PREPARED_MAX = 500
"""Prepared statements that the driver keeps on one connection."""


def connector(url: URL, settings: Any) -> Callable[[], Any]:
    """Return a function that opens one connection in autocommit mode: each transaction is begun by us."""
    args, keywords = DIALECT.create_connect_args(url)
    keywords.setdefault("application_name", "agentos_store")
    keywords.setdefault("connect_timeout", max(2, round(settings.connect_timeout)))
    # Whatever PGCLIENTENCODING says: our text is of any script.
    keywords["client_encoding"] = "utf8"
    limits = _limits(settings)
    given = keywords.pop("options", "")

    def connect() -> psycopg.Connection[Any]:
        try:
            raw = psycopg.connect(*args, **keywords, options=f"{given} {limits}".strip(), autocommit=True)
        except psycopg.OperationalError as error:
            # PgBouncer refuses start-up parameters that it does not track; then the limits are the role's own.
            if "startup parameter" not in str(error):
                raise translate_connect(error, display(url)) from None
            try:
                raw = psycopg.connect(*args, **keywords, autocommit=True)
            except psycopg.OperationalError as second:
                raise translate_connect(second, display(url)) from None
        prepare(raw, prepared=settings.prepare_statements)
        return raw

    return connect


def prepare(raw: psycopg.Connection[Any], *, prepared: bool) -> None:
    """Set up the driver's side of a connection."""
    raw.prepare_threshold = 1 if prepared else None
    raw.prepared_max = PREPARED_MAX


def cursor_of(raw: psycopg.Connection[Any], info: dict[Any, Any]) -> psycopg.Cursor[Any]:
    """Return the one cursor that we use on a connection; JSON comes out of it as the text that is stored.

    Whatever factories the connection of somebody else's engine has, its rows are tuples.
    """
    found: psycopg.Cursor[Any] | None = info.get("agentos_store_cursor")
    if found is None or found.connection is not raw:
        found = psycopg.Cursor(raw, row_factory=tuple_row)
        found.adapters.register_loader("json", TextLoader)
        found.adapters.register_loader("jsonb", TextLoader)
        info["agentos_store_cursor"] = found
    return found


def _limits(settings: Any) -> str:
    limits = {
        "lock_timeout": settings.lock_timeout,
        "statement_timeout": settings.statement_timeout,
        "idle_in_transaction_session_timeout": settings.idle_in_transaction_timeout,
    }
    return " ".join(f"-c {name}={round(value * 1000)}" for name, value in limits.items() if value is not None)
