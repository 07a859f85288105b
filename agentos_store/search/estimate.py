"""About how many tokens of a language model a text takes."""

from __future__ import annotations


def estimate_tokens(text: str) -> int:
    """Return the estimate: 4 ASCII characters, or one other, are one token."""
    ascii_characters = len(text.encode("ascii", "ignore"))
    return (ascii_characters + 3) // 4 + len(text) - ascii_characters
