"""What the tests of health share."""

from __future__ import annotations

import threading

from agentos_store.operations.health import Health

SOON = 0.1
"""Seconds."""


def asides() -> int:
    return sum(1 for each in threading.enumerate() if each.name == "agentos-store-aside")


def assert_told(found: Health, *words: str) -> None:
    assert not found.ok
    text = "; ".join(found.problems)
    for word in words:
        assert word in text, text
