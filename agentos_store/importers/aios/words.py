"""AIOS's words for states and urgency, as the store has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

AGENT_STATES: Final = frozenset({"idle", "busy", "failed", "archived"})

TASK_STATUSES: Final[Mapping[str, str]] = {
    # No worker picks up old work by surprise.
    "pending": "paused",
    "running": "paused",
    "paused": "paused",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
"""How tasks arrive."""

PRIORITIES: Final[Mapping[str, int]] = {"low": -10, "normal": 0, "high": 10, "critical": 20}
