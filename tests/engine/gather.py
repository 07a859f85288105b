"""How the tests of the write path open files and let threads meet."""

from __future__ import annotations

import contextlib
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from agentos_store import Settings, Store

PROCESSES = multiprocessing.get_context("forkserver")
"""Processes are forked from one that has imported everything and opened nothing, so they start in no time."""
PROCESSES.set_forkserver_preload(
    # Each child would import what runs the tests, and what most of them use, for itself.
    [
        "pytest",
        "agentos_store.engine.postgresql.backend",
        "agentos_store.engine.sqlite.backend",
        "agentos_store.importers.agentos.load",
        "agentos_store.settings",
        "agentos_store.worker",
    ]
)


def open_file(path: Path, **settings: Any) -> Store:
    """Open the file with a short limit for waiting writers."""
    return Store.open(f"sqlite:///{path}", settings=Settings.load(**{"lock_timeout": 1.0, **settings}))


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it holds; a test in which it never does fails instead of hanging."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.001)


@contextlib.contextmanager
def threads(works: list[Callable[[], Any]]) -> Iterator[list[Any]]:
    """Run each function in a thread; yield the list of results, or errors, that is complete after the block."""
    outcomes: list[Any] = [None] * len(works)

    def run(number: int, work: Callable[[], Any]) -> None:
        try:
            outcomes[number] = work()
        except BaseException as error:  # noqa: BLE001  the test looks at it
            outcomes[number] = error

    running = [threading.Thread(target=run, args=item) for item in enumerate(works)]
    for each in running:
        each.start()
    try:
        yield outcomes
    finally:
        for each in running:
            each.join()


@contextlib.contextmanager
def one_group(store: Store, works: list[Callable[[], Any]]) -> Iterator[list[Any]]:
    """Let the functions meet in the queue, in their order, so that one leader runs them as one group."""
    queue = store._backend.queue  # type: ignore[attr-defined]
    outcomes: list[Any] = [None] * len(works)

    def run(number: int, work: Callable[[], Any]) -> None:
        try:
            outcomes[number] = work()
        except BaseException as error:  # noqa: BLE001  the test looks at it
            outcomes[number] = error

    running = []
    with store.transaction():
        for number, work in enumerate(works):
            running.append(threading.Thread(target=run, args=(number, work)))
            running[-1].start()
            wait_for(lambda number=number: len(queue._waiting) == number + 1)  # type: ignore[misc]
    for each in running:
        each.join()
    yield outcomes


def titles(store: Store) -> list[str]:
    return sorted(task.title for task in store.tasks.iterate())
