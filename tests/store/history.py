"""A small checker of histories: is there an order of the transactions, one after another, that explains what each saw?

In the manner of Elle: every transaction reads lists and appends elements that nobody else appends, so that what is in a
list tells who wrote before whom. An edge of the graph means "came before"; transactions that cannot be put in order
form a circle. With the edges of real time (one had ended before the other began) the order is a strict one.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

Element = int
Lists = Mapping[str, Sequence[Element]]


@dataclass
class Transaction:
    """What one transaction saw and wrote, and when."""

    number: int
    began: float = 0.0
    ended: float = 0.0
    committed: bool = True
    saw: dict[str, list[Element]] = field(default_factory=dict)
    """The list as it was before the transaction appended to it."""
    appended: dict[str, Element] = field(default_factory=dict)


def anomalies(history: Sequence[Transaction], final: Lists) -> list[str]:
    """Return what no serial order explains; nothing for a clean history. ``final`` is what a last look found."""
    found: list[str] = []
    writers = {(key, element): each for each in history for key, element in each.appended.items()}
    for each in history:
        for key, element in each.appended.items():
            times = list(final.get(key, ())).count(element)
            if each.committed and times != 1:
                found.append(f"{each.number}: {element} is {times} times in {key}")
            elif not each.committed and times:
                found.append(f"{each.number}: {element} was rolled back and is in {key}")
        for key, elements in each.saw.items():
            if elements != list(final.get(key, ()))[: len(elements)]:
                found.append(f"{each.number}: saw {elements} in {key}, which is no beginning of the last list")
    edges = _edges([each for each in history if each.committed], final, writers)
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        found.append(f"a circle: {error.args[1]}")
    return found


def _edges(
    history: Sequence[Transaction], final: Lists, writers: Mapping[tuple[str, Element], Transaction]
) -> dict[int, set[int]]:
    """Return for each transaction those that came before it."""
    before: dict[int, set[int]] = {each.number: set() for each in history}

    def add(first: Transaction | None, second: Transaction | None) -> None:
        # Of one that was rolled back, what is wrong has been told already.
        if first and second and first is not second and first.committed and second.committed:
            before[second.number].add(first.number)

    for key, elements in final.items():
        for one, next_ in itertools.pairwise(elements):
            add(writers.get((key, one)), writers.get((key, next_)))
    for each in history:
        for key, elements in each.saw.items():
            if elements:
                add(writers.get((key, elements[-1])), each)
            following = list(final.get(key, ()))[len(elements) : len(elements) + 1]
            for element in following:
                add(each, writers.get((key, element)))
    # Whoever had ended before another began came first.
    for each in history:
        for other in history:
            if other.ended < each.began:
                add(other, each)
    return before


class RolledBack(Exception):
    """The transaction is given up by whoever made it."""


def record(
    work: Callable[[Transaction, random.Random], None], *, threads: int, each: int, seed: int = 1
) -> list[Transaction]:
    """Run transactions in threads and return the history; ``work`` fills in what its transaction saw and appended.

    One that raises RolledBack is noted as not committed.
    """
    numbers = itertools.count(1)
    history: list[Transaction] = []
    lock = threading.Lock()
    failures: list[BaseException] = []

    def run(thread: int) -> None:
        chance = random.Random(seed * 1000 + thread)
        try:
            for _ in range(each):
                with lock:
                    transaction = Transaction(next(numbers))
                transaction.began = time.monotonic()
                try:
                    work(transaction, chance)
                except RolledBack:
                    transaction.committed = False
                transaction.ended = time.monotonic()
                with lock:
                    history.append(transaction)
        except BaseException as error:  # noqa: BLE001  the caller raises it
            failures.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    if failures:
        raise failures[0]
    return history
