"""Each form of time that AgentOS has written is read as the instant that it meant."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentos_store.importers.times import parse_time

EIGHT = dt.datetime(2026, 1, 10, 8, 0, tzinfo=dt.UTC)
FRACTION = EIGHT.replace(microsecond=358381)

instants = st.datetimes(dt.datetime(1980, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("2026-01-10 08:00:00", EIGHT),
        ("2026-01-10 08:00:00.358381", FRACTION),
        ("2026-01-10 08:00", EIGHT),
        ("2026-01-10", EIGHT.replace(hour=0)),
        ("2026-01-10T08:00:00", EIGHT),
        ("2026-01-10T08:00:00.358381", FRACTION),
        ("2026-01-10T08:00:00.3", EIGHT.replace(microsecond=300_000)),
        ("2026-01-10T08:00:00.358381000", FRACTION),
        ("2026-01-10T08:00:00+00:00", EIGHT),
        ("2026-01-10T08:00:00.358381+00:00", FRACTION),
        ("2026-01-10T08:00:00Z", EIGHT),
        ("2026-01-10T08:00:00.358381Z", FRACTION),
        ("2026-01-10 08:00:00z", EIGHT),
        ("2026-01-10T16:00:00+08:00", EIGHT),
        ("2026-01-10T02:30:00-0530", EIGHT),
        ("2026-01-10T10:00:00+02", EIGHT),
        (" 2026-01-10 08:00:00\n", EIGHT),
        (1768032000, EIGHT),
        (1768032000.358381, FRACTION),
        (1768032000000, EIGHT),
        (1768032000358.381, FRACTION),
        ("1768032000", EIGHT),
        ("1768032000.358381", FRACTION),
        ("1768032000000", EIGHT),
        (-1, dt.datetime(1969, 12, 31, 23, 59, 59, tzinfo=dt.UTC)),
    ],
)
def test_each_form_is_read_in_utc_without_repair(value: object, meant: dt.datetime) -> None:
    moment, repaired = parse_time(value)
    assert (moment, moment.tzinfo, repaired) == (meant, dt.UTC, False)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("2026-01-10T08:00:00+00:00Z", EIGHT),
        ("2026-01-10T08:00:00.358381+00:00Z", FRACTION),
        ("2026-01-10T16:00:00+08:00Z", EIGHT),
        ("2026-01-10T08:00:00.3583819", FRACTION),
    ],
)
def test_a_doubled_zone_and_too_many_digits_are_repaired(value: str, meant: dt.datetime) -> None:
    assert parse_time(value) == (meant, True)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "2026-01-10T",
        "2026-13-10 08:00:00",
        "2026-02-30 08:00:00",
        "2026-01-10 24:00:00",
        "2026-01-10 08:00:60",
        "2026-01-10 08:00:00 UTC",
        "2026-01-10T08:00:00+25:00",
        "2026-01-10T08:00.5",
        "2026-01-10T08:00:00ZZ",
        "２０２６-01-10 08:00:00",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "1e9",
        "123456789012345678",
        10**18,
        10**400,
        float("nan"),
        float("inf"),
        1e300,
        True,
        None,
        b"2026-01-10 08:00:00",
    ],
)
def test_garbage_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  its text is for people
        parse_time(value)


@given(instants)
def test_what_python_writes_is_read_back(moment: dt.datetime) -> None:
    naive = moment.replace(tzinfo=None)
    assert parse_time(moment.isoformat()) == (moment, False)
    assert parse_time(naive.isoformat()) == (moment, False)
    assert parse_time(str(naive)) == (moment, False)
    assert parse_time(moment.astimezone(dt.timezone(dt.timedelta(hours=-5, minutes=-45))).isoformat()) == (
        moment,
        False,
    )


@given(st.text() | st.integers() | st.floats() | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:.+Z-]*"))
def test_nothing_raises_anything_but_value_error(value: object) -> None:
    try:
        moment, _ = parse_time(value)
    except ValueError:
        return
    assert moment.tzinfo is dt.UTC
