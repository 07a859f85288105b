"""UTCDateTime, its text form, and the clock."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
from collections.abc import Callable
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos_store.errors import InvalidValueError
from agentos_store.types import Gate, UTCDateTime, from_text, now, to_text, utc_datetime

RoundTrip = Callable[[Gate[Any], Any], dict[str, Any]]

FIRST = dt.datetime(1, 1, 2, tzinfo=dt.UTC)
LAST = dt.datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=dt.UTC)
ZONES = ["UTC", "Asia/Kathmandu", "America/New_York", "Pacific/Kiritimati", "Etc/GMT+12"]
instants = st.datetimes(
    FIRST.replace(tzinfo=None),
    LAST.replace(tzinfo=None),
    timezones=st.sampled_from([dt.UTC, *map(ZoneInfo, ZONES), dt.timezone(dt.timedelta(hours=-23, seconds=1))]),
).filter(lambda moment: dt.timedelta(2) <= moment.replace(tzinfo=None) - dt.datetime.min <= dt.timedelta(3652056))  # noqa: DTZ901


@given(moment=instants)
@settings(max_examples=60, deadline=None)
def test_an_instant_comes_back_in_utc(round_trip: RoundTrip, moment: dt.datetime) -> None:
    for found in round_trip(UTCDateTime(), moment).values():
        # In its own zone, for across zones Python calls no ambiguous time equal to any other.
        assert found == moment.astimezone(dt.UTC)
        assert found.tzinfo is dt.UTC
        assert type(found) is dt.datetime


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("moment", [FIRST, LAST, dt.datetime(2026, 3, 29, 1, 30, tzinfo=dt.UTC)])
def test_the_connections_zone_does_not_matter(engines: dict[str, sa.Engine], zone: str, moment: dt.datetime) -> None:
    parameter = sa.bindparam("moment", type_=UTCDateTime())
    with engines["postgresql"].connect() as connection:
        connection.exec_driver_sql(f"SET TimeZone = '{zone}'")
        assert connection.scalar(sa.select(parameter), {"moment": moment}) == moment
        connection.exec_driver_sql("RESET TimeZone")


def test_times_sort_and_compare_alike(engines: dict[str, sa.Engine]) -> None:
    moments = [FIRST, FIRST + dt.timedelta(microseconds=1), dt.datetime(999, 1, 1, tzinfo=dt.UTC), now(), LAST]
    table = sa.Table("moments", sa.MetaData(), sa.Column("at", UTCDateTime()), prefixes=["TEMPORARY"])
    for engine in engines.values():
        with engine.connect() as connection:
            table.create(connection)
            connection.execute(table.insert(), [{"at": moment} for moment in reversed(moments)])
            assert connection.scalars(sa.select(table.c.at).order_by(table.c.at)).all() == moments
            local = moments[3].astimezone(ZoneInfo("Asia/Kathmandu"))
            assert (
                connection.scalars(sa.select(table.c.at).where(table.c.at >= local).order_by("at")).all() == moments[3:]
            )


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"^created_at: has no time zone"):
        UTCDateTime().check(dt.datetime(2026, 1, 1), "created_at")  # noqa: DTZ001


@pytest.mark.parametrize(
    "moment",
    [
        FIRST - dt.timedelta(microseconds=1),
        LAST + dt.timedelta(microseconds=1),
        dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=14))),
        dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-14))),
        dt.datetime.min.replace(tzinfo=ZoneInfo("Asia/Kathmandu")),
        dt.datetime.max.replace(tzinfo=ZoneInfo("America/New_York")),
    ],
)
def test_the_edges_of_the_calendar_are_refused(moment: dt.datetime) -> None:
    with pytest.raises(
        InvalidValueError, match=r"^created_at: is outside of 0001-01-02T00:00:00.000000Z to 9999-12-30T"
    ):
        UTCDateTime().check(moment, "created_at")


@pytest.mark.parametrize("value", ["2026-01-01T00:00:00.000000Z", 0, dt.date(2026, 1, 1)])
def test_only_a_datetime_is_an_instant(value: object) -> None:
    with pytest.raises(InvalidValueError, match="not datetime"):
        UTCDateTime().check(value, "created_at")


def test_a_subclass_of_datetime_becomes_a_plain_one() -> None:
    class Moment(dt.datetime):
        """What date libraries and frozen clocks give."""

    for zone in (dt.UTC, ZoneInfo("Asia/Kathmandu")):
        moment = Moment(2026, 1, 1, 12, tzinfo=zone)
        found = UTCDateTime().check(moment, "created_at")
        assert type(found) is dt.datetime
        assert found == moment


@given(moment=instants)
def test_the_text_has_six_digits_and_reads_back(moment: dt.datetime) -> None:
    text = to_text(moment)
    assert len(text) == 27
    assert text == f"{moment.astimezone(dt.UTC).isoformat(timespec='microseconds').removesuffix('+00:00')}Z"
    assert from_text(text) == moment.astimezone(dt.UTC)
    assert from_text(text).tzinfo is dt.UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00.000000",
        "2026-01-01 00:00:00.000000Z",
        "2026-01-01T00:00:00.000000+00:00",
        "2026-W01-1T00:00:00.000000Z",
        "2026-13-01T00:00:00.000000Z",
        "２026-01-01T00:00:00.000000Z",
        "2026-01-01T00:00:00.000000Z\n",
    ],
)
def test_a_text_that_we_did_not_write_is_no_time(text: str) -> None:
    with pytest.raises(InvalidValueError):
        from_text(text)


def test_the_clock_never_stands_still() -> None:
    def read(_: int) -> list[dt.datetime]:
        return [now() for _ in range(2_000)]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        readings = list(pool.map(read, range(4)))
    assert all(list(reading) == sorted(reading) for reading in readings)
    assert len({moment for reading in readings for moment in reading}) == 8_000


def test_a_clock_that_goes_back_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = now() + dt.timedelta(hours=1)
    monkeypatch.setattr(utc_datetime, "_last", ahead)
    assert now() == ahead + dt.timedelta(microseconds=1)
    assert now() == ahead + dt.timedelta(microseconds=2)
