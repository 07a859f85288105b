"""Points in time on the command line."""

from __future__ import annotations

import datetime as dt
import re

from agentos_store.errors import InvalidValueError


def parse_moment(text: str | None, option: str) -> dt.datetime | None:
    """Return the time that an option names: ISO 8601, in UTC unless it says otherwise."""
    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise InvalidValueError(option, "must be a time such as 2026-01-10 or 2026-01-10T08:00:00Z") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=dt.UTC)


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_duration(text: str | None, option: str) -> dt.timedelta | None:
    """Return the length of time that an option gives: a whole number and one of s, m, h, d, w."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})([smhdw])", text.strip())
    if found is None:
        raise InvalidValueError(option, "must be a length of time such as 30d, 12h, 15m or 2w")
    return dt.timedelta(**{_UNITS[found[2]]: int(found[1])})


def duration(seconds: float | None) -> str:
    """Return a number of seconds as people read it."""
    if seconds is None:
        return ""
    if seconds < 120:
        return f"{seconds:,.3f} s" if seconds < 10 else f"{seconds:,.0f} s"
    for length, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:,.0f} s"
