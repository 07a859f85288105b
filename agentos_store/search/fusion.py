"""One ranking of several, whatever their scores mean: reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

K = 60
"""How little it matters to be first rather than second; the number of the paper that proposed the method."""


def fuse(rankings: Iterable[Sequence[str]]) -> list[tuple[str, float]]:
    """Return each key once with its score, the best first, ties by key.

    A key gets ``1 / (60 + rank)`` of each ranking that has it, the first rank being 1, and nothing of the others.
    """
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, key in enumerate(ranking, 1):
            scores[key] = scores.get(key, 0.0) + 1 / (K + rank)
    return sorted(scores.items(), key=lambda each: (-each[1], each[0]))
