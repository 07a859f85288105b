from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from agentos_store import AsyncStore, UsageError
from agentos_store.models import Task
from agentos_store.worker import AsyncWorker, GiveUp, WorkContext

SHORT = dt.timedelta(milliseconds=20)
LONG = dt.timedelta(minutes=5)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110  the database tells nobody
            await asyncio.sleep(0.005)


def run(url: str, work: Callable[[AsyncStore], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            await work(store)

    asyncio.run(main())


async def add(store: AsyncStore, *keys: str, **options: Any) -> None:
    for key in keys:
        await store.tasks.create(title="t", task_id=key, enqueue=True, **options)


def test_coroutines_run_at_once_in_the_loop_and_complete_their_tasks(url: str) -> None:
    async def work(store: AsyncStore) -> None:
        await add(store, *"abcdef")
        together = asyncio.Barrier(3)

        async def handle(task: Task, context: WorkContext) -> str:
            context.check()
            await together.wait()
            return task.task_id

        worker = AsyncWorker(store, handle, concurrency=3, poll=SHORT)
        running = asyncio.create_task(worker.run())

        async def all_done() -> bool:
            return await store.tasks.count(status="completed") == 6

        await until(all_done)
        worker.stop()
        await running
        assert (await store.tasks.get("d")).result == "d"
        assert (await store.audits.verify()).ok
        with pytest.raises(UsageError):
            await worker.run()

    run(url, work)


def test_errors_of_coroutines_become_the_task_s(url: str) -> None:
    async def work(store: AsyncStore) -> None:
        await add(store, "raises", task_type="raises", max_attempts=1)
        await add(store, "gives up", task_type="gives up")
        await add(store, "plain", task_type="plain", max_attempts=1)

        async def raises(_: Task, __: WorkContext) -> None:
            raise ValueError("bad")

        async def gives_up(_: Task, __: WorkContext) -> None:
            raise GiveUp("no")

        plain: Any = lambda _, __: 3  # noqa: E731  it is no coroutine, which is what is wrong with it
        worker = AsyncWorker(store, {"raises": raises, "gives up": gives_up, "plain": plain}, poll=SHORT)
        running = asyncio.create_task(worker.run())

        async def all_failed() -> bool:
            return await store.tasks.count(status="failed") == 3

        await until(all_failed)
        worker.stop()
        await running
        assert (await store.tasks.get("raises")).error_message == "ValueError: bad"
        assert (await store.tasks.get("gives up")).exit_reason == "no"

    run(url, work)


@pytest.mark.parametrize("how", ["stop", "cancel", "signal"])
def test_what_does_not_end_within_the_grace_is_cancelled_and_given_back(url: str, how: str) -> None:
    async def work(store: AsyncStore) -> None:
        await add(store, "t", "u")
        began, cancelled = asyncio.Event(), asyncio.Event()

        async def handle(_: Task, __: WorkContext) -> None:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.01)
                cancelled.set()

        worker = AsyncWorker(store, handle, poll=SHORT, grace=dt.timedelta(0))
        running = asyncio.create_task(worker.run())
        await began.wait()
        if how == "cancel":
            running.cancel()
        elif how == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            worker.stop()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        assert running.cancelled() == (how == "cancel")
        assert cancelled.is_set()
        for key in ("t", "u"):
            task = await store.tasks.get(key)
            assert (task.status, task.attempts, task.claimed_by) == ("pending", 0, None)

    run(url, work)


def test_an_idle_worker_is_woken(url: str) -> None:
    async def work(store: AsyncStore) -> None:
        async def handle(_: Task, __: WorkContext) -> None:
            pass

        worker = AsyncWorker(store, handle, poll=LONG)
        running = asyncio.create_task(worker.run(signals=False))
        await add(store, "t")
        worker.wake()

        async def done() -> bool:
            return (await store.tasks.get("t")).status == "completed"

        await until(done)
        worker.stop()
        await running

    run(url, work)
