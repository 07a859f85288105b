"""Sixteen writers at once on one database, each at a chain or a conversation of its own."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from time import perf_counter_ns
from typing import Any, Protocol

from agentos_store import Store
from benchmarks import rows
from benchmarks.measure import Spread, percentile
from benchmarks.ours import Ours
from benchmarks.places import RAW_OF, Place, verify

WRITERS = 16
OURS = "agentos_store"
RAW = "raw driver"
PATIENCE = 60.0
"""Seconds that a writer is waited for after its time is over."""


class Writer(Protocol):
    """Whoever has a database open."""

    def close(self) -> None:
        """End."""


@dataclass(frozen=True, slots=True)
class Chore:
    """What each of the writers does over and over; processes are sent it, so its functions belong to modules."""

    what: str
    unit: str
    open: Mapping[str, Callable[[str], Any]]
    """By the contestant."""
    begin: Callable[[Any, int], Callable[[], object]]
    """Return what the writer with this number does, given what it has open."""
    prepare: Callable[[Place], str]
    """Return the URL of a database that is ready for the writers."""
    verify: Callable[[str, str, int], None]
    """See that this contestant has written so often, at this URL."""


@dataclass(frozen=True, slots=True)
class Written:
    """What one writer did in a round."""

    times: list[int]
    """Nanoseconds of each operation."""
    in_time: int
    """Operations that were stored before the round was over; one that waited may be stored long after."""
    errors: int


@dataclass(frozen=True, slots=True)
class Line:
    """What the writers of one contestant did."""

    name: str
    rate: Spread
    """Operations in a second."""
    ratio: Spread
    """Of the rate to the raw driver's."""
    middle: float
    """Seconds of an operation: the median, the 99th percentile and the longest, of all rounds."""
    nearly_all: float
    longest: float
    errors: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """What came out."""

    kind: str
    what: str
    unit: str
    backend: str
    lines: tuple[Line, ...]


class Team(Protocol):
    """Sixteen writers of one kind."""

    def write(self, name: str, seconds: float) -> list[Written]:
        """Let all write for so long."""

    def close(self) -> None:
        """Close what they have open."""


def _write(operate: Callable[[], object], seconds: float) -> Written:
    end = perf_counter_ns() + round(seconds * 1e9)
    return write_until(operate, lambda: perf_counter_ns() >= end)


def write_until(operate: Callable[[], object], is_over: Callable[[], bool]) -> Written:
    """Operate over and over, and keep the times."""
    times: list[int] = []
    in_time = errors = 0
    while not is_over():
        before = perf_counter_ns()
        try:
            operate()
        except Exception:  # noqa: BLE001  whatever it is, nothing is stored
            errors += 1
        else:
            times.append(perf_counter_ns() - before)
            in_time += not is_over()
    return Written(times, in_time, errors)


class Threads:
    """Threads of this process; they share a store, and each has a raw connection of its own."""

    def __init__(self, chore: Chore, urls: dict[str, str]) -> None:
        self._chore = chore
        self._urls = urls
        self._store = chore.open[OURS](urls[OURS])

    def write(self, name: str, seconds: float) -> list[Written]:
        """Start sixteen threads and wait for them."""
        barrier = threading.Barrier(WRITERS)
        written: list[Written] = []

        def run(number: int) -> None:
            # A connection of the driver belongs to the thread that opened it.
            writer = self._store if name == OURS else self._chore.open[name](self._urls[name])
            operate = self._chore.begin(writer, number)
            barrier.wait()
            written.append(_write(operate, seconds))
            if writer is not self._store:
                writer.close()

        threads = [threading.Thread(target=run, args=(number,)) for number in range(WRITERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return written

    def close(self) -> None:
        """Close the store."""
        self._store.close()


class Processes:
    """Processes that are started once; each opens both contestants."""

    def __init__(self, chore: Chore, urls: dict[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(WRITERS)
        self._members: list[tuple[Any, Connection]] = []
        for number in range(WRITERS):
            ours, theirs = context.Pipe()
            member = context.Process(target=_serve, args=(number, chore, urls, theirs, barrier), daemon=True)
            member.start()
            theirs.close()
            self._members.append((member, ours))
        for _, connection in self._members:
            connection.recv()

    def write(self, name: str, seconds: float) -> list[Written]:
        """Tell all to begin and collect what they did."""
        for _, connection in self._members:
            connection.send((name, seconds))
        return [self._receive(connection, seconds) for _, connection in self._members]

    def _receive(self, connection: Connection, seconds: float) -> Written:
        if not connection.poll(seconds + PATIENCE):
            raise TimeoutError("a writer does not come to its end")
        written: Written = connection.recv()
        return written

    def close(self) -> None:
        """Let them end."""
        for member, connection in self._members:
            connection.send(None)
            member.join(PATIENCE)


def _serve(number: int, chore: Chore, urls: dict[str, str], connection: Connection, barrier: Any) -> None:
    writers: dict[str, Writer] = {name: chore.open[name](url) for name, url in urls.items()}
    operations = {name: chore.begin(writer, number) for name, writer in writers.items()}
    connection.send("ready")
    while (order := connection.recv()) is not None:
        name, seconds = order
        barrier.wait()
        connection.send(_write(operations[name], seconds))
    for writer in writers.values():
        writer.close()


TEAMS: dict[str, Callable[[Chore, dict[str, str]], Team]] = {"threads": Threads, "processes": Processes}


def crowd(place: Place, chore: Chore, kind: str, *, rounds: int, seconds: float) -> Crowd:
    """Let sixteen writers of each contestant write in turns."""
    urls = {name: chore.prepare(place) for name in chore.open}
    done: dict[str, list[list[Written]]] = {name: [] for name in urls}
    warm_up: dict[str, list[Written]] = {}
    with contextlib.closing(TEAMS[kind](chore, urls)) as team:
        for name in urls:
            warm_up[name] = team.write(name, seconds / 5)
        for number in range(rounds):
            for name in _turned(list(urls), number):
                done[name].append(team.write(name, seconds))
    for name, url in urls.items():
        chore.verify(name, url, sum(len(each.times) for each in itertools.chain(warm_up[name], *done[name])))
    rates = {
        name: Spread(tuple(sum(writer.in_time for writer in team) / seconds for team in many))
        for name, many in done.items()
    }
    lines = tuple(_line(name, rates[name], rates[RAW], done[name]) for name in urls)
    return Crowd(f"{WRITERS} {kind}", chore.what, chore.unit, place.name, lines)


def _line(name: str, rate: Spread, baseline: Spread, done: Sequence[Sequence[Written]]) -> Line:
    everyone = [written for team in done for written in team]
    times = sorted(time / 1e9 for written in everyone for time in written.times)
    return Line(
        name=name,
        rate=rate,
        ratio=rate.over(baseline),
        middle=percentile(times, 0.5),
        nearly_all=percentile(times, 0.99),
        longest=times[-1],
        errors=sum(written.errors for written in everyone),
    )


def _turned(names: list[str], number: int) -> Iterator[str]:
    yield from names if number % 2 == 0 else reversed(names)


def _task(number: int) -> str:
    return f"01WRITER{number:018d}"


def _prepare_tasks(place: Place) -> str:
    url = place.database()
    with Store.open(url) as store:
        for number in range(WRITERS):
            store.tasks.create(task_id=_task(number), title=rows.TITLE)
    return url


def _begin_recording(recorder: Any, number: int) -> Callable[[], object]:
    return partial(recorder.record, _task(number))


def _verify_audits(name: str, url: str, expected: int) -> None:
    verify({name: url}, expected=expected)


def record_audits(place: Place) -> Chore:
    """Record audits, each at the chain of a task of its own."""
    ways = {OURS: Ours.open, RAW: RAW_OF[place.name].open}
    return Chore("record audits", "records", ways, _begin_recording, _prepare_tasks, _verify_audits)
