from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Table, func, select

from agentos_store import AsyncStore, Store
from agentos_store.agents.models import Agent
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidValueError
from agentos_store.events.models import Event
from agentos_store.governance.models import SupervisorInboxEntry
from agentos_store.housekeeping.models import MaintenanceRun
from agentos_store.models import metadata
from agentos_store.operation import Blocking, Repository, reads, writes
from agentos_store.operations.retention import Policy
from agentos_store.operations.retention import run as module
from agentos_store.operations.retention.run import STATES
from agentos_store.tasks.models import Task
from tests.engine.gather import threads
from tests.plans import some_row

DAY = dt.timedelta(days=1)
OLD = dt.datetime.now(dt.UTC) - 10 * DAY
NEW = dt.datetime.now(dt.UTC)


class Behind(Repository[Blocking]):
    """Writes rows of any age, and looks past the lists."""

    name = "behind"

    @writes
    def add(self, session: Session, model: Any, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            session.insert(model, some_row(model, **row))

    @reads
    def keys(self, session: Session, model: Any) -> list[Any]:
        table = model.table()
        (key,) = table.primary_key
        rows: list[Any] = session.all(Statement(select(key), lasting=False))
        return sorted(row[0] for row in rows)

    @reads
    def count(self, session: Session, name: str) -> int:
        table: Table = metadata.tables[name]
        found: int = session.all(Statement(select(func.count()).select_from(table), lasting=False))[0][0]
        return found

    @reads
    def runs(self, session: Session) -> list[MaintenanceRun]:
        return session.all(Statement(select(MaintenanceRun.table()), returns=MaintenanceRun, lasting=False))


@pytest.fixture
def behind(store: Store) -> Behind:
    return store.bind(Behind)


@pytest.fixture(autouse=True)
def short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_STEP", 2)
    monkeypatch.setattr(module, "LARGEST_STEP", 3)


def task(key: str, status: str, time: dt.datetime, **values: Any) -> dict[str, Any]:
    ended = time if status in STATES["tasks"] else None
    reason = "why" if status == "failed" else None
    times = {"created_at": time, "updated_at": time, "completed_at": ended}
    return {"task_id": key, "title": "t", "status": status, "exit_reason": reason, "max_attempts": 3, **times, **values}


def test_what_is_old_and_ended_goes_and_nothing_else(store: Store, behind: Behind) -> None:
    rows = [task(f"old-{status}", status, OLD) for status in ("created", "pending", "running", "paused", "blocked")]
    rows += [task(f"old-{status}-{n}", status, OLD) for status in STATES["tasks"] for n in range(4)]
    rows += [task(f"new-{status}", status, NEW) for status in STATES["tasks"]]
    # It was made long ago, and ended just now.
    rows.append(task("late", "completed", OLD, completed_at=NEW))
    behind.add(Task, rows)
    report = store.prune([Policy(table="tasks", older_than=DAY)])
    assert report.rows == 12
    left = [*(f"new-{status}" for status in STATES["tasks"]), "late"]
    left += [f"old-{status}" for status in ("created", "pending", "running", "paused", "blocked")]
    assert behind.keys(Task) == sorted(left)


def test_only_the_states_that_are_named_go(store: Store, behind: Behind) -> None:
    behind.add(Task, [task(status, status, OLD) for status in STATES["tasks"]])
    report = store.prune([Policy(table="tasks", older_than=DAY, states=["failed"])])
    assert {name: pruned.rows for name, pruned in report.tables.items()} == {"tasks (failed)": 1}
    assert behind.keys(Task) == ["cancelled", "completed"]


def test_the_newest_of_each_state_stay_whatever_their_age(store: Store, behind: Behind) -> None:
    behind.add(
        Task, [task(f"{status}-{n}", status, OLD + n * DAY / 100) for status in STATES["tasks"] for n in range(7)]
    )
    assert store.prune([Policy(table="tasks", keep=5)]).rows == 6
    assert behind.keys(Task) == sorted(f"{status}-{n}" for status in STATES["tasks"] for n in range(2, 7))
    assert store.prune([Policy(table="tasks", keep=5)]).rows == 0


def test_a_row_goes_when_every_limit_lets_it_go(store: Store, behind: Behind) -> None:
    behind.add(Task, [task(f"old-{n}", "completed", OLD + n * DAY / 100) for n in range(4)])
    behind.add(Task, [task(f"new-{n}", "completed", NEW) for n in range(2)])
    assert store.prune([Policy(table="tasks", older_than=DAY, keep=3)]).rows == 3
    assert behind.keys(Task) == ["new-0", "new-1", "old-3"]


def test_a_policy_that_leaves_nothing_has_to_be_confirmed(store: Store, behind: Behind) -> None:
    behind.add(Task, [task(str(n), "completed", OLD) for n in range(5)])
    for policy in (Policy(table="tasks"), Policy(table="tasks", older_than=DAY), Policy(table="tasks", keep=0)):
        with pytest.raises(InvalidValueError, match="confirm"):
            store.prune([policy])
        assert store.prune([policy], dry_run=True).rows == 5
    assert behind.count("tasks") == 5
    assert behind.runs() == []
    assert store.prune([Policy(table="tasks")], confirm=True).rows == 5
    # What is empty already needs nobody's word.
    assert store.prune([Policy(table="tasks")]).rows == 0


def test_a_dry_run_counts_and_removes_nothing(store: Store, behind: Behind) -> None:
    behind.add(Task, [task(str(n), "completed", OLD) for n in range(5)])
    behind.add(Task, [task("new", "completed", NEW)])
    report = store.prune([Policy(table="tasks", older_than=DAY)], dry_run=True)
    assert (report.rows, report.run_id, report.dry_run) == (5, None, True)
    assert behind.count("tasks") == 6
    assert behind.runs() == []


def test_a_run_is_noted_with_its_counts(store: Store, behind: Behind) -> None:
    behind.add(Task, [task(str(n), "completed", OLD) for n in range(3)] + [task("new", "completed", NEW)])
    told: list[tuple[str, int]] = []
    report = store.prune(
        [Policy(table="tasks", older_than=DAY), Policy(table="events", older_than=DAY)],
        progress=lambda name, rows: told.append((name, rows)),
    )
    (run,) = behind.runs()
    assert (run.id, run.kind, run.error) == (report.run_id, "retention", None)
    assert run.counts == {"tasks": 3, "events": 0}
    assert run.finished_at is not None
    assert told[-1][1] == 0
    assert ("tasks", 3) in told


@pytest.mark.parametrize(
    "policy",
    [
        Policy(table="users"),
        Policy(table="task_audits; DROP TABLE tasks"),
        Policy(table="tasks", older_than=-DAY),
        Policy(table="tasks", older_than=dt.timedelta.max),
        Policy(table="tasks", keep=-1),
        Policy(table="tasks", keep=2**63),
        Policy(table="tasks", keep=True),
        Policy(table="tasks", states=["running"]),
        Policy(table="tasks", states="completed"),
        Policy(table="task_audits", keep=5),
        Policy(table="task_audits"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(store: Store, policy: Policy) -> None:
    store.tasks.create(title="t")
    for dry_run in (False, True):
        with pytest.raises(InvalidValueError):
            store.prune([policy], dry_run=dry_run, confirm=True)


# --- what goes with them


def test_audits_go_from_the_beginning_and_chains_still_verify(store: Store, behind: Behind) -> None:
    for key in ("a", "b", "c"):
        store.tasks.create(title="t", task_id=key)
    moments = [OLD + n * DAY for n in range(9)]
    for number, _ in enumerate(moments):
        for key in ("a", "b"):
            store.audits.record(key, event_type=f"e{number}")
    store.audits.record("c", event_type="new")
    # All entries were recorded just now, so that an age of nothing takes all but what comes later.
    assert store.prune([Policy(table="task_audits", older_than=DAY)]).rows == 0
    before = behind.count("task_audits")
    report = store.prune([Policy(table="task_audits", older_than=dt.timedelta(0))], confirm=True)
    assert report.rows == before
    assert behind.count("task_audits") == 0
    assert store.audits.verify().ok
    store.audits.record("a", event_type="later")
    found = store.audits.verify("a")
    assert (found.ok, found.entries) == (True, 1)


def test_the_heads_of_pruned_tasks_stay_and_verify(store: Store, behind: Behind) -> None:
    behind.add(Task, [task("t", "running", OLD)])
    store.audits.record("t", event_type="one")
    store.audits.record("t", event_type="two")
    store.tasks.transition("t", "completed")
    behind.add(Task, [task("new", "pending", NEW)])
    assert store.prune([Policy(table="tasks", older_than=dt.timedelta(0))]).rows == 1
    assert behind.count("task_audit_heads") >= 1
    assert store.audits.verify().ok


def test_a_long_conversation_goes_in_steps_and_is_hidden_before(store: Store, behind: Behind) -> None:
    for key, status in (("long", "completed"), ("short", "completed"), ("open", "active")):
        made = store.sessions.create(id=key)
        store.messages.append_many(made.id, [{"role": "user", "content": f"天气 {n}"} for n in range(7)])
        if status == "completed":
            store.sessions.complete(key)
    policy = Policy(table="sessions", older_than=dt.timedelta(0))
    assert store.prune([policy], dry_run=True).rows == 2
    report = store.prune([policy])
    assert report.rows == 2
    assert report.tables["sessions"].steps > 4
    assert behind.keys(Conversation) == ["open"]
    assert behind.count("messages") == 7
    assert store.check_consistency().ok


def test_deleted_sessions_and_agents_go_for_good(store: Store, behind: Behind) -> None:
    behind.add(Conversation, [{"id": "old", "deleted_at": OLD}, {"id": "new", "deleted_at": NEW}, {"id": "open"}])
    behind.add(Agent, [{"agent_id": "old", "deleted_at": OLD, "session_id": "open"}, {"agent_id": "open"}])
    store.tool_calls.record(tool_call_id="c", tool_name="x", agent_id="open")
    report = store.prune([Policy(table=name, older_than=DAY, states=["deleted"]) for name in ("sessions", "agents")])
    assert report.rows == 2
    assert behind.keys(Conversation) == ["new", "open"]
    assert behind.keys(Agent) == ["open"]


def test_given_up_messages_go_unless_a_snapshot_needs_them(store: Store, behind: Behind) -> None:
    made = store.sessions.create()
    store.agents.save("a", session_id=made.id)
    whole = [{"role": "user", "content": str(n)} for n in range(6)]
    store.messages.save(made.id, whole)
    store.snapshots.save("a", "needed", up_to_seq=2)
    store.messages.save(made.id, [{"role": "user", "content": "all that"}])
    assert behind.count("messages") == 7
    assert store.prune([Policy(table="messages", older_than=DAY)]).rows == 0
    assert store.prune([Policy(table="messages", older_than=dt.timedelta(0))]).rows == 3
    loaded = store.snapshots.load("a", "needed")
    assert [each.content for each in loaded.messages] == ["0", "1", "2"]
    assert [each["content"] for each in store.messages.history(made.id)] == ["all that"]
    assert store.check_consistency().ok


def test_messages_that_name_an_agent_forget_it_in_steps(store: Store, behind: Behind) -> None:
    made = store.sessions.create()
    store.agents.save("gone")
    store.messages.append_many(made.id, [{"role": "user", "content": "x", "agent_id": "gone"} for _ in range(7)])
    store.tasks.create(title="t", task_id="t", agent_id="gone")
    store.agents.delete("gone")
    report = store.prune([Policy(table="agents", older_than=dt.timedelta(0), states=["deleted"])], confirm=True)
    assert report.rows == 1
    assert next(iter(report.tables.values())).steps > 2
    assert behind.keys(Agent) == []
    assert [each.agent_id for each in store.messages.iterate(made.id)] == [None] * 7
    assert store.tasks.get("t").agent_id is None


def test_what_stays_is_passed_over_without_holding_up_writers(store: Store, behind: Behind) -> None:
    # Made long ago, and ended just now; the last one goes.
    behind.add(Task, [task(str(n), "completed", OLD + n * DAY / 100, completed_at=NEW) for n in range(9)])
    behind.add(Task, [task("x", "completed", OLD + DAY)])
    policies = [Policy(table="tasks", older_than=DAY), Policy(table="messages", older_than=DAY)]
    pruned = store.prune(policies).tables
    assert pruned["tasks"].rows == 1
    if not store.capabilities.row_locks:
        assert (pruned["tasks"].steps, pruned["messages"].steps) == (1, 0)


def test_inbox_entries_and_runs_go(store: Store, behind: Behind) -> None:
    behind.add(Task, [task("t", "running", OLD)])
    behind.add(
        SupervisorInboxEntry,
        [
            {"id": status, "task_id": "t", "status": status, "event_ts": OLD, "event_type": "e"}
            for status in ("processed", "pending")
        ],
    )
    runs: list[dict[str, Any]] = [{"id": "old", "finished_at": OLD}, {"id": "runs"}]
    behind.add(MaintenanceRun, [{"kind": "import", "started_at": OLD, **run} for run in runs])
    names = ("supervisor_inbox", "maintenance_runs")
    report = store.prune([Policy(table=name, older_than=DAY) for name in names])
    assert [pruned.rows for pruned in report.tables.values()] == [1, 1]
    assert behind.keys(SupervisorInboxEntry) == ["pending"]
    assert [run.kind for run in behind.runs() if run.id != "runs"] == ["retention"]


def test_events_go_by_age_and_by_severity(store: Store, behind: Behind) -> None:
    severities = ("info", "warning", "error", "critical")
    rows = [
        {"event_id": f"{s}-{n}", "event_type": "e", "severity": s, "created_at": OLD}
        for s in severities
        for n in range(5)
    ]
    rows += [{"event_id": "new", "event_type": "e", "severity": "info", "created_at": NEW}]
    behind.add(Event, rows)
    assert store.prune([Policy(table="events", older_than=DAY, states=["info", "warning"])]).rows == 10
    assert store.events.count() == 11
    assert store.prune([Policy(table="events", older_than=DAY)]).rows == 10
    assert [event.event_id for event in store.events.list()] == ["new"]


# --- beside others


def test_two_runs_at_once_remove_each_row_once(store: Store, behind: Behind) -> None:
    behind.add(Task, [task(str(n), "completed", OLD) for n in range(60)] + [task("new", "completed", NEW)])
    policies = [Policy(table="tasks", older_than=DAY)]
    with threads([lambda: store.prune(policies)] * 3) as reports:
        pass
    assert sum(report.rows for report in reports) == 60
    assert behind.keys(Task) == ["new"]


async def _prune(url: str) -> int:
    async with AsyncStore.open(url) as store:
        return (await store.prune([Policy(table="tasks", older_than=DAY)])).rows


def test_an_asynchronous_store_prunes_too(store: Store, behind: Behind, url: str) -> None:
    import asyncio

    behind.add(Task, [task("old", "completed", OLD), task("new", "completed", NEW)])
    assert asyncio.run(_prune(url)) == 1


def test_a_run_that_fails_is_noted_with_its_error(store: Store, behind: Behind) -> None:
    behind.add(Task, [task(str(n), "completed", OLD) for n in range(9)] + [task("new", "completed", NEW)])

    class StoppedError(Exception):
        pass

    def stop(_: str, rows: int) -> None:
        if rows >= 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        store.prune([Policy(table="tasks", older_than=DAY)], progress=stop)
    (run,) = behind.runs()
    assert run.error == "StoppedError"
    assert run.finished_at is not None
    # What went by then is gone, and the next run does the rest.
    assert 0 < run.counts["tasks"] < 9
    assert store.prune([Policy(table="tasks", older_than=DAY)]).rows == 9 - run.counts["tasks"]
