"""Texts that are searched."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

ENGLISH = 50_000
CHINESE = 10_000
LIMIT = 10

WORDS = "w60 w90"
"""Two words that many texts hold, and some together."""
WEATHER = "天气"
HITS = CHINESE // 10
"""Chinese texts that speak of the weather."""

VECTORS = 10_000
DIMENSIONS = 384
SOURCES = 100
"""Of the texts that have vectors."""
MODEL = "model"

_VOCABULARY = 5_000
_WORDS_OF_A_TEXT = 40
_FIRST, _COMMON = 0x4E00, 600


def english() -> Iterator[str]:
    """Yield texts whose words are as frequent as those of a language: the n-th 1/n as often as the first."""
    draw = random.Random(1)
    words = [f"w{number}" for number in range(1, _VOCABULARY + 1)]
    weights = list(itertools.accumulate(1 / number for number in range(1, _VOCABULARY + 1)))
    for number in range(ENGLISH):
        chosen = draw.choices(words, cum_weights=weights, k=_WORDS_OF_A_TEXT)
        # No two are alike, for the same content would be one item.
        yield f"{' '.join(chosen)} n{number}"


def chinese() -> Iterator[str]:
    """Yield texts of common characters; every tenth speaks of the weather."""
    draw = random.Random(2)
    characters = [chr(_FIRST + number) for number in range(_COMMON)]
    for number in range(CHINESE):
        text = "".join(draw.choices(characters, k=_WORDS_OF_A_TEXT))
        place = draw.randrange(_WORDS_OF_A_TEXT)
        yield f"{text[:place]}{WEATHER}{text[place:]}{number}" if number % 10 == 0 else f"{text}{number}"


def vectors() -> Any:
    """Return a vector for each text, as a matrix, and one behind them whose neighbours are looked for."""
    return np.random.default_rng(3).normal(size=(VECTORS + 1, DIMENSIONS)).astype("<f4")


def bigrams(text: str) -> str:
    """Return the tokens of a text of Chinese characters and digits, as anybody would make them for a search engine."""
    letters = text.rstrip("0123456789")
    pairs = [letters[at : at + 2] for at in range(len(letters) - 1)]
    return " ".join([*pairs, text[len(letters) :]])
