"""The life of a task: which status may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

TRANSITIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "created": ("pending", "running", "cancelled"),
        "pending": ("running", "paused", "blocked", "cancelled"),
        # Back to pending when its lease lapsed, or for another try.
        "running": ("completed", "failed", "paused", "blocked", "cancelled", "pending"),
        "paused": ("pending", "running", "cancelled"),
        "blocked": ("pending", "cancelled"),
        "failed": ("pending",),
        "completed": (),
        "cancelled": (),
    }
)
"""By status, the statuses that may follow."""

STATUSES = tuple(TRANSITIONS)
ENDED = ("completed", "failed", "cancelled")


def sources(target: str) -> tuple[str, ...]:
    """Return the statuses from which the target can be reached in one step."""
    return tuple(status for status, following in TRANSITIONS.items() if target in following)
