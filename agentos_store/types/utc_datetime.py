"""Instants, and the clock that they come from."""

from __future__ import annotations

import datetime as dt
import os
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from agentos_store.errors import InvalidValueError
from agentos_store.types.gate import Decode, Gate, kind_of

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

UTC = dt.UTC
WRITTEN_LENGTH = len("2026-10-21T09:30:00.000000Z")
EARLIEST = dt.datetime(1, 1, 2, tzinfo=UTC)
LATEST = dt.datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=UTC)

_STEP = dt.timedelta(microseconds=1)
_WRITTEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


class UTCDateTime(Gate[dt.datetime]):
    """An aware ``datetime`` in UTC, to the microsecond, on every dialect.

    PostgreSQL stores ``timestamptz``; SQLite stores ISO 8601 text in UTC, ``YYYY-MM-DDTHH:MM:SS.ffffffZ`` with always
    six digits, which sorts in time order and reads well. What is read is in ``datetime.UTC``, whatever zone was
    written and whatever zone the connection has.

    A naive value is refused: guessing its zone is how two machines come to disagree about "yesterday". The first and
    the last day of the calendar are refused: a connection in another zone would see them before year 1 or after year
    9999, where Python has no dates and drivers fail.
    """

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Store text where there is no type for an instant."""
        return sa.TEXT() if dialect.name == "sqlite" else sa.TIMESTAMP(timezone=True)

    def check(self, value: object, name: str) -> dt.datetime:
        """Return a plain ``datetime`` in UTC."""
        return _checked(value, name)

    def writer(self, dialect: Dialect) -> Callable[[dt.datetime], object] | None:
        """Write text on SQLite."""
        return _write if dialect.name == "sqlite" else None

    def decoder(self, dialect: Dialect) -> Decode | None:
        """Read text on SQLite; turn the connection's zone into UTC on PostgreSQL."""
        return _from_sqlite if dialect.name == "sqlite" else _from_driver


def to_text(value: dt.datetime) -> str:
    """Return the instant as SQLite stores it: ``2026-10-21T09:30:00.000000Z``."""
    return _write(_checked(value, "value"))


def from_text(text: str) -> dt.datetime:
    """Return the instant of a text that ``to_text`` made; any other text is an InvalidValueError."""
    if _WRITTEN.fullmatch(text):
        try:
            return dt.datetime.fromisoformat(text)
        except ValueError:
            pass
    raise InvalidValueError("time", "is not of the form YYYY-MM-DDTHH:MM:SS.ffffffZ")


def now() -> dt.datetime:
    """Return the time in UTC, later than any that this process was given before.

    A clock that stands still or goes back gives one microsecond more than last time, so that what one process does in
    order is in order.
    """
    global _last  # noqa: PLW0603  the clock has no other memory
    with _lock:
        moment = dt.datetime.now(UTC)
        if moment <= _last:
            moment = _last + _STEP
        _last = moment
    return moment


_last = EARLIEST
_lock = threading.Lock()


def _unlock() -> None:
    # Another thread may have held the lock when the process was forked; nobody would release it in the child.
    global _lock  # noqa: PLW0603  whoever reads the clock uses the module's lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def _checked(value: object, name: str) -> dt.datetime:
    if not isinstance(value, dt.datetime):
        raise InvalidValueError(name, f"is of type {kind_of(value)}, not datetime")
    moment = value if type(value) is dt.datetime and value.tzinfo is UTC else _to_utc(value, name)
    if not EARLIEST <= moment <= LATEST:
        raise InvalidValueError(name, f"is outside of {_write(EARLIEST)} to {_write(LATEST)}")
    return moment


def _to_utc(value: dt.datetime, name: str) -> dt.datetime:
    try:
        if value.utcoffset() is None:
            raise InvalidValueError(name, "has no time zone; say which instant it is, for instance in datetime.UTC")
        moment = value.astimezone(UTC)
    except OverflowError:
        raise InvalidValueError(name, f"is outside of {_write(EARLIEST)} to {_write(LATEST)}") from None
    # A subclass may print or compare in its own way.
    return dt.datetime.combine(moment.date(), moment.time(), UTC) if type(moment) is not dt.datetime else moment


def _write(moment: dt.datetime) -> str:
    # Half the time of isoformat and of format specifiers, and no offset to cut off.
    return "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ" % (  # noqa: UP031
        moment.year,
        moment.month,
        moment.day,
        moment.hour,
        moment.minute,
        moment.second,
        moment.microsecond,
    )


def _from_sqlite(text: str) -> dt.datetime:
    if len(text) == WRITTEN_LENGTH and text.endswith("Z"):
        try:
            return dt.datetime.fromisoformat(text)
        except ValueError:
            pass
    return from_text(text)


def _from_driver(value: dt.datetime) -> dt.datetime:
    return value if value.tzinfo is UTC else value.astimezone(UTC)
