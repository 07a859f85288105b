"""What the rows of an agent store of chapter 14 become; users and messages are as in ``importers.records``.

What has no field of its own stays in ``metadata`` (a user's: in ``preferences``) under ``"chapter14"``, or under
``"chapter14_1"`` and so on where that key is taken.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal

from agentos_store.importers.jsontext import JSON
from agentos_store.importers.problems import Repair


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A session."""

    id: str
    user_id: str | None
    title: str
    status: str
    model: str
    spent_tokens: int
    """Tokens beyond those of its messages, so that the total is the larger of both."""
    total_cost: Decimal
    metadata: dict[str, JSON] | None
    created_at: dt.datetime
    updated_at: dt.datetime
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task."""

    task_id: str
    session_id: str | None
    title: str
    task_type: str
    status: str
    priority: int
    payload: JSON
    result: JSON
    exit_reason: str | None
    """Never None for a failed task."""
    attempts: int
    max_attempts: int
    metadata: dict[str, JSON] | None
    created_at: dt.datetime
    updated_at: dt.datetime
    started_at: dt.datetime | None
    completed_at: dt.datetime | None
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolLogRecord:
    """A finished call of a tool."""

    id: str
    source_key: str
    session_id: str
    message_id: str | None
    ordinal: int
    tool_call_id: str
    tool_name: str
    input: JSON
    output: JSON
    has_output: bool
    is_error: bool | None
    error_message: str | None
    duration_ms: float | None
    created_at: dt.datetime
    repairs: tuple[Repair, ...] = ()
