"""What stayed between two versions of a conversation."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

COMPARABLE = 250_000
"""Pairs of messages that are compared at most to find what stayed in the middle of a conversation. Beyond, only what
is still at its place there counts as what stayed: comparing all would take seconds."""

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """Messages, one after the other, that are in both versions."""

    old: int
    """The place of the first in the old version."""
    new: int
    length: int


def find_runs(old: Sequence[Key], new: Sequence[Key], same: Callable[[int, int], bool]) -> list[Run]:
    """Return what is in both versions, in order: messages with equal keys that ``same`` finds alike in all else too."""
    runs: list[Run] = []
    for run in _equal(old, new):
        start = 0
        for i in range(run.length + 1):
            if i == run.length or not same(run.old + i, run.new + i):
                if i > start:
                    runs.append(Run(run.old + start, run.new + start, i - start))
                start = i + 1
    return runs


def gaps(runs: Sequence[Run], length: int, place: Callable[[Run], int]) -> Iterator[tuple[int, int]]:
    """Return the ranges of one version that are in no run, each from its first place to behind its last."""
    start = 0
    for run in runs:
        if place(run) > start:
            yield start, place(run)
        start = place(run) + run.length
    if length > start:
        yield start, length


def _equal(old: Sequence[Key], new: Sequence[Key]) -> Iterator[Run]:
    shorter = min(len(old), len(new))
    head = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    most = shorter - head
    tail = next((i for i in range(most) if old[-1 - i] != new[-1 - i]), most)
    if head:
        yield Run(0, 0, head)
    left, right = old[head : len(old) - tail], new[head : len(new) - tail]
    if len(left) * len(right) <= COMPARABLE:
        matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
        for block in matcher.get_matching_blocks():
            if block.size:
                yield Run(head + block.a, head + block.b, block.size)
    else:
        for i in range(min(len(left), len(right))):
            if left[i] == right[i]:
                yield Run(head + i, head + i, 1)
    if tail:
        yield Run(len(old) - tail, len(new) - tail, tail)
