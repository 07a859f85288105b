"""Measuring: contestants take turns in small blocks, so that whatever slows the machine down slows all of them.

A round gives each contestant the same number of operations and takes the median of their times. Ratios are made within
a round; what is reported is the median over the rounds, with the least and the largest.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from time import perf_counter, perf_counter_ns

BLOCKS = 10
"""Turns of each contestant in a round."""


class NotHonestError(Exception):
    """The contestants did not do the same work, so their times may not be compared."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way of doing the work."""

    name: str
    operate: Callable[[], object]
    """Do it once."""


@dataclass(slots=True)
class Contest:
    """One piece of work and those who do it."""

    work: str
    backend: str
    contestants: Sequence[Contestant]
    baseline: str = "raw driver"
    """The contestant whose time is 1."""
    warm_up: int = 30
    """Operations of each contestant that are not measured; enough for prepared statements to settle."""
    least: int = BLOCKS
    """Operations of each contestant in a round, at least."""
    operations: int = 0
    """Operations that each contestant has done so far, the ones that were not measured included."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure of several rounds."""

    rounds: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The median."""
        return median(self.rounds)

    @property
    def least(self) -> float:
        """The least."""
        return min(self.rounds)

    @property
    def largest(self) -> float:
        """The largest."""
        return max(self.rounds)

    def over(self, other: Spread) -> Spread:
        """Return the ratio, made round by round."""
        return Spread(tuple(mine / theirs for mine, theirs in zip(self.rounds, other.rounds, strict=True)))


@dataclass(frozen=True, slots=True)
class Line:
    """What one contestant needed."""

    name: str
    seconds: Spread
    """The median operation of each round."""
    ratio: Spread
    """To the baseline."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of a contest."""

    work: str
    backend: str
    lines: tuple[Line, ...]
    operations: int
    """Measured operations of each contestant."""


@dataclass(slots=True)
class _Times:
    """What a contestant needed so far, in nanoseconds."""

    rounds: list[float] = field(default_factory=list)
    current: list[int] = field(default_factory=list)

    def end_round(self) -> None:
        """Keep the median of the round."""
        self.rounds.append(median(self.current) / 1e9)
        self.current.clear()


def hold(contest: Contest, *, rounds: int, seconds: float) -> Outcome:
    """Let the contestants compete; a round takes about so many seconds for all of them together."""
    size = _block_size(contest, seconds)
    times = {contestant.name: _Times() for contestant in contest.contestants}
    for _ in range(rounds):
        gc.collect()
        for turn in range(min(BLOCKS, contest.least)):
            for contestant in _rotated(contest.contestants, turn):
                _run_block(contestant.operate, size, times[contestant.name].current)
            contest.operations += size
        for each in times.values():
            each.end_round()
    spreads = {name: Spread(tuple(each.rounds)) for name, each in times.items()}
    lines = tuple(Line(name, spread, spread.over(spreads[contest.baseline])) for name, spread in spreads.items())
    return Outcome(contest.work, contest.backend, lines, size * min(BLOCKS, contest.least) * rounds)


def percentile(ordered: Sequence[float], part: float) -> float:
    """Return the value below which this part of the ordered values lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def _block_size(contest: Contest, seconds: float) -> int:
    """Warm up, and return how many operations of each contestant make a turn."""
    for contestant in contest.contestants:
        _run_block(contestant.operate, contest.warm_up, [])
    started = perf_counter()
    for contestant in contest.contestants:
        _run_block(contestant.operate, contest.warm_up, [])
    needed = (perf_counter() - started) / contest.warm_up
    contest.operations += 2 * contest.warm_up
    turns = min(BLOCKS, contest.least)
    return max(ceil(contest.least / turns), int(seconds / needed / turns))


def _run_block(operate: Callable[[], object], size: int, times: list[int]) -> None:
    clock, note = perf_counter_ns, times.append
    for _ in range(size):
        started = clock()
        operate()
        note(clock() - started)


def _rotated(contestants: Sequence[Contestant], turn: int) -> Iterator[Contestant]:
    """Yield the contestants in an order of which each turn has another one."""
    first = turn % len(contestants)
    yield from contestants[first:]
    yield from contestants[:first]
