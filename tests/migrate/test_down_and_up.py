from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKeyConstraint, Table

from agentos_store import ensure_migrations
from agentos_store.engine.version import HEAD
from agentos_store.migrate.catalogue_postgresql import read_postgresql
from agentos_store.migrate.catalogue_sqlite import Facts, read_sqlite
from agentos_store.migrate.drift import find_drift
from agentos_store.migrate.locked import locked_connection
from agentos_store.migrate.revisions import known
from agentos_store.migrate.target import Target
from agentos_store.migrate.upgrade import downgrade
from agentos_store.models import metadata
from agentos_store.types import Boolean, Choice, ExactJSON, Float32Vector, Float64, Int64, JSONValue, Money, UTCDateTime

Rows = dict[str, list[dict[str, Any]]]


def value(column: Column[Any], number: int) -> object:
    """Return a value that the column takes, another one for each row where the type has room for it."""
    kind = column.type
    if column.name == "confidence":
        return number / 4
    if isinstance(kind, Choice):
        return kind.values[0]
    if isinstance(kind, JSONValue):
        return {"array": [number, "天气"], "object": {"number": number}}.get(kind.kind or "", number)
    found = {
        Boolean: number % 2 == 0,
        Int64: 1,
        Float64: number + 0.5,
        Float32Vector: [number, 0.5],
        Money: Decimal("1.25"),
        UTCDateTime: dt.datetime(2026, 10, 21, 9, 30, number, tzinfo=dt.UTC),
        ExactJSON: {"number": number, "text": "\0"},
    }
    return found.get(type(kind), f"{column.name} {number}")


def late_keys(table: Table) -> list[ForeignKeyConstraint]:
    """Return the foreign keys that close a circle: their values are filled in when all rows are there."""
    return [key for key in table.foreign_key_constraints if key.use_alter]


def row(table: Table, number: int) -> dict[str, Any]:
    found = {
        column.name: value(column, number)
        for column in table.columns
        if column is not table.autoincrement_column or not isinstance(column.type, Int64)
    }
    if "lease_until" in found and "pending" in found.values():
        # What waits is nobody's.
        found["lease_until"] = None
    if "to_generation" in found:
        # One row is what a conversation was, the other what it is.
        found["to_generation"] = 2 if number == 1 else None
    referred: set[str] = set()
    for key in sorted(table.foreign_key_constraints, key=lambda key: tuple(key.column_keys)):
        # Of two keys to one table the second refers to the other row: a task does not depend on itself.
        which = 3 - number if key.referred_table.name in referred else number
        referred.add(key.referred_table.name)
        for element in key.elements:
            if element.parent.primary_key and key.use_alter:
                continue
            found[element.parent.name] = None if key.use_alter else value(element.column, which)
    return found


def fill(target: Target) -> None:
    with locked_connection(target) as locked:
        connection = locked.execution_options(schema_translate_map={None: target.schema})
        for table in metadata.sorted_tables:
            connection.execute(table.insert(), [row(table, number) for number in (1, 2)])
        for table in metadata.sorted_tables:
            for key in late_keys(table):
                for number in (1, 2):
                    (own,) = table.primary_key.columns
                    given = {element.parent.name: value(element.column, number) for element in key.elements}
                    given.pop(own.name, None)
                    connection.execute(table.update().where(own == value(own, number)).values(given))


def read_rows(target: Target, execute: Callable[..., Any], facts: Facts) -> Rows:
    rows: Rows = {}
    # A virtual table has no rows of its own.
    for name in sorted({table for (table, what), is_a in facts.items() if what == "table" and is_a == "table"}):
        columns = sorted(what.split()[1] for table, what in facts if table == name and what.startswith("column "))
        listed = ", ".join(f'"{column}"' for column in columns)
        found = [dict(zip(columns, each, strict=True)) for each in execute(target, f"SELECT {listed} FROM {name}")]
        rows[name] = sorted(found, key=repr)
    return rows


def read_facts(target: Target, connect: Callable[[Target], Any]) -> Facts:
    if target.path is not None:
        with connect(target) as raw:
            return read_sqlite(raw)
    from agentos_store.engine.postgresql.backend import lent_engine

    assert target.schema is not None
    with lent_engine(target.url, target.settings) as engine, engine.connect() as connection:
        return read_postgresql(connection, target.schema)


@dataclass
class Climber:
    """A database that goes down and up, and what its tables and rows are meanwhile."""

    target: Target
    execute: Callable[..., Any]
    connect: Callable[[Target], Any]

    def rows(self, facts: Facts) -> Rows:
        return read_rows(self.target, self.execute, facts)

    def facts(self) -> Facts:
        return read_facts(self.target, self.connect)

    def descend(self, lower: str | None, facts: Facts, rows: Rows) -> Rows:
        """Go down, and see that what is left is as it was."""
        steps = len([step for step in known() if lower is None or step > lower])
        steps -= len([step for step in known() if step > str(self.target.revision())])
        assert downgrade(self.target, lower) == steps
        assert self.target.revision() == lower
        assert self.facts() == facts
        survived = self.rows(facts)
        assert survived == {
            name: [{column: each[column] for column in found[0]} for each in rows[name]]
            for name, found in survived.items()
        }
        return survived

    def climb(self, upper: str, facts: Facts, rows: Rows, survived: Rows) -> None:
        """Go up, and see that a column that was gone in between is empty, or has its default."""
        ensure_migrations(self.target.url, revision=upper)
        assert self.target.revision() == upper
        assert self.facts() == facts
        after = self.rows(facts)
        for name, found in survived.items():
            defaults = {column.name: 0 for column in metadata.tables[name].columns if column.server_default is not None}
            # Which messages are indexed nobody knows by then.
            defaults |= {"unindexed_from": 0}
            gone = {column: defaults.get(column) for column in rows[name][0].keys() - found[0].keys()}
            assert [{**each, **gone} for each in rows[name]] == after[name]
        assert all(after[name] == [] for name in after.keys() - survived.keys())


@pytest.fixture
def climber(empty_target: Target, execute: Callable[..., Any], connect: Callable[[Target], Any]) -> Climber:
    return Climber(empty_target, execute, connect)


def test_every_revision_descends_and_climbs_again_with_rows_in_every_table(climber: Climber) -> None:
    facts: dict[str | None, Facts] = {None: climber.facts()}
    for revision in known():
        ensure_migrations(climber.target.url, revision=revision)
        facts[revision] = climber.facts()
    fill(climber.target)
    rows = climber.rows(facts[HEAD])
    assert {name: len(found) for name, found in rows.items()} == dict.fromkeys(metadata.tables, 2)
    for lower, upper in [*pairwise([None, *known()])][::-1]:
        assert upper is not None
        survived = climber.descend(lower, facts[lower], rows)
        climber.climb(upper, facts[upper], rows, survived)
        # What climbed descends again to what it was; that the schema does, too, was seen on the first way down.
        assert downgrade(climber.target, lower) == 1
        rows = climber.rows(facts[lower])
        assert rows == survived


def test_all_revisions_descend_and_climb_together(climber: Climber) -> None:
    nothing = climber.facts()
    ensure_migrations(climber.target.url)
    fill(climber.target)
    facts = climber.facts()
    rows = climber.rows(facts)
    survived = climber.descend(None, nothing, rows)
    climber.climb(HEAD, facts, rows, survived)
    assert find_drift(climber.target, alone=True) == []


def test_descending_from_nothing_does_nothing(empty_target: Target) -> None:
    assert downgrade(empty_target, None) == 0


def test_descending_to_where_it_is_does_nothing(target: Target) -> None:
    assert downgrade(target, HEAD) == 0
