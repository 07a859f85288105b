"""How well a document fits a search, on SQLite; on PostgreSQL the same is written in SQL.

BM25, tf * (k + 1) / (tf + k * (1 - b + b * length / mean)), with k = 1.25, b = 0.75 and a mean of 120 tokens. Both
databases hold these numbers exactly and add whole ones, so that nothing is left to rounding.
"""

from __future__ import annotations

import json
from functools import lru_cache

MOST_OCCURRENCES = 64
"""More of one token make no difference."""


def relevance(tokens: str, length: int, terms: str, prefixes: int) -> float:
    """Return the score of a document: its tokens, their number, the terms as JSON, and how many prefixes it has."""
    norm = 0.3125 + length * 0.0078125
    # Between two spaces of its own each token is found, though its neighbour be the same.
    padded = f" {tokens.replace(' ', '  ')} "
    score = prefixes * int(2359296.0 / (1.0 + norm))
    for term in _decode(terms):
        times = min(padded.count(term), MOST_OCCURRENCES)
        score += int(2359296.0 * times / (times + norm))
    return score / 1048576.0


@lru_cache(maxsize=64)
def _decode(terms: str) -> tuple[str, ...]:
    return tuple(f" {term} " for term in json.loads(terms))
