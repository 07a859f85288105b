from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos_store import AsyncStore, InvalidValueError, LeaseLostError, Store
from agentos_store.engine.session import Call, Session
from agentos_store.operation import Blocking, Repository, writes
from agentos_store.tasks.claiming import MANY_DUE
from agentos_store.tasks.repository import TaskRepository
from tests.tasks.queue_seeds import EARLY, LEASE, SECOND, Undo, add, claim, claimed, steps

ODD = ['a"b\\c', "天气/😀\u00ff\u2028", "plain-1", "x" * 255, "it's %s"]

# --- claiming


def test_a_claim_takes_the_task_and_leaves_its_audit(store: Store) -> None:
    (made,) = add(store, "t", payload={"n": 1})
    task = claim(store, "worker 天")
    assert (task.task_id, task.status, task.claimed_by) == ("t", "running", "worker 天")
    assert (task.attempts, task.lease_token, task.version) == (1, 1, made.version + 1)
    assert task.started_at == task.updated_at > made.updated_at
    assert task.lease_until is not None
    assert abs(task.lease_until - dt.datetime.now(dt.UTC) - LEASE) < dt.timedelta(minutes=2)
    assert task.payload == {"n": 1}
    assert store.tasks.get("t").to_dict() == task.to_dict()
    assert store.tasks.claim(by="other", lease=LEASE) is None
    (entry,) = store.audits.query(task_id="t").items
    assert (entry.event_type, entry.level, entry.created_at) == ("task.transition", "info", task.updated_at)
    assert list(entry.payload) == ["from", "to", "by", "claim", "token"]
    assert (entry.payload["by"], entry.payload["token"]) == ("worker 天", 1)
    (step,) = store.tasks.history("t")
    assert (step.origin, step.to, step.by) == ("pending", "running", "worker 天")


def test_the_trail_of_every_kind_of_key_verifies(store: Store, lapse: Callable[[], None]) -> None:
    add(store, *ODD, max_attempts=2)
    odd_worker = 'w"\\天\u0001'
    assert sorted(t.task_id for t in store.tasks.claim_many(by=odd_worker, lease=LEASE, limit=10)) == sorted(ODD)
    lapse()
    assert store.tasks.reclaim_lapsed() == len(ODD)
    assert len(claimed(store)) == len(ODD)
    lapse()
    assert store.tasks.reclaim_lapsed() == len(ODD)
    found = store.audits.verify()
    assert found.ok
    assert (found.chains, found.entries) == (len(ODD), 4 * len(ODD))
    for key in ODD:
        assert steps(store, key) == [
            ("pending", "running"),
            ("running", "pending"),
            ("pending", "running"),
            ("running", "failed"),
        ]
        assert store.tasks.history(key)[0].by == odd_worker


def test_a_claim_goes_on_with_a_chain_that_is_there(store: Store) -> None:
    tasks = [store.tasks.create(title="t") for _ in range(5)]
    for number, task in enumerate(tasks):
        for _ in range(number):
            store.audits.record(task.task_id, event_type="e")
        store.tasks.transition(task.task_id, "pending")
    assert claimed(store) == [task.task_id for task in tasks]
    assert store.audits.verify().ok
    assert store.audits.count() == 5 + 10 + 5


def test_only_what_is_pending_is_claimed(store: Store) -> None:
    for status in ("created", "running", "paused", "blocked", "cancelled"):
        store.tasks.create(title="t", task_id=status)
        if status == "blocked":
            store.tasks.transition(status, "pending")
        if status == "paused":
            store.tasks.transition(status, "running")
        if status != "created":
            store.tasks.transition(status, status)
    assert store.tasks.claim(by="w", lease=LEASE) is None
    store.tasks.transition("created", "pending")
    assert claim(store).task_id == "created"


def test_the_most_urgent_comes_first_then_the_oldest(store: Store) -> None:
    for key, priority in (("a", 0), ("b", 5), ("c", -1), ("d", 5), ("e", 0)):
        add(store, key, priority=priority)
    assert [claim(store).task_id for _ in range(5)] == ["b", "d", "a", "e", "c"]


SPEC = st.tuples(st.integers(-1, 1), st.sampled_from([None, "past", "future"]), st.sampled_from(["", "x", "y"]))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(specs=st.lists(SPEC, max_size=12), types=st.sets(st.sampled_from(["", "x", "y"])), limit=st.integers(1, 4))
def test_whatever_waits_comes_in_the_order_of_its_urgency(
    both: list[Store], specs: list[tuple[int, str | None, str]], types: set[str], limit: int
) -> None:
    times = {None: None, "past": EARLY, "future": dt.datetime.now(dt.UTC) + LEASE}
    for store in both:
        with contextlib.suppress(Undo), store.transaction() as tx:
            made = [
                tx.tasks.create(title="t", enqueue=True, priority=priority, run_after=times[when], task_type=kind)
                for priority, when, kind in specs
            ]
            wanted = [
                task
                for task, (_, when, kind) in zip(made, specs, strict=True)
                if when != "future" and (not types or kind in types)
            ]
            wanted.sort(key=lambda task: (-task.priority, task.created_at, task.task_id))
            found: list[str] = []
            while some := tx.tasks.claim_many(by="w", lease=LEASE, limit=limit, task_types=sorted(types)):
                assert len(some) <= limit
                found += [task.task_id for task in some]
            assert found == [task.task_id for task in wanted]
            assert tx.audits.verify().ok
            raise Undo


def test_of_many_whose_time_has_come_the_most_urgent_comes_first(store: Store) -> None:
    with contextlib.suppress(Undo), store.transaction() as tx:
        made = [
            tx.tasks.create(
                title="t",
                enqueue=True,
                priority=number % 7,
                task_type=f"x{number % 2}",
                run_after=EARLY + number * SECOND,
            )
            for number in range(MANY_DUE + 30)
        ]
        later = dt.datetime.now(dt.UTC) + LEASE
        tx.tasks.create(title="t", enqueue=True, priority=9, run_after=later)
        wanted = sorted(made, key=lambda task: (-task.priority, task.created_at, task.task_id))
        first = tx.tasks.claim(by="w", lease=LEASE, task_types=["x1"])
        assert first is not None
        assert first.task_id == next(task.task_id for task in wanted if task.task_type == "x1")
        found: list[str] = []
        # Many at first, then few.
        while some := tx.tasks.claim_many(by="w", lease=LEASE, limit=15):
            found += [task.task_id for task in some]
        assert found == [task.task_id for task in wanted if task.task_id != first.task_id]
        raise Undo


def test_types_keep_to_themselves(store: Store) -> None:
    for key, kind in (("a", "x"), ("b", "y"), ("c", "x"), ("d", "")):
        add(store, key, task_type=kind)
    assert claimed(store, task_types=["y"]) == ["b"]
    assert claimed(store, task_types=["none", "x", "x"]) == ["a", "c"]
    assert claimed(store, task_types=("",)) == ["d"]
    assert claimed(store) == []


def test_a_task_waits_for_its_time_by_the_clock_of_the_database(store: Store) -> None:
    add(store, "late", run_after=dt.datetime.now(dt.UTC) + dt.timedelta(hours=1), priority=9)
    add(store, "now")
    add(store, "due", run_after=EARLY, priority=1)
    assert claimed(store) == ["due", "now"]
    store.tasks.update("late", run_after=None)
    assert claimed(store) == ["late"]


@pytest.mark.parametrize("kind", ["blocks", "requires"])
def test_a_task_waits_until_what_it_depends_on_is_completed(store: Store, kind: str) -> None:
    add(store, "needs", priority=9)
    add(store, "hint", priority=8)
    add(store, "needed")
    store.tasks.add_dependency("needs", "needed", dependency_type=kind)
    store.tasks.add_dependency("hint", "needed", dependency_type="suggests")
    assert claimed(store) == ["hint", "needed"]
    stats = store.tasks.queue_stats()
    assert (stats.pending, stats.ready, stats.blocked) == (1, 0, 1)
    # What failed may be tried again, so whoever needs it goes on waiting.
    store.tasks.fail("needed", 1, retry=False)
    assert claimed(store) == []
    store.tasks.retry("needed")
    assert claimed(store) == ["needed"]
    store.tasks.complete("needed", 2)
    assert claimed(store) == ["needs"]


def test_what_was_cancelled_holds_back_what_needs_it_until_somebody_decides(store: Store) -> None:
    add(store, "needs", "needed", "other")
    store.tasks.add_dependency("needs", "needed")
    store.tasks.add_dependency("needs", "other")
    store.tasks.cancel("needed")
    assert claimed(store) == ["other"]
    store.tasks.complete("other", 1)
    assert claimed(store) == []
    store.tasks.remove_dependency("needs", "needed")
    assert claimed(store) == ["needs"]


def test_of_a_chain_of_tasks_one_after_the_other_is_claimed(store: Store) -> None:
    keys = [f"t{n}" for n in range(6)]
    for key in reversed(keys):
        add(store, key)
    for before, after in itertools.pairwise(keys):
        store.tasks.add_dependency(after, before)
    for key in keys:
        task = claim(store)
        assert task.task_id == key
        assert store.tasks.claim(by="w", lease=LEASE) is None
        store.tasks.complete(key, task.lease_token)


def test_eight_threads_claim_each_task_once(store: Store) -> None:
    keys = [f"t{number:03}" for number in range(160)]
    add(store, *keys)
    barrier = threading.Barrier(8, timeout=60)

    def work(number: int) -> list[str]:
        barrier.wait()
        found: list[str] = []
        while some := store.tasks.claim_many(by=f"w{number}", lease=LEASE, limit=1 + number % 3):
            found += [task.task_id for task in some]
        return found

    with ThreadPoolExecutor(8) as threads:
        taken = list(itertools.chain.from_iterable(threads.map(work, range(8))))
    assert sorted(taken) == keys
    assert {task.lease_token for task in store.tasks.iterate()} == {1}
    assert store.audits.verify().ok
    assert store.audits.count() == len(keys)


def test_workers_that_look_first_and_take_afterwards_take_one_task_twice(store: Store) -> None:
    """The negative control: without a claim, to see that a task is pending and to start it are two steps."""
    add(store, "t")
    barrier = threading.Barrier(4, timeout=60)

    def work(number: int) -> str:
        (task,) = store.tasks.list(status="pending").items
        barrier.wait()
        return store.tasks.transition(task.task_id, "running", by=str(number)).status

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(4))) == ["running"] * 4


def test_links_that_others_add_do_not_hide_a_task(store: Store, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("all writers stand in one queue")
    add(store, "t", "u")
    with store.transaction() as tx:
        tx.tasks.add_artifact("t", "r", "file", "x")
        tx.tasks.add_dependency("u", "t")
        assert claim(store).task_id == "t"


# --- bad input


@pytest.mark.parametrize("bad", [dt.timedelta(0), -SECOND, dt.timedelta.max, 5, None])
def test_a_lease_is_a_time_above_zero(store: Store, bad: Any) -> None:
    add(store, "t")
    calls: Sequence[Callable[[], object]] = (
        lambda: store.tasks.claim(by="w", lease=bad),
        lambda: store.tasks.claim_many(by="w", lease=bad, limit=1),
        lambda: store.tasks.heartbeat("t", 1, lease=bad),
    )
    for call in calls:
        with pytest.raises(InvalidValueError) as caught:
            call()
        assert caught.value.name == "lease"
    assert store.tasks.get("t").status == "pending"


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, "1", None, 1001])
def test_a_limit_is_a_whole_number(store: Store, bad: Any) -> None:
    for call in (lambda: claimed(store, limit=bad), lambda: store.tasks.reclaim_lapsed(limit=bad)):
        with pytest.raises(InvalidValueError) as caught:
            call()
        assert caught.value.name == "limit"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("by", {"by": ""}),
        ("by", {"by": None}),
        ("by", {"by": "a\0b"}),
        ("task_types", {"task_types": "code"}),
        ("task_types", {"task_types": [3]}),
        ("task_types", {"task_types": ["x" * 256]}),
        ("task_types", {"task_types": [str(n) for n in range(51)]}),
        ("task_types", {"task_types": None}),
    ],
)
def test_a_claim_says_who_and_what(store: Store, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.claim(**{"by": "w", "lease": LEASE, **options})
    assert caught.value.name == name


# --- repeats, transactions, the other face


class Doubter(Repository[Blocking]):
    name = "doubter"

    @writes
    def twice(self, session: Session, call: Callable[[Session], Any]) -> tuple[Any, Any]:
        same = Call()
        first = call(Session(session._connection, same))
        same.in_doubt = True
        return first, call(Session(session._connection, same))


tasks: Any = TaskRepository[Blocking]
REPEATED: dict[str, Callable[[Session], Any]] = {
    "claim": lambda session: tasks.claim(None, session, by="w", lease=LEASE),
    "claim_many": lambda session: tasks.claim_many(None, session, by="w", lease=LEASE, limit=2)[0],
    "complete": lambda session: tasks.complete(None, session, "held", 1, result=1),
    "fail": lambda session: tasks.fail(None, session, "held", 1),
    "fail the last": lambda session: tasks.fail(None, session, "last", 1),
    "fail for good": lambda session: tasks.fail(None, session, "held", 1, retry=False),
    "release": lambda session: tasks.release(None, session, "held", 1),
}


@pytest.mark.parametrize("name", REPEATED)
def test_a_call_repeated_in_doubt_changes_nothing_more_and_answers_the_same(store: Store, name: str) -> None:
    add(store, "held")
    add(store, "last", max_attempts=1)
    claimed(store)
    add(store, "a", "b", "c")
    count = store.audits.count()
    first, second = store.bind(Doubter).twice(REPEATED[name])
    assert first.to_dict() == second.to_dict()
    assert store.audits.count() - count == (2 if name == "claim_many" else 1)
    assert store.audits.verify().ok


def test_a_claim_in_a_transaction_that_fails_is_none(store: Store, lapse: Callable[[], None]) -> None:
    add(store, "a", "b")
    claim(store)
    lapse()
    with contextlib.suppress(Undo), store.transaction() as tx:
        assert tx.tasks.claim(by="w", lease=LEASE) is not None
        assert tx.tasks.claim(by="w", lease=LEASE) is not None
        raise Undo
    assert store.audits.count() == 1
    assert (store.tasks.queue_stats().ready, store.tasks.queue_stats().lapsed) == (1, 1)
    with store.transaction() as tx:
        task = tx.tasks.claim(by="w", lease=LEASE)
        assert task is not None
        tx.tasks.complete(task.task_id, task.lease_token)
        with pytest.raises(LeaseLostError):
            tx.tasks.complete(task.task_id, task.lease_token)
        tx.audits.record(task.task_id, event_type="e")
    assert store.audits.verify().ok


async def both_faces(url: str) -> list[str]:
    async with AsyncStore.open(url) as store:
        await store.tasks.create(title="t", task_id="t", enqueue=True)
        task = await store.tasks.claim(by="w", lease=LEASE)
        assert task is not None
        await store.tasks.heartbeat("t", 1, lease=LEASE)
        await store.tasks.release("t", 1)
        (task,) = await store.tasks.claim_many(by="w", lease=LEASE, limit=2)
        await store.tasks.fail("t", 2, after=dt.timedelta(0))
        assert await store.tasks.reclaim_lapsed() == 0
        assert (await store.tasks.queue_stats()).pending == 1
        assert await store.tasks.claim(by="w", lease=LEASE) is not None
        await store.tasks.complete("t", 3)
        return [step.to for step in await store.tasks.history("t")]


def test_the_asynchronous_store_has_the_same_queue(url: str) -> None:
    import asyncio

    assert asyncio.run(both_faces(url)) == ["running", "pending", "running", "pending", "running", "completed"]


# --- statistics


def test_the_queue_tells_how_it_stands(store: Store, lapse: Callable[[], None]) -> None:
    empty = store.tasks.queue_stats()
    assert (empty.pending, empty.running, empty.oldest_ready_at, empty.oldest_ready_age) == (0, 0, None, None)
    first, *_ = add(store, "ready", "blocked", "blocker", "dead")
    add(store, "late", run_after=dt.datetime.now(dt.UTC) + LEASE)
    add(store, "due", run_after=EARLY)
    store.tasks.add_dependency("blocked", "blocker")
    store.tasks.update("dead", priority=9)
    claim(store)
    lapse()
    store.tasks.update("blocker", priority=9)
    with contextlib.suppress(Undo), store.transaction() as tx:
        assert tx.tasks.claim(by="w", lease=LEASE) is not None
        raise Undo
    stats = store.tasks.queue_stats()
    assert (stats.pending, stats.ready, stats.delayed, stats.blocked) == (5, 3, 1, 1)
    assert (stats.running, stats.lapsed) == (1, 1)
    assert stats.oldest_ready_at == first.created_at
    assert stats.oldest_ready_age is not None
    assert 0 <= stats.oldest_ready_age < 300
