"""Databases that are full when the measuring begins."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

from sqlalchemy import Connection, Table, insert

from agentos_store.models import User
from benchmarks import rows
from benchmarks.conversations import content
from benchmarks.conversations.handwritten import SESSIONS, Core
from benchmarks.conversations.raw_postgresql import RawPostgreSQL
from benchmarks.conversations.raw_sqlite import RawSQLite
from benchmarks.places import Place
from benchmarks.tables import engine_of

Raw = RawSQLite | RawPostgreSQL
RAW_OF: dict[str, type[Raw]] = {"sqlite": RawSQLite, "postgresql": RawPostgreSQL}
"""By the backend."""

BATCH = 1_000


def with_sessions(place: Place, *keys: str, length: int = 0) -> str:
    """Return the URL of a database with these sessions, each with so many messages."""
    url = place.database()
    with contextlib.closing(Core.open(url)) as core, core.engine.begin() as connection:
        connection.execute(insert(SESSIONS), [_session(key, None, rows.now()) for key in keys])
    with contextlib.closing(RAW_OF[place.name].open(url)) as raw:
        for key in keys:
            for start in range(0, length, BATCH):
                raw.append_many(key, content.conversation(min(BATCH, length - start)))
    place.settle(url)
    return url


def with_user(place: Place) -> str:
    """Return the URL of a database with a user's many sessions, and as many of another one between them."""
    url = place.database()
    engine = engine_of(url)
    start = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    others = "01USER00000000000000000001"
    with engine.begin() as connection:
        for user in (content.USER, others):
            _add_user(connection, user)
        keys = rows.numbered_keys("S")
        many = [
            _session(next(keys), user, start + dt.timedelta(seconds=37 * number))
            for number in range(content.SESSIONS)
            for user in (content.USER, others)
        ]
        connection.execute(insert(SESSIONS), many)
    engine.dispose()
    place.settle(url)
    return url


def add_session(raw: Raw, key: str, length: int) -> None:
    """Add a session that has so many messages, on the connection of a driver."""
    if isinstance(raw, RawSQLite):
        at, metadata = rows.written(rows.now()), "{}"
        raw.connection.execute(ADD_SESSION.format("?"), (key, metadata, at, at))
    else:
        at_ = rows.now()
        raw.connection.execute(ADD_SESSION.format("%s").encode(), (key, "{}", at_, at_))
    raw.append_many(key, content.conversation(length))


ADD_SESSION = (
    "INSERT INTO sessions (id, channel, status, message_count, next_seq, generation, total_tokens, total_cost,"
    " metadata, created_at, updated_at) VALUES ({0}, 'api', 'active', 0, 0, 0, 0, 0, {0}, {0}, {0})"
)


def _session(key: str, user_id: str | None, at: dt.datetime) -> dict[str, Any]:
    counters = {"message_count": 0, "next_seq": 0, "generation": 0, "total_tokens": 0, "total_cost": 0}
    return {
        **counters,
        "id": key,
        "user_id": user_id,
        "channel": "api",
        "title": "The parser",
        "status": "active",
        "metadata": rows.METADATA,
        "created_at": at,
        "updated_at": at,
    }


def _add_user(connection: Connection, key: str) -> None:
    users: Table = User.table()
    at: Any = rows.now()
    values = {"id": key, "name": "Somebody", "quota_total": 10**9, "quota_used": 0, "quota_reserved": 0}
    connection.execute(insert(users).values(**values, preferences={}, created_at=at, updated_at=at))
