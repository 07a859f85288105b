from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from agentos_store import (
    AlreadyExistsError,
    AsyncStore,
    InvalidTransitionError,
    InvalidValueError,
    NotFoundError,
    Store,
)
from agentos_store.tasks.models import Task

Run = Callable[..., list[tuple[Any, ...]]]

REFUSED = (sqlite3.IntegrityError, psycopg.errors.IntegrityConstraintViolation)


@pytest.fixture
def task(store: Store) -> Task:
    return store.tasks.create(title="t", task_id="t")


def trail(store: Store) -> list[tuple[str, str | None]]:
    return [(entry.event_type, entry.verdict_id) for entry in store.audits.query(task_id="t")]


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize(("decision", "level"), [("approve", "info"), ("warn", "warning"), ("reject", "warning")])
def test_a_verdict_is_recorded_with_its_audit_entry(store: Store, decision: str, level: str) -> None:
    verdict = store.verdicts.record(
        "t", triggered_by="diff-guardian", decision=decision, policy={"最大": 3}, reasons=["one", {"two": 2}]
    )
    assert (verdict.task_id, verdict.triggered_by, verdict.decision) == ("t", "diff-guardian", decision)
    assert (verdict.policy_json, verdict.reasons_json) == ({"最大": 3}, ["one", {"two": 2}])
    assert store.verdicts.get(verdict.id).to_dict() == verdict.to_dict()
    (entry,) = store.audits.query(task_id="t")
    assert (entry.event_type, entry.verdict_id, entry.level) == ("guardian.verdict", verdict.id, level)
    assert entry.payload == {
        "decision": decision,
        "triggered_by": "diff-guardian",
        "reasons": ["one", {"two": 2}],
    }
    assert entry.created_at == verdict.created_at
    assert store.audits.verify("t").ok


@pytest.mark.usefixtures("task")
def test_a_verdict_takes_the_task_a_step_on(store: Store) -> None:
    store.tasks.transition("t", "running")
    verdict = store.verdicts.record(
        "t", triggered_by="g", decision="reject", transition_to="failed", exit_reason="it deletes the tests"
    )
    task = store.tasks.get("t")
    assert (task.status, task.exit_reason) == ("failed", "it deletes the tests")
    assert store.tasks.history("t")[-1].by == "g"
    assert trail(store)[1:] == [("guardian.verdict", verdict.id), ("task.transition", None)]
    assert store.audits.verify("t").ok


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize(
    ("error", "options"),
    [
        (InvalidTransitionError, {"transition_to": "completed"}),
        (InvalidValueError, {"transition_to": "finished"}),
        (InvalidValueError, {"transition_to": "failed"}),
    ],
)
def test_a_step_that_is_refused_leaves_no_verdict_and_no_audit(
    store: Store, error: type[Exception], options: dict[str, Any]
) -> None:
    before = store.tasks.get("t").to_dict()
    with pytest.raises(error):
        store.verdicts.record("t", triggered_by="g", decision="warn", **options)
    assert store.verdicts.count() == 0
    assert trail(store) == []
    assert store.tasks.get("t").to_dict() == before


class Regret(Exception):
    pass


@pytest.mark.usefixtures("task")
def test_a_transaction_that_fails_after_the_verdict_takes_all_of_it_back(store: Store) -> None:
    seen = []
    with contextlib.suppress(Regret), store.transaction() as tx:
        tx.verdicts.record("t", triggered_by="g", decision="approve", transition_to="running")
        seen.append(tx.tasks.get("t").status)
        raise Regret
    assert seen == ["running"]
    assert store.verdicts.count() == 0
    assert trail(store) == []
    assert store.tasks.get("t").status == "created"


@pytest.mark.usefixtures("task")
def test_an_identifier_is_taken_once(store: Store) -> None:
    store.verdicts.record("t", triggered_by="g", decision="approve", id="v")
    with pytest.raises(AlreadyExistsError) as caught:
        store.verdicts.record("t", triggered_by="h", decision="reject", id="v", transition_to="running")
    assert (caught.value.entity, caught.value.key, caught.value.field) == ("verdict", "v", None)
    assert store.verdicts.get("v").decision == "approve"
    assert len(trail(store)) == 1
    assert store.tasks.get("t").status == "created"


def test_an_unknown_task_or_verdict_is_named(store: Store) -> None:
    for step in (None, "running"):
        with pytest.raises(NotFoundError) as caught:
            store.verdicts.record("nobody", triggered_by="g", decision="warn", transition_to=step)
        assert (caught.value.entity, caught.value.key) == ("task", "nobody")
    with pytest.raises(NotFoundError) as caught:
        store.verdicts.get("v")
    assert (caught.value.entity, caught.value.key) == ("verdict", "v")
    assert store.verdicts.find("v") is None
    assert not store.verdicts.exists("v")
    assert store.verdicts.latest("nobody") is None


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("decision", {"decision": "maybe"}),
        ("decision", {"decision": None}),
        ("triggered_by", {"triggered_by": ""}),
        ("triggered_by", {"triggered_by": None}),
        ("policy", {"policy": [1]}),
        ("policy.a", {"policy": {"a": float("inf")}}),
        ("reasons", {"reasons": "because"}),
        ("reasons[0]", {"reasons": ["\ud800"]}),
        ("id", {"id": ""}),
    ],
)
def test_a_bad_value_is_refused_by_its_name(store: Store, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.verdicts.record("t", **{"triggered_by": "g", "decision": "warn", **options})
    assert caught.value.name == name
    assert store.verdicts.count() == 0


@pytest.mark.usefixtures("task")
def test_the_database_itself_refuses_to_change_a_verdict(store: Store, raw: Run) -> None:
    store.verdicts.record("t", triggered_by="g", decision="reject", id="v")
    before = store.verdicts.get("v").to_dict()
    statements = [
        "UPDATE guardian_verdicts SET decision = 'approve'",
        "UPDATE guardian_verdicts SET id = 'w' WHERE id = 'v'",
        "DELETE FROM guardian_verdicts",
        "DELETE FROM guardian_verdicts WHERE id = 'v'",
    ]
    for statement in statements:
        with pytest.raises(REFUSED):
            raw(statement)
    assert store.verdicts.get("v").to_dict() == before
    # A deleted task takes them along.
    store.tasks.delete("t")
    assert store.verdicts.count() == 0


@pytest.mark.usefixtures("task")
def test_no_verdict_is_replaced_or_truncated(store: Store, raw: Run, backend: str) -> None:
    store.verdicts.record("t", triggered_by="g", decision="reject", id="v")
    statement = (
        "INSERT OR REPLACE INTO guardian_verdicts SELECT id, task_id, triggered_by, policy_json, 'approve',"
        " reasons_json, created_at FROM guardian_verdicts"
        if backend == "sqlite"
        else "TRUNCATE guardian_verdicts"
    )
    with pytest.raises(REFUSED):
        raw(statement)
    assert store.verdicts.get("v").decision == "reject"


def test_verdicts_are_filtered_paged_and_counted(store: Store) -> None:
    for name in "ab":
        store.tasks.create(title=name, task_id=name)
    made = [
        store.verdicts.record(task, triggered_by=trigger, decision=decision)
        for task, trigger, decision in (
            ("a", "g", "approve"),
            ("b", "g", "reject"),
            ("a", "h", "warn"),
            ("a", "h", "approve"),
        )
    ]

    def found(**filters: Any) -> list[int]:
        ids = [verdict.id for verdict in made]
        return [ids.index(verdict.id) for verdict in store.verdicts.list(**filters)]

    assert found() == [0, 1, 2, 3]
    assert found(order="-created_at") == [3, 2, 1, 0]
    assert found(task_id="a") == [0, 2, 3]
    assert found(decision="approve") == [0, 3]
    assert found(triggered_by="h") == [2, 3]
    assert found(task_id="a", decision="approve", triggered_by="g") == [0]
    assert found(created_after=made[1].created_at, created_before=made[3].created_at) == [1, 2]
    assert [verdict.id for verdict in store.verdicts.iterate(limit=1)] == [verdict.id for verdict in made]
    assert store.verdicts.count(task_id="a", decision="approve") == 2
    latest = store.verdicts.latest("a")
    assert latest is not None
    assert latest.to_dict() == made[3].to_dict()
    stats = store.verdicts.stats()
    assert (stats.total, stats.by_decision) == (4, {"approve": 2, "reject": 1, "warn": 1})
    assert stats.by_trigger == {"g": {"approve": 1, "reject": 1}, "h": {"approve": 1, "warn": 1}}
    assert stats.approval_rate == 0.5


def test_without_verdicts_there_is_no_rate(store: Store) -> None:
    stats = store.verdicts.stats()
    assert (stats.total, stats.by_decision, stats.by_trigger, stats.approval_rate) == (0, {}, {}, None)


@pytest.mark.usefixtures("task")
def test_verdicts_with_steps_and_steps_alone_do_not_wait_for_each_other_in_a_circle(store: Store) -> None:
    rounds, barrier = 15, threading.Barrier(4, timeout=60)

    def judge(number: int) -> None:
        for turn in range(rounds):
            barrier.wait()
            with store.transaction() as tx:
                # In a transaction nothing is tried again, so a deadlock would come out.
                step = "running" if turn % 2 == 0 else "pending"
                if number < 2:
                    tx.verdicts.record("t", triggered_by=f"g{number}", decision="warn", transition_to=step)
                else:
                    tx.tasks.transition("t", step)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(judge, range(4)))
    assert store.verdicts.count() == 2 * rounds
    assert len(store.tasks.history("t")) == rounds
    assert store.audits.verify("t").ok


@pytest.mark.usefixtures("task")
def test_verdicts_and_events_work_from_an_event_loop(url: str) -> None:
    async def work() -> None:
        async with AsyncStore.open(url) as store:
            verdict = await store.verdicts.record("t", triggered_by="g", decision="approve", transition_to="running")
            latest = await store.verdicts.latest("t")
            assert latest is not None
            assert latest.id == verdict.id
            assert [each.id async for each in store.verdicts.iterate()] == [verdict.id]
            await asyncio.gather(*(store.inbox.add("t", event_type="e", id="i") for _ in range(5)))
            (entry,) = await store.inbox.claim(by="w", lease=dt.timedelta(seconds=30))
            async with store.transaction() as tx:
                await tx.inbox.complete("i", entry.lease_token)
                await tx.audits.record("t", event_type="processed")
            assert (await store.inbox.backlog()).by_status == {"processed": 1}

    asyncio.run(work())
