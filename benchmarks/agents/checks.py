"""Whether the contestants have done the same: calls are counted, have ended once and are alike, and so is the agent."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from benchmarks.agents import content
from benchmarks.agents.handwritten import AGENTS, CALLS, Core, in_utc
from benchmarks.conversations.checks import expect_equal
from benchmarks.measure import NotHonestError

OF_THE_ROW = frozenset({"id", "created_at", "updated_at", "started_at", "completed_at", "duration_ms", "audit_trail"})
"""Columns in which no two rows are alike."""
A_MICROSECOND = 1e-3
"""In milliseconds."""


def verify_calls(urls: Mapping[str, str], *, expected: int, steps: Sequence[str]) -> None:
    """See that each contestant has so many calls, that each took these steps, and that they are those of the others."""
    found = {}
    for name, url in urls.items():
        with contextlib.closing(Core.open(url)) as core, core.engine.connect() as connection:
            calls = connection.execute(select(CALLS).order_by(CALLS.c.tool_call_id)).all()
        if len(calls) != expected:
            raise NotHonestError(f"{name} has recorded {len(calls)} calls, not {expected}")
        for call in calls:
            _check(name, call, steps)
        columns = [column.name for column in CALLS.c if column.name not in OF_THE_ROW]
        found[name] = [[getattr(call, column) for column in columns] for call in calls]
    expect_equal("the calls", found)


def _check(name: str, call: Any, steps: Sequence[str]) -> None:
    """See that the call has ended, that its trail tells how, and that it took the time that its ends are apart."""
    last = content.entry("completed", in_utc(call.completed_at))
    if [entry["state"] for entry in call.audit_trail] != list(steps) or call.audit_trail[-1] != last:
        raise NotHonestError(f"{name}: the trail of {call.tool_call_id} is {call.audit_trail}")
    if call.state != "completed" or call.updated_at != call.completed_at:
        raise NotHonestError(f"{name}: {call.tool_call_id} has not ended")
    apart = content.DURATION
    if call.started_at is not None:
        apart = (call.completed_at - call.started_at) / dt.timedelta(milliseconds=1)
    if abs(call.duration_ms - apart) > A_MICROSECOND:
        raise NotHonestError(f"{name}: {call.tool_call_id} took {apart} ms, not {call.duration_ms}")


def verify_agent(urls: Mapping[str, str], *, saved: int) -> None:
    """See that the agent was saved so often, and is the same whoever saved it."""
    found = {}
    for name, url in urls.items():
        with contextlib.closing(Core.open(url)) as core, core.engine.connect() as connection:
            (agent,) = connection.execute(select(AGENTS)).all()
        told = agent.version, agent.last_sfp_index, agent.state
        if told != (1 + saved, saved, content.state(saved)):
            raise NotHonestError(f"{name} has left the agent at version, safe fork point and state {told}")
        found[name] = [getattr(agent, c.name) for c in AGENTS.c if c.name not in ("created_at", "updated_at")]
    expect_equal("the agent", found)
