"""Measuring: contestants take turns in small blocks, so that whatever slows the machine down slows all of them.

A round gives each contestant the same number of operations and takes the median of their times. Ratios are made within
a round; what is reported is the median over the rounds, with the least and the largest. Where a disk is slow, waiting
for it hides everything else, so the processor time of this process is measured as well.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median
from time import perf_counter, perf_counter_ns, process_time_ns

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
    prepare: Callable[[int], object] | None = None
    """Make ready for so many operations; it is not measured."""
    beside: str | None = None
    """The contestant whose time is 1 for this one, where that is not the contest's baseline."""


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
    own_cpu: bool = True
    """Whether the work is done in this process, so that its processor time tells something."""
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
    cpu: Spread
    """Seconds of the processor for an operation, on average in each round, in this process alone."""
    cpu_ratio: Spread
    """To the baseline."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out of a contest."""

    work: str
    backend: str
    baseline: str
    lines: tuple[Line, ...]
    operations: int
    """Measured operations of each contestant."""
    own_cpu: bool


class _Times:
    """What a contestant needed so far, in nanoseconds."""

    def __init__(self) -> None:
        self.medians: list[float] = []
        self.cpu_means: list[float] = []
        self._operations: list[int] = []
        self._cpu = 0

    def run_block(self, contestant: Contestant, size: int) -> None:
        """Operate so often."""
        if contestant.prepare is not None:
            contestant.prepare(size)
        operate = contestant.operate
        clock, note = perf_counter_ns, self._operations.append
        cpu = process_time_ns()
        for _ in range(size):
            started = clock()
            operate()
            note(clock() - started)
        self._cpu += process_time_ns() - cpu

    def end_round(self) -> None:
        """Keep what the round comes to."""
        self.medians.append(median(self._operations) / 1e9)
        self.cpu_means.append(self._cpu / len(self._operations) / 1e9)
        self._operations.clear()
        self._cpu = 0


def hold(contest: Contest, *, rounds: int, seconds: float) -> Outcome:
    """Let the contestants compete; a round takes about so many seconds for all of them together."""
    turns = min(BLOCKS, contest.least)
    size = _block_size(contest, seconds, turns)
    times = {contestant.name: _Times() for contestant in contest.contestants}
    # Not in turn: who always comes after the same one has what that one left in the processor's caches.
    chance = random.Random(0)
    for _ in range(rounds):
        gc.collect()
        for _ in range(turns):
            for contestant in chance.sample(contest.contestants, len(contest.contestants)):
                times[contestant.name].run_block(contestant, size)
            contest.operations += size
        for each in times.values():
            each.end_round()
    lines = tuple(
        _line(each.name, times[each.name], times[each.beside or contest.baseline]) for each in contest.contestants
    )
    return Outcome(
        contest.work, contest.backend, contest.baseline, lines, size * turns * rounds, own_cpu=contest.own_cpu
    )


def _line(name: str, times: _Times, base: _Times) -> Line:
    seconds, cpu = Spread(tuple(times.medians)), Spread(tuple(times.cpu_means))
    ratio, cpu_ratio = seconds.over(Spread(tuple(base.medians))), cpu.over(Spread(tuple(base.cpu_means)))
    return Line(name, seconds, ratio, cpu, cpu_ratio)


def percentile(ordered: Sequence[float], part: float) -> float:
    """Return the value below which this part of the ordered values lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def _block_size(contest: Contest, seconds: float, turns: int) -> int:
    """Warm up, and return how many operations of each contestant make a turn."""
    for contestant in contest.contestants:
        _Times().run_block(contestant, contest.warm_up)
    started = perf_counter()
    for contestant in contest.contestants:
        _Times().run_block(contestant, contest.warm_up)
    needed = (perf_counter() - started) / contest.warm_up
    contest.operations += 2 * contest.warm_up
    return max(ceil(contest.least / turns), int(seconds / needed / turns))
