"""Int64, Float64, Boolean and Money."""

from __future__ import annotations

import decimal
import enum
import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos_store.errors import InvalidValueError
from agentos_store.types import Boolean, Float64, Gate, Int64, Money

RoundTrip = Callable[[Gate[Any], Any], dict[str, Any]]

LIMIT = Decimal("9223372036.854775807")
amounts = st.one_of(
    st.integers(-(2**63) + 1, 2**63 - 1).map(lambda units: Decimal(units).scaleb(-9)),
    st.sampled_from([Decimal(text) for text in ("0", "-0", "1E+3", "1E-9", "1.50", "100", "0.1000000000000")]),
    st.sampled_from([LIMIT, -LIMIT]),
)


@given(number=st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([-(2**63), 2**63 - 1])))
@settings(max_examples=50, deadline=None)
def test_64_bits_come_back(round_trip: RoundTrip, number: int) -> None:
    assert round_trip(Int64(), number) == {"sqlite": number, "postgresql": number}


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, True, 1.0, "1", Decimal(1)])
def test_an_integer_is_an_int_of_64_bits(value: object) -> None:
    with pytest.raises(InvalidValueError):
        Int64().check(value, "priority")


def test_a_subclass_of_int_becomes_a_plain_int() -> None:
    class Level(enum.IntEnum):
        HIGH = 3

    assert type(Int64().check(Level.HIGH, "priority")) is int


def test_an_integer_key_numbers_itself_and_uses_no_number_twice(engines: dict[str, sa.Engine]) -> None:
    key: sa.Column[int] = sa.Column("id", Int64(), sa.Identity(), primary_key=True)
    table = sa.Table("numbered", sa.MetaData(), key, sa.Column("n", Int64()), sqlite_autoincrement=True)
    for engine in engines.values():
        table.create(engine)
        with engine.connect() as connection:
            for expected in (1, 2, 3):
                assert connection.scalar(table.insert().values(n=1).returning(table.c.id)) == expected
                connection.execute(table.delete())
        table.drop(engine)


@given(number=st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([5e-324, 1e308, -0.0])))
@settings(max_examples=50, deadline=None)
def test_finite_floats_come_back(round_trip: RoundTrip, number: float) -> None:
    for found in round_trip(Float64(), number).values():
        assert type(found) is float
        assert found == number
        assert number != 0 or math.copysign(1, found) == 1


def test_an_int_becomes_a_float() -> None:
    assert type(Float64().check(3, "confidence")) is float


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, True, "1.0", Decimal(1)])
def test_a_float_is_a_finite_number(value: object) -> None:
    with pytest.raises(InvalidValueError):
        Float64().check(value, "confidence")


@pytest.mark.parametrize("value", [True, False])
def test_booleans_come_back_as_booleans(round_trip: RoundTrip, value: bool) -> None:
    for found in round_trip(Boolean(), value).values():
        assert found is value


@pytest.mark.parametrize("value", [0, 1, "false", 1.0])
def test_what_is_merely_true_or_false_is_no_boolean(value: object) -> None:
    with pytest.raises(InvalidValueError, match="not bool"):
        Boolean().check(value, "is_writable")


def test_booleans_filter_alike(engines: dict[str, sa.Engine]) -> None:
    columns: list[sa.Column[Any]] = [sa.Column("n", Int64()), sa.Column("flag", Boolean())]
    table = sa.Table("flags", sa.MetaData(), *columns, prefixes=["TEMPORARY"])
    for engine in engines.values():
        with engine.connect() as connection:
            table.create(connection)
            connection.execute(
                table.insert(), [{"n": 1, "flag": True}, {"n": 2, "flag": False}, {"n": 3, "flag": None}]
            )
            assert connection.scalars(sa.select(table.c.n).where(table.c.flag)).all() == [1]
            assert connection.scalars(sa.select(table.c.n).where(~table.c.flag)).all() == [2]
            assert connection.scalars(sa.select(table.c.n).where(table.c.flag == False)).all() == [2]  # noqa: E712
            assert connection.scalars(sa.select(table.c.n).where(table.c.flag.is_(None))).all() == [3]


@given(amount=amounts)
@settings(max_examples=60, deadline=None)
def test_amounts_come_back_exact_and_written_alike(round_trip: RoundTrip, amount: Decimal) -> None:
    normal = Money().check(amount, "cost")
    assert normal == amount
    for found in round_trip(Money(), amount).values():
        assert type(found) is Decimal
        assert found == amount
        assert str(found) == str(normal)


@pytest.mark.parametrize(
    ("given_text", "text"),
    [("0.00", "0"), ("-0", "0"), ("1E+3", "1000"), ("100.00", "100"), ("1.50", "1.5"), ("0.000001", "0.000001")],
)
def test_an_amount_has_one_way_to_be_written(given_text: str, text: str) -> None:
    assert str(Money().check(Decimal(given_text), "cost")) == text


@pytest.mark.parametrize(
    "value",
    [
        *(
            Decimal(text)
            for text in ("0.0000000001", "1E-1000000", "1E+1000000", "NaN", "sNaN", "Infinity", "-Infinity")
        ),
        *(sign * (LIMIT + Decimal("1e-9")) for sign in (1, -1)),
        0.1,
        1.0,
        "1.0",
        True,
        10**20,
    ],
)
def test_an_amount_that_would_be_rounded_or_is_none_is_refused(value: object) -> None:
    with pytest.raises(InvalidValueError, match=r"^cost: "):
        Money().check(value, "cost")


def test_the_callers_decimal_context_changes_nothing() -> None:
    with decimal.localcontext(prec=3, rounding=decimal.ROUND_UP):
        assert str(Money().check(LIMIT, "cost")) == str(LIMIT)


def test_amounts_add_up_exactly(engines: dict[str, sa.Engine]) -> None:
    table = sa.Table("totals", sa.MetaData(), sa.Column("total", Money()), prefixes=["TEMPORARY"])
    for engine in engines.values():
        with engine.connect() as connection:
            table.create(connection)
            connection.execute(table.insert(), {"total": 0})
            for _ in range(10):
                connection.execute(table.update().values(total=table.c.total + Decimal("0.1")))
            assert connection.scalar(sa.select(table.c.total)) == Decimal(1)
            assert connection.scalar(sa.select(sa.func.sum(table.c.total))) == Decimal(1)


def test_a_total_that_ran_over_does_not_pass_for_an_exact_one(engines: dict[str, sa.Engine]) -> None:
    table = sa.Table("overflow", sa.MetaData(), sa.Column("total", Money()), prefixes=["TEMPORARY"])
    with engines["sqlite"].connect() as connection:
        table.create(connection)
        connection.execute(table.insert(), {"total": LIMIT})
        connection.execute(table.update().values(total=table.c.total + 1))
        with pytest.raises(InvalidValueError, match="stored as float"):
            connection.scalar(sa.select(table.c.total))
