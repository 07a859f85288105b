"""Sixteen writers at once on one SQLite file, each on the chain of a task of its own."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from time import perf_counter_ns
from typing import Any, Protocol

from agentos_store import Store
from benchmarks import rows
from benchmarks.measure import Spread, percentile
from benchmarks.ours import Ours
from benchmarks.places import Place, verify
from benchmarks.raw_sqlite import RawSQLite

WRITERS = 16
OURS = "agentos_store"
RAW = "raw driver"
PATIENCE = 60.0
"""Seconds that a writer is waited for after its time is over."""


class Recorder(Protocol):
    """Whoever can record an audit."""

    def record(self, task_id: str) -> None:
        """Record one."""

    def close(self) -> None:
        """End."""


OPEN: dict[str, Callable[[str], Recorder]] = {OURS: Ours.open, RAW: RawSQLite.open}


@dataclass(frozen=True, slots=True)
class Written:
    """What one writer did in a round."""

    times: list[int]
    """Nanoseconds of each record."""
    in_time: int
    """Records that were stored before the round was over; one that waited may be stored long after."""
    errors: int


@dataclass(frozen=True, slots=True)
class Line:
    """What the writers of one contestant did."""

    name: str
    rate: Spread
    """Records in a second."""
    ratio: Spread
    """Of the rate to the raw driver's."""
    middle: float
    """Seconds of a record: the median, the 99th percentile and the longest, of all rounds."""
    nearly_all: float
    longest: float
    errors: int


@dataclass(frozen=True, slots=True)
class Crowd:
    """What came out."""

    kind: str
    lines: tuple[Line, ...]


class Team(Protocol):
    """Sixteen writers of one kind."""

    def write(self, name: str, seconds: float) -> list[Written]:
        """Let all write for so long."""

    def close(self) -> None:
        """Close what they have open."""


def _write(recorder: Recorder, task_id: str, seconds: float) -> Written:
    times: list[int] = []
    in_time = errors = 0
    end = perf_counter_ns() + round(seconds * 1e9)
    while (before := perf_counter_ns()) < end:
        try:
            recorder.record(task_id)
        except Exception:  # noqa: BLE001  whatever it is, the record is not stored
            errors += 1
        else:
            after = perf_counter_ns()
            times.append(after - before)
            in_time += after < end
    return Written(times, in_time, errors)


class Threads:
    """Threads of this process; they share a store, and each has a raw connection of its own."""

    def __init__(self, urls: dict[str, str]) -> None:
        self._urls = urls
        self._store = Ours.open(urls[OURS])

    def write(self, name: str, seconds: float) -> list[Written]:
        """Start sixteen threads and wait for them."""
        barrier = threading.Barrier(WRITERS)
        written: list[Written] = []

        def run(number: int) -> None:
            # A connection of the driver belongs to the thread that opened it.
            recorder = self._store if name == OURS else OPEN[name](self._urls[name])
            barrier.wait()
            written.append(_write(recorder, _task(number), seconds))
            if recorder is not self._store:
                recorder.close()

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

    def __init__(self, urls: dict[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        barrier = context.Barrier(WRITERS)
        self._members: list[tuple[Any, Connection]] = []
        for number in range(WRITERS):
            ours, theirs = context.Pipe()
            member = context.Process(target=_serve, args=(number, urls, theirs, barrier), daemon=True)
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


def _serve(number: int, urls: dict[str, str], connection: Connection, barrier: Any) -> None:
    recorders = {name: OPEN[name](url) for name, url in urls.items()}
    connection.send("ready")
    while (order := connection.recv()) is not None:
        name, seconds = order
        barrier.wait()
        connection.send(_write(recorders[name], _task(number), seconds))
    for recorder in recorders.values():
        recorder.close()


TEAMS: dict[str, Callable[[dict[str, str]], Team]] = {"threads": Threads, "processes": Processes}


def crowd(place: Place, kind: str, *, rounds: int, seconds: float) -> Crowd:
    """Let sixteen writers of each contestant write in turns."""
    urls = {name: place.database() for name in OPEN}
    for url in urls.values():
        with Store.open(url) as store:
            for number in range(WRITERS):
                store.tasks.create(task_id=_task(number), title=rows.TITLE)
    done: dict[str, list[list[Written]]] = {name: [] for name in OPEN}
    warm_up: dict[str, list[Written]] = {}
    with contextlib.closing(TEAMS[kind](urls)) as team:
        for name in OPEN:
            warm_up[name] = team.write(name, seconds / 5)
        for number in range(rounds):
            for name in _turned(list(OPEN), number):
                done[name].append(team.write(name, seconds))
    for name, url in urls.items():
        records = sum(len(each.times) for each in itertools.chain(warm_up[name], *done[name]))
        verify({name: url}, expected=records)
    rates = {
        name: Spread(tuple(sum(writer.in_time for writer in team) / seconds for team in many))
        for name, many in done.items()
    }
    lines = tuple(_line(name, rates[name], rates[RAW], done[name]) for name in OPEN)
    return Crowd(f"{WRITERS} {kind}", lines)


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
