from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import pytest

from agentos_store import InvalidValueError, LeaseLostError, NotFoundError, Store
from agentos_store.governance.models import SupervisorInboxEntry
from tests.engine.gather import PROCESSES

Run = Callable[..., list[tuple[Any, ...]]]

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
LEASE = dt.timedelta(minutes=5)
SECOND = dt.timedelta(seconds=1)

EVENTS = int(os.environ.get("AGENTOS_STORE_TEST_EVENTS", "200"))
"""How many the worker processes have to go through; a long run takes 1,000."""


@pytest.fixture(autouse=True)
def task(store: Store) -> None:
    store.tasks.create(title="t", task_id="t")


def add(store: Store, *ids: str, **options: Any) -> None:
    with store.transaction() as tx:
        for number, key in enumerate(ids):
            tx.inbox.add("t", event_type="e", id=key, event_ts=START + number * SECOND, **options)


def claim(store: Store, by: str = "w", **options: Any) -> list[SupervisorInboxEntry]:
    return list(store.inbox.claim(by=by, **{"lease": LEASE, **options}))


def ids(entries: Sequence[SupervisorInboxEntry]) -> list[str]:
    return [entry.id for entry in entries]


@pytest.fixture
def lapse(raw: Run, url: str) -> Callable[[], None]:
    """Let the leases of all who hold one lapse, as if the time had passed."""
    past = START if url.startswith("postgresql") else "2026-03-01T00:00:00.000000Z"

    def work() -> None:
        raw("UPDATE supervisor_inbox SET lease_until = ? WHERE lease_until IS NOT NULL", past)

    return work


# --- adding


def test_an_event_waits_as_it_was_added(store: Store) -> None:
    entry = store.inbox.add(
        "t", event_type="任务.失败", event_ts=START, payload={"a": [1, None]}, id="i", source="polling"
    )
    assert (entry.status, entry.attempts, entry.lease_token) == ("pending", 0, 0)
    assert (entry.event_type, entry.event_ts, entry.payload_json) == ("任务.失败", START, {"a": [1, None]})
    assert (entry.source, entry.claimed_by, entry.lease_until) == ("polling", None, None)
    assert store.inbox.get("i").to_dict() == entry.to_dict()
    plain = store.inbox.add("t", event_type="e")
    assert (plain.event_ts, plain.payload_json, plain.source) == (plain.created_at, None, "eventbus")


def test_an_identifier_added_again_is_the_first_event_as_it_is_now(store: Store) -> None:
    add(store, "i")
    (claimed,) = claim(store)
    again = store.inbox.add("t", event_type="other", id="i", payload=1)
    assert again.to_dict() == claimed.to_dict()
    assert store.inbox.count() == 1


def test_one_identifier_added_by_eight_threads_is_one_event(store: Store) -> None:
    barrier = threading.Barrier(8, timeout=60)

    def work(number: int) -> list[str]:
        found = []
        for turn in range(10):
            barrier.wait()
            found.append(store.inbox.add("t", event_type=f"e{number}", id=f"i{turn}").event_type)
        return found

    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(work, range(8)))
    assert all(found == seen[0] for found in seen)
    assert store.inbox.count() == 10


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("event_type", {"event_type": ""}),
        ("event_ts", {"event_ts": dt.datetime(2026, 3, 1)}),  # noqa: DTZ001  that is what is refused
        ("payload.a", {"payload": {"a": float("nan")}}),
        ("id", {"id": "a\nb"}),
        ("source", {"source": "x" * 256}),
    ],
)
def test_a_bad_value_is_refused(store: Store, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.inbox.add("t", **{"event_type": "e", **options})
    assert caught.value.name == name
    assert store.inbox.count() == 0


def test_an_event_needs_its_task_and_goes_with_it(store: Store) -> None:
    with pytest.raises(NotFoundError) as caught:
        store.inbox.add("nobody", event_type="e")
    assert (caught.value.entity, caught.value.key) == ("task", "nobody")
    add(store, "i")
    claim(store)
    store.tasks.delete("t")
    assert store.inbox.find("i") is None
    with pytest.raises(NotFoundError):
        store.inbox.get("i")
    with pytest.raises(NotFoundError):
        store.inbox.complete("i", 1)


# --- claiming


def test_the_oldest_events_are_claimed_first_and_as_many_as_asked(store: Store) -> None:
    for key, second in (("c", 3), ("a", 1), ("b2", 2), ("b1", 2)):
        store.inbox.add("t", event_type="e", id=key, event_ts=START + second * SECOND)
    first = claim(store, limit=3)
    assert ids(first) == ["a", "b1", "b2"]
    assert {(entry.status, entry.attempts, entry.lease_token, entry.claimed_by) for entry in first} == {
        ("processing", 1, 1, "w")
    }
    assert first[0].to_dict() == store.inbox.get("a").to_dict()
    assert ids(claim(store, limit=3)) == ["c"]
    assert claim(store) == []


def test_a_lease_is_measured_by_the_clock_of_the_database(store: Store) -> None:
    add(store, "i")
    (entry,) = claim(store, lease=dt.timedelta(hours=1))
    assert entry.lease_until is not None
    # It runs on this machine here.
    assert abs(entry.lease_until - dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)) < dt.timedelta(minutes=5)


def test_eight_threads_claim_each_event_once(store: Store) -> None:
    keys = [f"i{number:03}" for number in range(160)]
    add(store, *keys)

    def work(number: int) -> list[str]:
        found: list[str] = []
        while more := claim(store, f"w{number}", limit=3):
            found += ids(more)
        return found

    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(work, range(8)))
    assert sorted(chain.from_iterable(taken)) == keys


def test_a_lapsed_claim_goes_to_another_worker_and_the_first_one_is_told(
    store: Store, lapse: Callable[[], None]
) -> None:
    add(store, "i")
    (first,) = claim(store, "first")
    assert claim(store, "second") == []
    lapse()
    (second,) = claim(store, "second")
    assert (second.claimed_by, second.lease_token, second.attempts) == ("second", first.lease_token + 1, 2)
    assert second.error_message == "the lease lapsed"
    too_late: list[Callable[[], object]] = [
        lambda: store.inbox.complete("i", first.lease_token),
        lambda: store.inbox.fail("i", first.lease_token, error="late"),
    ]
    for late in too_late:
        with pytest.raises(LeaseLostError) as caught:
            late()
        assert caught.value.token == first.lease_token
    assert store.inbox.get("i").to_dict() == second.to_dict()
    done = store.inbox.complete("i", second.lease_token)
    assert (done.status, done.claimed_by, done.lease_until, done.error_message) == ("processed", None, None, None)
    assert done.processed_at is not None
    with pytest.raises(LeaseLostError):
        store.inbox.complete("i", second.lease_token)


def test_a_lapsed_claim_that_nobody_took_can_still_be_completed(store: Store, lapse: Callable[[], None]) -> None:
    add(store, "i")
    (entry,) = claim(store)
    lapse()
    assert store.inbox.complete("i", entry.lease_token).status == "processed"


def test_a_real_lease_lapses_by_itself(store: Store) -> None:
    add(store, "i")
    claim(store, "first", lease=dt.timedelta(milliseconds=1))
    deadline = time.monotonic() + 30
    while not (found := claim(store, "second")):
        assert time.monotonic() < deadline
    assert found[0].lease_token == 2


def test_lapsed_claims_are_taken_again_in_the_order_of_their_events(store: Store, lapse: Callable[[], None]) -> None:
    add(store, "a", "b", "c", "d")
    assert ids(claim(store, limit=2)) == ["a", "b"]
    lapse()
    assert ids(claim(store, limit=3)) == ["a", "b", "c"]


def test_eight_threads_take_each_lapsed_claim_once(store: Store, lapse: Callable[[], None]) -> None:
    keys = [f"i{number:02}" for number in range(64)]
    add(store, *keys)
    for turn in range(3):
        assert len(claim(store, "dead", limit=100, max_attempts=100)) == 64
        lapse()
        barrier = threading.Barrier(8, timeout=60)

        def work(_: int, barrier: threading.Barrier = barrier) -> list[str]:
            barrier.wait()
            store.inbox.reclaim_lapsed(max_attempts=100)
            return ids(claim(store, limit=10, max_attempts=100))

        with ThreadPoolExecutor(8) as threads:
            taken = list(chain.from_iterable(threads.map(work, range(8))))
        taken += ids(claim(store, limit=100, max_attempts=100))
        assert sorted(taken) == keys, turn
        assert {entry.lease_token for entry in store.inbox.iterate()} == {2 * turn + 2}
        lapse()


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, "1", None, 2**63])
@pytest.mark.parametrize("name", ["limit", "max_attempts"])
def test_a_count_is_a_whole_number_from_one(store: Store, name: str, bad: Any) -> None:
    calls: list[Callable[[], object]] = [lambda: claim(store, **{name: bad})]
    if name == "max_attempts":
        calls += [
            lambda: store.inbox.fail("i", 1, error="e", max_attempts=bad),
            lambda: store.inbox.reclaim_lapsed(max_attempts=bad),
        ]
    else:
        calls.append(lambda: store.inbox.cleanup(older_than=LEASE, limit=bad))
    for call in calls:
        with pytest.raises(InvalidValueError) as caught:
            call()
        assert caught.value.name == name


@pytest.mark.parametrize("bad", [dt.timedelta(0), dt.timedelta(seconds=-1), dt.timedelta.max, 5, None])
def test_a_lease_is_a_time_above_zero(store: Store, bad: Any) -> None:
    for name, call in (
        ("lease", lambda: claim(store, lease=bad)),
        ("older_than", lambda: store.inbox.cleanup(older_than=bad)),
    ):
        with pytest.raises(InvalidValueError) as caught:
            call()
        assert caught.value.name == name


@pytest.mark.parametrize("bad", ["", None, 5, "a\0b"])
def test_a_worker_has_a_name(store: Store, bad: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        claim(store, bad)
    assert caught.value.name == "by"


# --- failing


def test_a_failed_event_waits_again_until_it_is_parked(store: Store) -> None:
    add(store, "i", "j")
    for attempt in (1, 2, 3):
        (entry,) = claim(store)
        assert (entry.id, entry.attempts, entry.lease_token) == ("i", attempt, attempt)
        failed = store.inbox.fail("i", entry.lease_token, error=f"bad\0byte {attempt}")
        assert (failed.claimed_by, failed.lease_until) == (None, None)
        assert failed.error_message == f"bad\ufffdbyte {attempt}"
        assert failed.status == ("parked" if attempt == 3 else "failed")
    assert ids(claim(store, limit=5)) == ["j"]
    with pytest.raises(LeaseLostError):
        store.inbox.fail("i", 3, error="again")


def test_an_event_whose_holders_all_died_is_parked(store: Store, lapse: Callable[[], None]) -> None:
    add(store, "i", "j")
    for _ in range(2):
        claim(store, max_attempts=2)
        lapse()
    assert ids(claim(store, max_attempts=2)) == ["j"]
    parked = store.inbox.get("i")
    assert (parked.status, parked.attempts, parked.claimed_by, parked.lease_until) == ("parked", 2, None, None)
    assert parked.error_message == "the lease lapsed"


def test_lapsed_claims_can_be_given_back_without_claiming(store: Store, lapse: Callable[[], None]) -> None:
    add(store, "i", "j", "k")
    claim(store)
    lapse()
    assert ids(claim(store, limit=2)) == ["i", "j"]
    assert store.inbox.reclaim_lapsed(max_attempts=2) == 0
    lapse()
    assert store.inbox.reclaim_lapsed(max_attempts=2) == 2
    assert [entry.status for entry in store.inbox.list()] == ["parked", "failed", "pending"]
    assert store.inbox.reclaim_lapsed() == 0


def test_a_parked_event_is_let_out_with_its_attempts_counted_anew(store: Store) -> None:
    add(store, "i")
    (entry,) = claim(store)
    store.inbox.fail("i", entry.lease_token, error="e", max_attempts=1)
    free = store.inbox.unpark("i")
    assert (free.status, free.attempts, free.lease_token, free.error_message) == ("pending", 0, 1, "e")
    assert claim(store)[0].lease_token == 2
    for key in ("i", "nobody"):
        with pytest.raises(NotFoundError):
            store.inbox.unpark(key)


# --- looking, cleaning up


def test_events_are_filtered_paged_and_counted(store: Store) -> None:
    store.tasks.create(title="u", task_id="u")
    add(store, "a", "b", "c", "d")
    store.inbox.add("u", event_type="e", id="e", event_ts=START + 9 * SECOND)
    claim(store, limit=2)

    def found(**filters: Any) -> list[str]:
        return [entry.id for entry in store.inbox.list(**filters)]

    assert found() == list("abcde")
    assert found(order="-event_ts") == list("edcba")
    assert found(status="processing") == ["a", "b"]
    assert found(task_id="u") == ["e"]
    assert found(task_id="t", status="pending") == ["c", "d"]
    assert found(event_after=START + SECOND, event_before=START + 3 * SECOND) == ["b", "c"]
    assert [entry.id for entry in store.inbox.iterate(limit=2)] == list("abcde")
    assert (store.inbox.count(status="pending"), store.inbox.count(task_id="t")) == (3, 4)
    with pytest.raises(InvalidValueError):
        found(status="waiting")


def test_the_backlog_tells_how_long_the_oldest_has_waited(store: Store, lapse: Callable[[], None]) -> None:
    backlog = store.inbox.backlog()
    assert (backlog.by_status, backlog.oldest_pending_at, backlog.oldest_pending_age) == ({}, None, None)
    add(store, "a", "b", "c")
    (first,) = claim(store)
    backlog = store.inbox.backlog()
    assert backlog.by_status == {"processing": 1, "pending": 2}
    assert backlog.oldest_pending_at == START + SECOND
    age = (dt.datetime.now(dt.UTC) - START - SECOND).total_seconds()
    assert backlog.oldest_pending_age is not None
    assert abs(backlog.oldest_pending_age - age) < 300
    lapse()
    assert store.inbox.backlog().oldest_pending_at == START
    store.inbox.fail("a", first.lease_token, error="e")
    assert store.inbox.backlog().oldest_pending_at == START
    store.inbox.add("t", event_type="e", event_ts=dt.datetime.now(dt.UTC) + dt.timedelta(days=1))
    for entry in claim(store, limit=3):
        store.inbox.complete(entry.id, entry.lease_token)
    assert store.inbox.backlog().oldest_pending_age == 0


def test_what_was_processed_long_ago_is_removed_in_batches(store: Store, raw: Run, backend: str) -> None:
    keys = [f"i{number}" for number in range(7)]
    add(store, *keys)
    for entry in claim(store, limit=6):
        store.inbox.complete(entry.id, entry.lease_token)
    long_ago: Any = START if backend == "postgresql" else "2026-03-01T00:00:00.000000Z"
    raw("UPDATE supervisor_inbox SET processed_at = ? WHERE id <> 'i0'", long_ago)
    # One that waits is not removed, whatever time somebody gave it.
    assert store.inbox.get("i6").status == "pending"
    assert [store.inbox.cleanup(older_than=LEASE, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert [entry.id for entry in store.inbox.list()] == ["i0", "i6"]


def test_a_completion_in_a_transaction_that_fails_is_none(store: Store) -> None:
    add(store, "i")
    (entry,) = claim(store)

    class Regret(Exception):
        pass

    with contextlib.suppress(Regret), store.transaction() as tx:
        tx.inbox.complete("i", entry.lease_token)
        tx.audits.record("t", event_type="processed")
        raise Regret
    assert store.inbox.get("i").to_dict() == entry.to_dict()
    assert store.audits.count(task_id="t") == 0
    with store.transaction() as tx:
        tx.inbox.complete("i", entry.lease_token)
        with pytest.raises(LeaseLostError):
            tx.inbox.complete("i", entry.lease_token)
        tx.audits.record("t", event_type="processed")
    assert store.inbox.get("i").status == "processed"


def process(url: str, name: str, start: Any) -> None:
    """Take events and note each together with its completion, as one of many processes, until none is left."""
    with Store.open(url) as store:
        start.wait()
        while True:
            events = store.inbox.claim(by=name, lease=SECOND, limit=5, max_attempts=1000)
            for event in events:
                with contextlib.suppress(LeaseLostError), store.transaction() as tx:
                    tx.audits.record(event.task_id, event_type="processed", payload={"id": event.id})
                    tx.inbox.complete(event.id, event.lease_token)
            if not events:
                if not store.inbox.count(status="pending") + store.inbox.count(status="processing"):
                    break
                time.sleep(0.05)


def test_eight_processes_of_which_some_are_killed_process_each_event_once(store: Store, url: str) -> None:
    add(store, *(f"i{number:04}" for number in range(EVENTS)))
    start = PROCESSES.Barrier(9, timeout=60)
    workers = [PROCESSES.Process(target=process, args=(url, f"w{number}", start), daemon=True) for number in range(8)]
    for worker in workers:
        worker.start()
    start.wait()
    # Three are killed in the middle of their work.
    deadline = time.monotonic() + 100
    for number, share in enumerate((0.25, 0.5, 0.75)):
        while store.inbox.count(status="processed") < share * EVENTS:
            assert time.monotonic() < deadline
        workers[number].kill()
    for worker in workers:
        worker.join(100)
    assert workers[0].exitcode == -signal.SIGKILL
    assert [worker.exitcode for worker in workers[3:]] == [0] * 5
    assert store.inbox.backlog().by_status == {"processed": EVENTS}
    markers = Counter(entry.payload["id"] for entry in store.audits.iterate(event_type="processed"))
    assert len(markers) == EVENTS
    assert set(markers.values()) == {1}
    assert store.audits.verify().ok
