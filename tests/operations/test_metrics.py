"""What is counted is exact, whoever did it, and takes a fixed amount of memory."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, get_type_hints

import pytest

from agentos_store import AsyncStore, Settings, Store
from agentos_store.engine.meter import BOUNDS, MOST_NAMES, OTHER_NAMES, Kind, Meter, kind_of
from agentos_store.engine.session import Session
from agentos_store.errors import LockTimeoutError, NotFoundError, TransientError
from agentos_store.events.models import Event
from agentos_store.operation import Access, _Operation
from agentos_store.operations.counting import Count, RowCount
from agentos_store.operations.health import Health
from agentos_store.operations.metrics import Metrics, Storage
from agentos_store.store.repositories import REPOSITORIES
from agentos_store.tasks.models import Task
from tests.engine.gather import threads, wait_for
from tests.engine.probe import fail, probe
from tests.engine.test_fork import in_child
from tests.standing import owners_work

THREADS, CALLS = 16, 25


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A migrated SQLite file without rows."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'registry.sqlite')}"


def operations(store: Store) -> Iterator[tuple[str, _Operation[Any, Any]]]:
    """Yield every operation of every repository, with its name."""
    for repository in [getattr(store, name) for name in REPOSITORIES]:
        for attribute in dir(type(repository)):
            found = inspect.getattr_static(type(repository), attribute)
            if isinstance(found, _Operation):
                yield f"{repository.name}.{attribute}", found


def test_a_service_that_answers_with_a_report_can_find_out_what_is_in_it() -> None:
    """Web frameworks ask a dataclass for its types."""
    assert get_type_hints(Metrics)["storage"] == Storage | None
    assert all(get_type_hints(report) for report in (Health, Storage))


def test_every_operation_is_of_a_kind_that_its_access_allows(sqlite_url: str) -> None:
    with Store.open(sqlite_url) as store:
        kinds = {name: (found.access, kind_of(found.access, name)) for name, found in operations(store)}
    assert len(kinds) > 150
    for name, (access, kind) in kinds.items():
        allowed = {Kind.LOADS, Kind.QUERIES} if access.reads else {Kind.SAVES, Kind.DELETES}
        assert kind in allowed, name
        verb = name.partition(".")[2].lstrip("_")
        assert (kind is Kind.LOADS) == (access.reads and verb.startswith(("get", "find", "exists"))) or verb in {
            *("history", "load", "latest", "context")
        }, name
        destroys = verb.startswith(("delete", "remove", "purge", "cleanup", "sweep"))
        assert (kind is Kind.DELETES) == (not access.reads and destroys), name
    chosen = ("tasks.get", "tasks.list", "tasks.claim", "projects.remove_repo", "messages.history", "contexts.save")
    expected = [Kind.LOADS, Kind.QUERIES, Kind.SAVES, Kind.DELETES, Kind.LOADS, Kind.SAVES]
    assert [kinds[name][1] for name in chosen] == expected
    assert {kind_of(Access.WRITE, name) for name in ("transaction.commit", "prune events", "status")} == {Kind.OTHER}


def test_calls_errors_and_faults_are_counted_by_name_and_by_kind(store: Store) -> None:
    task = store.tasks.create(title="x")
    store.tasks.get(task.task_id)
    store.tasks.list()
    with pytest.raises(NotFoundError):
        store.tasks.get("nobody")
    with pytest.raises(ZeroDivisionError):
        probe(store).do(fail)
    found = store.metrics()
    counted = found.operations
    assert (counted["tasks.get"].count, counted["tasks.get"].errors, counted["tasks.get"].faults) == (2, 1, 0)
    assert (counted["probe.do"].count, counted["probe.do"].errors, counted["probe.do"].faults) == (1, 1, 1)
    # What asks for the metrics is the one operation of another kind.
    assert (found.saves, found.loads, found.queries, found.deletes, found.other) == (2, 2, 1, 0, 1)
    latency = found.overall
    assert latency.count == 6 == sum(latency.buckets)
    assert latency.min is not None
    assert latency.max is not None
    assert latency.mean is not None
    assert latency.p95 is not None
    assert 0 < latency.min <= latency.mean <= latency.p95 <= latency.max
    assert latency.total == pytest.approx(latency.mean * 6)
    assert found.latency[Kind.DELETES].p95 is None


def test_sixteen_threads_count_exactly(store: Store) -> None:
    task = store.tasks.create(title="x")

    def work() -> None:
        for _ in range(CALLS):
            store.tasks.update(task.task_id, title="y")
            store.tasks.get(task.task_id)
        with store.transaction() as tx:
            tx.tasks.get(task.task_id)
        with pytest.raises(NotFoundError):
            store.tasks.get("nobody")

    with threads([work] * THREADS) as outcomes:
        pass
    assert outcomes == [None] * THREADS
    found = store.metrics()
    assert found.operations["tasks.update"].count == THREADS * CALLS
    get = found.operations["tasks.get"]
    assert (get.count, get.errors) == (THREADS * (CALLS + 2), THREADS)
    assert (found.saves, found.loads) == (THREADS * CALLS + 1, THREADS * (CALLS + 2))
    assert [found.operations[f"transaction.{step}"].count for step in ("begin", "commit")] == [THREADS] * 2
    assert sum(each.count for each in found.operations.values()) == found.overall.count


@pytest.mark.parametrize("backend", ["sqlite"])
def test_transactions_count_with_what_is_done_in_them(store: Store) -> None:
    def fail_inside() -> None:
        with store.transaction() as tx:
            tx.tasks.create(title="x")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    with store.transaction(read_only=True) as tx:
        tx.tasks.count()
    found = store.metrics().operations
    names = ("tasks.create", "tasks.count", "transaction.begin", "transaction.commit", "transaction.rollback")
    assert [found[name].count for name in names] == [1, 1, 2, 1, 1]


def test_further_tries_are_counted(url: str) -> None:
    with Store.open(url, settings=Settings.load(retry_base=0)) as store:
        tries: list[Session] = []

        def fail_twice(session: Session) -> None:
            tries.append(session)
            if len(tries) < 3:
                raise TransientError("the server is starting")

        probe(store).do(fail_twice)
        found = store.metrics().operations["probe.do"]
        assert (found.count, found.errors, found.retries) == (1, 0, 2)
        tries.clear()
        store.run(lambda _: fail_twice(None))  # type: ignore[arg-type]
        assert store.metrics().operations["transaction.run"].retries == 2


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_counts_anew(store: Store) -> None:
    store.tasks.create(title="x")

    def work() -> None:
        assert store.metrics().saves == 0
        store.tasks.create(title="y")
        assert store.metrics().saves == 1

    in_child(work)()
    assert store.metrics().saves == 1


def test_the_asynchronous_store_counts_the_same(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            await asyncio.gather(*(store.tasks.create(title="x") for _ in range(20)))
            async with store.transaction() as tx:
                await tx.tasks.create(title="y")
            found = await store.metrics()
            assert found.saves == 21
            assert found.operations["transaction.commit"].count == 1
            assert found.storage is not None

    asyncio.run(main())


def test_the_percentile_is_never_too_low_and_less_than_15_percent_too_high() -> None:
    assert all(1 < high / low < 1.15 for low, high in itertools.pairwise(BOUNDS))
    for spread in (1.01, 1.5, 2.5):
        meter = Meter(None)
        # The clock goes on between two looks at it, so what is recorded is a little more.
        for number in range(200):
            meter.record(Access.READ, "t.get", perf_counter() - 0.02 * spread ** (number / 20))
        found = meter.figures().latency[Kind.LOADS]
        true = 0.02 * spread ** (189 / 20)
        assert found.p95 is not None
        assert true <= found.p95 <= 1.15 * true * 1.05
        assert found.max is not None
        assert found.p95 <= found.max


def test_names_without_end_take_no_memory_without_end() -> None:
    meter = Meter(None)
    for number in range(MOST_NAMES + 50):
        meter.record(Access.READ, f"t.get{number}", perf_counter())
    found = meter.figures()
    assert len(found.operations) == MOST_NAMES + 1
    assert found.operations[OTHER_NAMES].count == 50
    assert found.overall.count == MOST_NAMES + 50


def test_a_wait_for_a_lock_is_counted_once_it_is_long() -> None:
    meter = Meter(None)
    for waited in (0.05, 0.2, 5.0):
        meter.record(Access.WRITE, "t.save", perf_counter(), error=LockTimeoutError("a row", waited=waited))
    assert meter.figures().lock_waits == 2


def test_who_waits_for_a_connection_is_seen(url: str, backend: str) -> None:
    settings = Settings.load(pool_size=1, max_overflow=0, pool_timeout=20)
    with Store.open(url, settings=settings) as store:
        store.tasks.count()
        with store.transaction(read_only=True) as tx, threads([store.tasks.count] * 2) as outcomes:
            tx.tasks.count()
            pool = store._backend.pool_state
            wait_for(lambda: pool().waiting == 2)
            found = pool()
            assert (found.size, found.limit, found.in_use, found.idle, found.overflow) == (1, 1, 1, 0, 0)
            tx._runner.end(commit=True)  # type: ignore[attr-defined]
        assert outcomes == [0, 0]
        found = store.metrics().pool
        assert (found.in_use, found.idle, found.waiting) == (0, 1, 0)
        assert found.longest_wait > 0


def test_writers_that_wait_for_their_turn_are_seen(sqlite_url: str) -> None:
    with Store.open(sqlite_url) as store:
        with store.transaction() as tx, threads([lambda: store.tasks.create(title="x")] * 3):
            tx.tasks.create(title="y")
            pool = store._backend.pool_state
            wait_for(lambda: pool().queue == 3 and pool().queue_wait > 0.11)
            tx._runner.end(commit=True)  # type: ignore[attr-defined]
        found = store.metrics()
        assert (found.pool.queue, found.pool.queue_wait) == (0, 0.0)
        assert found.pool.longest_queue_wait > 0.11
        assert 1 <= found.lock_waits <= 3


def test_what_is_stored_is_told(store: Store, backend: str) -> None:
    for key in ("a", "b", "c"):
        store.agents.create(key)
    store.agents.delete("c")
    session = store.sessions.create()
    store.messages.append_many(session.id, [{"role": "user", "content": "x"}] * 4)
    found = store.metrics().storage
    assert found is not None
    assert (found.agents, found.messages) == (Count(2), Count(4))
    assert found.size_bytes > 100_000
    if backend == "sqlite":
        assert found.server is None
    else:
        assert found.server is not None
        assert 1 <= found.server.connections <= found.server.max_connections
        assert found.server.lock_waits == 0


def test_what_is_too_much_to_count_is_estimated(store: Store, raw: Any, backend: str) -> None:
    for _ in range(30):
        store.tasks.create(title="x")
    if backend == "postgresql":
        raw("ANALYZE tasks")
    count = RowCount(Task.table())

    def of(exact: int) -> Count:
        found: Count = store._backend.run(Access.READ, "count", lambda s: count.of(s, exact=exact), repeatable=True)
        return found

    assert of(30) == Count(30)
    assert str(of(30)) == "30"
    assert of(10) == Count(30, estimated=True)
    assert str(of(10)) == "~30"


def test_what_was_never_analysed_is_estimated_too(store: Store, raw: Any, backend: str) -> None:
    rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30) SELECT 'e' || i, 'x', 'info',"
    now = "strftime('%Y-%m-%dT%H:%M:%f000Z')" if backend == "sqlite" else "now()"
    raw(f"INSERT INTO events (event_id, event_type, severity, created_at) {rows} {now} FROM n")
    if backend == "postgresql":
        raw("SELECT pg_stat_force_next_flush()")
    count = RowCount(Event.table())
    found = store._backend.run(Access.READ, "count", lambda s: count.of(s, exact=5), repeatable=True)
    assert found == Count(30, estimated=True)


@owners_work
def test_the_partitions_of_a_table_are_estimated_together(store: Store, raw: Any) -> None:
    if not store.capabilities.partitions:
        return
    store.events.log_many([{"event_type": "x"}] * 10)
    store.partition_events(rows=20)
    store.events.log_many([{"event_type": "x"}] * 30)
    raw("ANALYZE events")
    count = RowCount(Event.table())
    found = store._backend.run(Access.READ, "count", lambda s: count.of(s, exact=5), repeatable=True)
    assert found == Count(40, estimated=True)
