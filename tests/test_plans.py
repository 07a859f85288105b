"""Every list and every statement that runs often finds its rows by an index, in the order in which it gives them."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from agentos_store import ensure_migrations
from agentos_store.agents.models import Agent
from agentos_store.base import Base
from agentos_store.conversations.models import Session
from agentos_store.engine.postgresql.connect import DIALECT as POSTGRESQL
from agentos_store.engine.sqlite.connection import DIALECT as SQLITE
from agentos_store.engine.sqlite.functions import register_functions
from agentos_store.engine.statement import Statement
from agentos_store.page import Listing
from agentos_store.projects import repository as projects
from agentos_store.projects.models import Project, ProjectRepo
from agentos_store.tasks import audits, graph, lineage, trail, transition, verification
from agentos_store.tasks import repository as tasks
from agentos_store.tasks.models import Task, TaskAudit, TaskAuditHead, TaskLineage
from agentos_store.testing import Databases, reset_schema
from agentos_store.testing.postgres import connect

ROWS = 20_000
START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LARGE = {"tasks", "task_audits", "task_audit_heads", "task_lineage", "projects", "project_repos"}


def at(number: int) -> dt.datetime:
    return START + dt.timedelta(seconds=number)


def mixed(number: int, rows: int = ROWS) -> int:
    """Return a number for each number, in another order: rows do not lie in the table as they are listed."""
    return number * 7919 % rows


def some_row(model: type[Base], **values: Any) -> dict[str, Any]:
    """Return a row with something in every column that needs it."""
    kinds = {"Int64": 0, "UTCDateTime": START, "JSONValue": {}, "Boolean": True, "Text": "", "Identifier": "x"}
    kinds |= {"Money": 0, "Reference": ""}
    row: dict[str, Any] = {}
    for column in model.table().columns:
        if not column.nullable and column.identity is None:
            values_of = getattr(column.type, "values", None)
            row[column.name] = values_of[0] if values_of else kinds[type(column.type).__name__]
            if getattr(column.type, "kind", None) == "array":
                row[column.name] = []
    return row | values


def fill(engine: sa.Engine) -> None:
    def insert(model: type[Base], rows: Iterator[dict[str, Any]]) -> None:
        with engine.begin() as connection:
            connection.execute(sa.insert(model.table()), list(rows))

    insert(Session, (some_row(Session, id=f"s{n}") for n in range(200)))
    insert(Agent, (some_row(Agent, agent_id=f"a{n}") for n in range(200)))
    insert(
        Project,
        (
            some_row(
                Project,
                id=f"p{n}",
                name=f"name {n % 4000}",
                status="deleted" if n >= 4000 else "archived" if n % 200 == 3 else "active",
                tags=[f"tag{n % 500}"],
                created_at=at(mixed(n, 5000)),
            )
            for n in range(5000)
        ),
    )
    insert(
        ProjectRepo,
        (
            some_row(ProjectRepo, project_id=f"p{n % 50}", repo_id=f"r{mixed(n, 5000):06}", role="code")
            for n in range(5000)
        ),
    )
    insert(
        Task,
        (
            some_row(
                Task,
                task_id=f"t{n:06}",
                title=f"title {n}",
                status="running" if n % 200 == 3 else "completed",
                exit_reason="boom",
                task_type=f"type{n % 200}",
                session_id=f"s{n % 200}",
                project_id=f"p{n % 100}",
                agent_id=f"a{n % 200}",
                idempotency_key=f"k{n}",
                max_attempts=3,
                metadata={"n": n},
                created_at=at(mixed(n)),
            )
            for n in range(ROWS)
        ),
    )
    insert(
        TaskAudit,
        (
            some_row(
                TaskAudit,
                task_id=f"t{n % 500:06}",
                repo_id=f"r{n % 200}",
                level="error" if n % 200 == 7 else "info",
                event_type=f"event{n % 200}.x",
                decision_id=f"d{n}",
                prev_hash=f"{n:064}",
                row_hash=f"{n + 500:064}",
                created_at=at(mixed(n)),
            )
            for n in range(ROWS)
        ),
    )
    insert(
        TaskAuditHead,
        (
            {
                "task_id": f"t{n:06}",
                "length": 40,
                "head_hash": f"{n}",
                "head_prev_hash": "0",
                "pruned_to": 0,
                "pruned_hash": None,
            }
            for n in range(5000)
        ),
    )
    insert(
        TaskLineage,
        (
            some_row(TaskLineage, task_id=f"t{n % 2000:06}", kind=f"kind{n % 200}", ref_id=f"ref{n // 4}")
            for n in range(ROWS)
        ),
    )


class Plans:
    """Explains statements on one filled database."""

    generic = False

    def check(
        self, statement: Statement[Any], values: Mapping[str, object], *, sorts: bool = False, scans: bool = False
    ) -> None:
        """Raise AssertionError, with the plan, for a scan of a large table or for a sort."""
        raise NotImplementedError


class SQLitePlans(Plans):
    def __init__(self, path: Path) -> None:
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
            if scanned and scanned[1] in LARGE:
                assert scans, shown
            if "TEMP B-TREE" in line or "MULTI-INDEX" in line:
                assert sorts, shown


class PostgreSQLPlans(Plans):
    def __init__(self, url: str, schema: str) -> None:
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
                assert table not in LARGE, shown
            if kind in {"Index Scan", "Index Only Scan"} and table in LARGE and "Index Cond" not in node:
                assert scans, shown
            if kind in {"Sort", "Incremental Sort"} and not sorts:
                # One row that a unique key finds is in order.
                assert node["Plan Rows"] <= 1, shown


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def plans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plans]:
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("plans") / "registry.sqlite"
        ensure_migrations(f"sqlite:///{path}")
        made = SQLitePlans(path)
        with contextlib.closing(made.raw):
            yield made
        return
    server = request.getfixturevalue("postgres_url")
    databases = Databases(server)
    can_create = databases.can_create()
    url, schema = (databases.create(), "public") if can_create else (server, "agentos_test_plans")
    if not can_create:
        reset_schema(server, schema)
    try:
        ensure_migrations(url, schema=schema)
        found = PostgreSQLPlans(url, schema)
        with contextlib.closing(found.raw):
            yield found
    finally:
        if can_create:
            databases.drop(url)
        else:
            reset_schema(server, schema)


VALUES: dict[str, object] = {
    "status": "running",
    "task_type": "type3",
    "session_id": "s7",
    "project_id": "p7",
    "agent_id": "a7",
    "created_after": at(ROWS - 500),
    "created_before": at(500),
    "metadata": {"n": 7},
    "tags": ["tag7"],
    "name": "name 7",
    "role": "code",
    "task_id": "t000007",
    "repo_id": "r7",
    "level": "error",
    "event_type": "event7.x",
    "event_prefix": "event7",
    "event_prefix_end": "event7",
    "decision_id": "d7",
    "kind": "kind28",
    "ref_id": "ref7",
}

AFTER: dict[str, object] = {
    "created_at": at(10_000),
    "task_id": "t010000",
    "audit_id": 10_000,
    "lineage_id": 10_000,
    "event_type": "event7.x",
    "id": "p2000",
    "name": "name 2000",
    "repo_id": "r000050",
}

LISTINGS: dict[str, Listing[Any]] = {
    "tasks": tasks._LISTING,
    "audits": audits._LISTING,
    "audits by prefix": audits._PREFIX_LISTING,
    "lineage": lineage._LISTING,
    "projects": projects._LISTING,
    "repositories": projects._REPO_LISTING,
}

SORTED = {
    # One entry at most.
    ("audits", "decision_id", "created_at"),
    # A name belongs to one project that is not deleted, so there is little to sort.
    ("projects", "name", "created_at"),
}
SCANNED = {
    # The range is over one column and the order over another: whichever index is taken, the other one waits.
    ("projects", "created_after", "name"),
    ("projects", "created_before", "name"),
}
CONTAINED = {"metadata", "tags"}


def cases() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for name, listing in LISTINGS.items():
        for order in listing.orders:
            if name == "audits by prefix":
                yield name, order, ("event_prefix", "event_prefix_end")
            elif name == "repositories":
                yield name, order, ("project_id",)
                yield name, order, ("project_id", "role")
            else:
                yield name, order, ()
                for each in listing.filters:
                    yield name, order, (each,)
                if "created_after" in listing.filters:
                    yield name, order, ("created_after", "created_before")
    yield "tasks", "created_at", ("project_id", "status")
    yield "tasks", "created_at", ("status", "created_after")
    yield "audits", "created_at", ("task_id", "level")
    yield "audits", "created_at", ("task_id", "event_type")
    yield "lineage", "lineage_id", ("kind", "ref_id")
    yield "lineage", "lineage_id", ("task_id", "kind")


@pytest.mark.parametrize(("name", "order", "filters"), list(cases()))
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_a_page_comes_from_an_index_in_its_order(
    plans: Plans, name: str, order: str, filters: tuple[str, ...], descending: bool, after: bool
) -> None:
    listing = LISTINGS[name]
    columns = listing.orders[order]
    values: dict[str, object] = {each: VALUES[each] for each in filters}
    if name == "projects" and "status" in values:
        values["status"] = "archived"
    if filters == ("created_after", "created_before"):
        values = {"created_after": at(9_990), "created_before": at(10_500)}
    statement = listing._build(values, descending, columns, after=after)
    binds = {**values, "limit_": 51, "offset_": 0}
    if after:
        binds |= {f"after_{n}": AFTER[column.name] for n, column in enumerate(columns)}
    contained = bool(CONTAINED & set(filters))
    exempt = any((name, each, order) in SCANNED for each in filters)
    plans.check(
        statement,
        binds,
        # GIN finds what contains, in no order; SQLite narrows the rows of the order's index.
        sorts=contained or exempt or any((name, each, order) in SORTED for each in filters),
        scans=not filters or contained or exempt,
    )


HOT: dict[str, tuple[Statement[Any], dict[str, object]]] = {
    "get a task": (transition.GET, {"task_id": "t000007"}),
    "exists": (tasks._EXISTS, {"task_id": "t000007"}),
    "idempotency": (tasks._BY_IDEMPOTENCY_KEY, {"task_type": "type7", "idempotency_key": "k7"}),
    "history": (tasks._HISTORY, {"task_id": "t000007"}),
    "change a task": (
        tasks._change_of({"title": ""}, into_project=False),
        {"new_title": "u", "new_updated_at": START, "task_id": "t000007", "given_version": None},
    ),
    "move a task into a project": (
        tasks._change_of({"project_id": ""}, into_project=True),
        {"new_project_id": "p7", "new_updated_at": START, "task_id": "t000007", "given_version": None},
    ),
    "was the step taken": (transition._TAKEN, {"task_id": "t000007", "at": at(7), "event_type": "e"}),
    "delete a task": (tasks._DELETE, {"task_id": "t000007"}),
    "prune a head": (tasks._PRUNE_HEAD, {"task_id": "t000007"}),
    "read a head": (trail._READ_HEAD, {"task_id": "t000007"}),
    "is it decided": (trail._DECIDED, {"decision_id": "d7"}),
    "get an entry": (audits._GET, {"audit_id": 7}),
    "was the entry recorded": (audits._SAME, {"task_id": "t000007", "created_at": at(7), "event_type": "e"}),
    "verify one": (verification._ENTRIES_OF_ONE, {"only": "t000007", "from_audit": 1, "limit_": 1000}),
    "verify all": (verification._ENTRIES, {"from_task": "t000007", "from_audit": 1, "limit_": 1000}),
    "one head": (verification._HEAD, {"only": "t000007"}),
    "all heads": (verification._HEADS, {"after_task": "t000007", "limit_": 1000}),
    "get a link": (lineage._GET, {"lineage_id": 7}),
    "find a link": (lineage._GET_LINK, {"task_id": "t000007", "kind": "kind3", "ref_id": "ref7"}),
    "chain": (lineage._CHAIN, {"task_id": "t000007"}),
    "trace": (lineage._TRACE, {"ref_id": "ref7"}),
    "trace a kind": (lineage._TRACE_KIND, {"ref_id": "ref7", "kind": "kind3"}),
    "links of a task": (graph._LINKS_OF_TASK, {"task_id": "t000007", "limit_": 500}),
    "links to a reference": (graph._LINKS_TO_REF, {"kind": "kind3", "ref_id": "ref7", "limit_": 500}),
    "get a project": (projects._GET, {"id": "p7"}),
    "has it tasks": (projects._HAS_TASKS, {"id": "p7"}),
    "get a repository": (projects._GET_REPO, {"project_id": "p7", "repo_id": "r7"}),
    "remove a repository": (projects._DELETE_REPO, {"project_id": "p7", "repo_id": "r7"}),
    "clear a default": (projects._CLEAR_DEFAULT, {"id": "p7", "repo_id": "r7", "updated_at": START}),
}


@pytest.mark.parametrize("name", HOT)
def test_a_statement_that_runs_often_finds_its_rows_by_an_index(plans: Plans, name: str) -> None:
    plans.check(*HOT[name])


def test_a_scan_and_a_sort_would_be_noticed(plans: Plans) -> None:
    table = Task.table()
    for query in (
        sa.select(table).where(table.c.priority == sa.bindparam("n")),
        sa.select(table).order_by(table.c.priority),
    ):
        with pytest.raises(AssertionError):
            plans.check(Statement(query, lasting=False), {"n": 3})
