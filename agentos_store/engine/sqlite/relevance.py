"""How well a document fits a search, on SQLite; on PostgreSQL the same is written in SQL.

BM25, (k + 1) * tf / (tf + k * (1 - b + b * length / mean)), with k = 1.25, b = 0.75 and a mean of 120 tokens. Both
databases hold these numbers exactly, compute in the same order and add whole ones, so that nothing is left to rounding.
"""

from __future__ import annotations

import json
from functools import lru_cache

MOST_OCCURRENCES = 64
"""More of one token make no difference."""


def relevance(tokens: bytes, length: int, asked: str) -> float:
    """Return the score of a document of these tokens, a space between two, and their number.

    ``asked`` is a JSON array: how many prefixes were asked for, and the texts to count. A token stands between two
    spaces there, but for one that is in no other token. Bytes are handed over faster than text, and as soon searched.
    """
    prefixes, texts = _decode(asked)
    norm = 0.3125 + length * 0.0078125
    score = prefixes and prefixes * int(2359296.0 * (1.0 - norm / (1.0 + norm)))
    padded = b" %b " % tokens
    for text in texts:
        times = _count_apart(padded, text) if text[0] == _SPACE else min(padded.count(text), MOST_OCCURRENCES)
        score += int(2359296.0 * (1.0 - norm / (times + norm)))
    return score / 1048576.0


_SPACE = ord(" ")


def _count_apart(padded: bytes, text: bytes) -> int:
    """Count a token with the spaces around it, each of which may be its neighbour's too, and that be the same."""
    step = len(text) - 1
    times = 0
    at = padded.find(text)
    while at >= 0 and times < MOST_OCCURRENCES:
        times += 1
        at = padded.find(text, at + step)
    return times


@lru_cache(maxsize=64)
def _decode(asked: str) -> tuple[int, list[bytes]]:
    prefixes, *texts = json.loads(asked)
    return prefixes, [text.encode() for text in texts]
