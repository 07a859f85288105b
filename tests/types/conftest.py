"""One engine for each database, set up as far as the types need it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from psycopg.types.string import TextLoader

from agentos_store.types import Gate, json_contains

Engines = dict[str, sa.Engine]
RoundTrip = Callable[[Gate[Any], Any], dict[str, Any]]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Engines]:
    """SQLite on a file and PostgreSQL, by the name of the dialect."""
    file = tmp_path_factory.mktemp("types") / Path("types.sqlite")
    made = {
        "sqlite": sa.create_engine(f"sqlite:///{file}", poolclass=sa.NullPool),
        "postgresql": sa.create_engine(postgres_url, poolclass=sa.NullPool),
    }
    sa.event.listen(made["sqlite"], "connect", _add_function)
    sa.event.listen(made["postgresql"], "connect", _load_json_as_text)
    yield made
    for engine in made.values():
        engine.dispose()


@pytest.fixture(scope="module")
def round_trip(engines: Engines) -> Iterator[RoundTrip]:
    """Write a value through a type into a table on each database; return what each gives back."""
    tables: dict[str, sa.Table] = {}
    connections = {name: engine.connect() for name, engine in engines.items()}
    numbers = itertools.count()

    def write_and_read(column_type: Gate[Any], value: Any) -> dict[str, Any]:
        key = repr(column_type) + str(vars(column_type))
        if key not in tables:
            columns: list[sa.Column[Any]] = [
                sa.Column("id", sa.Integer, primary_key=True),
                sa.Column("value", column_type),
            ]
            tables[key] = sa.Table(f"round_trip_{len(tables)}", sa.MetaData(), *columns, prefixes=["TEMPORARY"])
            for connection in connections.values():
                tables[key].create(connection)
        table, number = tables[key], next(numbers)
        found = {}
        for name, connection in connections.items():
            connection.execute(table.insert(), {"id": number, "value": value})
            found[name] = connection.execute(sa.select(table.c.value).where(table.c.id == number)).scalar_one()
        return found

    yield write_and_read
    for connection in connections.values():
        connection.close()


def _add_function(connection: Any, _record: object) -> None:
    connection.create_function("agentos_json_contains", 2, json_contains, deterministic=True)


def _load_json_as_text(connection: Any, _record: object) -> None:
    connection.adapters.register_loader("json", TextLoader)
    connection.adapters.register_loader("jsonb", TextLoader)
