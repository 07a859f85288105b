from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import ConflictError, InvalidValueError, LeaseLostError, NotFoundError, Store
from agentos_store.tasks.backoff import Backoff
from tests.tasks.queue_seeds import LEASE, SECOND, add, claim, claimed, steps

Run = Callable[..., list[tuple[Any, ...]]]

# --- the holder's steps


def test_completing_keeps_the_result_and_ends_the_claim(store: Store) -> None:
    add(store, "t")
    task = claim(store)
    done = store.tasks.complete("t", task.lease_token, result={"b": 1, "a": [None]}, by="w")
    assert (done.status, done.result, done.claimed_by, done.lease_until) == (
        "completed",
        {"b": 1, "a": [None]},
        None,
        None,
    )
    assert task.started_at is not None
    assert done.completed_at == done.updated_at
    assert done.duration == (done.updated_at - task.started_at).total_seconds()
    last = store.audits.query(task_id="t").items[-1]
    assert last.payload == {"from": "running", "to": "completed", "by": "w", "token": 1}
    assert store.audits.verify().ok


HOLDERS: dict[str, Callable[[Store, str, int], object]] = {
    "heartbeat": lambda store, key, token: store.tasks.heartbeat(key, token, lease=LEASE),
    "complete": lambda store, key, token: store.tasks.complete(key, token),
    "fail": lambda store, key, token: store.tasks.fail(key, token),
    "fail for good": lambda store, key, token: store.tasks.fail(key, token, retry=False),
    "release": lambda store, key, token: store.tasks.release(key, token),
}


def ended(store: Store, how: str) -> None:
    ways: dict[str, Callable[[], object]] = {
        "completed": lambda: store.tasks.complete("t", 1),
        "failed": lambda: store.tasks.fail("t", 1, retry=False),
        "released": lambda: store.tasks.release("t", 1),
        "paused": lambda: store.tasks.pause("t"),
        "cancelled": lambda: store.tasks.cancel("t", reason="enough"),
        "completed by hand": lambda: store.tasks.transition("t", "completed"),
        "blocked": lambda: store.tasks.transition("t", "blocked"),
        "started by hand": lambda: (store.tasks.pause("t"), store.tasks.transition("t", "running")),
        "claimed by another": lambda: (store.tasks.release("t", 1), claim(store, "other")),
    }
    ways[how]()


@pytest.mark.parametrize(
    "how",
    [
        "completed",
        "failed",
        "released",
        "paused",
        "cancelled",
        "completed by hand",
        "blocked",
        "started by hand",
        "claimed by another",
    ],
)
def test_whoever_comes_after_the_end_of_the_claim_is_told_and_changes_nothing(store: Store, how: str) -> None:
    add(store, "t")
    claim(store)
    ended(store, how)
    before = store.tasks.get("t").to_dict()
    count = store.audits.count()
    for late in HOLDERS.values():
        with pytest.raises(LeaseLostError) as caught:
            late(store, "t", 1)
        assert (caught.value.name, caught.value.token) == ("task t", 1)
    assert store.tasks.get("t").to_dict() == before
    assert store.audits.count() == count


@pytest.mark.parametrize("name", HOLDERS)
def test_what_was_never_claimed_cannot_be_ended(store: Store, name: str) -> None:
    add(store, "t")
    for _ in range(2):
        with pytest.raises(ConflictError) as caught:
            HOLDERS[name](store, "t", 7)
        assert (caught.value.entity, caught.value.key) == ("task", "t")
        claim(store) if store.tasks.get("t").status == "pending" else None
    with pytest.raises(NotFoundError):
        HOLDERS[name](store, "nobody", 1)
    for bad in (0, -1, True, None, "1", 2**63):
        with pytest.raises(InvalidValueError) as refused:
            HOLDERS[name](store, "t", bad)  # type: ignore[arg-type]  # that is what is refused
        assert refused.value.name == "token"


def test_a_heartbeat_renews_the_lease_and_nothing_else(store: Store) -> None:
    add(store, "t")
    task = claim(store)
    renewed = store.tasks.heartbeat("t", 1, lease=2 * LEASE)
    assert task.lease_until is not None
    assert renewed.lease_until is not None
    assert renewed.lease_until - task.lease_until >= LEASE
    assert {**renewed.to_dict(), "lease_until": task.lease_until} == task.to_dict()
    assert store.audits.count() == 1


def test_a_try_that_failed_waits_longer_each_time_until_the_last(store: Store, raw: Run) -> None:
    add(store, "t", max_attempts=3)
    backoff = Backoff(base=60 * SECOND, factor=3, cap=dt.timedelta(hours=1), jitter=0)
    for attempt, wait in ((1, 60), (2, 180)):
        task = claim(store)
        failed = store.tasks.fail("t", task.lease_token, error_message=f"no {attempt}", backoff=backoff)
        assert (failed.status, failed.attempts, failed.error_message) == ("pending", attempt, f"no {attempt}")
        assert (failed.exit_reason, failed.claimed_by, failed.lease_until) == ("failed", None, None)
        assert failed.run_after is not None
        assert abs((failed.run_after - dt.datetime.now(dt.UTC)).total_seconds() - wait) < 50
        assert store.tasks.claim(by="w", lease=LEASE) is None
        assert store.tasks.queue_stats().delayed == 1
        store.tasks.update("t", run_after=None)
    task = claim(store)
    last = store.tasks.fail("t", task.lease_token, error_message="no 3", exit_reason="worn out", backoff=backoff)
    assert (last.status, last.attempts, last.exit_reason, last.error_message) == ("failed", 3, "worn out", "no 3")
    assert last.completed_at is not None
    assert [entry.level for entry in store.audits.query(task_id="t")] == ["info", "warning"] * 3
    assert store.tasks.retry("t").attempts == 0
    assert claim(store).attempts == 1
    assert store.audits.verify().ok


def test_a_wait_can_be_given_and_a_failure_can_be_final(store: Store) -> None:
    add(store, "t", "u")
    claimed(store)
    again = store.tasks.fail("t", 1, after=dt.timedelta(0))
    assert again.run_after is not None
    assert again.run_after <= dt.datetime.now(dt.UTC) + SECOND
    assert claimed(store) == ["t"]
    assert store.tasks.fail("u", 1, retry=False, exit_reason="refused").exit_reason == "refused"


def test_waits_grow_up_to_the_cap_and_are_jittered() -> None:
    backoff = Backoff(base=SECOND, factor=2, cap=10 * SECOND, jitter=0)
    assert [backoff.delay(attempt) for attempt in (0, 1, 2, 3, 4, 5, 10_000)] == [1, 1, 2, 4, 8, 10, 10]
    waits = {Backoff(jitter=0.5).delay(1) for _ in range(50)}
    assert len(waits) > 10
    assert all(0.5 <= wait <= 1.5 for wait in waits)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("base", {"base": -SECOND}),
        ("base", {"base": 1}),
        ("cap", {"cap": dt.timedelta.max}),
        ("factor", {"factor": 0.5}),
        ("factor", {"factor": float("nan")}),
        ("jitter", {"jitter": True}),
        ("jitter", {"jitter": 1.1}),
    ],
)
def test_a_backoff_is_made_of_sane_numbers(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        Backoff(**options)
    assert caught.value.name == name


def test_a_released_task_waits_as_before_and_the_claim_does_not_count(store: Store) -> None:
    (made,) = add(store, "t", max_attempts=1)
    for token in (1, 2, 3):
        assert claim(store).attempts == 1
        released = store.tasks.release("t", token, by="w", reason="shutdown")
        assert (released.status, released.attempts, released.lease_token) == ("pending", 0, token)
        assert released.run_after is None
    assert released.created_at == made.created_at
    assert store.tasks.history("t")[-1].reason == "shutdown"


def test_a_task_that_somebody_lets_go_on_has_a_try_left(store: Store) -> None:
    add(store, "t", max_attempts=1)
    claim(store)
    store.tasks.pause("t")
    assert store.tasks.resume("t").attempts == 0
    assert claim(store).lease_token == 2


def test_of_steps_that_end_a_claim_at_once_one_comes_first(store: Store, lapse: Callable[[], None]) -> None:
    keys = [f"t{number}" for number in range(20)]
    add(store, *keys)
    assert len(claimed(store)) == len(keys)
    lapse()
    ways: list[Callable[[str], object]] = [
        lambda key: store.tasks.complete(key, 1),
        lambda key: store.tasks.fail(key, 1),
        lambda key: store.tasks.release(key, 1),
        lambda key: store.tasks.reclaim_lapsed(limit=1),
    ]

    def run(way: Callable[[str], object]) -> int:
        won = 0
        for key in keys:
            with contextlib.suppress(LeaseLostError):
                won += way(key) != 0
        return won

    with ThreadPoolExecutor(len(ways)) as threads:
        assert sum(threads.map(run, ways)) == len(keys)
    for key in keys:
        (_, (origin, _)) = steps(store, key)
        assert origin == "running"
    assert store.audits.verify().ok


def test_a_bad_value_of_a_failure_changes_nothing(store: Store) -> None:
    add(store, "t")
    task = claim(store)
    for name, options in (
        ("exit_reason", {"exit_reason": ""}),
        ("after", {"after": -SECOND}),
        ("error_message", {"error_message": 3}),
        ("by", {"by": 3}),
    ):
        with pytest.raises(InvalidValueError) as caught:
            store.tasks.fail("t", 1, **options)
        assert caught.value.name == name
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.complete("t", 1, result={"a": float("nan")})
    assert caught.value.name == "result.a"
    assert store.tasks.get("t").to_dict() == task.to_dict()


# --- leases that lapse


def test_a_lapsed_claim_goes_to_another_worker_and_the_first_one_is_told(
    store: Store, lapse: Callable[[], None]
) -> None:
    add(store, "t")
    claim(store, "first")
    assert store.tasks.claim(by="second", lease=LEASE) is None
    lapse()
    assert store.tasks.queue_stats().lapsed == 1
    task = claim(store, "second")
    assert (task.task_id, task.claimed_by, task.lease_token, task.attempts) == ("t", "second", 2, 2)
    for late in HOLDERS.values():
        with pytest.raises(LeaseLostError):
            late(store, "t", 1)
    assert steps(store, "t") == [("pending", "running"), ("running", "pending"), ("pending", "running")]
    assert store.tasks.history("t")[1].reason == "the lease lapsed"
    assert store.audits.query(task_id="t").items[1].payload["token"] == 1
    assert store.tasks.complete("t", 2).status == "completed"
    assert store.audits.verify().ok


@pytest.mark.parametrize("name", HOLDERS)
def test_a_lapsed_claim_that_nobody_took_still_counts(store: Store, lapse: Callable[[], None], name: str) -> None:
    add(store, "t")
    claim(store)
    lapse()
    HOLDERS[name](store, "t", 1)
    assert store.tasks.queue_stats().lapsed == 0


def test_a_real_lease_lapses_by_itself(store: Store) -> None:
    add(store, "t")
    claim(store, "first", lease=dt.timedelta(milliseconds=1))
    deadline = time.monotonic() + 30
    while (found := store.tasks.claim(by="second", lease=LEASE)) is None:
        assert time.monotonic() < deadline
    assert found.lease_token == 2


def test_a_claim_that_lapses_at_once_is_a_claim_all_the_same(store: Store) -> None:
    add(store, "t")
    assert claim(store, lease=dt.timedelta(microseconds=1)).status == "running"
    assert store.tasks.get("t").status == "running"
    assert steps(store, "t") == [("pending", "running")]


def test_a_claim_gives_back_what_lapsed_but_not_what_it_claims(store: Store) -> None:
    for number in range(2):
        store.tasks.create(title="t", task_id=f"t{number}", enqueue=True)
    instant = dt.timedelta(microseconds=1)
    store.tasks.claim(by="dead", lease=instant)
    assert store.tasks.claim(by="dead", lease=instant)
    assert [store.tasks.get(f"t{number}").status for number in range(2)] == ["pending", "running"]
    assert store.tasks.reclaim_lapsed() == 1


def test_a_task_whose_workers_all_died_has_failed(store: Store, lapse: Callable[[], None]) -> None:
    add(store, "t", max_attempts=2)
    for _ in range(2):
        claim(store)
        lapse()
    assert store.tasks.claim(by="w", lease=LEASE) is None
    task = store.tasks.get("t")
    assert (task.status, task.exit_reason, task.attempts, task.claimed_by) == ("failed", "the lease lapsed", 2, None)
    assert task.completed_at is not None
    assert task.duration is not None
    assert store.audits.query(task_id="t").items[-1].level == "warning"


def test_lapsed_claims_are_given_back_while_others_are_claimed(store: Store, lapse: Callable[[], None]) -> None:
    add(store, "urgent", priority=9)
    add(store, "a", "b")
    claim(store)
    lapse()
    # The claim that finds the dead worker's task lets it wait again, and the next one takes it.
    assert [claim(store).task_id for _ in range(3)] == ["a", "urgent", "b"]


def test_as_many_are_given_back_as_asked_the_first_to_lapse_first(store: Store, lapse: Callable[[], None]) -> None:
    keys = [f"t{number}" for number in range(5)]
    add(store, *keys)
    claimed(store)
    lapse()
    assert [store.tasks.reclaim_lapsed(limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert store.tasks.count(status="pending") == 5


def test_eight_threads_take_each_lapsed_claim_once(store: Store, lapse: Callable[[], None]) -> None:
    keys = [f"t{number:02}" for number in range(48)]
    add(store, *keys, max_attempts=100)
    for turn in range(3):
        assert len(claimed(store)) == len(keys)
        lapse()
        barrier = threading.Barrier(8, timeout=60)

        def work(_: int, barrier: threading.Barrier = barrier) -> list[str]:
            barrier.wait()
            store.tasks.reclaim_lapsed(limit=5)
            return claimed(store, limit=3) + claimed(store, limit=3)

        with ThreadPoolExecutor(8) as threads:
            taken = list(itertools.chain.from_iterable(threads.map(work, range(8))))
        while some := claimed(store, limit=100):
            taken += some
        assert sorted(taken) == keys, turn
        for task in store.tasks.iterate():
            assert task.lease_token == 2 * turn + 2
            store.tasks.release(task.task_id, task.lease_token)
    assert store.audits.verify().ok
