"""What the events of the benchmarks say."""

from __future__ import annotations

import datetime as dt
from typing import Any

AGENT = "coder_7"
TYPE = "tool_executed"
DATA = {"task_id": "task_1", "description": "Refactor the parser", "seconds": 12.5, "summary": "全部通过"}

MANY = 10_000
"""Events that are logged at once."""

STORED = 200_000
AGENTS = 50
TYPES = 10
FIRST = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
SINCE = FIRST + dt.timedelta(seconds=STORED // 2)

FOUND = 100
"""Events that are asked for."""

PAGE = 50
DEEP_PAGE = 1_000


def many() -> list[dict[str, Any]]:
    """Return events to be logged at once."""
    return [
        {"event_type": f"type_{n % TYPES}", "agent_id": f"coder_{n % AGENTS}", "data": {**DATA, "n": n}}
        for n in range(MANY)
    ]


def stored(start: int, end: int) -> list[dict[str, Any]]:
    """Return events of a database that is full when the measuring begins."""
    return [
        {
            "event_type": f"type_{n // AGENTS % TYPES}",
            "agent_id": f"coder_{n % AGENTS}",
            "data": {**DATA, "n": n},
            "created_at": FIRST + dt.timedelta(seconds=n),
        }
        for n in range(start, end)
    ]
