"""Points in time, in each of the forms that agent systems write."""

from __future__ import annotations

import datetime as dt
import math
import re
from decimal import Decimal

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

EARLIEST = dt.datetime(1, 1, 2, tzinfo=dt.UTC)
LATEST = dt.datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=dt.UTC)
"""What the store takes: a day from either end of the calendar, where other zones have no dates."""

MILLISECONDS_FROM = 100_000_000_000
"""A number of at least this size counts milliseconds: as seconds it would be after the year 5138, as milliseconds it
is in March 1973, before there was any of them."""

_OUTSIDE = "outside of the years 1 to 9999"

_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?")
_ISO = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ](?P<clock>[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:(?<=:[0-9]{2}:[0-9]{2})[.,](?P<fraction>[0-9]{1,30}))?"
    r" ?(?P<offset>[+-][0-9]{2}(?::?[0-9]{2})?)?(?P<zulu>[Zz])?)?"
)


def parse_time(value: object) -> tuple[dt.datetime, bool]:
    """Return the aware UTC time that a value of the source stands for, and whether it had to be repaired.

    Read are ``2026-01-10 08:00:00`` and ISO 8601 with ``T``, both with or without a fraction, taken as UTC unless an
    offset or a Z says otherwise; a date alone, for its first moment; seconds or milliseconds since 1970, as a number
    or as its text. Repaired are an offset with a Z after it, where the offset is believed, and digits beyond the
    microsecond, which are cut off. Anything else raises ValueError.
    """
    if isinstance(value, bool):
        raise ValueError("a truth value is no time")
    if isinstance(value, int):
        return _from_epoch(Decimal(value)), False
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError("not a finite number")
        return _from_epoch(Decimal(repr(value))), False
    if not isinstance(value, str):
        raise ValueError("neither a text nor a number")
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return _from_epoch(Decimal(text)), False
    found = _ISO.fullmatch(text)
    if found is None:
        raise ValueError("not a form of time that is known")
    fraction = found["fraction"] or ""
    moment = dt.datetime.fromisoformat(f"{found['date']} {found['clock'] or '00:00'}")
    moment = moment.replace(microsecond=int(fraction[:6].ljust(6, "0")), tzinfo=_zone(found["offset"]))
    try:
        moment = _within(moment.astimezone(dt.UTC))
    except OverflowError:
        raise ValueError(_OUTSIDE) from None
    return moment, bool(found["offset"] and found["zulu"]) or bool(fraction[6:].strip("0"))


def _zone(offset: str | None) -> dt.timezone:
    if offset is None:
        return dt.UTC
    digits = offset[1:].replace(":", "").ljust(4, "0")
    away = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return dt.timezone(-away if offset[0] == "-" else away)


def _from_epoch(number: Decimal) -> dt.datetime:
    unit = 1_000 if abs(number) >= MILLISECONDS_FROM else 1_000_000
    try:
        return _within(EPOCH + dt.timedelta(microseconds=round(number * unit)))
    except OverflowError:
        raise ValueError(_OUTSIDE) from None


def _within(moment: dt.datetime) -> dt.datetime:
    if EARLIEST <= moment <= LATEST:
        return moment
    raise ValueError(_OUTSIDE)
