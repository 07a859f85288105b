"""The asynchronous store: whatever is cancelled, transactions are whole and nothing is left behind."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from agentos_store import AsyncStore, Settings, Store
from agentos_store.errors import NotFoundError, UsageError

CANCELLATIONS = 300


@asynccontextmanager
async def narrow(url: str) -> AsyncIterator[AsyncStore]:
    """Open a store with a single connection, so that one that is not given back is missed at once."""
    settings = Settings.load(pool_size=1, max_overflow=0, pool_timeout=5.0)
    async with AsyncStore.open(url, settings=settings) as store:
        yield store


def test_sixty_four_operations_at_once(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            created = await asyncio.gather(*(store.tasks.create(title=f"{n}") for n in range(64)))
            found = await asyncio.gather(*(store.tasks.get(task.task_id) for task in created))
            assert [task.title for task in found] == [f"{n}" for n in range(64)]

    asyncio.run(main())


def test_writers_that_fill_every_thread_do_not_keep_a_transaction_from_its_end(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            task = await store.tasks.create(title="x")
            async with store.transaction() as tx:
                await tx.tasks.update(task.task_id, title="y")
                waiting = [asyncio.create_task(store.tasks.update(task.task_id, priority=n)) for n in range(100)]
                await asyncio.sleep(0.2)
                await tx.audits.record(task.task_id, event_type="a")
            assert {task.title for task in await asyncio.gather(*waiting)} == {"y"}

    asyncio.run(main())


async def create_and_raise(store: AsyncStore) -> None:
    async with store.transaction() as tx:
        await tx.tasks.create(title="y")
        raise ZeroDivisionError


def test_several_operations_are_stored_together(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            async with store.transaction() as tx:
                task = await tx.tasks.create(title="x")
                await asyncio.gather(*(tx.audits.record(task.task_id, event_type="a") for _ in range(10)))
                with pytest.raises(NotFoundError):
                    await tx.tasks.get("nowhere")
            assert (await store.tasks.count(), await store.audits.count()) == (1, 10)
            with pytest.raises(ZeroDivisionError):
                await create_and_raise(store)
            assert await store.tasks.count() == 1
            async with store.transaction(read_only=True) as tx:
                with pytest.raises(UsageError):
                    await tx.tasks.create(title="z")

    asyncio.run(main())


async def write_both(store: AsyncStore) -> None:
    async with store.transaction() as tx:
        task = await tx.tasks.create(title="x")
        await tx.audits.record(task.task_id, event_type="created")


def test_transactions_that_are_cancelled_at_random_moments_are_whole(url: str) -> None:
    async def main() -> None:
        async with narrow(url) as store:
            for _ in range(CANCELLATIONS // 6):
                tasks = [asyncio.create_task(write_both(store)) for _ in range(6)]
                for task in tasks:
                    await asyncio.sleep(random.uniform(0, 0.003))
                    task.cancel()
                    if random.random() < 0.2:
                        await asyncio.sleep(0)
                        task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            await write_both(store)
            counts = await store.tasks.count(), await store.audits.count(event_type="created")
            assert counts[0] == counts[1] >= 1
            assert (await store.audits.verify()).ok

    asyncio.run(main())
    with Store.open(url) as store:
        assert store.tasks.count() == store.audits.count()


def test_operations_that_are_cancelled_at_random_moments_leave_their_connection_behind(url: str) -> None:
    async def main() -> None:
        async with narrow(url) as store:
            for number in range(60):
                work = store.tasks.create(title="x") if number % 2 else store.tasks.list()
                task: asyncio.Task[Any] = asyncio.create_task(work)
                await asyncio.sleep(random.uniform(0, 0.003))
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            assert await store.tasks.count() >= 0

    asyncio.run(main())


def test_a_cancelled_end_is_outlasted(url: str) -> None:
    """The block is left while one of its operations still runs, and is cancelled again before that has ended."""

    async def main() -> None:
        async with narrow(url) as store:

            async def work() -> None:
                async with store.transaction() as tx:
                    task = await tx.tasks.create(title="x")
                    still_running = asyncio.create_task(tx.audits.record(task.task_id, event_type="a"))
                    await asyncio.sleep(0)
                    try:
                        raise ZeroDivisionError
                    finally:
                        still_running.add_done_callback(lambda done: done.cancelled() or done.exception())

            for _ in range(20):
                task = asyncio.create_task(work())
                await asyncio.sleep(random.uniform(0, 0.004))
                task.cancel()
                await asyncio.sleep(0)
                task.cancel()
                with suppress(asyncio.CancelledError, ZeroDivisionError):
                    await task
            assert await store.tasks.count() == 0
            await write_both(store)

    asyncio.run(main())


def test_a_begin_that_is_cancelled_while_it_waits_takes_no_place(url: str) -> None:
    async def main() -> None:
        async with narrow(url) as store:
            async with store.transaction():
                waiting = asyncio.create_task(write_both(store))
                await asyncio.sleep(0.05)
                waiting.cancel()
                # It does not wait for the one that is in front of it.
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.wait_for(waiting, 3)
            await write_both(store)
            assert await store.tasks.count() == 1

    asyncio.run(main())


def test_an_opening_that_is_cancelled_leaves_nothing_open(url: str) -> None:
    async def main() -> None:
        async def open_it() -> None:
            async with AsyncStore.open(url):
                await asyncio.sleep(10)

        for _ in range(10):
            task = asyncio.create_task(open_it())
            await asyncio.sleep(random.uniform(0, 0.03))
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    asyncio.run(main())
    if url.startswith("sqlite"):
        from agentos_store.engine.sqlite.backend import _open

        deadline = threading.Event()
        for _ in range(100):
            if not _open:
                break
            deadline.wait(0.05)
        assert not _open


def test_two_event_loops_use_one_store_one_after_another(url: str) -> None:
    store = asyncio.run(_open_outside(url))
    asyncio.run(write_both(store))
    asyncio.run(write_both(store))
    asyncio.run(store.close())
    with Store.open(url) as again:
        assert again.tasks.count() == 2


async def _open_outside(url: str) -> AsyncStore:
    return await AsyncStore.open(url)


def test_a_loop_that_ends_in_the_middle_ends_its_transactions(url: str) -> None:
    async def main() -> AsyncStore:
        store = await AsyncStore.open(url)

        async def forgotten() -> None:
            async with store.transaction() as tx:
                await tx.tasks.create(title="x")
                await asyncio.sleep(60)

        task = asyncio.create_task(forgotten())
        await asyncio.sleep(0.1)
        assert not task.done()
        return store

    store = asyncio.run(main())

    async def rest() -> None:
        await write_both(store)
        assert await store.tasks.count() == 1
        await store.close()

    asyncio.run(rest())


def test_closing_is_awaited_and_may_be_repeated(url: str) -> None:
    async def main() -> None:
        store = await AsyncStore.open(url)
        await store.close()
        await store.close()
        with pytest.raises(UsageError):
            await store.tasks.count()

    asyncio.run(main())
