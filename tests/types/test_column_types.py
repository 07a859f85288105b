"""What all column types have in common."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from agentos_store.errors import InvalidValueError
from agentos_store.types import (
    Boolean,
    Choice,
    ErrorText,
    ExactJSON,
    Float32Vector,
    Float64,
    Gate,
    Identifier,
    Int64,
    JSONValue,
    Money,
    Text,
    UTCDateTime,
)

MOMENT = dt.datetime(2026, 10, 21, 9, 30, tzinfo=dt.UTC)

COLUMNS: list[tuple[Gate[Any], str, str, Any, Any]] = [
    (Text(1, 9), "TEXT", 'TEXT COLLATE "C"', "a", 1),
    (Identifier(), "TEXT", 'TEXT COLLATE "C"', "a", ""),
    (ErrorText(), "TEXT", 'TEXT COLLATE "C"', "a", b"a"),
    (Choice("a", "b"), "TEXT", 'TEXT COLLATE "C"', "a", "c"),
    (Int64(), "INTEGER", "BIGINT", 1, 2**63),
    (Float64(), "REAL", "DOUBLE PRECISION", 0.1, float("nan")),
    (Float32Vector(), "BLOB", "BYTEA", b"\0\0\x80?", b""),
    (Boolean(), "INTEGER", "BOOLEAN", True, 1),
    (UTCDateTime(), "TEXT", "TIMESTAMP WITH TIME ZONE", MOMENT, MOMENT.replace(tzinfo=None)),
    (Money(), "INTEGER", "NUMERIC(19, 9)", Decimal("0.1"), 0.1),
    (JSONValue("object"), "TEXT", "JSONB", {"a": 1}, []),
    (ExactJSON(), "TEXT", "JSON", {"a": 1}, (1,)),
]
NAMES = [type(row[0]).__name__ for row in COLUMNS]
by_type = pytest.mark.parametrize(("column_type", "on_sqlite", "on_postgresql", "good", "bad"), COLUMNS, ids=NAMES)


@by_type
def test_the_column_is_declared_as_documented(
    engines: dict[str, sa.Engine], column_type: Gate[Any], on_sqlite: str, on_postgresql: str, good: Any, bad: Any
) -> None:
    assert column_type.compile(dialect=engines["sqlite"].dialect) == on_sqlite
    assert column_type.compile(dialect=engines["postgresql"].dialect) == on_postgresql


@by_type
def test_what_one_database_refuses_the_other_refuses_with_the_same_error(
    engines: dict[str, sa.Engine], column_type: Gate[Any], on_sqlite: str, on_postgresql: str, good: Any, bad: Any
) -> None:
    messages = []
    for engine in engines.values():
        with engine.connect() as connection, pytest.raises(InvalidValueError) as caught:
            connection.scalar(sa.select(sa.bindparam("value", type_=column_type)), {"value": bad})
        with pytest.raises(InvalidValueError) as named:
            column_type.encoder(engine.dialect)(bad, "field")
        assert named.value.name == "field"
        assert named.value.why == caught.value.why
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith("value: ")


@by_type
def test_encoder_and_decoder_do_what_sqlalchemy_does(
    engines: dict[str, sa.Engine], column_type: Gate[Any], on_sqlite: str, on_postgresql: str, good: Any, bad: Any
) -> None:
    for engine in engines.values():
        encode, decode = column_type.encoder(engine.dialect), column_type.decoder(engine.dialect)
        stored = encode(good, "field")
        assert column_type.process_bind_param(good, engine.dialect) == stored
        assert (stored if decode is None else decode(stored)) == good
        assert column_type.process_result_value(stored, engine.dialect) == good
        assert encode(None, "field") is None
        assert column_type.process_result_value(None, engine.dialect) is None


@by_type
def test_null_stays_null(
    engines: dict[str, sa.Engine], column_type: Gate[Any], on_sqlite: str, on_postgresql: str, good: Any, bad: Any
) -> None:
    value = sa.bindparam("value", type_=column_type)
    for engine in engines.values():
        with engine.connect() as connection:
            found, is_null = connection.execute(sa.select(value, value.is_(None)), {"value": None}).one()
            assert found is None
            assert is_null


# PostgreSQL has no equality for JSON texts.
@pytest.mark.parametrize(("column_type", "good"), [(row[0], row[3]) for row in COLUMNS[:-1]], ids=NAMES[:-1])
def test_a_value_is_found_by_equality(engines: dict[str, sa.Engine], column_type: Gate[Any], good: Any) -> None:
    table = sa.Table("equality", sa.MetaData(), sa.Column("value", column_type), prefixes=["TEMPORARY"])
    for engine in engines.values():
        with engine.connect() as connection:
            table.create(connection)
            connection.execute(table.insert(), {"value": good})
            for condition in (table.c.value == good, table.c.value.in_([good])):
                assert connection.scalars(sa.select(table.c.value).where(condition)).all() == [good]


@by_type
def test_statements_with_the_type_are_cached(
    column_type: Gate[Any], on_sqlite: str, on_postgresql: str, good: Any, bad: Any
) -> None:
    assert type(column_type).cache_ok
    key = sa.select(sa.bindparam("value", type_=column_type))._generate_cache_key()
    assert key is not None
    other = type(column_type)("x") if isinstance(column_type, Choice) else None
    if other is not None:
        assert sa.select(sa.bindparam("value", type_=other))._generate_cache_key() != key
