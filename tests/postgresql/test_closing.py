"""A store closes when nobody is at work in it any more, and says so when somebody is."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agentos_store import AsyncStore, LockTimeoutError, Settings, Store, UsageError


def test_an_open_transaction_keeps_the_store_open(url: str) -> None:
    store = Store.open(url, settings=Settings.load(lock_timeout=0.1))
    with store.transaction() as tx:
        tx.tasks.create(title="t")
        with ThreadPoolExecutor(1) as threads, pytest.raises(LockTimeoutError, match="closing the store") as caught:
            threads.submit(store.close).result()
        assert caught.value.waited == 0.1
        assert caught.value.holder == "an operation or a transaction that is still open"
        tx.tasks.create(title="u")
    assert store.tasks.count() == 2
    store.close()
    store.close()
    with pytest.raises(UsageError, match="closed"):
        store.tasks.count()


def test_the_end_of_a_transaction_is_waited_for(url: str) -> None:
    store = Store.open(url)
    begun, closing = threading.Event(), threading.Event()

    def work() -> None:
        with store.transaction() as tx:
            begun.set()
            closing.wait(20)
            tx.tasks.create(title="t")

    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(work)
        begun.wait(20)
        closing.set()
        store.close()
        done.result()
    with Store.open(url) as again:
        assert again.tasks.count() == 1


def test_the_other_face_says_so_too(url: str) -> None:
    async def work() -> int:
        store = await AsyncStore.open(url, settings=Settings.load(lock_timeout=0.1))
        async with store.transaction() as tx:
            await tx.tasks.create(title="t")
            with pytest.raises(LockTimeoutError, match="closing the store"):
                await store.close()
        count = await store.tasks.count()
        await store.close()
        return count

    assert asyncio.run(work()) == 1
