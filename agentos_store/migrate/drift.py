"""Drift: how a database's schema differs from the one that the models describe.

The models' schema is made beside the database, in memory on SQLite and in a transaction that is rolled back on
PostgreSQL, and both are read from their catalogues. So what is compared is what the database understood: a CHECK that
was rewritten, a trigger that is gone or disabled, and an index that lost its condition show like a column that is
missing.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache

import psycopg
from sqlalchemy import Connection, StaticPool, create_engine
from sqlalchemy.exc import DBAPIError

from agentos_store.engine.sqlite.connect import connect_reader
from agentos_store.engine.sqlite.faults import translate as translate_sqlite
from agentos_store.engine.sqlite.functions import register_functions
from agentos_store.migrate.catalogue_postgresql import read_postgresql, whole
from agentos_store.migrate.catalogue_sqlite import Facts, read_sqlite
from agentos_store.migrate.locked import looking_connection
from agentos_store.migrate.search_index import search_index_sqlite
from agentos_store.migrate.target import Target
from agentos_store.migrate.triggers import (
    APPEND_ONLY,
    ERASABLE,
    append_only_function,
    append_only_triggers_postgresql,
    triggers_of_models,
)
from agentos_store.models import metadata

PARTITIONED = ("events", '"position"')
"""The table that may be divided on PostgreSQL without being otherwise than the models say, and by which column."""


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """One thing that the database has otherwise than the models."""

    table: str
    """Empty for what belongs to no table."""
    what: str
    """``"table"``, ``"column title"``, ``"index ix_tasks_status"``, ``"trigger …"``, …"""
    database: str | None
    """Its definition in the database; None where it is missing there."""
    models: str | None
    """Its definition by the models; None where they know nothing of it."""

    def __str__(self) -> str:
        """Say it in one line."""
        where = f"{self.table}: {self.what}" if self.table else self.what
        if self.database is None:
            return f"{where} is missing"
        if self.models is None:
            return f"{where} is in the database only"
        return f"{where} is {self.database!r}, and by the models {self.models!r}"


def find_drift(target: Target, *, alone: bool = False) -> Sequence[Difference]:
    """Return every difference between the database and the models, sorted; none is how it should be.

    Tables that the models do not know may belong to another application that shares the database, so they are passed
    over, unless ``alone`` says that there is none. Nothing is written, but on PostgreSQL the role needs the privilege
    to create a schema: the models' is created, read and rolled back.
    """
    database, models = _sqlite(target) if target.path is not None else _postgresql(target)
    if not alone:
        ours = {table for table, _ in models}
        functions = {what for table, what in models if not table}
        database = {
            (table, what): definition
            for (table, what), definition in database.items()
            if table in ours and (table or what in functions)
        }
    return sorted(_differences(database, models))


def count_partitions(target: Target) -> int:
    """Return into how many partitions the events are divided; 0 when they are one table."""
    if target.path is not None:
        return 0
    with looking_connection(target) as connection:
        found = connection.exec_driver_sql(_COUNT_PARTITIONS, (PARTITIONED[0], target.schema)).scalar_one()
    return int(found)


def _differences(database: Facts, models: Facts) -> Iterator[Difference]:
    for table, what in database.keys() | models.keys():
        key = (table, what)
        if database.get(key) == models.get(key):
            continue
        whole = (table, "table")
        if what != "table" and table and (whole not in database or whole not in models):
            # That the table is missing says it all.
            continue
        yield Difference(table, what, database.get(key), models.get(key))


def _sqlite(target: Target) -> tuple[Facts, Facts]:
    assert target.path is not None
    try:
        with closing(connect_reader(target.path, busy_timeout=target.settings.busy_timeout)) as raw:
            database = read_sqlite(raw)
    except sqlite3.Error as error:
        raise translate_sqlite(error) from None
    return database, _models_on_sqlite()


@cache
def _models_on_sqlite() -> Facts:
    with closing(sqlite3.connect(":memory:")) as raw:
        register_functions(raw)
        engine = create_engine("sqlite://", creator=lambda: raw, poolclass=StaticPool)
        metadata.create_all(engine)
        for statement in (*triggers_of_models(metadata), *search_index_sqlite()):
            raw.execute(statement)
        return read_sqlite(raw)


def _postgresql(target: Target) -> tuple[Facts, Facts]:
    from agentos_store.engine.postgresql.faults import translate

    assert target.schema is not None
    try:
        with _rolled_back(target) as connection:
            database = whole(read_postgresql(connection, target.schema), *PARTITIONED)
            beside = f"agentos_store_drift_{uuid.uuid4().hex}"
            _create_models(connection, beside, with_triggers=target.settings.append_only == "trigger")
            return database, read_postgresql(connection, beside)
    except DBAPIError as error:
        if not isinstance(error.orig, psycopg.Error):
            raise
        raise translate(error.orig) from None


@contextmanager
def _rolled_back(target: Target) -> Iterator[Connection]:
    from agentos_store.engine.postgresql.backend import lent_engine

    with lent_engine(target.url, target.settings) as engine, engine.connect() as connection:
        transaction = connection.begin()
        try:
            yield connection
        finally:
            transaction.rollback()


def _create_models(connection: Connection, schema: str, *, with_triggers: bool) -> None:
    connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    keys = [key for table in metadata.tables.values() for key in table.foreign_key_constraints]
    rules = [key._create_rule for key in keys]  # noqa: SLF001  see below
    metadata.create_all(connection.execution_options(schema_translate_map={None: schema}), checkfirst=False)
    for key, rule in zip(keys, rules, strict=True):
        # SQLAlchemy marks a key that it has added by ALTER TABLE, and leaves it out of every CREATE TABLE from then on,
        # so that an SQLite database that this process made later would lack it.
        key._create_rule = rule  # noqa: SLF001
    for table in APPEND_ONLY if with_triggers else ():
        function = append_only_function(table, schema, erasing=table in ERASABLE)
        connection.exec_driver_sql(function.replace("%", "%%"))
        for _, text in append_only_triggers_postgresql(table, schema):
            connection.exec_driver_sql(text)


_COUNT_PARTITIONS = """
SELECT count(*) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhparent JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'p' AND c.relname = %s AND n.nspname = %s
"""
