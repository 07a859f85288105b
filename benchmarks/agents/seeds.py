"""Databases that are full when the measuring begins."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

from benchmarks import rows
from benchmarks.agents import content
from benchmarks.agents.handwritten import AGENTS, CALLS, Core, add_many
from benchmarks.agents.raw_postgresql import RawPostgreSQL
from benchmarks.agents.raw_sqlite import RawSQLite
from benchmarks.conversations.content import SESSION
from benchmarks.conversations.seeds import with_sessions
from benchmarks.places import Place

Raw = RawSQLite | RawPostgreSQL
RAW_OF: dict[str, type[Raw]] = {"sqlite": RawSQLite, "postgresql": RawPostgreSQL}
"""By the backend."""

BATCH = 5_000


def with_agents(place: Place, number: int = 1) -> str:
    """Return the URL of a database with so many agents, who share a session."""
    url = with_sessions(place, SESSION)
    with contextlib.closing(Core.open(url)) as core:
        add_many(core, AGENTS, [_agent(content.agent(i)) for i in range(number)])
    place.settle(url)
    return url


def with_calls(place: Place) -> str:
    """Return the URL of a database with very many calls of many agents, of which some wait for approval."""
    url = with_agents(place, content.AGENTS)
    with contextlib.closing(Core.open(url)) as core:
        for start in range(0, content.CALLS, BATCH):
            add_many(core, CALLS, [_call(number) for number in range(start, start + BATCH)])
    place.settle(url)
    return url


def _agent(key: str) -> dict[str, Any]:
    at = rows.now()
    return {
        "agent_id": key,
        "role": content.ROLE,
        "goal": content.GOAL,
        "backstory": content.BACKSTORY,
        "state": "idle",
        "lineage": [],
        "session_id": SESSION,
        "config_version": "3",
        "last_sfp_index": 0,
        "last_bookmark": content.BOOKMARK,
        "stats": content.STATS,
        "metadata": rows.METADATA,
        "version": 1,
        "created_at": at,
        "updated_at": at,
    }


FIRST = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)


def _call(number: int) -> dict[str, Any]:
    created = FIRST + dt.timedelta(seconds=number)
    started = created + dt.timedelta(milliseconds=2)
    ended = started + dt.timedelta(milliseconds=content.DURATION)
    waits = number % content.EVERY == 0
    steps = [("approval_required", started)] if waits else [("executing", started), ("completed", ended)]
    return {
        "id": f"01CALL{number:020d}",
        "agent_id": content.caller(number),
        "session_id": SESSION,
        "tool_call_id": f"call_{number}",
        "ordinal": 0,
        "tool_name": content.TOOL,
        "state": steps[-1][0],
        "input": content.INPUT,
        "output": None if waits else content.OUTPUT,
        "has_output": not waits,
        "is_error": None if waits else False,
        "approval": content.ASKED if waits else None,
        "audit_trail": [content.entry(state, at) for state, at in (("pending", created), *steps)],
        "duration_ms": None if waits else content.DURATION,
        "started_at": None if waits else started,
        "completed_at": None if waits else ended,
        "created_at": created,
        "updated_at": steps[-1][1],
    }
