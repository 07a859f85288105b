"""Leases that are held for a block and renewed in the background."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import threading
from typing import Any

import pytest

from agentos_store import AsyncStore, LeaseLostError, LockTimeoutError, Settings, Store
from agentos_store.leases.held import HeldLease
from agentos_store.testing.postgres import connect
from tests.engine.gather import wait_for
from tests.leases.conftest import Opened
from tests.leases.moments import LONG, SHORT, SOON

BRIEF = dt.timedelta(seconds=0.6)


def renewals(store: Store, held: Any, count: int) -> None:
    """Wait until the lease was renewed so many times."""
    for _ in range(count):
        before = store.leases.get(held.name).expires_at
        wait_for(lambda before=before: store.leases.get(held.name).expires_at > before)  # type: ignore[misc]


def test_a_block_holds_the_lease_for_longer_than_its_duration_and_gives_it_back(store: Store) -> None:
    with store.leases.hold("agent-1", owner="a", ttl=BRIEF) as lease:
        assert (lease.name, lease.owner, lease.token) == ("agent-1", "a", 1)
        while store.leases.get("agent-1").expires_at < lease.acquired_at + 3 * BRIEF:
            renewals(store, lease, 1)
        assert not lease.is_lost
        assert not lease.wait_lost(0.0)
        with store.transaction() as tx:
            tx.leases.guard(lease)
        assert store.leases.try_acquire("agent-1", ttl=LONG) is None
    assert not store.leases.exists("agent-1")
    assert repr(lease) == "HeldLease(name='agent-1', token=1)"


def test_an_error_that_leaves_the_block_gives_the_lease_back(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.leases.hold("agent-1", ttl=LONG):
        raise ZeroDivisionError
    assert not store.leases.exists("agent-1")


def test_a_block_waits_for_its_lease(store: Store) -> None:
    first = store.leases.acquire("agent-1", owner="first", ttl=LONG)
    with pytest.raises(LockTimeoutError) as caught, store.leases.hold("agent-1", ttl=LONG):
        pass
    assert caught.value.holder == "first"
    store.leases.renew(first, ttl=SHORT)
    with store.leases.hold("agent-1", ttl=LONG, wait=SOON) as lease:
        assert lease.token == 2


def test_a_holder_is_told_that_its_lease_is_lost_and_so_is_whoever_leaves_the_block(store: Store) -> None:
    def work() -> None:
        with store.leases.hold("agent-1", ttl=BRIEF) as lease:
            store.leases.release(store.leases.get("agent-1"))
            assert lease.wait_lost(20)
            assert lease.is_lost
            told.append(lease)

    told: list[HeldLease] = []
    with pytest.raises(LeaseLostError):
        work()
    assert len(told) == 1


def test_the_error_of_a_guard_leaves_the_block_as_it_is(store: Store) -> None:
    def work() -> None:
        with store.leases.hold("agent-1", ttl=LONG) as lease:
            store.leases.release(lease)
            with store.transaction() as tx:
                tx.tasks.create(title="late")
                tx.leases.guard(lease)

    with pytest.raises(LeaseLostError):
        work()
    assert store.tasks.count() == 0


def test_one_thread_renews_a_thousand_leases_through_a_pool_of_ten(open_store: Opened) -> None:
    store = open_store(pool_size=10, max_overflow=0)
    ttl = dt.timedelta(seconds=4)
    # Those of other tests may linger.
    others = set(threading.enumerate())
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(store.leases.hold(f"agent-{number:04}", ttl=ttl)) for number in range(1000)]
        assert [each.name for each in set(threading.enumerate()) - others].count("agentos-store-leases") == 1
        assert store.leases.count(prefix="agent-") == 1000
        first = {lease.name: lease.expires_at for lease in store.leases.iterate()}
        wait_for(lambda: all(lease.expires_at > first[lease.name] for lease in store.leases.iterate()))
        assert not [lease for lease in held if lease.is_lost]
    assert store.leases.count() == 0


@pytest.mark.parametrize("backend", ["postgresql"])
def test_leases_are_kept_while_connections_are_ended(store: Store, url: str) -> None:
    with contextlib.closing(connect(url)) as admin, store.leases.hold("agent-1", ttl=2 * BRIEF) as lease:
        for _ in range(4):
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )
            renewals(store, lease, 1)
        assert not lease.is_lost


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_lease_whose_row_another_transaction_has_changed_does_not_hold_up_the_others(store: Store) -> None:
    ttl = dt.timedelta(seconds=2)
    with store.leases.hold("agent-1", ttl=ttl) as first, store.leases.hold("agent-2", ttl=ttl) as second:
        with store.transaction() as tx:
            # No other transaction may change the row before this one ends.
            tx.leases.renew(first, ttl=LONG)
            renewals(store, second, 1)
        assert not first.is_lost
        assert not second.is_lost


def test_a_store_that_is_closed_lets_its_leases_lapse_and_says_so(open_store: Opened, url: str) -> None:
    with open_store() as store, store.leases.hold("agent-1", ttl=BRIEF) as lease:
        store.close()
        assert lease.wait_lost(20)
    with Store.open(url) as other:
        assert other.leases.acquire("agent-1", ttl=LONG, wait=SOON).token == 2


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_neither_has_nor_gives_back_the_leases_of_its_parent(store: Store) -> None:
    parent = os.getpid()
    child, failed = 0, True
    try:
        with store.leases.hold("agent-1", ttl=BRIEF) as lease:
            child = os.fork()
            if child == 0:
                # Its own leases are renewed by a thread of its own.
                with store.leases.hold("agent-2", ttl=BRIEF) as own:
                    renewals(store, own, 2)
                    failed = not lease.is_lost or not lease.wait_lost() or own.is_lost
            else:
                _, status = os.waitpid(child, 0)
                assert os.waitstatus_to_exitcode(status) == 0
                assert not lease.is_lost
                # The child has left its block, and the lease is held all the same.
                assert store.leases.get("agent-1").token == lease.token
                renewals(store, lease, 1)
    finally:
        if os.getpid() != parent:
            os._exit(failed)
    assert not store.leases.exists("agent-1")


def test_a_task_of_the_event_loop_renews(url: str) -> None:
    async def go() -> None:
        async with AsyncStore.open(url) as store:
            async with store.leases.hold("agent-1", ttl=BRIEF) as lease, store.leases.hold("agent-2", ttl=BRIEF):
                # The loop is blocked for shorter than the lease lasts, and it is renewed when the loop goes on.
                while (await store.leases.get("agent-1")).expires_at < lease.acquired_at + 3 * BRIEF:
                    assert not lease.is_lost
                assert not lease.is_lost
                async with store.transaction() as tx:
                    await tx.leases.guard(lease)
                assert await store.leases.count() == 2
            assert await store.leases.count() == 0

    asyncio.run(go())
    # Another event loop, another task.
    asyncio.run(go())


def test_a_task_is_told_that_its_lease_is_lost(url: str) -> None:
    async def work(store: AsyncStore) -> None:
        async with store.leases.hold("agent-1", ttl=BRIEF) as lease:
            await store.leases.release(await store.leases.get("agent-1"))
            await asyncio.wait_for(lease.wait_lost(), 20)
            assert lease.is_lost

    async def go() -> None:
        async with AsyncStore.open(url) as store:
            with pytest.raises(LeaseLostError):
                await work(store)

    asyncio.run(go())


@pytest.mark.parametrize("steps", range(4))
def test_a_cancellation_that_meets_news_of_the_leases_is_not_swallowed(url: str, steps: int) -> None:
    async def go() -> None:
        async with AsyncStore.open(url) as store, store.leases.hold("agent-1", ttl=LONG) as lease:
            (keeper,) = (each for each in asyncio.all_tasks() if each.get_name() == "agentos-store-leases")
            waiting = asyncio.create_task(lease.wait_lost())
            # Both get to where they wait.
            await asyncio.sleep(0.01)
            store.leases._tasks._rounds[asyncio.get_running_loop()].changed.set()
            lease._event.set()
            lease._event.clear()
            for _ in range(steps):
                await asyncio.sleep(0)
            for each in (keeper, waiting):
                each.cancel()
            await asyncio.wait([keeper, waiting], timeout=60)
            assert keeper.cancelled()
            assert waiting.cancelled()

    asyncio.run(go())


def test_a_task_that_is_cancelled_in_its_block_gives_the_lease_back(url: str) -> None:
    async def hold(store: AsyncStore, number: int) -> None:
        async with store.leases.hold(f"agent-{number}", ttl=LONG):
            await asyncio.sleep(20 if number % 2 else 0)

    async def go() -> None:
        async with AsyncStore.open(url, settings=Settings.load(pool_size=4)) as store:
            holding = [asyncio.create_task(hold(store, number)) for number in range(40)]
            # Some are waiting for the answer, some are in the block, and some are leaving it.
            await asyncio.sleep(0.02)
            for each in holding:
                each.cancel()
                await asyncio.sleep(0)
            await asyncio.wait(holding)
            assert await store.leases.count() == 0

    asyncio.run(go())


def test_an_asynchronous_store_that_is_closed_lets_its_leases_lapse(url: str) -> None:
    async def go() -> None:
        async with AsyncStore.open(url) as store, store.leases.hold("agent-1", ttl=BRIEF) as lease:
            await store.close()
            await asyncio.wait_for(lease.wait_lost(), 20)

    asyncio.run(go())


def test_a_lease_that_was_not_renewed_for_its_duration_is_lost_whatever_became_of_the_renewals(store: Store) -> None:
    lease = store.leases.acquire("agent-1", ttl=LONG)
    held = HeldLease(lease, dt.timedelta(milliseconds=20), 0.0)
    assert held.is_lost
    # Late news does not bring it back.
    held.renewed(float("inf"))
    assert held.is_lost
    assert held.wait_lost()
