"""What retention may remove is found by an index, however much stays."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from agentos_store.agents.models import Agent
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session
from agentos_store.events.models import SEVERITY, Event
from agentos_store.governance.models import SupervisorInboxEntry
from agentos_store.housekeeping.models import MaintenanceRun
from agentos_store.operations.retention.rules import IN_ANY_STATE, RULES
from agentos_store.tasks.models import Task, TaskAudit
from agentos_store.types import Int64
from tests.plans import Plans, at, filled, insert, mixed, some_row

LARGE = set(RULES)
ROWS = 4_000
STATUSES = ("pending", "completed", "failed", "cancelled")
INBOX = ("pending", "processed", "failed", "parked")


def fill(engine: sa.Engine) -> None:
    numbers = range(ROWS)
    insert(engine, Session, (some_row(Session, id=f"s{n}", status=session_status(n), **times(n)) for n in numbers))
    insert(engine, Agent, (some_row(Agent, agent_id=f"a{n}", state=agent_state(n), **times(n)) for n in numbers))
    closed = {"session_id": "s0", "content": "x"}
    insert(
        engine,
        Message,
        (
            some_row(
                Message, id=f"m{n}", seq=n, to_generation=1 if n % 50 == 0 else None, created_at=moment(n), **closed
            )
            for n in numbers
        ),
    )
    tasks = (
        some_row(
            Task,
            task_id=f"t{n}",
            status=STATUSES[n % 4],
            exit_reason="x",
            title="t",
            max_attempts=1,
            created_at=moment(n),
        )
        for n in numbers
    )
    insert(engine, Task, tasks)
    entries = (
        some_row(
            SupervisorInboxEntry, id=f"i{n}", task_id="t0", status=INBOX[n % 4], event_type="e", event_ts=moment(n)
        )
        for n in numbers
    )
    insert(engine, SupervisorInboxEntry, entries)
    audits = (
        some_row(TaskAudit, task_id=f"t{n}", event_type="e", prev_hash="x", row_hash="y", created_at=moment(n))
        for n in numbers
    )
    insert(engine, TaskAudit, audits)
    insert(
        engine,
        MaintenanceRun,
        (some_row(MaintenanceRun, id=f"r{n}", kind="x", started_at=moment(n), finished_at=moment(n)) for n in numbers),
    )
    insert(
        engine,
        Event,
        (
            some_row(Event, event_id=f"e{n}", event_type="e", severity=SEVERITY.values[n % 4], created_at=moment(n))
            for n in numbers
        ),
    )


def moment(n: int) -> dt.datetime:
    return at(mixed(n, ROWS))


def times(n: int) -> dict[str, Any]:
    return {"created_at": moment(n), "deleted_at": moment(n) if n % 50 == 9 else None}


def session_status(n: int) -> str:
    return ("active", "completed", "cancelled")[n % 3]


def agent_state(n: int) -> str:
    return "archived" if n % 10 == 7 else "idle"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def plans(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plans]:
    yield from filled(request, tmp_path_factory, fill, LARGE)


CASES = [(table, state) for table, rules in RULES.items() for state in rules] + [(table, "") for table in IN_ANY_STATE]


@pytest.mark.parametrize(("table", "state"), CASES)
def test_what_may_go_is_found_by_an_index(plans: Plans, table: str, state: str) -> None:
    candidates = (RULES[table][state] if state else IN_ANY_STATE[table]).candidates
    key: Any = 7 if isinstance(candidates.key.type, Int64) else "x"
    age = {"age": -86_400.0}
    last, after, first = ({f"{name}_time": at(90), f"{name}_key": key} for name in ("last", "after", "first"))
    for given in (age, last, age | last, age | after, age | last | after, age | last | first):
        for what in ("next", "remove"):
            plans.check(candidates._statement(what, frozenset(given)), {**given, "limit_": 100})
    plans.check(candidates._statement("last", frozenset()), {"keep": 100}, scans=True)
