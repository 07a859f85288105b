"""Plans of what workers do, on 20,000 tasks, most of which cannot be claimed."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import select

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.operation import Blocking
from agentos_store.tasks.models import Task
from agentos_store.tasks.repository import TaskRepository
from tests.planned import Planner, Undone
from tests.test_link_plans import fill as fill_links

LEASE = dt.timedelta(seconds=30)

SPREAD = """
UPDATE tasks SET status = 'pending' WHERE length(task_id) = 6 AND task_id > 't18';
UPDATE tasks SET status = 'completed' WHERE length(task_id) = 6 AND task_id BETWEEN 't12' AND 't15';
UPDATE tasks SET task_type = 'rare', priority = 1 WHERE task_id LIKE 't%7';
UPDATE tasks SET run_after = @ WHERE task_id LIKE 't%3';
UPDATE tasks SET status = 'running', claimed_by = 'w', attempts = 1, lease_token = 1, lease_until = @
WHERE task_id LIKE 't11__1';
"""
"""A tenth waits, of these a tenth for its time, and a hundred are held; each is a task of its own."""

Case = Callable[[Session], object]


def cases() -> Iterator[tuple[str, Case]]:
    none: Any = None
    tasks: Any = TaskRepository[Blocking]
    yield "claim", lambda session: tasks.claim(none, session, by="w", lease=LEASE)
    yield "claim of a type", lambda session: tasks.claim(none, session, by="w", lease=LEASE, task_types=["rare"])
    yield "claim of two", lambda session: tasks.claim(none, session, by="w", lease=LEASE, task_types=["rare", ""])
    yield "claim_many", lambda session: tasks.claim_many(none, session, by="w", lease=LEASE, limit=5)
    yield "reclaim_lapsed", lambda session: tasks.reclaim_lapsed(none, session)
    yield "heartbeat", lambda session: tasks.heartbeat(none, session, "t11111", 1, lease=LEASE)
    yield "complete", lambda session: tasks.complete(none, session, "t11121", 1)
    yield "fail", lambda session: tasks.fail(none, session, "t11131", 1)
    yield "fail for good", lambda session: tasks.fail(none, session, "t11141", 1, retry=False)
    yield "release", lambda session: tasks.release(none, session, "t11151", 1)
    yield "queue_stats", lambda session: tasks.queue_stats(none, session)


SCANNED = re.compile(
    r"(?:^SCAN|Seq Scan on) (?:tasks|w|t|n|l|task_audits|task_audit_heads|task_dependency)\b(?! USING)", re.MULTILINE
)
IN_ORDER = re.compile(r"SCAN w USING (?:COVERING )?INDEX ix_tasks_at_once")
CLAIMS = {"claim": "ix_tasks_at_once", "claim_many": "ix_tasks_at_once", "claim of a type": "ix_tasks_type_at_once"}


def spread(url: str) -> None:
    if url.startswith("sqlite"):
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as raw:
            raw.executescript(SPREAD.replace("@", "'2026-01-01T00:00:00.000000Z'"))
        return
    from agentos_store.testing.postgres import connect

    with connect(url) as server:
        for statement in SPREAD.strip().split(";\n"):
            server.execute(statement.replace("@", "timestamptz '2026-01-01 00:00Z'").encode())


def unindexed(session: Session) -> object:
    tasks = Task.table()
    return session.all(Statement(select(tasks.c.task_id).order_by(tasks.c.priority).limit(2), lasting=False))


def test_no_step_of_a_worker_reads_a_whole_table(store: Store, url: str) -> None:
    analyze = fill_links(url)
    spread(url)
    planner = store.bind(Planner)
    for with_statistics in (False, True):
        if with_statistics:
            analyze()
        for name, call in cases():
            with pytest.raises(Undone) as caught:
                planner.plans(call, generic=True)
            plans = caught.value.plans
            assert [plan for plan in plans if SCANNED.search(plan)] == [], name
            if name in CLAIMS:
                # What is free at once comes in its order: no more is read than is claimed, but for what is held back.
                claims = [plan for plan in plans if CLAIMS[name] in plan]
                assert claims, plans
                assert not any("ix_tasks_status" in claim for claim in claims), claims
                if name == "claim":
                    # Many are due here, and come in their order too.
                    assert "ix_tasks_due" in claims[-1], claims[-1]
            if name == "reclaim_lapsed":
                assert any("ix_tasks_leased" in plan for plan in plans)
        with pytest.raises(Undone) as caught:
            planner.plans(unindexed)
        assert SCANNED.search(caught.value.plans[0])
