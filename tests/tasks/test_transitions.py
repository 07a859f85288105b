from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.errors import ConflictError, InvalidTransitionError, InvalidValueError, StoreError
from agentos_store.tasks.models import Task
from agentos_store.tasks.states import ENDED, STATUSES, TRANSITIONS

SPECIFIED = {
    "created": {"pending", "running", "cancelled"},
    "pending": {"running", "paused", "blocked", "cancelled"},
    "running": {"completed", "failed", "paused", "blocked", "cancelled", "pending"},
    "paused": {"pending", "running", "cancelled"},
    "blocked": {"pending", "cancelled"},
    "failed": {"pending"},
    "completed": set(),
    "cancelled": set(),
}

WAYS = {
    "created": (),
    "pending": ("pending",),
    "running": ("running",),
    "paused": ("running", "paused"),
    "blocked": ("pending", "blocked"),
    "failed": ("running", "failed"),
    "completed": ("running", "completed"),
    "cancelled": ("cancelled",),
}


def task_in(store: Store, status: str) -> Task:
    task = store.tasks.create(title="t")
    for step in WAYS[status]:
        task = move(store, task, step)
    assert task.status == status
    return task


def move(store: Store, task: Task, to: str, **options: Any) -> Task:
    reason = {"exit_reason": "boom"} if to == "failed" else {}
    return store.tasks.transition(task.task_id, to, **{**reason, **options})


def unchanged(store: Store, task: Task) -> bool:
    return store.tasks.get(task.task_id).to_dict() == task.to_dict()


def steps(store: Store, task: Task) -> list[tuple[str, str]]:
    return [(step.origin, step.to) for step in store.tasks.history(task.task_id)]


def test_the_state_machine_is_the_specified_one() -> None:
    assert {status: set(following) for status, following in TRANSITIONS.items()} == SPECIFIED


@pytest.mark.parametrize(("origin", "to"), list(itertools.product(STATUSES, STATUSES)))
def test_each_step_is_taken_or_refused_as_the_state_machine_says(store: Store, origin: str, to: str) -> None:
    task = task_in(store, origin)
    before = steps(store, task)
    if origin == to:
        assert unchanged(store, move(store, task, to, by="me"))
        assert unchanged(store, task)
        assert steps(store, task) == before
    elif to in SPECIFIED[origin]:
        moved = move(store, task, to, by="me")
        assert unchanged(store, moved)
        assert (moved.status, moved.version) == (to, task.version + 1)
        assert moved.updated_at > task.updated_at
        assert steps(store, task) == [*before, (origin, to)]
        assert store.tasks.history(task.task_id)[-1].by == "me"
        assert store.tasks.history(task.task_id)[-1].at == moved.updated_at
    else:
        with pytest.raises(InvalidTransitionError) as caught:
            move(store, task, to)
        error = caught.value
        assert (error.entity, error.key, error.current, error.requested) == ("task", task.task_id, origin, to)
        assert set(error.allowed) == SPECIFIED[origin]
        assert unchanged(store, task)
        assert steps(store, task) == before
    assert store.audits.verify(task.task_id).ok


def test_a_failure_needs_a_reason(store: Store) -> None:
    task = task_in(store, "running")
    for reason in (None, ""):
        with pytest.raises(InvalidValueError) as caught:
            store.tasks.transition(task.task_id, "failed", exit_reason=reason)
        assert caught.value.name == "exit_reason"
    assert unchanged(store, task)
    failed = store.tasks.transition(task.task_id, "failed", exit_reason="out of memory", error_message="bad\0byte")
    assert (failed.exit_reason, failed.error_message) == ("out of memory", "bad\ufffdbyte")
    assert store.audits.query(task_id=task.task_id).items[-1].level == "warning"
    assert store.tasks.history(task.task_id)[-1].reason == "out of memory"


def test_the_database_refuses_a_failure_without_a_reason(store: Store, url: str) -> None:
    from sqlalchemy import create_engine, exc, text

    task = task_in(store, "running")
    engine = create_engine(url)
    with pytest.raises(exc.IntegrityError), engine.begin() as connection:
        connection.execute(text("UPDATE tasks SET status = 'failed' WHERE task_id = :id"), {"id": task.task_id})
    engine.dispose()


def test_another_version_is_a_conflict_and_changes_nothing(store: Store) -> None:
    task = task_in(store, "pending")
    for version in (task.version - 1, task.version + 1):
        with pytest.raises(ConflictError) as caught:
            store.tasks.transition(task.task_id, "running", version=version)
        assert not isinstance(caught.value, InvalidTransitionError)
    with pytest.raises(ConflictError):
        store.tasks.transition(task.task_id, "pending", version=task.version + 1)
    assert unchanged(store, task)
    assert store.tasks.transition(task.task_id, "running", version=task.version).version == task.version + 1


def test_a_step_is_only_taken_from_the_expected_status(store: Store) -> None:
    task = task_in(store, "created")
    with pytest.raises(ConflictError):
        store.tasks.transition(task.task_id, "running", expected="pending")
    assert unchanged(store, task)
    running = store.tasks.transition(task.task_id, "running", expected="created")
    # Whoever expects it to be waiting still is told that somebody was faster.
    with pytest.raises(ConflictError):
        store.tasks.transition(task.task_id, "running", expected="created")
    assert store.tasks.transition(task.task_id, "running", expected="running").version == running.version


def test_of_eight_workers_that_expect_a_pending_task_one_starts_it(store: Store) -> None:
    task = task_in(store, "pending")

    def start(worker: int) -> bool:
        try:
            store.tasks.transition(task.task_id, "running", expected="pending", by=str(worker))
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(start, range(8))) == 1
    assert len(steps(store, task)) == 2


def test_only_a_paused_task_is_resumed_and_only_a_failed_one_retried(store: Store) -> None:
    for status in STATUSES:
        task = task_in(store, status)
        for verb, wanted in ((store.tasks.resume, "paused"), (store.tasks.retry, "failed")):
            if status != wanted:
                with pytest.raises(ConflictError):
                    verb(task.task_id)
                assert unchanged(store, task)
    assert store.tasks.resume(task_in(store, "paused").task_id, by="me").status == "pending"
    assert store.tasks.retry(task_in(store, "failed").task_id, by="me").status == "pending"


def test_pause_and_cancel_take_a_reason(store: Store) -> None:
    task = task_in(store, "running")
    assert store.tasks.pause(task.task_id, by="me", reason="lunch").exit_reason == "lunch"
    cancelled = store.tasks.cancel(task.task_id, by="me", reason="enough")
    assert (cancelled.status, cancelled.exit_reason) == ("cancelled", "enough")
    last = store.tasks.history(task.task_id)[-1]
    assert (last.origin, last.to, last.by, last.reason) == ("paused", "cancelled", "me", "enough")
    assert unchanged(store, store.tasks.cancel(task.task_id))


def test_the_times_of_a_run_are_kept(store: Store) -> None:
    task = task_in(store, "pending")
    assert (task.started_at, task.completed_at, task.duration) == (None, None, None)
    running = move(store, task, "running")
    assert running.started_at == running.updated_at
    assert running.completed_at is None
    paused = move(store, move(store, running, "paused"), "running")
    assert paused.started_at == running.started_at
    done = move(store, paused, "completed", result={"files": 3})
    assert (done.started_at, done.completed_at) == (running.started_at, done.updated_at)
    assert done.duration == (done.updated_at - running.updated_at).total_seconds()
    assert done.result == {"files": 3}


@pytest.mark.parametrize("status", ENDED)
def test_a_given_duration_goes_before_the_derived_one(store: Store, status: str) -> None:
    assert move(store, task_in(store, "running"), status, duration=2.5).duration == 2.5


def test_a_task_that_never_ran_has_an_end_and_no_duration(store: Store) -> None:
    task = move(store, task_in(store, "created"), "cancelled")
    assert task.started_at is None
    assert task.completed_at == task.updated_at
    assert task.duration is None


def test_a_retry_starts_afresh(store: Store) -> None:
    task = task_in(store, "running")
    failed = move(store, task, "failed", exit_reason="boom", error_message="stack", result={"part": 1})
    assert failed.completed_at is not None
    again = store.tasks.retry(task.task_id)
    assert (again.exit_reason, again.error_message, again.result) == (None, None, None)
    assert (again.completed_at, again.duration, again.claimed_by, again.lease_until) == (None, None, None, None)
    assert again.started_at == failed.started_at


def test_what_a_step_brings_stays_until_the_next_brings_other(store: Store) -> None:
    task = move(store, task_in(store, "running"), "paused", error_message="slow", result=[1])
    running = move(store, task, "running")
    assert (running.error_message, running.result) == ("slow", [1])
    done = move(store, running, "completed")
    assert (done.error_message, done.result) == (None, [1])


BAD: list[tuple[str, dict[str, Any]]] = [
    ("to", {"to": "finished"}),
    ("to", {"to": None}),
    ("to", {"to": 3}),
    ("expected", {"expected": "waiting"}),
    ("version", {"version": True}),
    ("version", {"version": 2**63}),
    ("by", {"by": 5}),
    ("by", {"by": "a\0b"}),
    ("exit_reason", {"exit_reason": "\ud800"}),
    ("error_message", {"error_message": b"bytes"}),
    ("result.a[1]", {"result": {"a": [0, math.nan]}}),
    ("duration", {"duration": math.nan}),
    ("duration", {"duration": "1"}),
]


@pytest.mark.parametrize(("name", "options"), BAD)
@pytest.mark.parametrize("exists", [True, False])
def test_a_bad_value_is_refused_by_its_name_before_the_task_is_looked_at(
    store: Store, name: str, options: dict[str, Any], exists: bool
) -> None:
    task_id = task_in(store, "running").task_id if exists else "nobody"
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.transition(task_id, **{"to": "completed", **options})
    assert caught.value.name == name


def race(calls: Sequence[Callable[[], object]]) -> None:
    def run(call: Callable[[], object]) -> None:
        with contextlib.suppress(ConflictError):
            call()

    with ThreadPoolExecutor(len(calls)) as threads:
        list(threads.map(run, calls))


def assert_legal(store: Store, task_id: str) -> None:
    status = "created"
    for step in store.tasks.history(task_id):
        assert step.origin == status
        assert step.to in SPECIFIED[status]
        status = step.to
    assert store.tasks.get(task_id).status == status


def test_every_history_of_racing_steps_is_legal(store: Store) -> None:
    ids = [store.tasks.create(title="t").task_id for _ in range(200)]
    for start in range(0, 200, 20):
        some = ids[start : start + 20]
        race(
            [partial(store.tasks.transition, key, "running") for key in some]
            + [partial(store.tasks.cancel, key) for key in some]
        )
    ends = set()
    for key in ids:
        assert_legal(store, key)
        ends.add(store.tasks.get(key).status)
    assert ends == {"cancelled"}
    assert store.audits.verify().ok


def test_a_crowd_around_one_task_leaves_one_legal_history(store: Store) -> None:
    task = store.tasks.create(title="t")
    rounds = ["pending", "running", "paused", "running", "blocked", "pending", "failed", "running"]
    race([partial(move, store, task, to) for to in rounds * 4])
    assert_legal(store, task.task_id)
    final = store.tasks.get(task.task_id)
    assert final.version == 1 + len(store.tasks.history(task.task_id))
    assert store.audits.verify(task.task_id).ok


class Regret(Exception):
    pass


def test_a_step_in_a_transaction_that_rolls_back_leaves_nothing(store: Store) -> None:
    task = store.tasks.create(title="t")

    with contextlib.suppress(Regret), store.transaction() as tx:
        tx.tasks.transition(task.task_id, "running")
        raise Regret
    assert unchanged(store, task)
    assert steps(store, task) == []
    found = store.audits.verify()
    assert (found.chains, found.entries) == (0, 0)


def test_a_refused_step_in_a_transaction_leaves_it_usable(store: Store) -> None:
    task = store.tasks.create(title="t")
    with store.transaction() as tx:
        tx.tasks.cancel(task.task_id)
        with pytest.raises(StoreError):
            tx.tasks.transition(task.task_id, "running")
        tx.audits.record(task.task_id, event_type="e")
    assert steps(store, task) == [("created", "cancelled")]
    assert store.audits.verify(task.task_id).entries == 2


def test_a_history_tells_of_imported_steps_too(store: Store) -> None:
    task = store.tasks.create(title="t")
    payload = {"from_state": "created", "to_state": "queued", "actor": "human", "reason": "go"}
    store.audits.record(task.task_id, event_type="STATE_TRANSITION_QUEUED", payload=payload)
    store.audits.record(task.task_id, event_type="STATE_TRANSITIONS", payload="no object")
    store.audits.record(task.task_id, event_type="state", payload=payload)
    store.tasks.transition(task.task_id, "running")
    found = store.tasks.history(task.task_id)
    assert [(step.origin, step.to) for step in found] == [("created", "queued"), ("", ""), ("created", "running")]
    assert (found[0].by, found[0].reason) == ("human", "go")
    assert all(isinstance(step.at, dt.datetime) for step in found)
