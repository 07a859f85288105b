"""Every list and every statement that runs often finds its rows by an index, in the order in which it gives them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from agentos_store.agents.models import Agent
from agentos_store.conversations.models import Session
from agentos_store.engine.statement import Statement
from agentos_store.page import Listing
from agentos_store.projects import repository as projects
from agentos_store.projects.models import Project, ProjectRepo
from agentos_store.tasks import audits, graph, lineage, trail, transition, verification
from agentos_store.tasks import repository as tasks
from agentos_store.tasks.models import Task, TaskAudit, TaskAuditHead, TaskLineage
from tests.plans import ROWS, START, Plans, at, filled, insert, mixed, some_row

LARGE = {"tasks", "task_audits", "task_audit_heads", "task_lineage", "projects", "project_repos"}


def fill(engine: sa.Engine) -> None:
    insert(engine, Session, (some_row(Session, id=f"s{n}") for n in range(200)))
    insert(engine, Agent, (some_row(Agent, agent_id=f"a{n}") for n in range(200)))
    insert(
        engine,
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
        engine,
        ProjectRepo,
        (
            some_row(ProjectRepo, project_id=f"p{n % 50}", repo_id=f"r{mixed(n, 5000):06}", role="code")
            for n in range(5000)
        ),
    )
    insert(
        engine,
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
        engine,
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
        engine,
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
        engine,
        TaskLineage,
        (
            some_row(TaskLineage, task_id=f"t{n % 2000:06}", kind=f"kind{n % 200}", ref_id=f"ref{n // 4}")
            for n in range(ROWS)
        ),
    )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def plans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plans]:
    yield from filled(request, tmp_path_factory, fill, LARGE)


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
    "is the task there": (trail._KNOWN, {"task_id": "t000007"}),
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
