"""Connections to a PostgreSQL server, and what each is told when it is made."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg.rows import tuple_row
from psycopg.types.string import TextLoader
from sqlalchemy import URL
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from agentos_store.engine.postgresql.faults import translate_connect
from agentos_store.engine.postgresql.tls import REMEDY, require_tls
from agentos_store.engine.urls import display
from agentos_store.errors import InvalidValueError

_Dialect: Any = PGDialect_psycopg
DIALECT = _Dialect(paramstyle="format")
"""Compiles statements; positional, for the driver takes a list faster than a dictionary."""

PREPARED_MAX = 500
"""Prepared statements that the driver keeps on one connection."""


BRIEF_TIMEOUT = 3.0
"""Seconds for each of several hosts and for a replica, unless a setting says otherwise: there is another one to go to,
and a machine that is gone does not even refuse."""


def connector(url: URL, settings: Any, *, reading: bool = False) -> Callable[[], Any]:
    """Return a function that opens one connection in autocommit mode: each transaction is begun by us.

    Of several hosts it is the first that takes writes, or, for ``reading``, any standby before the primary.
    """
    try:
        args, keywords = DIALECT.create_connect_args(url)
    except ArgumentError:
        # Not chained: it may quote the port, which of a malformed URL may be a password.
        keywords = None
    if keywords is None:
        raise InvalidValueError("url", "has hosts and ports that do not go together; write host:port,host:port")
    keywords.setdefault("application_name", "agentos_store")
    # Whatever PGCLIENTENCODING says: our text is of any script.
    keywords["client_encoding"] = "utf8"
    patience = settings.connect_timeout
    if has_several_hosts(url):
        _choose_host(keywords, reading=reading)
    if (has_several_hosts(url) or reading) and "connect_timeout" not in settings.model_fields_set:
        patience = BRIEF_TIMEOUT
    keywords.setdefault("connect_timeout", max(2, round(patience)))
    _notice_dead_peers(keywords, settings.tcp_timeout)
    for name in ("sslmode", "sslrootcert"):
        # Also for a URL that was not put together by the settings.
        if getattr(settings, name) is not None:
            keywords.setdefault(name, getattr(settings, name))
    remedy = REMEDY if require_tls(keywords) else None
    limits = _limits(settings)
    given = keywords.pop("options", "")

    def connect() -> psycopg.Connection[Any]:
        try:
            raw = psycopg.connect(*args, **keywords, options=f"{given} {limits}".strip(), autocommit=True)
        except psycopg.Error as error:
            # PgBouncer refuses start-up parameters that it does not track; then the limits are the role's own.
            if "startup parameter" not in str(error):
                raise translate_connect(error, display(url), remedy=remedy) from None
            try:
                raw = psycopg.connect(*args, **keywords, autocommit=True)
            except psycopg.Error as second:
                raise translate_connect(second, display(url), remedy=remedy) from None
        prepare(raw, prepared=settings.prepare_statements)
        return raw

    return connect


def new_pool(url: URL, settings: Any, *, reading: bool = False) -> QueuePool:
    """Return an empty pool of connections to a server."""
    return QueuePool(
        connector(url, settings, reading=reading),
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        timeout=settings.pool_timeout,
        recycle=settings.pool_recycle,
        # A connection is given back idle, so the pool need not ask the server to roll back.
        reset_on_return=None,
        dialect=DIALECT,
    )


def has_several_hosts(url: URL) -> bool:
    """Tell whether one of several servers is meant, whichever is the primary at the time."""
    given = url.query.get("host", "")
    return isinstance(given, tuple) or "," in given


def _choose_host(keywords: dict[str, Any], *, reading: bool) -> None:
    if "PGTARGETSESSIONATTRS" not in os.environ:
        keywords.setdefault("target_session_attrs", "prefer-standby" if reading else "read-write")
    if reading and psycopg.pq.version() >= 160000:
        keywords.setdefault("load_balance_hosts", "random")


def _notice_dead_peers(keywords: dict[str, Any], timeout: float | None) -> None:
    """Let the kernel ask whether the other side is still there: a machine that is gone never says so."""
    if timeout is None:
        return
    keywords.setdefault("keepalives_idle", max(1, round(timeout / 2)))
    keywords.setdefault("keepalives_interval", max(1, round(timeout / 6)))
    keywords.setdefault("keepalives_count", 3)
    keywords.setdefault("tcp_user_timeout", round(timeout * 1000))


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
