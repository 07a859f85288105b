"""Plans of the lists and of the hot statements over links, verdicts and the inbox, 20,000 rows in each table."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import literal, select

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.governance.inbox import InboxRepository
from agentos_store.governance.verdicts import VerdictRepository
from agentos_store.operation import Blocking
from agentos_store.tasks.audits import AuditRepository
from agentos_store.tasks.models import Task
from agentos_store.tasks.repository import TaskRepository
from agentos_store.testing.postgres import connect
from tests.planned import Planner, Undone

ROWS = 20_000
EARLY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LATE = EARLY + dt.timedelta(days=1)
LEASE = dt.timedelta(seconds=30)


FILL = """
INSERT INTO projects (id, name, path, status, tags, settings, added_at, created_at, updated_at)
SELECT 'p' || n, 'p' || n, '', 'active', '[]', '{}', @, @, @ FROM numbers WHERE n <= 1000;
INSERT INTO tasks (task_id, title, status, task_type, priority, project_id, attempts, max_attempts, lease_token,
version, metadata, created_at, updated_at)
SELECT 't' || n, 't', 'created', '', 0, 'p' || (n % 1000 + 1), 0, 3, 0, 1, '{}', @, @ FROM numbers;
INSERT INTO task_audits (task_id, level, event_type, decision_id, source_event_ts, supervisor_processed_at, created_at,
prev_hash, row_hash)
SELECT 't' || (n % 20 + 1), 'info', 'e', 'd' || n, @, @, @, 'h' || n, 'i' || n FROM numbers;
INSERT INTO task_dependency (task_id, depends_on_task_id, dependency_type, metadata, created_at)
SELECT 't' || (n + 1), 't' || n, 'blocks', '{}', @ FROM numbers WHERE n % 10 > 0;
INSERT INTO task_dependency (task_id, depends_on_task_id, dependency_type, metadata, created_at)
SELECT 't20000', 't' || n, 'blocks', '{}', @ FROM numbers WHERE n BETWEEN 15000 AND 19000;
INSERT INTO task_dependency (task_id, depends_on_task_id, dependency_type, metadata, created_at)
SELECT 't' || n, 't10', 'blocks', '{}', @ FROM numbers WHERE n BETWEEN 9000 AND 13000;
INSERT INTO task_repo_scope (task_id, repo_id, scope, path_filters, metadata, created_at)
SELECT 't' || (n % 10 + 1), 'r' || n, 'full', '[]', '{}', @ FROM numbers WHERE n > 10000;
INSERT INTO task_repo_scope (task_id, repo_id, scope, path_filters, metadata, created_at)
SELECT 't' || n, 'r' || (n % 10 + 1), 'full', '[]', '{}', @ FROM numbers WHERE n <= 10000;
INSERT INTO task_artifact_ref (task_id, repo_id, ref_type, ref_value, metadata, created_at)
SELECT 't' || (n % 10 + 1), 'r', CASE n % 3 WHEN 0 THEN 'commit' ELSE 'file' END, 'v' || n, '{}', @ FROM numbers
WHERE n > 10000;
INSERT INTO task_artifact_ref (task_id, repo_id, ref_type, ref_value, metadata, created_at)
SELECT 't' || n, 'r', CASE n % 3 WHEN 0 THEN 'commit' ELSE 'file' END, 'v' || (n % 10), '{}', @ FROM numbers
WHERE n <= 10000;
INSERT INTO guardian_verdicts (id, task_id, triggered_by, policy_json, decision, reasons_json, created_at)
SELECT 'g' || n, 't' || (n % 20 + 1), 'e' || (n % 7), '{}',
CASE n % 3 WHEN 0 THEN 'approve' WHEN 1 THEN 'warn' ELSE 'reject' END, '[]', @ FROM numbers;
INSERT INTO supervisor_inbox (id, task_id, event_type, event_ts, status, source, attempts, lease_until, lease_token,
processed_at, created_at)
SELECT 'i' || n, 't' || (n % 20 + 1), 'e', @, CASE WHEN n % 500 = 0 THEN 'processing' WHEN n % 10 = 1 THEN 'pending'
WHEN n % 10 = 2 THEN 'failed' WHEN n % 10 = 3 THEN 'parked' ELSE 'processed' END, 's', n % 4,
CASE WHEN n % 500 = 0 THEN @ END, 0, @, @ FROM numbers;
"""
"""``numbers`` are 1 to 20,000 and ``@`` is the first of January and as many seconds. Each value that a list filters by
stands in many rows, so that to sort them would not do."""


def fill(url: str) -> Callable[[], None]:
    """Write the rows past the library, in a second; return what gathers statistics on them."""
    if url.startswith("sqlite"):
        import sqlite3
        from contextlib import closing

        path = url.removeprefix("sqlite:///")
        numbers = f"(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) SELECT n FROM c)"
        moment = "strftime('%Y-%m-%dT%H:%M:%S', '2026-01-01', n || ' seconds') || '.000000Z'"

        def run(script: str) -> None:
            with closing(sqlite3.connect(path)) as raw:
                raw.executescript(script)

        run(f"BEGIN; {FILL.replace('numbers', f'{numbers} AS numbers').replace('@', moment)} COMMIT;")
        return lambda: run("ANALYZE;")
    script = FILL.replace("FROM numbers", f"FROM generate_series(1, {ROWS}) AS n").replace(
        "@", "timestamptz '2026-01-01 00:00Z' + n * interval '1 second'"
    )
    with connect(url) as server:
        for statement in script.split(";\n"):
            server.execute(statement.encode())

    def analyze() -> None:
        with connect(url) as server:
            server.execute(b"ANALYZE")

    return analyze


Case = Callable[[Session], object]


def listings() -> Iterator[tuple[str, Case]]:
    """Every list with every filter that it takes, and with two of them together, up and down and behind a cursor."""
    links: Any = TaskRepository[Blocking]
    given: dict[Any, dict[str, Any]] = {
        links.list_dependencies: {"task_id": "t20000", "depends_on_task_id": "t10"},
        links.list_scopes: {"task_id": "t2", "repo_id": "r4"},
        links.list_artifacts: {"task_id": "t2", "ref_type": "commit", "ref_value": "v4"},
        VerdictRepository.list: {
            "task_id": "t2",
            "decision": "warn",
            "triggered_by": "e1",
            "created_after": EARLY,
            "created_before": LATE,
        },
        InboxRepository.list: {"status": "parked", "task_id": "t2", "event_after": EARLY, "event_before": LATE},
    }
    for body, filters in given.items():
        names = list(filters)
        choices = [(), *((name,) for name in names), *((a, b) for a in names for b in names if a < b), tuple(names)]
        for chosen in dict.fromkeys(choices):
            if chosen and "ref_value" in chosen and "ref_type" not in chosen:
                continue
            picked = {name: filters[name] for name in chosen}
            name = f"{NAMES.get(body, body.__name__)} {' '.join(chosen)}".strip()
            yield name, page_of(body, limit=2, **picked)
            yield f"{name} behind a cursor", second_page_of(body, **picked)
            if body in TURNED:
                yield f"{name} turned round", page_of(body, limit=2, order=TURNED[body], **picked)


def page_of(body: Any, **options: Any) -> Case:
    return lambda session: body(None, session, **options)


def second_page_of(body: Any, **filters: Any) -> Case:
    def second(session: Session) -> object:
        first = body(None, session, limit=1, **filters)
        return first.next and body(None, session, limit=1, cursor=first.next, **filters)

    return second


TURNED: dict[Any, str] = {VerdictRepository.list: "-created_at", InboxRepository.list: "-event_ts"}
NAMES: dict[Any, str] = {VerdictRepository.list: "verdicts", InboxRepository.list: "inbox"}


def hot_statements() -> Iterator[tuple[str, Case]]:
    none: Any = None
    tasks: Any = TaskRepository[Blocking]
    inbox: Any = InboxRepository[Blocking]
    yield "claim", lambda session: inbox.claim(none, session, by="w", lease=LEASE, limit=5)
    yield "reclaim_lapsed", lambda session: inbox.reclaim_lapsed(none, session)
    yield "cleanup", lambda session: inbox.cleanup(none, session, older_than=LEASE, limit=10)
    yield "latest verdict", lambda session: VerdictRepository.latest(none, session, "t2")
    yield "ancestors", lambda session: tasks.ancestors(none, session, "t48")
    yield "descendants", lambda session: tasks.descendants(none, session, "t42")
    yield "add_dependency", lambda session: tasks.add_dependency(none, session, "t46", "t41")
    yield "graph", lambda session: tasks.graph(none, session, "t45", depth=2)
    yield "project_graph", lambda session: tasks.project_graph(none, session, "p5", limit=10)
    yield "topological_order", lambda session: tasks.topological_order(none, session, project_id="p5")
    yield "list_by_artifact", lambda session: tasks.list_by_artifact(none, session, "commit", "v4")
    yield "infer_dependencies", lambda session: tasks.infer_dependencies(none, session, "t48")
    yield "may_touch", lambda session: tasks.may_touch(none, session, "t48", "r48", "a")
    yield "decision_trace", lambda session: AuditRepository.decision_trace(none, session, "t8")
    yield (
        "decision_lag",
        lambda session: AuditRepository.decision_lag(
            none, session, created_after=EARLY, created_before=EARLY + dt.timedelta(minutes=5)
        ),
    )
    yield "delete", lambda session: tasks.delete(none, session, "t48")


TABLES = "task_dependency|task_repo_scope|task_artifact_ref|guardian_verdicts|supervisor_inbox|tasks|task_audits"
SCANNED = re.compile(rf"(?:^SCAN|Seq Scan on) (?:{TABLES})\b", re.MULTILINE)
SORTED = re.compile(r"TEMP B-TREE|\bSort\b")

UNFILTERED = {"list_dependencies", "list_scopes", "list_artifacts", "verdicts", "inbox"}
"""Without a filter a list reads its table, or an index of it, in order, and stops at its limit."""

IN_ORDER = re.compile(r"^SCAN (?:\w+ USING INDEX|task_dependency$|task_repo_scope$|task_artifact_ref$)", re.MULTILINE)

RETURNS_ALL = {"list_by_artifact", "decision_trace", "decision_lag", "list_artifacts task_id ref_type ref_value"}
"""Return every row that they find (of an artifact there is one for each repository), so PostgreSQL may sort few."""


def base(name: str) -> str:
    return re.sub(" (behind a cursor|turned round)$", "", name)


def scans(name: str, plan: str) -> bool:
    if base(name) in UNFILTERED or base(name) == "claim":
        plan = IN_ORDER.sub("", plan)
    return SCANNED.search(plan) is not None


def faults(name: str, plan: str) -> bool:
    return scans(name, plan) or (
        SORTED.search(plan) is not None and ("TEMP B-TREE" in plan or base(name) not in RETURNS_ALL)
    )


def unindexed(session: Session) -> object:
    tasks = Task.table()
    query = select(tasks.c.task_id).where(tasks.c.priority == literal(0)).order_by(tasks.c.title).limit(2)
    return session.all(Statement(query, lasting=False))


def test_no_list_and_no_hot_statement_reads_a_whole_table_or_sorts(store: Store, url: str, backend: str) -> None:
    analyze = fill(url)
    planner = store.bind(Planner)
    for with_statistics in (False, True):
        if with_statistics:
            analyze()
        # SQLite has none unless somebody gathers them. PostgreSQL has them after a while; until then it takes every
        # result for a small one, which it may sort, but no table for one that had better be read from end to end.
        found = faults if with_statistics or backend == "sqlite" else scans
        for name, call in [*hot_statements(), *listings()]:
            with pytest.raises(Undone) as caught:
                planner.plans(call)
            assert [plan for plan in caught.value.plans if found(name, plan)] == [], name
        with pytest.raises(Undone) as caught:
            planner.plans(unindexed)
        assert found("a list without an index", caught.value.plans[0])
