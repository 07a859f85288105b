from __future__ import annotations

import asyncio
import datetime as dt
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import AsyncStore, Store
from agentos_store.errors import AlreadyExistsError, InvalidValueError, NotFoundError, StoreError
from agentos_store.operation import Access
from agentos_store.tasks.models import TaskAudit
from agentos_store.tasks.trail import GENESIS, Entry, append, append_many

SEEN = dt.datetime(2026, 5, 6, 7, 8, 9, 101112, tzinfo=dt.UTC)


@pytest.fixture
def task(store: Store) -> str:
    return store.tasks.create(title="t").task_id


def is_one_chain(entries: list[TaskAudit]) -> bool:
    hashes = [GENESIS, *(entry.row_hash for entry in entries)]
    return [entry.prev_hash for entry in entries] == hashes[:-1]


def test_an_entry_comes_back_as_it_was_recorded(store: Store, task: str) -> None:
    made = store.audits.record(
        task,
        event_type="guardian.decided",
        payload={"z": 1, "a": -0.0, "text": "\0\ud800"},
        level="warning",
        repo_id="web",
        decision_id="d-1",
        source_event_ts=SEEN,
        verdict_id="v-1",
    )
    assert made is not None
    found = store.audits.get(made.audit_id)
    assert found.to_dict() == made.to_dict()
    assert repr(found.payload) == repr({"z": 1, "a": -0.0, "text": "\0\ud800"})
    assert (found.source_event_ts, found.supervisor_processed_at) == (SEEN, found.created_at)
    assert store.audits.find(made.audit_id) is not None
    assert store.audits.exists(made.audit_id)


def test_an_entry_without_a_decision_was_not_processed_by_a_supervisor(store: Store, task: str) -> None:
    made = store.audits.record(task, event_type="e")
    assert made is not None
    assert (made.supervisor_processed_at, made.payload, made.level) == (None, None, "info")


def test_an_unknown_entry_is_not_found(store: Store) -> None:
    assert store.audits.find(1) is None
    assert not store.audits.exists(1)
    with pytest.raises(NotFoundError) as caught:
        store.audits.get(1)
    assert (caught.value.entity, caught.value.key) == ("audit", 1)


def test_an_unknown_task_is_refused_or_passed_over(store: Store) -> None:
    with pytest.raises(NotFoundError) as caught:
        store.audits.record("nobody", event_type="e")
    assert (caught.value.entity, caught.value.key) == ("task", "nobody")
    assert store.audits.record("nobody", event_type="e", strict=False) is None
    assert store.audits.count() == 0
    assert store.audits.verify().chains == 0


def test_an_unknown_task_is_told_before_a_decision_that_is_recorded_already(store: Store, task: str) -> None:
    store.audits.record(task, event_type="e", decision_id="d")
    with pytest.raises(NotFoundError):
        store.audits.record("nobody", event_type="e", decision_id="d")
    assert store.audits.record("nobody", event_type="e", decision_id="d", strict=False) is None
    assert store.audits.count() == 1


def test_one_decision_is_recorded_once(store: Store, task: str) -> None:
    other = store.tasks.create(title="u").task_id
    store.audits.record(task, event_type="e", decision_id="d")
    for key in (task, other):
        for strict in (True, False):
            with pytest.raises(AlreadyExistsError) as caught:
                store.audits.record(key, event_type="e", decision_id="d", strict=strict)
            assert (caught.value.entity, caught.value.key, caught.value.field) == ("audit", "d", "decision_id")
    assert store.audits.count() == 1
    found = store.audits.verify()
    assert (found.ok, found.chains) == (True, 1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("event_type", {"event_type": ""}),
        ("event_type", {"event_type": None}),
        ("level", {"level": "debug"}),
        ("payload.a", {"payload": {"a": {1}}}),
        ("repo_id", {"repo_id": object()}),
        ("decision_id", {"decision_id": "\n"}),
        ("source_event_ts", {"source_event_ts": dt.datetime(2026, 1, 1)}),  # noqa: DTZ001  without a zone
        ("source_event_ts", {"source_event_ts": "2026-01-01"}),
        ("verdict_id", {"verdict_id": ""}),
        ("task_id", {"task_id": 7}),
    ],
)
def test_a_bad_value_is_refused_by_its_name(store: Store, task: str, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.audits.record(**{"task_id": task, "event_type": "e", **options})
    assert caught.value.name == name
    assert store.audits.count() == 0


def test_each_filter_keeps_its_entries(store: Store) -> None:
    tasks = [store.tasks.create(title="t").task_id for _ in range(2)]
    made = []
    for number, (key, level, event) in enumerate(
        itertools.product(tasks, ("info", "error"), ("task.made", "task", "tasks", "other"))
    ):
        entry = store.audits.record(
            key, level=level, event_type=event, repo_id=f"r{number % 3}", decision_id=f"d{number}"
        )
        assert entry is not None
        made.append(entry)

    def ids(**filters: Any) -> list[int]:
        found = [entry.audit_id for entry in store.audits.iterate(limit=3, **filters)]
        assert found == [entry.audit_id for entry in store.audits.query(**filters)]
        countable = {"task_id", "level", "event_type", "event_prefix"}
        if set(filters) <= countable:
            assert store.audits.count(**filters) == len(found)
        return found

    def kept(keep: Any) -> list[int]:
        return [entry.audit_id for entry in made if keep(entry)]

    assert ids() == kept(lambda _: True)
    assert ids(task_id=tasks[0]) == kept(lambda e: e.task_id == tasks[0])
    assert ids(repo_id="r1") == kept(lambda e: e.repo_id == "r1")
    assert ids(level="error", task_id=tasks[1]) == kept(lambda e: e.level == "error" and e.task_id == tasks[1])
    assert ids(event_type="task") == kept(lambda e: e.event_type == "task")
    assert ids(decision_id="d5") == [made[5].audit_id]
    assert ids(created_after=made[4].created_at) == kept(lambda e: e.created_at >= made[4].created_at)
    assert ids(created_before=made[4].created_at) == kept(lambda e: e.created_at < made[4].created_at)
    assert ids(created_after=made[2].created_at, created_before=made[4].created_at) == [
        made[2].audit_id,
        made[3].audit_id,
    ]
    assert sorted(ids(event_prefix="task.")) == kept(lambda e: e.event_type == "task.made")
    assert sorted(ids(event_prefix="task")) == kept(lambda e: e.event_type.startswith("task"))
    assert sorted(ids(event_prefix="task", level="info")) == kept(
        lambda e: e.event_type.startswith("task") and e.level == "info"
    )
    assert ids(order="-created_at", level="info") == kept(lambda e: e.level == "info")[::-1]
    assert [e.event_type for e in store.audits.query(event_prefix="task")] == ["task"] * 4 + ["task.made"] * 4 + [
        "tasks"
    ] * 4
    assert [e.event_type for e in store.audits.query(event_prefix="task", order="-event_type", limit=1)] == ["tasks"]


def test_a_prefix_and_a_whole_event_type_exclude_each_other(store: Store) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.audits.query(event_type="a", event_prefix="b")
    assert caught.value.name == "event_prefix"


@pytest.mark.parametrize("prefix", ["%", "_", "a'b", "気", "\U0001f600"])
def test_a_prefix_is_no_pattern(store: Store, task: str, prefix: str) -> None:
    store.audits.record(task, event_type=prefix + "x")
    store.audits.record(task, event_type="other")
    assert [entry.event_type for entry in store.audits.query(event_prefix=prefix)] == [prefix + "x"]


def test_sixteen_writers_to_one_task_make_one_chain(store: Store, task: str) -> None:
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: store.audits.record(task, event_type=f"e{n}"), range(160)))
    entries = list(store.audits.iterate(task_id=task))
    assert len(entries) == 160
    assert is_one_chain(sorted(entries, key=lambda entry: entry.audit_id))
    found = store.audits.verify(task)
    assert (found.ok, found.chains, found.entries) == (True, 1, 160)


def test_parallel_transactions_to_one_task_make_one_chain(store: Store, task: str) -> None:
    def work(number: int) -> None:
        with store.transaction() as tx:
            tx.audits.record(task, event_type="a", decision_id=f"a{number}")
            tx.audits.record(task, event_type="b")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(24)))
    found = store.audits.verify(task)
    assert (found.ok, found.chains, found.entries) == (True, 1, 48)


def test_one_entry_and_several_that_race_for_a_new_chain_never_fork(store: Store) -> None:
    for round_ in range(12):
        task = store.tasks.create(title="t").task_id

        def several(number: int, task: str = task) -> int:
            entries = [
                Entry(task_id=task, event_type=f"m{number}.{n}", created_at=store_time(number, n)) for n in range(3)
            ]
            try:
                write(store, lambda session: append_many(session, entries))
            except StoreError:
                return 0
            return 3

        def one(number: int, task: str = task) -> int:
            store.audits.record(task, event_type=f"o{number}")
            return 1

        with ThreadPoolExecutor(6) as threads:
            written = sum(threads.map(lambda n, s=several, o=one: (s if n % 2 else o)(n), range(6)))
        assert written == 12, round_
        found = store.audits.verify(task)
        assert (found.ok, found.entries) == (True, written)


def store_time(number: int, n: int) -> dt.datetime:
    return SEEN + dt.timedelta(seconds=number, microseconds=n)


def write(store: Store, body: Any) -> Any:
    return store._backend.run(Access.WRITE, "test", body, repeatable=False)


def test_several_entries_follow_those_that_are_there(store: Store, task: str) -> None:
    store.audits.record(task, event_type="first")
    for count in (1, 2, 5):
        entries = [Entry(task_id=task, event_type="e", created_at=store_time(count, n)) for n in range(count)]
        made = write(store, lambda session, entries=entries: append_many(session, entries))
        assert [entry.created_at for entry in made] == [entry.created_at for entry in entries]
    found = store.audits.verify(task)
    assert (found.ok, found.entries) == (True, 9)


def test_the_first_bad_one_of_several_entries_leaves_none(store: Store, task: str) -> None:
    store.audits.record(task, event_type="first", decision_id="d")
    entries = [
        Entry(task_id=task, event_type="e", created_at=SEEN, decision_id=decision) for decision in (None, "x", "d")
    ]
    with pytest.raises(AlreadyExistsError):
        write(store, lambda session: append_many(session, entries))
    unknown = [Entry(task_id="nobody", event_type="e", created_at=SEEN)] * 2
    with pytest.raises(NotFoundError):
        write(store, lambda session: append_many(session, unknown))
    found = store.audits.verify()
    assert (found.ok, found.entries) == (True, 1)


def test_append_and_append_many_agree_within_one_transaction(store: Store, task: str) -> None:
    def body(session: Any) -> None:
        append(session, Entry(task_id=task, event_type="a", created_at=SEEN))
        append_many(session, [Entry(task_id=task, event_type="b", created_at=SEEN)] * 2)
        append(session, Entry(task_id=task, event_type="c", created_at=SEEN))

    write(store, body)
    assert [entry.event_type for entry in store.audits.query(task_id=task)] == ["a", "b", "b", "c"]
    assert store.audits.verify(task).ok


def test_the_asynchronous_store_records_and_verifies(url: str) -> None:
    async def work() -> None:
        async with AsyncStore.open(url) as store:
            task = (await store.tasks.create(title="t")).task_id
            await asyncio.gather(*(store.audits.record(task, event_type=f"e{n}") for n in range(16)))
            assert (await store.audits.verify(task)).entries == 16
            assert len([entry async for entry in store.audits.iterate(task_id=task, limit=5)]) == 16
            with pytest.raises(NotFoundError):
                await store.audits.record("nobody", event_type="e")

    asyncio.run(work())
