"""How the texts of a document become tokens in parts that both databases' indexes hold."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agentos_store.search.query import LONGEST_PHRASE
from agentos_store.search.tokenizer import BREAK, VERSION, terms

OVERLAP = LONGEST_PHRASE - 1
"""Tokens that a part shares with the one before, so that a phrase across the border is whole in one of them."""

# A tsvector holds places up to 16,383, at most 255 of one lexeme, and lexemes with their places up to 1 MB.
MOST_TOKENS = 12_000
MOST_OF_ONE = 255
MOST_BYTES = 400_000


@dataclass(frozen=True, slots=True)
class Indexed:
    """A document as it is indexed."""

    key: str
    text_hash: str
    length: int
    """How many tokens it has."""
    parts: Sequence[str]
    """The tokens of each part, one at least."""


def indexed(key: str, texts: Sequence[str]) -> Indexed:
    """Return a document as it is indexed."""
    tokens: list[str] = []
    for text in texts:
        found = terms(text)
        if found:
            if tokens:
                tokens.append(BREAK)
            tokens += found
    return Indexed(key, text_hash(texts), len(tokens), split(tokens))


def text_hash(texts: Sequence[str]) -> str:
    """Return the hash by which it is seen that a document's texts have changed."""
    digest = hashlib.sha256(f"{VERSION}".encode())
    for text in texts:
        # No text is another's beginning then, and what no encoding has goes in too.
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return digest.hexdigest()


def split(tokens: Sequence[str]) -> list[str]:
    """Cut the tokens into overlapping parts, each as a text with a space between two tokens."""
    if len(tokens) <= MOST_OF_ONE:
        # Its words are not long, so no limit is near.
        return [" ".join(tokens)]
    parts: list[str] = []
    start = 0
    while True:
        end = _end_of_part(tokens, start)
        parts.append(" ".join(tokens[start:end]))
        if end == len(tokens):
            return parts
        start = end - OVERLAP


def _end_of_part(tokens: Sequence[str], start: int) -> int:
    count: Counter[str] = Counter()
    size = 0
    for at in range(start, min(start + MOST_TOKENS, len(tokens))):
        token = tokens[at]
        count[token] += 1
        size += len(token.encode()) + 8
        if count[token] > MOST_OF_ONE or size > MOST_BYTES:
            return at
    return min(start + MOST_TOKENS, len(tokens))
