"""New events wake whoever waits, wherever they come from; nobody who writes can be failed by that."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentos_store import AsyncStore, Settings, StaleBookmarkError, Store, UsageError, ensure_migrations
from agentos_store.engine.bell import Waiter
from agentos_store.engine.postgresql import listening
from agentos_store.engine.sqlite import watching
from agentos_store.events.subscription import Subscription
from tests.engine.gather import PROCESSES, wait_for
from tests.standing import own_session, owners_work

Run = Callable[..., list[tuple[Any, ...]]]

NEVER = 600.0


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look unasked, so that whoever sees an event was woken for it."""
    monkeypatch.setattr(listening, "LISTENED", NEVER)
    monkeypatch.setattr(watching, "UNASKED", NEVER)


@contextlib.contextmanager
def following(subscription: Subscription) -> Iterator[list[Any]]:
    """Collect the data of the events that a thread is handed out."""
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.extend(event.data for event in subscription))
    thread.start()
    try:
        yield got
    finally:
        subscription.close()
        thread.join(20)
        assert not thread.is_alive()


def listens(store: Store) -> bool:
    return store._backend.bell.interval == NEVER


def ours() -> list[str]:
    names = {"agentos-store-watch", "agentos-store-listen", "agentos-store-notify"}
    return [thread.name for thread in threading.enumerate() if thread.name in names]


def log_elsewhere(url: str, data: int) -> None:
    with Store.open(url) as store:
        store.events.log("x", data=data)


@own_session
@pytest.mark.usefixtures("unasked")
def test_an_event_of_this_process_wakes_at_once(store: Store) -> None:
    with following(store.events.subscribe()) as got:
        wait_for(lambda: listens(store))
        store.events.log("x", data=1)
        wait_for(lambda: got == [1])
        with store.transaction() as tx:
            tx.events.log_many([{"event_type": "x", "data": 2}])
        wait_for(lambda: got == [1, 2])


@own_session
@pytest.mark.usefixtures("unasked")
def test_an_event_of_another_process_wakes_too(store: Store, url: str) -> None:
    with following(store.events.subscribe()) as got:
        wait_for(lambda: listens(store))
        other = PROCESSES.Process(target=log_elsewhere, args=(url, 1))
        other.start()
        wait_for(lambda: got == [1])
        other.join()


def test_an_event_that_nobody_announces_is_found_all_the_same(store: Store, raw: Run) -> None:
    with following(store.events.subscribe()) as got:
        wait_for(lambda: store._backend.bell._watch is not None)
        raw(
            "INSERT INTO events (event_id, event_type, severity, data, created_at)"
            " VALUES ('e', 'x', 'info', '1', '2026-01-01T00:00:00.000000Z')"
        )
        wait_for(lambda: got == [1])


@own_session
@pytest.mark.usefixtures("unasked")
def test_a_cut_connection_of_who_listens_is_replaced(store: Store, raw: Run) -> None:
    if not store.capabilities.notify:
        pytest.skip("nobody listens on a file")
    with following(store.events.subscribe()) as got:
        wait_for(lambda: listens(store))
        raw(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE left(query, 6) = 'LISTEN' AND datname = current_database()"
        )
        wait_for(lambda: not listens(store))
        store.events.log("x", data=1)
        wait_for(lambda: got == [1])
        wait_for(lambda: listens(store))
        store.events.log("x", data=2)
        wait_for(lambda: got == [1, 2])


def test_a_notification_that_cannot_be_sent_fails_nobody(url: str) -> None:
    settings = Settings.load(pool_size=1, max_overflow=0, pool_timeout=0.05)
    with Store.open(url, settings=settings) as store:
        with store.transaction() as tx:
            # There is no connection left to send it on.
            store._backend.bell.ring()
            tx.events.log("x", data=1)
        with store.transaction() as tx:
            assert tx.events.count() == 1
        store.events.log("x", data=2)
        assert store.events.count() == 2


@own_session
def test_who_waits_holds_no_connection(url: str) -> None:
    settings = Settings.load(pool_size=1, max_overflow=0, pool_timeout=5.0)
    with Store.open(url, settings=settings) as store, contextlib.ExitStack() as stack:
        got = [stack.enter_context(following(store.events.subscribe())) for _ in range(8)]
        for n in range(3):
            store.events.log("x", data=n)
        wait_for(lambda: all(each == [0, 1, 2] for each in got))


def test_closing_the_store_ends_its_subscriptions_and_threads(url: str) -> None:
    store = Store.open(url)
    with following(store.events.subscribe()) as got:
        store.events.log("x", data=1)
        wait_for(lambda: got == [1])
        assert ours()
        store.close()
    # Not a moment later, for the database may be dropped now.
    assert not ours()
    with pytest.raises(UsageError, match="closed"):
        store.events.subscribe()


def test_closing_one_of_two_stores_ends_its_own_subscriptions_only(url: str) -> None:
    with Store.open(url) as one, Store.open(url) as other, following(other.events.subscribe()) as got:
        with following(one.events.subscribe()) as ended:
            one.close()
        other.events.log("x", data=1)
        wait_for(lambda: got == [1])
        assert ended == []


def test_the_last_who_waits_ends_the_watch(store: Store) -> None:
    with following(store.events.subscribe()) as got:
        store.events.log("x", data=1)
        wait_for(lambda: got == [1])
    wait_for(lambda: not {"agentos-store-watch", "agentos-store-listen"} & set(ours()))


def test_closing_an_asynchronous_store_ends_its_subscriptions(url: str) -> None:
    async def main() -> None:
        store = await AsyncStore.open(url)
        live = store.events.subscribe()

        async def follow() -> list[Any]:
            return [event.data async for event in live]

        following = asyncio.create_task(follow())
        await store.events.log("x", data=0)
        await asyncio.sleep(0.05)
        await store.events.log("x", data=1)
        await store.close()
        # Wherever its end met it, it did end.
        assert await asyncio.wait_for(following, 20) in ([], [0], [1], [0, 1])

    asyncio.run(main())
    wait_for(lambda: not ours())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_follows_on_its_own(store: Store) -> None:
    live = store.events.subscribe()
    store.events.log("x", data=1)
    assert next(live).data == 1
    wait_for(lambda: store._backend.bell._watch is not None)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            # Nothing of it is the parent's: neither the thread that wakes nor a connection.
            store.events.log("x", data=2)
            mine = store.events.subscribe(live.bookmark)
            if [next(live).data, next(mine).data] == [2, 2]:
                threading.Timer(0.05, lambda: store.events.log("x", data=3)).start()
                code = 0 if [next(live).data, next(mine).data] == [3, 3] else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    store.events.log("x", data=4)
    assert [next(live).data for _ in range(3)] == [2, 3, 4]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_that_closes_what_it_inherited_disturbs_nobody(store: Store) -> None:
    live = store.events.subscribe()
    watch: Any = store._backend.bell._watch
    child = os.fork()
    if child == 0:
        try:
            live.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    # The parent's thread was not told to end by way of a socket that both have.
    sockets: list[Any] = [watch._theirs] if store.capabilities.notify else []
    assert select.select(sockets, [], [], 0)[0] == []
    store.events.log("x", data=1)
    assert next(live).data == 1


def test_without_a_thread_more_events_come_all_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        live = store.events.subscribe()
        store.events.log("x", data=1)
        assert next(live).data == 1
        assert not ours()
        assert store._backend.bell.interval <= 0.1
    # The next who waits, and the next who writes, try again.
    with store.events.subscribe():
        store.events.log("x", data=2)
        expected = {"agentos-store-listen", "agentos-store-notify"}
        wait_for(lambda: {*ours()} == (expected if store.capabilities.notify else {"agentos-store-watch"}))


def test_who_was_forgotten_does_not_end_the_watch_of_who_comes_next(store: Store) -> None:
    bell = store._backend.bell
    forgotten = store.events.subscribe()
    watch: Any = bell._watch
    assert bell.needs(watch)
    del forgotten
    assert not bell.needs(watch)
    with store.events.subscribe():
        assert bell._watch not in {None, watch}
        assert bell.is_watched


def test_who_was_dismissed_does_not_wait_any_more(store: Store) -> None:
    waiter = Waiter(None)
    waiter.leave()
    store._backend.bell.enter(waiter)
    assert waiter.bell is None
    assert not store._backend.bell.is_watched


def test_one_at_a_time_takes_events(store: Store) -> None:
    live = store.events.subscribe()
    with following(live):
        wait_for(live._steps._taken.locked)
        with pytest.raises(UsageError, match="subscribe once for each"):
            next(live)


def test_one_task_at_a_time_takes_events(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store, store.events.subscribe() as live:
            first = asyncio.create_task(anext(live))
            await asyncio.sleep(0)
            with pytest.raises(UsageError, match="subscribe once for each"):
                await anext(live)
            await store.events.log("x", data=1)
            assert (await first).data == 1

    asyncio.run(main())


def test_a_loop_that_is_broken_off_leaves_nobody_waiting(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            await store.events.log("x")
            async for _ in store.events.subscribe(from_start=True):
                break
            assert not store._backend.bell._waiters

    asyncio.run(main())


def test_a_subscriber_that_is_cancelled_anywhere_gets_every_event_once(url: str) -> None:
    async def main() -> None:
        got: list[Any] = []
        async with AsyncStore.open(url) as store, store.events.subscribe() as live:
            logging = asyncio.create_task(log_all(store))
            turn = 0
            while len(got) < COUNT:
                turn += 1
                taking = asyncio.create_task(anext(live))
                for _ in range(turn % 9):
                    await asyncio.sleep(0.0005)
                taking.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    got.append((await taking).data)
            await logging
        assert got == list(range(COUNT))

    asyncio.run(main())


COUNT = 40


async def log_all(store: AsyncStore) -> None:
    for n in range(COUNT):
        await store.events.log("x", data=n)


@own_session
@owners_work
def test_schemas_of_one_database_neither_wake_nor_confuse_each_other(url: str, backend: str) -> None:
    if backend == "sqlite":
        pytest.skip("a file has no schemas")
    ensure_migrations(url, schema="tenant_a")
    with Store.open(url) as one, Store.open(url, schema="tenant_a") as other:
        mine, theirs = one.events.subscribe(), other.events.subscribe(timeout=0)
        wait_for(lambda: other._backend.bell.interval == listening.LISTENED)
        waiter = theirs._steps.waiter
        waiter.clear()
        one.events.log("x", data=1)
        assert next(mine).data == 1
        # In the order in which they were sent: the second would come after the first.
        assert not waiter.is_woken
        other.events.log("x", data=2)
        assert [event.data for event in theirs] == [2]
        with pytest.raises(StaleBookmarkError):
            other.events.subscribe(mine.bookmark)
