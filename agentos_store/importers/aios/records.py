"""What the rows of AIOS become.

What has no field of its own stays in ``metadata`` under ``"aios"``, or under ``"aios_1"`` and so on where that key is
taken. What is exact (a context's data, a task's result, an event's data) is as it was found.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from agentos_store.importers.jsontext import JSON
from agentos_store.importers.problems import Repair


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """An agent."""

    agent_id: str
    role: str | None
    goal: str | None
    backstory: str | None
    state: str
    last_task_id: str | None
    """Of a task that the file need not have."""
    stats: dict[str, JSON]
    metadata: dict[str, JSON] | None
    created_at: dt.datetime
    updated_at: dt.datetime
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A session; AIOS has no table of them, so they are those that contexts name."""

    id: str
    created_at: dt.datetime
    """The time of the first context that names it."""
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task."""

    task_id: str
    agent_id: str | None
    title: str
    task_type: str
    status: str
    priority: int
    result: JSON
    error_message: str | None
    exit_reason: str | None
    """Never None for a failed task."""
    attempts: int
    metadata: dict[str, JSON] | None
    created_at: dt.datetime
    updated_at: dt.datetime
    started_at: dt.datetime | None
    completed_at: dt.datetime | None
    duration: float | None
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextRecord:
    """A context."""

    context_id: str
    agent_id: str | None
    session_id: str | None
    context_data: JSON
    created_at: dt.datetime
    expires_at: dt.datetime | None
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """An event, from the table or from a line of the log."""

    table: str
    """Where it stands in the source."""
    source_key: str
    """What the report calls it."""
    event_id: str
    """A line of the log has none: it is made of what tells the line from all others."""
    event_type: str
    agent_id: str | None
    task_id: str | None
    severity: str
    data: JSON
    created_at: dt.datetime
    repairs: tuple[Repair, ...] = ()
