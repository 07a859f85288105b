"""SQL functions that our statements call on SQLite."""

from __future__ import annotations

import datetime as dt
import sqlite3

from agentos_store.engine.sqlite.relevance import relevance
from agentos_store.types import from_text, json_contains, to_text


def register_functions(raw: sqlite3.Connection) -> None:
    """Make the functions known to a connection."""
    raw.create_function("agentos_json_contains", 2, json_contains, deterministic=True)
    raw.create_function("agentos_relevance", 3, relevance, deterministic=True)
    raw.create_function("agentos_from_now", 1, _from_now)
    raw.create_function("agentos_seconds_between", 2, _seconds_between, deterministic=True)


def _from_now(seconds: float) -> str:
    return to_text(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds))


def _seconds_between(start: str | None, end: str | None) -> float | None:
    if start is None or end is None:
        return None
    return (from_text(end) - from_text(start)).total_seconds()
