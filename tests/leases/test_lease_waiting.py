"""Waiting for a lease: with a limit, holding nothing meanwhile, and never longer than a guarded transaction lasts."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import AsyncStore, LeaseLostError, LockTimeoutError, Settings, Store
from agentos_store.leases.models import Fence
from agentos_store.testing.postgres import connect
from tests.engine.gather import PROCESSES, wait_for
from tests.leases.conftest import Opened
from tests.leases.moments import LONG, SHORT, SOON

WAIT = dt.timedelta(milliseconds=150)


def test_a_wait_ends_with_the_holders_name(store: Store) -> None:
    store.leases.acquire("agent-1", owner="worker-7", ttl=LONG)
    with pytest.raises(LockTimeoutError) as caught:
        store.leases.acquire("agent-1", ttl=LONG, wait=WAIT)
    assert caught.value.holder == "worker-7"
    assert caught.value.waited >= WAIT.total_seconds()


def test_whoever_waits_gets_what_is_given_back_and_what_lapses(store: Store) -> None:
    lease = store.leases.acquire("agent-1", ttl=LONG)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(store.leases.acquire, "agent-1", ttl=SHORT, wait=SOON)
        store.leases.release(lease)
        assert waiting.result().token == 2
    assert store.leases.acquire("agent-1", ttl=LONG, wait=SOON).token == 3


def test_those_who_wait_hold_no_connection_and_no_place_in_the_queue(open_store: Opened) -> None:
    store = open_store(pool_size=1, max_overflow=0, pool_timeout=20)
    lease = store.leases.acquire("agent-1", ttl=LONG)
    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(store.leases.acquire, "agent-1", ttl=SHORT, wait=SOON) for _ in range(8)]
        for number in range(50):
            store.tasks.create(title=f"{number}")
        store.leases.release(lease)
        assert sorted(each.result().token for each in waiting) == list(range(2, 10))


def test_of_many_that_ask_at_once_one_gets_it(store: Store) -> None:
    for token in range(1, 6):
        met = threading.Barrier(8)

        def ask(met: threading.Barrier = met) -> Any:
            met.wait()
            return store.leases.try_acquire("agent-1", ttl=LONG)

        with ThreadPoolExecutor(8) as threads:
            found = [each for each in threads.map(lambda _: ask(), range(8)) if each is not None]
        assert [each.token for each in found] == [token]
        store.leases.release(found[0])


def test_nobody_acquires_what_lapsed_in_a_guarded_transaction_before_its_end(open_store: Opened) -> None:
    store, other = (open_store(lock_timeout=0.1) for _ in range(2))
    lease = store.leases.acquire("agent-1", owner="first", ttl=LONG)

    def ask() -> Any:
        try:
            return other.leases.acquire("agent-1", ttl=LONG, wait=WAIT)
        except LockTimeoutError as error:
            return error

    with store.transaction() as tx:
        tx.leases.guard(lease)
        # Where writers stand in one queue nobody but this transaction can write now.
        (store if store.capabilities.row_locks else tx).leases.renew(lease, ttl=SHORT)
        wait_for(lambda: not tx.leases.exists("agent-1"))
        with ThreadPoolExecutor(1) as threads:
            refused = threads.submit(ask).result()
        assert isinstance(refused, LockTimeoutError)
        assert refused.holder
        tx.tasks.create(title="in time")
    assert store.tasks.count() == 1
    assert store.leases.acquire("agent-1", ttl=LONG).token == 2
    with pytest.raises(LeaseLostError), store.transaction() as tx:
        tx.leases.guard(lease)


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_guard_does_not_stop_renewals_and_two_guards_do_not_stop_each_other(open_store: Opened) -> None:
    store = open_store(lock_timeout=0.1, retries=0)
    lease = store.leases.acquire("agent-1", ttl=LONG)
    with store.transaction() as tx, store.transaction() as other:
        tx.leases.guard(lease)
        other.leases.guard(lease)
        assert store.leases.renew(lease, ttl=2 * LONG).token == lease.token
        kept = store.leases._keep([Fence("agent-1", lease.token)], LONG)
        assert kept == ({Fence("agent-1", lease.token)}, set())
        store.leases.release(lease)
        # It is free, and yet nobody may have it before those are through.
        assert store.leases.try_acquire("agent-1", ttl=LONG) is None
        tx.tasks.create(title="in time")
    assert store.leases.try_acquire("agent-1", ttl=LONG)


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_guard_that_meets_an_acquisition_waits_and_is_refused(open_store: Opened, url: str) -> None:
    store = open_store()
    lease = store.leases.acquire("agent-1", ttl=LONG)

    def guard() -> None:
        with store.transaction() as tx:
            tx.leases.guard(lease)

    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as threads, contextlib.closing(connect(url)) as admin:
        with store.transaction() as tx:
            tx.leases.release(lease)
            assert tx.leases.try_acquire("agent-1", ttl=LONG)
            guarded = threads.submit(guard)
            wait_for(lambda: admin.execute(waits).fetchone() is not None)
        with pytest.raises(LeaseLostError):
            guarded.result()


def count_up(url: str, rounds: int) -> None:
    """Change a number in a way that loses changes, were two at it at once."""
    with Store.open(url) as store:
        for _ in range(rounds):
            with store.leases.hold("counter", ttl=dt.timedelta(seconds=5), wait=dt.timedelta(seconds=60)):
                found = store.tasks.get("counter")
                store.tasks.update("counter", priority=found.priority + 1)


def test_processes_exclude_each_other(store: Store, url: str) -> None:
    store.tasks.create(task_id="counter", title="t", priority=0)
    running = [PROCESSES.Process(target=count_up, args=(url, 10)) for _ in range(3)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert store.tasks.get("counter").priority == 30
    assert [each.exitcode for each in running] == [0, 0, 0]


def test_an_event_loop_goes_on_while_somebody_waits_in_it(url: str) -> None:
    async def go() -> None:
        async with AsyncStore.open(url) as store:
            lease = await store.leases.acquire("agent-1", owner="first", ttl=LONG)
            with pytest.raises(LockTimeoutError) as caught:
                await store.leases.acquire("agent-1", ttl=LONG, wait=WAIT)
            assert caught.value.holder == "first"
            waiting = asyncio.create_task(store.leases.acquire("agent-1", ttl=LONG, wait=SOON))
            await store.leases.release(lease)
            assert (await waiting).token == 2

    asyncio.run(go())


def test_a_wait_that_is_cancelled_leaves_nothing_behind(url: str) -> None:
    async def go() -> None:
        async with AsyncStore.open(url) as store:
            await store.leases.acquire("agent-1", ttl=LONG)
            waiting = asyncio.create_task(store.leases.acquire("agent-1", ttl=LONG, wait=SOON))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await store.leases.count() == 1

    asyncio.run(go())


def test_what_a_cancelled_call_acquired_is_given_back(url: str) -> None:
    async def go() -> None:
        async with AsyncStore.open(url, settings=Settings.load(pool_size=2)) as store:
            kept = 0
            for number in range(60):
                asking = asyncio.create_task(store.leases.acquire(f"agent-{number}", ttl=LONG))
                # Before it is sent, while it is under way, and after it was answered.
                await asyncio.sleep(number / 30_000)
                asking.cancel()
                kept += not isinstance((await asyncio.gather(asking, return_exceptions=True))[0], BaseException)
            assert await store.leases.count() == kept
            assert kept < 60

    asyncio.run(go())


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_file_that_a_stranger_holds_is_waited_for_too(open_store: Opened, url: str) -> None:
    store = open_store(busy_timeout=0.05, retries=0)
    stranger = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    stranger.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(store.leases.acquire, "agent-1", ttl=LONG, wait=SOON)
        time.sleep(0.2)
        assert not waiting.done()
        stranger.execute("ROLLBACK")
        assert waiting.result().token == 1
    stranger.close()
    wait_for(lambda: store.leases.exists("agent-1"))
