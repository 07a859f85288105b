"""Keys that sort in the order in which they were made."""

from __future__ import annotations

import os
import threading
import time

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = tuple(a + b for a in _DIGITS for b in _DIGITS)
_RANDOM_END = 1 << 80


def new_ulid() -> str:
    """Return a new ULID: 26 characters of Crockford's base 32, ten of the millisecond and sixteen random.

    Within a process each is greater than the one before: in the same millisecond the random part grows by one, and a
    clock that goes back is not followed. A forked child draws a random part of its own.
    """
    with _lock:
        return _maker.make()


def new_ulids(count: int) -> list[str]:
    """Return so many new ULIDs, each greater than the one before, for half of what as many calls cost."""
    with _lock:
        make = _maker.make
        return [make() for _ in range(count)]


class _Maker:
    """The state from which keys are made; its caller holds the lock."""

    __slots__ = ("_millisecond", "_random", "_time_text")

    def __init__(self) -> None:
        self._start(0)

    def make(self) -> str:
        now = time.time_ns() // 1_000_000
        if now > self._millisecond:
            self._start(now)
        elif self._random + 1 == _RANDOM_END:
            self._start(self._millisecond + 1)
        else:
            self._random += 1
        n, pairs = self._random, _PAIRS
        return (
            f"{self._time_text}{pairs[n >> 70]}{pairs[n >> 60 & 1023]}{pairs[n >> 50 & 1023]}{pairs[n >> 40 & 1023]}"
            f"{pairs[n >> 30 & 1023]}{pairs[n >> 20 & 1023]}{pairs[n >> 10 & 1023]}{pairs[n & 1023]}"
        )

    def start_anew(self) -> None:
        """Leave the parent's numbers behind, and stay above them."""
        self._start(self._millisecond + 1)

    def _start(self, millisecond: int) -> None:
        self._millisecond = millisecond
        self._time_text = "".join(_PAIRS[millisecond >> shift & 1023] for shift in (40, 30, 20, 10, 0))
        self._random = int.from_bytes(os.urandom(10), "big")


_maker = _Maker()
_lock = threading.Lock()


def _after_fork() -> None:
    # Another thread may have held the lock when the process was forked; nobody would release it in the child.
    global _lock  # noqa: PLW0603  whoever makes a key uses the module's lock
    _lock = threading.Lock()
    _maker.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
