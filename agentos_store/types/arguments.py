"""Arguments of operations that no column checks: numbers of things, and lengths of time."""

from __future__ import annotations

import datetime as dt

from agentos_store.errors import InvalidValueError

MOST = 2**63 - 1

LONGEST = dt.timedelta(days=36_500)
"""Beyond it, added to a time, lies no time that both databases hold."""


def check_whole(name: str, value: object, least: int = 1, most: int = MOST) -> int:
    """Return the number; refuse what is none, ``bool`` too, and one out of its range."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        wanted = f"of at least {least:,}" if most == MOST else f"from {least:,} to {most:,}"
        raise InvalidValueError(name, f"must be a whole number {wanted}")
    return value


def check_duration(name: str, value: object, *, zero_too: bool = False) -> dt.timedelta:
    """Return the length of time; refuse what is none, and what is not above zero unless zero will do."""
    if not isinstance(value, dt.timedelta) or not dt.timedelta(0) <= value <= LONGEST or not (value or zero_too):
        least = "of zero or more" if zero_too else "above zero"
        raise InvalidValueError(name, f"must be a timedelta {least}, of {LONGEST.days:,} days at most")
    return value
