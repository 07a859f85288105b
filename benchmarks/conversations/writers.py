"""Sixteen writers that append messages, each to a conversation of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.conversations.checks import verify
from benchmarks.conversations.ours import Ours
from benchmarks.conversations.seeds import RAW_OF, with_sessions
from benchmarks.places import Place
from benchmarks.works import OURS, RAW
from benchmarks.writers import WRITERS, Chore


def append_messages(place: Place) -> Chore:
    """Append messages."""
    ways = {OURS: Ours.open, RAW: RAW_OF[place.name].open}
    return Chore("append messages", "messages", ways, _begin, _prepare, _verify)


def _session(number: int) -> str:
    return f"01CONVERSATION{number:012d}"


def _prepare(place: Place) -> str:
    return with_sessions(place, *map(_session, range(WRITERS)))


def _begin(speaker: Any, number: int) -> Callable[[], object]:
    return partial(speaker.append, _session(number))


def _verify(name: str, url: str, expected: int) -> None:
    verify({name: url}, expected=expected, compared=0)
