"""What identifiers that begin alike have in common: they lie together in the order of code points."""

from __future__ import annotations

LAST = 0x10FFFF
"""The last code point."""


def behind(prefix: str) -> str | None:
    """Return the first text behind all that begin with the prefix; None when nothing comes behind them."""
    kept = prefix.rstrip(chr(LAST))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    # Surrogates are no characters, and no text holds one.
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)
