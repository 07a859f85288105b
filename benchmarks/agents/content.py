"""Which agents there are, and what every contestant writes about them and about their calls."""

from __future__ import annotations

import datetime as dt
from typing import Any

from benchmarks import rows


def agent(number: int) -> str:
    """Return the key of an agent."""
    return f"01AGENT{number:019d}"


AGENT = agent(0)
"""The agent that works and is saved, in every database."""
AGENTS = 200
"""Agents where many calls are."""
ROLE = "reviewer"
GOAL = "Keep the parser right; 解析器必须正确。"
BACKSTORY = "You know the grammar by heart and trust nobody's tests but your own. " * 5
STATS: dict[str, Any] = {"turns": 12, "tools": {"shell": 31, "edit": 4}}
BOOKMARK: dict[str, Any] = {"seq": 41, "timestamp": 1_795_000_000_000}

TOOL = "shell"
INPUT: dict[str, Any] = {"command": ["make", "test"], "directory": "/srv/parser", "wait": 12.5}
OUTPUT: dict[str, Any] = {"exit_code": 1, "text": "1 failed, 41 passed: 解析器 " + "." * 200}
DURATION = 12.5
"""Milliseconds that a call took which is recorded at its end."""
ASKED: dict[str, Any] = {"required": True}

CALLS = 100_000
EVERY = 100
"""One of so many calls waits for approval."""
WAITING = CALLS // EVERY
PAGE = 100


def state(number: int) -> str:
    """Return the state that the saving of this number gives."""
    return "busy" if number % 2 else "idle"


def entry(state: str, at: dt.datetime) -> dict[str, Any]:
    """Return an entry of the audit trail."""
    return {"state": state, "at": rows.written(at)}


def caller(number: int) -> str:
    """Return the agent that makes the call of this number: those that wait are spread over all agents, too."""
    return agent((number * 7 + number // EVERY) % AGENTS)
