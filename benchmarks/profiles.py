"""Where the time of one operation of ours goes: the profile that an explanation of a limit needs."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import perf_counter, process_time

from benchmarks.measure import Contest, Contestant
from benchmarks.places import Place

BLOCK = 20
"""Operations of one contestant, before it is the next one's turn."""
SHOWN = 40
"""Functions."""


def profile(make: Callable[[Place], AbstractContextManager[Contest]], place: Place, seconds: float) -> None:
    """Print the own processor time of each contestant, and the functions in which our first one spends its own.

    All do the same, for it is counted afterwards. The times of the functions are larger than they are without the
    profiler; what the server does is in none of them.
    """
    profiler = cProfile.Profile()
    with make(place) as contest:
        ours, *_ = contest.contestants
        # The first half is not watched, so that it tells the time that an operation takes.
        needed = dict.fromkeys((each.name for each in contest.contestants), 0.0)
        for watched in (False, True):
            end = perf_counter() + seconds / 2
            done = 0
            while perf_counter() < end or done == 0:
                for each in contest.contestants:
                    taken = _run(each, profiler if watched and each is ours else None)
                    needed[each.name] += 0 if watched else taken
                contest.operations += BLOCK
                done += BLOCK
            if not watched:
                print(f"\n{contest.work}, {place.name}: own processor time of an operation")
                for name, total in needed.items():
                    print(f"  {name}: {total / done * 1e6:.0f} µs")
        print(f"\n{ours.name}, {done:,} operations under the profiler")
        pstats.Stats(profiler).sort_stats("tottime").print_stats(SHOWN)


def _run(contestant: Contestant, profiler: cProfile.Profile | None) -> float:
    if contestant.prepare is not None:
        contestant.prepare(BLOCK)
    started = process_time()
    if profiler is not None:
        profiler.enable()
    for _ in range(BLOCK):
        contestant.operate()
    if profiler is not None:
        profiler.disable()
    return process_time() - started
