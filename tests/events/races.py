"""Writers that commit late and out of order, and a subscriber that is restarted at random beside them."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

from agentos_store import Store
from tests.engine.gather import threads

WRITERS = 16
EVENTS = 25
"""Of each writer."""


class Undone(Exception):
    pass


def write(store: Store, writer: int, seed: int) -> list[str]:
    """Log a writer's events, some at once, some in transactions that stay open for a while; return what is there."""
    rng = random.Random(seed * 1000 + writer)
    pause = threading.Event()
    written: list[str] = []
    n = 0
    while n < EVENTS:
        kind = rng.random()
        names = [f"w{writer}-{n + i}" for i in range(min(rng.randint(1, 3), EVENTS - n))]
        if kind < 0.5:
            for name in names:
                store.events.log("x", agent_id=f"w{writer}", event_id=name)
        elif kind < 0.6:
            store.events.log_many([{"event_type": "x", "agent_id": f"w{writer}", "event_id": name} for name in names])
        elif not write_late(store, f"w{writer}", names, pause, rng):
            names, n = [], n + 1
        written += names
        n += len(names)
    return written


def write_late(store: Store, agent: str, names: list[str], pause: threading.Event, rng: random.Random) -> bool:
    """Log events in a transaction that stays open for a while; tell whether it was committed."""
    try:
        with store.transaction() as tx:
            for name in names:
                tx.events.log("x", agent_id=agent, event_id=name)
                if not store.capabilities.ordered_commits:
                    # Where writers do not stand in line the late ones are overtaken by the others.
                    pause.wait(rng.random() * 0.02)
            _undo(1 if rng.random() > 0.9 else 0)
    except Undone:
        return False
    return True


def _undo(chosen: int) -> None:
    if chosen:
        raise Undone


def follow(store: Store, seed: int, done: threading.Event, **filters: Any) -> list[str]:
    """Follow the events, again and again from the last bookmark, until the writers are done; return what came."""
    rng = random.Random(seed)
    got: list[str] = []
    bookmark: str | None = None
    is_last = False
    while not is_last:
        # The last round begins when nothing more is written.
        is_last = done.is_set()
        most = 10_000 if is_last else rng.randint(1, 40)
        timeout = 0 if is_last or rng.random() < 0.2 else 0.02
        beginning: dict[str, Any] = {"from_start": True} if bookmark is None else {}
        with store.events.subscribe(bookmark, timeout=timeout, **beginning, **filters) as subscription:
            for _, event in zip(range(most), subscription, strict=False):
                got.append(event.event_id)
                bookmark = event.bookmark
            if rng.random() < 0.5:
                bookmark = subscription.bookmark
    return got


def race(
    store: Store, seed: int, follower: Callable[[threading.Event], list[str]]
) -> tuple[list[str], list[list[str]]]:
    """Let the writers and the follower run; return what the follower got and what each writer wrote."""
    done = threading.Event()
    got: list[str] = []
    following = threading.Thread(target=lambda: got.extend(follower(done)))
    following.start()
    try:
        with threads([lambda w=w: write(store, w, seed) for w in range(WRITERS)]) as written:  # type: ignore[misc]
            pass
    finally:
        done.set()
        following.join()
    return got, written


def faults(store: Store, got: list[str], written: list[list[str]]) -> list[str]:
    """Return what is wrong: what was missed, what came twice, what came out of order."""
    found = [f"{writer!r}" for writer in written if not isinstance(writer, list)]
    everything = {name for names in written for name in names}
    missed = everything - set(got)
    found += [f"missed: {len(missed)}"] if missed else []
    found += [f"twice: {len(got) - len(set(got))}"] if len(got) != len(set(got)) else []
    again = [event.event_id for event in store.events.subscribe(from_start=True, timeout=0)]
    found += ["not in the order in which they come again"] if got != again else []
    for names in written:
        # What one writer commits before it begins something else comes before that.
        found += ["out of a writer's order"] if [name for name in got if name in set(names)] != names else []
    return found


def positions(store: Store, done: threading.Event) -> list[str]:
    """Follow by positions alone, as code does that takes a sequence for an order."""
    got: list[str] = []
    last = 0
    is_last = False
    while not is_last:
        is_last = done.is_set()
        fresh = [event for event in store.events.tail(n=1000) if event.position > last]
        for event in sorted(fresh, key=lambda event: event.position):
            got.append(event.event_id)
            last = event.position
        done.wait(0.005)
    return got
