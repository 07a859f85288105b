"""Plans of statements on a filled database: no scan of a large table, and no sort where an index has the order."""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from agentos_store.base import Base
from agentos_store.engine.postgresql.connect import DIALECT as POSTGRESQL
from agentos_store.engine.recordset import recordset
from agentos_store.engine.sqlite.connection import DIALECT as SQLITE
from agentos_store.engine.sqlite.functions import register_functions
from agentos_store.engine.statement import Statement
from agentos_store.migrate.target import DEFAULT_SCHEMA
from agentos_store.testing.postgres import connect

ROWS = 8_000
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
Fill = Callable[[sa.Engine], None]


def at(number: int) -> dt.datetime:
    return START + dt.timedelta(seconds=number)


def mixed(number: int, rows: int = ROWS) -> int:
    """Return a number for each number, in another order: rows do not lie in the table as they are listed."""
    return number * 7919 % rows


def some_row(model: type[Base], **values: Any) -> dict[str, Any]:
    """Return a row with something in every column that needs it."""
    return {**_least_row(model), **values}


@functools.cache
def _least_row(model: type[Base]) -> dict[str, Any]:
    kinds = {"Int64": 0, "UTCDateTime": START, "JSONValue": {}, "Boolean": True, "Text": "", "Identifier": "x"}
    kinds |= {"Money": 0, "Reference": "", "ExactJSON": "x", "Float64": 0.0}
    row: dict[str, Any] = {}
    for column in model.table().columns:
        if not column.nullable and column.identity is None:
            values_of = getattr(column.type, "values", None)
            row[column.name] = values_of[0] if values_of else kinds[type(column.type).__name__]
            if getattr(column.type, "kind", None) == "array":
                row[column.name] = []
    return row


def insert(engine: sa.Engine, model: type[Base], rows: Iterator[dict[str, Any]]) -> None:
    """Insert rows that name the same columns, past SQLAlchemy's own handling of each value, which takes long."""
    every = list(rows)
    table = model.table()
    columns = [table.c[name] for name in every[0]]
    with engine.begin() as connection:
        raw: Any = connection.connection.driver_connection
        if engine.dialect.name == "sqlite":
            binds = {column.name: sa.bindparam(column.name, type_=column.type) for column in columns}
            prepared = Statement[Any](sa.insert(table).values(binds)).prepare(SQLITE, None)
            raw.executemany(prepared.text, [prepared.encode(row) for row in every])
            return
        added, values = recordset("added", columns)
        source = sa.select(*values.values()).select_from(added)
        added_rows = sa.insert(table).from_select([*values], source, include_defaults=False)
        schema = engine.get_execution_options()["schema_translate_map"][None]
        prepared = Statement[Any](added_rows).prepare(POSTGRESQL, schema)
        for start in range(0, len(every), 5_000):
            raw.execute(prepared.text.encode(), prepared.encode({"added": every[start : start + 5_000]}))


class Plans:
    """Explains statements on one filled database."""

    generic = False

    def check(
        self, statement: Statement[Any], values: Mapping[str, object], *, sorts: bool = False, scans: bool = False
    ) -> None:
        """Raise AssertionError, with the plan, for a scan of a large table or for a sort."""
        raise NotImplementedError


class SQLitePlans(Plans):
    def __init__(self, path: Path, fill: Fill, large: Collection[str]) -> None:
        self.large = large
        engine = sa.create_engine(f"sqlite:///{path}", hide_parameters=True)
        sa.event.listen(engine, "connect", lambda raw, _: register_functions(raw))
        fill(engine)
        engine.dispose()
        self.raw = sqlite3.connect(path)
        register_functions(self.raw)
        self.raw.execute("ANALYZE")

    def check(
        self, statement: Statement[Any], values: Mapping[str, object], *, sorts: bool = False, scans: bool = False
    ) -> None:
        prepared = statement.prepare(SQLITE, None)
        rows = self.raw.execute("EXPLAIN QUERY PLAN " + prepared.text, prepared.encode(values))
        plan = [row[3] for row in rows]
        shown = "\n".join([prepared.text, *plan])
        for line in plan:
            scanned = re.match(r"SCAN (\w+)", line)
            if scanned and scanned[1] in self.large:
                assert scans, shown
            if "TEMP B-TREE" in line or "MULTI-INDEX" in line:
                assert sorts, shown


class PostgreSQLPlans(Plans):
    def __init__(self, url: str, schema: str, fill: Fill, large: Collection[str]) -> None:
        self.large = large
        engine = sa.create_engine(url, hide_parameters=True, execution_options={"schema_translate_map": {None: schema}})
        fill(engine)
        engine.dispose()
        self.schema = schema
        self.raw = connect(url)
        self.raw.execute("VACUUM ANALYZE")
        # To sort a few rows, or to read what lies together, may be cheaper in this small database. What is tested is
        # that there is an index that makes it needless in a large one.
        for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort", "enable_incremental_sort"):
            self.raw.execute(f"SET {setting} = off".encode())
        self.raw.execute("SET random_page_cost = 1.1")

    def check(
        self, statement: Statement[Any], values: Mapping[str, object], *, sorts: bool = False, scans: bool = False
    ) -> None:
        self.raw.execute(b"SET enable_sort = " + (b"on" if sorts else b"off"))
        prepared = statement.prepare(POSTGRESQL, self.schema)
        encoded = prepared.encode(values)
        found = self.raw.execute(b"EXPLAIN (FORMAT JSON) " + prepared.text.encode(), encoded).fetchone()
        assert found is not None
        self._judge(prepared.text, found[0][0]["Plan"], sorts=sorts, scans=scans)
        # A statement that is used often may get a plan that knows no values.
        numbers = iter(range(1, len(encoded) + 1))
        text = re.sub("%s", lambda _: f"${next(numbers)}", prepared.text).replace("%%", "%")
        arguments = ", ".join(["NULL"] * len(encoded))
        self.raw.execute("SET plan_cache_mode = force_generic_plan")
        self.raw.execute(f"PREPARE explained AS {text}".encode())
        try:
            call = f"EXECUTE explained({arguments})" if encoded else "EXECUTE explained"
            found = self.raw.execute(f"EXPLAIN (FORMAT JSON) {call}".encode()).fetchone()
        finally:
            self.raw.execute("DEALLOCATE explained")
            self.raw.execute("RESET plan_cache_mode")
        assert found is not None
        # Without the values it takes the rare status for a frequent one, and walks through all rows in order.
        self._judge(prepared.text, found[0][0]["Plan"], sorts=sorts, scans=True)

    def _judge(self, text: str, plan: dict[str, Any], *, sorts: bool, scans: bool) -> None:
        shown = text + "\n" + json.dumps(plan, indent=1)
        for node in nodes(plan):
            kind, table = node["Node Type"], node.get("Relation Name")
            if kind in {"Seq Scan", "Parallel Seq Scan"}:
                assert table not in self.large, shown
            if kind in {"Index Scan", "Index Only Scan"} and table in self.large and "Index Cond" not in node:
                assert scans, shown
            if kind in {"Sort", "Incremental Sort"} and not sorts:
                # One row that a unique key finds is in order.
                assert node["Plan Rows"] <= 1, shown


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, fill: Fill, large: Collection[str]
) -> Iterator[Plans]:
    """Make a filled database of the kind that ``request.param`` names; the body of a fixture."""
    if request.param == "sqlite":
        path = shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path_factory.mktemp("plans"))
        made = SQLitePlans(Path(path), fill, large)
        with contextlib.closing(made.raw):
            yield made
        return
    url, schema = request.getfixturevalue("migrated")
    found = PostgreSQLPlans(url, schema or DEFAULT_SCHEMA, fill, large)
    with contextlib.closing(found.raw):
        yield found
