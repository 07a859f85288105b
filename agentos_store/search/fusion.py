"""One ranking of several, whatever their scores mean: reciprocal rank fusion."""

from __future__ import annotations

from collections.abc import Sequence

K = 60
"""How little it matters to be first rather than second; the number of the paper that proposed the method."""


def fuse(rankings: Sequence[Sequence[str]], count: int) -> list[tuple[str, float]]:
    """Return so many keys, each once, with their scores, the best first, ties by key.

    A key gets ``1 / (60 + rank)`` of each ranking that has it, the first rank being 1, and nothing of the others.
    """
    # What one ranking alone has, behind so many others, is behind them in the end.
    possible = {key for ranking in rankings for key in ranking[:count]}
    seen: set[str] = set()
    for ranking in rankings:
        possible.update(seen.intersection(ranking))
        seen.update(ranking)
    scores = dict.fromkeys(possible, 0.0)
    for ranking in rankings:
        for rank, key in enumerate(ranking, 1):
            if key in possible:
                scores[key] += 1 / (K + rank)
    return sorted(scores.items(), key=lambda each: (-each[1], each[0]))[:count]
