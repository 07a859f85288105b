"""Through PgBouncer in transaction mode, where no session is a client's own, the queue and leases work as they do."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator

import pytest

from agentos_store import LeaseLostError, Settings, Store
from agentos_store.models import Task
from agentos_store.tasks.backoff import Backoff
from agentos_store.worker import Retry, WorkContext, Worker
from tests.engine.gather import threads, wait_for
from tests.events.bouncer import bouncer
from tests.worker.test_crowd import assert_each_done_once, fill

COUNT = 80
AT_ONCE = dt.timedelta(0)


@pytest.fixture
def backend() -> str:
    return "postgresql"


@pytest.fixture
def bounced(url: str) -> Iterator[str]:
    with bouncer(url) as through:
        yield through


def test_sixteen_workers_complete_each_task_once(store: Store, bounced: str) -> None:
    fill(store, COUNT)

    def handle(task: Task, context: WorkContext) -> str:
        if task.attempts == 1 and task.priority == 1:
            raise Retry(after=AT_ONCE)
        context.check()
        return context.by

    def work(name: str) -> None:
        with Store.open(bounced, settings=Settings.load(prepare_statements=False)) as near:
            worker = Worker(
                near, handle, by=name, concurrency=4, poll=dt.timedelta(milliseconds=50), backoff=Backoff(base=AT_ONCE)
            )

            def watch() -> None:
                wait_for(all_done)
                worker.stop()

            done = threading.Thread(target=watch)
            done.start()
            worker.run(signals=False)
            done.join()

    def all_done() -> bool:
        return store.tasks.count(status="completed") == COUNT

    with threads([lambda name=f"w{n}": work(name) for n in range(4)]) as outcomes:  # type: ignore[misc]
        pass
    assert outcomes == [None] * 4
    assert assert_each_done_once(store, COUNT) > 0


def test_a_lease_is_renewed_guarded_and_lost(store: Store, bounced: str) -> None:
    ttl = dt.timedelta(seconds=1)

    def work(near: Store) -> None:
        with near.leases.hold("agent-1", ttl=ttl) as lease:
            assert store.leases.try_acquire("agent-1", ttl=ttl) is None
            until = store.leases.get("agent-1").expires_at
            wait_for(lambda: store.leases.get("agent-1").expires_at > until)
            with near.transaction() as tx:
                tx.leases.guard(lease)
                store.leases.release(store.leases.get("agent-1"))
                # The connection to the server is the transaction's, so its lock holds.
                assert store.leases.try_acquire("agent-1", ttl=ttl) is None
                tx.tasks.create(title="in time")
            assert store.leases.acquire("agent-1", ttl=ttl).token == 2
            assert lease.wait_lost(20)
            with near.transaction() as tx:
                tx.tasks.create(title="late")
                tx.leases.guard(lease)

    with Store.open(bounced, settings=Settings.load(prepare_statements=False)) as near, pytest.raises(LeaseLostError):
        work(near)
    assert [task.title for task in store.tasks.iterate()] == ["in time"]
