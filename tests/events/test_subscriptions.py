"""A subscription hands out every event once, in the order of commits, and goes on where it was left."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentos_store import AsyncStore, InvalidValueError, NotFoundError, StaleBookmarkError, Store, UsageError
from agentos_store.engine.session import Session
from agentos_store.events import course, order
from agentos_store.events.bookmarks import Place, mark_of_filters, read_bookmark
from agentos_store.events.statements import WINDOW
from agentos_store.events.subscription import Subscription
from agentos_store.operation import Blocking, Repository, reads
from agentos_store.testing import Databases
from agentos_store.testing.postgres import connect
from tests.standing import own_session

Run = Callable[..., list[tuple[Any, ...]]]


def datas(store: Store, bookmark: str | None = None, **options: Any) -> list[Any]:
    """Return the data of all events that a subscription hands out at once."""
    if bookmark is None and "after" not in options:
        options["from_start"] = True
    return [event.data for event in store.events.subscribe(bookmark, timeout=0, **options)]


def log(store: Store, *numbers: int, **values: Any) -> None:
    for n in numbers:
        store.events.log("x", data=n, **values)


def wait_for_change(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.001)


def test_events_come_from_the_start_in_order(store: Store) -> None:
    assert datas(store) == []
    log(store, *range(10))
    assert datas(store) == list(range(10))


def test_a_subscription_goes_on_behind_any_event_that_it_has_handed_out(store: Store) -> None:
    log(store, *range(10))
    events = list(store.events.subscribe(from_start=True, timeout=0))
    for n, event in enumerate(events):
        assert event.bookmark is not None
        assert datas(store, event.bookmark) == list(range(n + 1, 10))


def test_its_own_bookmark_stands_behind_the_last_event_that_was_handed_out(store: Store) -> None:
    log(store, *range(3))
    subscription = store.events.subscribe(from_start=True, timeout=0)
    assert datas(store, subscription.bookmark) == [0, 1, 2]
    assert next(subscription).data == 0
    assert datas(store, subscription.bookmark) == [1, 2]
    assert [event.data for event in subscription] == [1, 2]
    log(store, 3)
    assert datas(store, subscription.bookmark) == [3]


def test_without_a_bookmark_it_begins_now(store: Store) -> None:
    log(store, 0, 1)
    subscription = store.events.subscribe(timeout=0)
    log(store, 2)
    assert [event.data for event in subscription] == [2]


def test_it_may_begin_after_a_position(store: Store) -> None:
    log(store, *range(5))
    events = store.events.list().items
    assert datas(store, after=events[2].position) == [3, 4]
    assert datas(store, after=0) == [0, 1, 2, 3, 4]
    with pytest.raises(NotFoundError, match="no event 1000000"):
        store.events.subscribe(after=1_000_000)


FILTERS: list[tuple[dict[str, Any], Iterable[int]]] = [
    ({"agent_id": "a1"}, range(1, 40, 4)),
    ({"session_id": "s1"}, range(1, 40, 5)),
    ({"task_id": "t1"}, range(1, 40, 6)),
    ({"channel": "control"}, range(1, 40, 3)),
    ({"severity": "error"}, range(1, 40, 2)),
    ({"event_types": "e1"}, range(1, 40, 7)),
    ({"event_types": ["e1", "e2"]}, sorted([*range(1, 40, 7), *range(2, 40, 7)])),
    ({"agent_id": "a1", "event_types": ["e1", "e5"]}, [1, 5, 29, 33]),
    ({"agent_id": "nobody"}, []),
]


def test_filters_keep_the_others_back(store: Store) -> None:
    store.events.log_many(
        {
            "agent_id": f"a{n % 4}",
            "session_id": f"s{n % 5}",
            "task_id": f"t{n % 6}",
            "channel": ("progress", "control", "monitor")[n % 3],
            "severity": ("info", "error")[n % 2],
            "event_type": f"e{n % 7}",
            "data": n,
        }
        for n in range(40)
    )
    subscriptions = []
    for options, expected in FILTERS:
        subscriptions.append(store.events.subscribe(from_start=True, timeout=0, **options))
        assert [event.data for event in subscriptions[-1]] == list(expected), options
    log(store, 1000, 1001)
    for (options, _), subscription in zip(FILTERS, subscriptions, strict=True):
        # It has looked further than to the last event that passed.
        assert datas(store, subscription.bookmark, **options) == []


def test_more_events_than_are_read_at_once_come_in_order_too(store: Store) -> None:
    count = 2 * WINDOW + 100
    store.events.log_many({"event_type": f"e{n % 3}", "data": n} for n in range(count))
    assert datas(store) == list(range(count))
    assert datas(store, event_types=["e1"]) == list(range(1, count, 3))
    bookmarks = [event.bookmark for event in store.events.subscribe(from_start=True, timeout=0, event_types=["e1"])]
    assert datas(store, bookmarks[399], event_types=["e1"]) == list(range(1, count, 3))[400:]


def test_a_pruned_event_does_not_stop_who_goes_on_behind_it(store: Store, raw: Run) -> None:
    log(store, *range(6))
    bookmarks = [event.bookmark for event in store.events.subscribe(from_start=True, timeout=0)]
    raw("DELETE FROM events WHERE position <= (SELECT max(position) - 2 FROM events)")
    assert datas(store, bookmarks[0]) == [4, 5]
    raw("DELETE FROM events")
    log(store, 6)
    assert datas(store, bookmarks[5]) == [6]


def test_an_older_transaction_is_waited_for_and_not_overtaken(store: Store, url: str) -> None:
    if store.capabilities.ordered_commits:
        pytest.skip("writers stand in line")
    naive: list[int] = []

    def look_by_position() -> None:
        last = max((event.position for event in store.events.list() if event.data in naive), default=0)
        naive.extend(event.data for event in store.events.list() if event.position > last)

    live = store.events.subscribe(from_start=True)
    with Store.open(url) as other:
        with other.transaction() as late:
            late.events.log("x", data=1)
            log(store, 2)
            look_by_position()
            assert datas(store) == []
        look_by_position()
    assert [next(live).data for _ in range(2)] == [1, 2]
    # Who goes by the numbers alone has lost the event that was committed late.
    assert naive == [2]


def test_a_place_is_never_that_of_a_transaction_without_an_event(store: Store, raw: Run) -> None:
    log(store, 1, 2)
    store.events.log("x", data=3, agent_id="a")
    newest = store.events.tail(n=1)[0]
    if not store.capabilities.ordered_commits:
        for _ in range(5):
            # Its number may be given again after a crash of the server.
            raw("SELECT txid_current()")
    filters: dict[str, Any] = {"agent_id": "nobody"}
    beginnings: list[dict[str, Any]] = [{}, {"from_start": True}]
    for beginning in beginnings:
        bookmark = [
            *read_places(store.events.subscribe(timeout=0, **beginning)),
            *read_places(store.events.subscribe(timeout=0, **beginning, **filters), **filters),
        ]
        assert set(bookmark) == {Place(newest.transaction_id, newest.position)}


def read_places(subscription: Subscription, **filters: Any) -> list[Place]:
    """Return where a subscription stands when it has handed out everything."""
    list(subscription)
    mark = mark_of_filters(order.Filters(filters, None).marked())
    return [read_bookmark(subscription.bookmark, mark).place]


def test_a_transaction_of_somebody_else_holds_events_back_and_its_end_is_noticed(
    store: Store, raw: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if store.capabilities.ordered_commits:
        pytest.skip("writers stand in line")
    monkeypatch.setattr(course, "TOLD", 0.0)
    got: list[Any] = []
    live = store.events.subscribe()
    thread = threading.Thread(target=lambda: got.extend(event.data for event in live))
    thread.start()
    raw("BEGIN")
    raw("CREATE TABLE somebody_elses (n int)")
    ((number,),) = raw("SELECT backend_xid::text FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    log(store, 1)
    # Who waits for long can read in the log for what.
    told = f"a transaction that is open for long keeps events back: backend_xid {number}"
    wait_for_change(lambda: told in caplog.messages)
    raw("ROLLBACK")
    wait_for_change(lambda: got == [1])
    live.close()
    thread.join()
    assert caplog.messages.count(told) == 1


def test_a_bookmark_is_refused_that_none_of_ours_is(both: list[Store]) -> None:
    for store in both:
        log(store, 1)
        event = next(store.events.subscribe(from_start=True))
        good = event.bookmark or ""
        whole = base64.urlsafe_b64decode(good + "=" * (-len(good) % 4))
        forged = []
        for change in ({0: 2}, {1: 7}, {3: -1}, {3: True}, {4: 2**63}, {4: 1.0}, {5: 7}):
            content = json.loads(whole[4:])
            for place, value in change.items():
                content[place] = value
            text = json.dumps(content).encode()
            forged.append(base64.urlsafe_b64encode(zlib.crc32(text).to_bytes(4, "big") + text).decode().rstrip("="))
        for wrong in ["", "x", "天气", good[:-1], good + "A", good[1:], "A" * 5000, 7, b"x", *forged]:
            with pytest.raises(InvalidValueError, match=r"^bookmark: is not a bookmark"):
                store.events.subscribe(wrong)  # type: ignore[arg-type]


def test_a_bookmark_belongs_to_its_filters(store: Store) -> None:
    log(store, 1, agent_id="a")
    (event,) = store.events.subscribe(from_start=True, timeout=0, agent_id="a")
    for other in ({}, {"agent_id": "b"}, {"agent_id": "a", "channel": "control"}, {"event_types": ["a"]}):
        with pytest.raises(InvalidValueError, match="other filters"):
            store.events.subscribe(event.bookmark, **other)
    assert datas(store, event.bookmark, agent_id="a") == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"severity": "fatal"},
        {"channel": "x"},
        {"agent_id": "a\0"},
        {"event_types": []},
        {"event_types": [""]},
        {"event_types": [7]},
        {"event_types": ["x"] * 101},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": "1"},
        {"after": "1"},
        {"after": 2**63},
    ],
)
def test_what_cannot_be_followed_is_refused(both: list[Store], wrong: dict[str, Any]) -> None:
    for store in both:
        with pytest.raises(InvalidValueError) as caught:
            store.events.subscribe(**wrong)
        assert caught.value.name.startswith(next(iter(wrong)))


def test_it_begins_in_one_place(store: Store) -> None:
    with pytest.raises(UsageError, match="give one of them"):
        store.events.subscribe(after=1, from_start=True)


def test_there_is_no_subscribing_inside_a_transaction(store: Store) -> None:
    with store.transaction() as tx, pytest.raises(UsageError, match="not inside a transaction"):
        tx.events.subscribe()


def test_the_bookmark_of_another_database_is_refused(both: list[Store]) -> None:
    bookmarks = []
    for store in both:
        log(store, 1)
        bookmarks.append(store.events.subscribe(from_start=True).bookmark)
    for store, bookmark in zip(both, reversed(bookmarks), strict=True):
        with pytest.raises(StaleBookmarkError):
            store.events.subscribe(bookmark)


def test_a_bookmark_from_behind_the_place_where_a_copy_was_made_is_refused_by_the_copy(
    tmp_path: Path, sqlite_template: Path
) -> None:
    paths = [tmp_path / "original.sqlite", tmp_path / "copy.sqlite"]
    shutil.copy(sqlite_template, paths[0])
    with Store.open(f"sqlite:///{paths[0]}") as original:
        log(original, 1)
        (before,) = original.events.subscribe(from_start=True, timeout=0)
        with closing(sqlite3.connect(paths[0])) as source, closing(sqlite3.connect(paths[1])) as target:
            source.backup(target)
        log(original, 2)
        *_, behind = original.events.subscribe(from_start=True, timeout=0)
        # Also one that says how far filters kept everything back, and what "now" was.
        filtered = original.events.subscribe(from_start=True, timeout=0, agent_id="nobody")
        assert list(filtered) == []
        fresh = original.events.subscribe()
    with Store.open(f"sqlite:///{paths[1]}") as copy:
        for number in (3, 4):
            # First it has not come that far, then it has another event there.
            for bookmark, agent in ((behind.bookmark, None), (filtered.bookmark, "nobody"), (fresh.bookmark, None)):
                with pytest.raises(StaleBookmarkError):
                    copy.events.subscribe(bookmark, agent_id=agent)
            log(copy, number)
        assert datas(copy, before.bookmark) == [3, 4]


@pytest.fixture
def restored(postgres_url: str, url: str, backend: str) -> Any:
    """A database into which the store's events were put as a restored dump does it, from a server far ahead."""
    if backend == "sqlite":
        pytest.skip("an SQLite file brings no numbers of a server with it")
    databases = Databases(postgres_url)
    if not databases.can_create():
        pytest.skip("it takes a second database")
    with Store.open(url) as store:
        log(store, *range(5))
        old = store.events.subscribe(from_start=True, timeout=0)
        assert len(list(old)) == 5
        bookmark = old.bookmark
    made = databases.create(url)
    try:
        with connect(made) as raw:
            # The transactions of another server: the later one has the smaller number.
            raw.execute("UPDATE events SET transaction_id = 10::bigint ^ 12 - position")
        yield made, bookmark
    finally:
        databases.drop(made)


@own_session
def test_a_restored_database_starts_its_order_anew_and_says_so(restored: tuple[str, str]) -> None:
    url, old = restored
    with Store.open(url) as store:
        with pytest.raises(StaleBookmarkError):
            store.events.subscribe(old)
        log(store, 5)
        events = list(store.events.subscribe(from_start=True, timeout=0))
        assert [event.data for event in events] == [0, 1, 2, 3, 4, 5]
        for n, event in enumerate(events):
            assert datas(store, event.bookmark) == list(range(n + 1, 6))
        live = store.events.subscribe(events[-1].bookmark)
        log(store, 6)
        assert next(live).data == 6
        # Their numbers are not waited for, which may take this server years to give.
        assert not store.bind(Looker).is_behind()


class Looker(Repository[Blocking]):
    name = "looker"

    @reads
    def is_behind(self, session: Session) -> bool:
        known = order.find_order(session)
        assert isinstance(known, order.Known)
        at = order.look(session, known.origin)
        return at is not None and at.behind


def test_an_order_is_made_once_however_many_ask_for_it_first(store: Store, raw: Run) -> None:
    log(store, 1)
    threads = [threading.Thread(target=datas, args=(store,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raw("SELECT count(*) FROM event_orders") == [(1,)]


def test_the_asynchronous_store_follows_too(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            await store.events.log_many([{"event_type": "x", "data": n} for n in range(3)])
            found = [event async for event in store.events.subscribe(from_start=True, timeout=0)]
            assert [event.data for event in found] == [0, 1, 2]
            async with store.events.subscribe(found[0].bookmark) as live:
                assert [(await anext(live)).data for _ in range(2)] == [1, 2]
                waiting = asyncio.create_task(anext(live))
                await asyncio.sleep(0)
                # A wait that is given up loses nothing.
                waiting.cancel()
                await asyncio.wait([waiting])
                async with store.transaction() as tx:
                    await tx.events.log("x", data=3)
                assert (await asyncio.wait_for(anext(live), 20)).data == 3
                await live.aclose()
                assert [event async for event in live] == []
            async with store.transaction() as tx:
                with pytest.raises(UsageError):
                    tx.events.subscribe()

    asyncio.run(main())


@pytest.mark.parametrize("steps", range(4))
def test_a_cancellation_that_meets_the_ringing_is_not_swallowed(url: str, steps: int) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store, store.events.subscribe() as live:
            waiting = asyncio.ensure_future(anext(live))
            while live._waking is None:  # noqa: ASYNC110  it tells nobody
                await asyncio.sleep(0.001)
            live._waking[1].set()
            for _ in range(steps):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting], timeout=60)
            assert waiting.cancelled()

    asyncio.run(main())


def test_an_asynchronous_subscription_begins_with_its_block(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            await store.events.log("x", data=1)
            async with store.events.subscribe(timeout=0) as live:
                await store.events.log("x", data=2)
                assert [event.data async for event in live] == [2]

    asyncio.run(main())
