"""What an open database has done since it was opened: counters, latencies, and a line in the log for what was slow.

It keeps a fixed number of numbers, however long the database stays open. A call costs it about a microsecond.
"""

from __future__ import annotations

import logging
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from threading import get_ident
from time import perf_counter
from typing import TypeVar

from agentos_store.engine.session import Call
from agentos_store.errors import LockTimeoutError, StoreError, UnavailableError
from agentos_store.operation import Access

T = TypeVar("T")

log = logging.getLogger("agentos_store.slow")

LONG_WAIT = 0.1
"""Seconds; whoever waited longer for a lock is counted."""

NOTABLE = 0.001
"""Seconds; a shorter wait is not worth a word."""

MOST_NAMES = 1000
"""Operations that are told apart by name; a program that made up names would fill the memory."""

OTHER_NAMES = "(others)"

LINES, WINDOW = 30, 60.0
"""So many lines of slow operations are logged in so many seconds, at most."""

_STEPS = "1.0 1.1 1.25 1.4 1.6 1.8 2.0 2.2 2.5 2.8 3.2 3.6 4.0 4.5 5.0 5.6 6.3 7.1 8.0 9.0"

BOUNDS = (*(float(f"{step}e{power}") for power in range(-5, 3) for step in _STEPS.split()), 1000.0)
"""Upper bounds of the histogram in seconds: from 10 µs to 1000 s, each less than 15 % above the one before.

They are the preferred numbers of ISO 3, so that round ones are among them.
"""


class Kind(Enum):
    """What an operation is, as KODE SDK counts them."""

    SAVES = "saves"
    LOADS = "loads"
    QUERIES = "queries"
    DELETES = "deletes"
    OTHER = "other"


_LOADING = frozenset({"context", "exists", "find", "get", "history", "latest", "load"})
_DELETING = frozenset({"cleanup", "delete", "purge", "remove", "sweep"})


def kind_of(access: Access, name: str) -> Kind:
    """Return the kind of an operation: what a repository reads by a key is loaded, what it looks for is queried.

    What belongs to no repository, such as housekeeping and the ends of transactions, is something else.
    """
    repository, _, verb = name.partition(".")
    if not verb or repository == TRANSACTION:
        return Kind.OTHER
    first = verb.lstrip("_").partition("_")[0]
    if access.reads:
        return Kind.LOADS if first in _LOADING else Kind.QUERIES
    return Kind.DELETES if first in _DELETING else Kind.SAVES


TRANSACTION = "transaction"
BEGIN, COMMIT, ROLLBACK = (f"{TRANSACTION}.{step}" for step in ("begin", "commit", "rollback"))
"""What begins and ends explicit transactions; what is done inside counts under its own name."""

RUN = f"{TRANSACTION}.run"
"""What is run in a transaction again after a passing fault: only its further tries are counted."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long operations took, in seconds, waiting and further tries included."""

    count: int
    total: float
    min: float | None
    """None while there was none; so for the others."""
    max: float | None
    mean: float | None
    p95: float | None
    """Never below the true one, and less than 15 % above it."""
    buckets: Sequence[int]
    """How many took as long as each of ``BOUNDS`` at most and longer than the one before; then those beyond."""

    def within(self, bound: float) -> int:
        """Return how many took no longer than one of ``BOUNDS``."""
        return sum(self.buckets[: bisect_left(BOUNDS, bound) + 1])


@dataclass(frozen=True, slots=True)
class OperationCount:
    """How often one operation was called."""

    kind: Kind
    count: int
    errors: int
    """Calls that raised, be it only that a row does not exist."""
    faults: int
    """Calls that raised because the database could not do it, or something that is no StoreError."""
    retries: int
    """Further tries after passing faults."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a meter has counted, all at one moment."""

    operations: Mapping[str, OperationCount]
    latency: Mapping[Kind, Latency]
    overall: Latency
    lock_waits: int
    slow: int


class _Tally:
    """The latencies of one kind."""

    __slots__ = ("buckets", "max", "min", "total")

    def __init__(self) -> None:
        self.total = 0.0
        self.min = float("inf")
        self.max = 0.0
        self.buckets = [0] * (len(BOUNDS) + 1)

    def add(self, other: _Tally) -> None:
        self.total += other.total
        self.min = min(self.min, other.min)
        self.max = max(self.max, other.max)
        self.buckets = [mine + theirs for mine, theirs in zip(self.buckets, other.buckets, strict=True)]

    def latency(self) -> Latency:
        count = sum(self.buckets)
        if not count:
            return Latency(0, 0.0, None, None, None, None, tuple(self.buckets))
        p95 = self._percentile(count, 95)
        return Latency(count, self.total, self.min, self.max, self.total / count, p95, tuple(self.buckets))

    def _percentile(self, count: int, percent: int) -> float:
        rank = (count * percent + 99) // 100
        for bound, found in zip(BOUNDS, self.buckets, strict=False):
            rank -= found
            if rank <= 0:
                return min(bound, self.max)
        return self.max


class _Counter:
    """The counters of one operation."""

    __slots__ = ("count", "errors", "faults", "kind", "retries", "tally")

    def __init__(self, kind: Kind, tally: _Tally) -> None:
        self.kind = kind
        self.tally = tally
        self.count = self.errors = self.faults = self.retries = 0


_NO_CALL = Call()


class Meter:
    """Counts what one open database does, exactly, whichever threads do it."""

    def __init__(self, slow: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._slow = float("inf") if slow is None else slow
        self._clock = clock
        # Reentrant, for a handler of signals may call the store while this thread is inside.
        self._lock = threading.RLock()
        self._counters: dict[str, _Counter] = {}
        self._tallies = {kind: _Tally() for kind in Kind}
        self._lock_waits = 0
        self._slow_ones = 0
        self._longest_pool_wait = 0.0
        self._longest_queue_wait = 0.0
        self._window = 0.0
        self._lines = 0
        self._unlogged = 0
        self.borrowing: dict[int, float] = {}
        """Threads that are asking the pool for a connection at this moment, with the time when they began."""

    def record(
        self, access: Access, name: str, started: float, call: Call = _NO_CALL, error: BaseException | None = None
    ) -> None:
        """Count a call that began at ``started``, by ``perf_counter``, and has ended, with this error if it failed."""
        took = perf_counter() - started
        try:
            counter = self._counters[name]
        except KeyError:
            counter = self._add(access, name)
        tally = counter.tally
        place = bisect_left(BOUNDS, took)
        pool_wait, queue_wait = call.pool_wait, call.queue_wait
        with self._lock:
            counter.count += 1
            tally.total += took
            tally.buckets[place] += 1
            # A call of max or min takes three times as long.
            if took > tally.max:  # noqa: PLR1730
                tally.max = took
            if took < tally.min:  # noqa: PLR1730
                tally.min = took
            if pool_wait > self._longest_pool_wait:  # noqa: PLR1730
                self._longest_pool_wait = pool_wait
            if queue_wait > self._longest_queue_wait:  # noqa: PLR1730
                self._longest_queue_wait = queue_wait
            if queue_wait > LONG_WAIT:
                self._lock_waits += 1
            if error is not None or call.retries:
                self._note(counter, call, error)
        if took >= self._slow:
            self._tell(name, took, call, error)

    def _note(self, counter: _Counter, call: Call, error: BaseException | None) -> None:
        counter.retries += call.retries
        if error is None:
            return
        counter.errors += 1
        if isinstance(error, UnavailableError) or not isinstance(error, StoreError):
            counter.faults += 1
        # Whoever waited in our own queue has been counted.
        if isinstance(error, LockTimeoutError) and error.waited > LONG_WAIT and call.queue_wait <= LONG_WAIT:
            self._lock_waits += 1

    def longest_waits(self) -> tuple[float, float]:
        """Return the seconds of the longest waits for a connection and for a turn to write."""
        return self._longest_pool_wait, self._longest_queue_wait

    def borrow(self, connect: Callable[[], T], call: Call | None) -> T:
        """Ask a pool for a connection, and keep book of who waits and for how long."""
        thread, started = get_ident(), perf_counter()
        self.borrowing[thread] = started
        try:
            return connect()
        finally:
            self.borrowing.pop(thread, None)
            if call is not None:
                call.pool_wait += perf_counter() - started

    def retried(self, name: str) -> None:
        """Count a further try of work that is made of operations which are counted themselves."""
        counter = self._counters.get(name) or self._add(Access.WRITE, name)
        with self._lock:
            counter.retries += 1

    def figures(self) -> Figures:
        """Return what was counted until now."""
        overall = _Tally()
        with self._lock:
            for tally in self._tallies.values():
                overall.add(tally)
            return Figures(
                {
                    name: OperationCount(each.kind, each.count, each.errors, each.faults, each.retries)
                    for name, each in sorted(self._counters.items())
                },
                {kind: tally.latency() for kind, tally in self._tallies.items()},
                overall.latency(),
                self._lock_waits,
                self._slow_ones,
            )

    def _add(self, access: Access, name: str) -> _Counter:
        with self._lock:
            if len(self._counters) >= MOST_NAMES and name not in self._counters:
                name = OTHER_NAMES
            kind = kind_of(access, name)
            return self._counters.setdefault(name, _Counter(kind, self._tallies[kind]))

    def _tell(self, name: str, took: float, call: Call, error: BaseException | None) -> None:
        """Log a slow operation; the line has names and numbers, and nothing of any row."""
        with self._lock:
            self._slow_ones += 1
            now = self._clock()
            unlogged = 0
            if now >= self._window:
                self._window, self._lines = now + WINDOW, 0
                unlogged, self._unlogged = self._unlogged, 0
            if self._lines >= LINES:
                self._unlogged += 1
                return
            self._lines += 1
        facts = {
            "operation": name,
            "duration": took,
            "pool_wait": call.pool_wait,
            "queue_wait": call.queue_wait,
            "retries": call.retries,
            "error": None if error is None else type(error).__name__,
        }
        parts = [f"{call.pool_wait:.3f} s of it for a connection"] * (call.pool_wait >= NOTABLE)
        parts += [f"{call.queue_wait:.3f} s of it for its turn to write"] * (call.queue_wait >= NOTABLE)
        parts += [f"{call.retries} further tries"] * (call.retries > 0)
        parts += [f"it raised {type(error).__name__}"] * (error is not None)
        parts += [f"{unlogged:,} more were slow since the last lines"] * (unlogged > 0)
        log.warning("%s took %.3f s%s", name, took, f" ({'; '.join(parts)})" if parts else "", extra=facts)
