"""A storm of calls that are cancelled at random moments, and the checker of what they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gc
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from agentos_store import AsyncStore, Settings, Store, StoreError
from agentos_store.store.asynchronous import AsyncTransaction

WAVE = 60
"""Calls at once: more than there are threads, and many more than there are connections."""

CONNECTIONS = 2
FOLLOWERS = 2
LONGEST = 0.04
"""Seconds after which a call is cancelled, at most; most of them take less where nobody is in their way."""

HOUR = dt.timedelta(hours=1)

Outcomes = dict[tuple[str, int], str]
"""What the caller of each call, by its kind and number, was told: done, cancelled, or the name of an error."""

log = logging.getLogger("tests.storm")


async def create(store: AsyncStore, n: int) -> None:
    await store.tasks.create(task_id=f"create-{n}", title="t")


async def record(store: AsyncStore, n: int) -> None:
    await store.audits.record("shared", event_type="record", payload=n)


async def append_many(store: AsyncStore, n: int) -> None:
    messages = [{"role": "user", "content": "c", "id": f"append_many-{n}-{i}"} for i in range(3)]
    await store.messages.append_many("shared", messages)


async def log_event(store: AsyncStore, n: int) -> None:
    await store.events.log("x", event_id=f"log_event-{n}")


async def three(tx: AsyncTransaction, kind: str, n: int) -> None:
    """Write into three tables."""
    await tx.tasks.create(task_id=f"{kind}-{n}", title="t")
    await tx.audits.record("shared", event_type=kind, payload=n)
    await tx.messages.append("shared", role="user", content="c", id=f"{kind}-{n}")


async def transact(store: AsyncStore, n: int) -> None:
    async with store.transaction() as tx:
        await three(tx, "transact", n)


async def hold(store: AsyncStore, n: int) -> None:
    """Keep the others waiting, for their turn to write or for a connection."""
    async with store.transaction() as tx:
        await tx.tasks.create(task_id=f"hold-{n}", title="t")
        await asyncio.sleep(0.004)
        await tx.audits.record("shared", event_type="hold", payload=n)
        await tx.messages.append("shared", role="user", content="c", id=f"hold-{n}")


async def run(store: AsyncStore, n: int) -> None:
    await store.run(lambda tx: three(tx, "run", n))


async def claim(store: AsyncStore, n: int) -> None:
    task = await store.tasks.claim(by=f"worker-{n}", lease=HOUR)
    assert task is None or task.claimed_by == f"worker-{n}"


async def complete(store: AsyncStore, n: int) -> None:
    task = await store.tasks.claim(by=f"worker-{n}", lease=HOUR)
    if task is not None:
        await store.tasks.complete(task.task_id, task.lease_token, result=n)


async def look(store: AsyncStore, n: int) -> None:
    del n
    await store.tasks.list()
    assert (await store.tasks.get("shared")).title == "shared"


async def walk(store: AsyncStore, n: int) -> None:
    del n
    seqs = [message.seq async for message in store.messages.iterate("shared")]
    assert seqs == sorted(seqs)


async def look_together(store: AsyncStore, n: int) -> None:
    del n
    async with store.transaction(read_only=True) as tx:
        counted = await tx.messages.count(session_id="shared")
        assert (await tx.sessions.get("shared")).message_count == counted


Kind = Callable[[AsyncStore, int], Awaitable[None]]

KINDS: list[Kind] = [
    *(create, record, append_many, log_event, transact, transact, hold, run, claim, complete, look, walk),
    look_together,
]
TOGETHER = ("transact", "hold", "run")
WORK = 100
"""Tasks that wait to be claimed."""


async def follow(store: AsyncStore, got: list[str], is_over: asyncio.Event, chance: random.Random) -> str | None:
    """Wait for events and be cancelled at it, again and again; return where to go on."""
    async with store.events.subscribe(from_start=True) as subscription:
        while not is_over.is_set():
            waiting = asyncio.ensure_future(anext(subscription))
            await asyncio.sleep(chance.uniform(0, 0.01))
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                got.append((await waiting).event_id)
        return subscription.bookmark


async def cancelled(work: Awaitable[None], chance: random.Random) -> str:
    """Cancel the call at a random moment, or let one of four through; return what its caller was told."""
    task = asyncio.ensure_future(work)
    if chance.random() < 0.75:
        await asyncio.sleep(chance.uniform(0, LONGEST))
        task.cancel()
        if chance.random() < 0.2:
            await asyncio.sleep(0)
            task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return "cancelled"
    except Exception as error:  # noqa: BLE001  the checker reports it
        return f"{type(error).__name__}: {error}"
    return "done"


async def storm(
    store: AsyncStore, kinds: list[Kind], calls: int, chance: random.Random, outcomes: Outcomes, patience: float
) -> list[list[str]]:
    """Make the calls in waves; note what their callers were told, and return what those who follow the events got."""
    await store.tasks.create(task_id="shared", title="shared")
    await store.sessions.create(id="shared")
    for n in range(WORK):
        await store.tasks.create(task_id=f"work-{n}", title="work", enqueue=True)
    is_over = asyncio.Event()
    got: list[list[str]] = [[] for _ in range(FOLLOWERS)]
    followers = [asyncio.ensure_future(follow(store, each, is_over, chance)) for each in got]
    for first in range(0, calls, WAVE):
        numbers = range(first, min(first + WAVE, calls))
        wave = list(zip(chance.choices(kinds, k=len(numbers)), numbers, strict=True))
        told = await asyncio.gather(*(cancelled(kind(store, n), chance) for kind, n in wave))
        outcomes |= {(kind.__name__, n): each for (kind, n), each in zip(wave, told, strict=True)}
    is_over.set()
    bookmarks = await asyncio.gather(*followers)
    await rest(store, patience)
    for each, bookmark in zip(got, bookmarks, strict=True):
        beginning: dict[str, Any] = {"from_start": True} if bookmark is None else {}
        async with store.events.subscribe(bookmark, timeout=0, **beginning) as subscription:
            each += [event.event_id async for event in subscription]
    return got


async def rest(store: AsyncStore, patience: float) -> list[str]:
    """Wait until nobody is at work in the store; return what still is after so many seconds."""
    backend: Any = store._backend
    deadline = time.monotonic() + patience
    while True:
        state = backend.pool_state()
        found = []
        if state.in_use or state.waiting:
            found.append(f"connections: {state.in_use} are out, {state.waiting} wait for one")
        if state.queue or (hasattr(backend, "queue") and backend.queue._leader is not None):
            found.append(f"the queue of writers is held, {state.queue} wait")
        if backend._door._inside:
            found.append(f"{backend._door._inside} are inside")
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.01)


def weather(
    url: str,
    calls: int,
    chance: random.Random,
    *,
    kinds: list[Kind] = KINDS,
    patience: float = 60.0,
    mend: Callable[[], object] = lambda: None,
) -> tuple[Outcomes, list[str]]:
    """Let a storm pass over a store; return what the callers were told, and everything that is wrong afterwards.

    ``mend`` is called before the store is closed when something is.
    """
    before = set(threading.enumerate())
    settings = Settings.load(
        pool_size=CONNECTIONS, max_overflow=0, pool_timeout=patience, lock_timeout=patience, retries=0
    )
    outcomes: Outcomes = {}
    wrong: list[str] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: wrong.append(f"the event loop was told: {context['message']}")
        )
        store = await AsyncStore.open(url, settings=settings)
        try:
            got = await storm(store, kinds, calls, chance, outcomes, patience)
            wrong.extend(await rest(store, patience) or await use(store))
            wrong.extend(compare_events([event.event_id async for event in store.events.iterate()], got))
        except (StoreError, TimeoutError) as error:
            wrong.append(f"the store does not work: {error!r}")
            wrong.extend(await rest(store, patience))
        if wrong:
            mend()
        await store.close()
        gc.collect()
        await asyncio.sleep(0)

    asyncio.run(main())
    gc.collect()
    wrong.extend(f"{kind} {n} raised {told}" for (kind, n), told in outcomes.items() if told not in TOLD)
    wrong.extend(threads_left(before))
    with Store.open(url) as store:
        wrong.extend(half_done(store, outcomes))
    log.info("%s", Counter(outcomes.values()))
    return outcomes, wrong


TOLD = {"done", "cancelled"}


async def use(store: AsyncStore) -> list[str]:
    """Have all of the connections at once, and write."""
    async with (
        asyncio.timeout(60),
        store.transaction(read_only=True) as first,
        store.transaction(read_only=True) as second,
    ):
        await asyncio.gather(first.tasks.count(), second.tasks.count())
    await transact(store, -1)
    return []


def threads_left(before: set[threading.Thread]) -> list[str]:
    """Return the threads of the store that do not end."""
    deadline = time.monotonic() + 60
    while True:
        ours = {each.name for each in set(threading.enumerate()) - before if each.name.startswith("agentos-store")}
        if not ours or time.monotonic() > deadline:
            return sorted(f"the thread {name} is left" for name in ours)
        time.sleep(0.01)


def compare_events(stored: list[str], got: list[list[str]]) -> list[str]:
    """Return what those who follow the events missed, or had twice."""
    wrong = []
    for each in got:
        counted = Counter(each)
        wrong += [f"{name} came {number} times" for name, number in counted.items() if number > 1]
        wrong += [f"{name} did not come" for name in stored if name not in counted]
        wrong += [f"{name} came and is not there" for name in counted if name not in set(stored)]
    return wrong


def half_done(store: Store, outcomes: Outcomes) -> list[str]:
    """Return every call that left something half done, or was acknowledged and is not there."""
    tasks = {task.task_id: task for task in store.tasks.iterate()}
    messages = {message.id for message in store.messages.iterate("shared")}
    audits = Counter((audit.event_type, audit.payload) for audit in store.audits.iterate(task_id="shared"))
    events = {event.event_id for event in store.events.iterate()}
    held = Counter(task.claimed_by for task in tasks.values() if task.claimed_by)
    wrong = [f"{worker} holds {number} tasks" for worker, number in held.items() if number > 1]
    wrong += [f"{name} was recorded {number} times" for name, number in audits.items() if number > 1]

    def parts(kind: str, n: int) -> list[bool]:
        key = f"{kind}-{n}"
        if kind in TOGETHER:
            return [key in tasks, (kind, n) in audits, key in messages]
        if kind == "append_many":
            return [f"{key}-{i}" in messages for i in range(3)]
        found = {"create": key in tasks, "record": (kind, n) in audits, "log_event": key in events}
        return [found[kind]] if kind in found else []

    for (kind, n), told in outcomes.items():
        there = parts(kind, n)
        if len(set(there)) > 1:
            wrong.append(f"{kind} {n} is half done: {there}")
        elif told == "done" and there == [False]:
            wrong.append(f"{kind} {n} was acknowledged and is not there")
    for task in tasks.values():
        if task.task_id.startswith("work-"):
            trail = [audit.event_type for audit in store.audits.iterate(task_id=task.task_id)]
            if len(trail) != {"pending": 0, "running": 1, "completed": 2}[task.status] or task.attempts > 1:
                wrong.append(f"{task.task_id} is {task.status} after {trail}")
    session = store.sessions.get("shared")
    if session.message_count != len(messages):
        wrong.append(f"the session counts {session.message_count} messages of {len(messages)}")
    if not store.audits.verify().ok:
        wrong.append("the audit chains do not verify")
    return wrong + [f"{finding}" for finding in store.check_consistency().findings]
