"""The two tables as somebody would declare them for SQLAlchemy by hand."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import JSON, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from benchmarks.conversations.tables import NUMBER, OR_NULL
from benchmarks.tables import BINARY, Base


class Worker(Base):
    """An agent."""

    __tablename__ = "agents"

    agent_id: Mapped[str] = mapped_column(primary_key=True)
    template_id: Mapped[str | None]
    role: Mapped[str | None]
    goal: Mapped[str | None]
    backstory: Mapped[str | None]
    state: Mapped[str]
    lineage: Mapped[list[Any]] = mapped_column(BINARY)
    parent_id: Mapped[str | None]
    session_id: Mapped[str | None] = mapped_column(ForeignKey("sessions.id"))
    config_version: Mapped[str | None]
    last_sfp_index: Mapped[int] = mapped_column(NUMBER)
    last_bookmark: Mapped[dict[str, Any] | None] = mapped_column(OR_NULL)
    breakpoint: Mapped[str | None]
    last_task_id: Mapped[str | None]
    stats: Mapped[dict[str, Any]] = mapped_column(BINARY)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", BINARY)
    version: Mapped[int] = mapped_column(NUMBER)
    deleted_at: Mapped[dt.datetime | None]
    created_at: Mapped[dt.datetime]
    updated_at: Mapped[dt.datetime]


class Called(Base):
    """A call of a tool."""

    __tablename__ = "tool_call_records"

    id: Mapped[str] = mapped_column(primary_key=True)
    agent_id: Mapped[str | None] = mapped_column(ForeignKey("agents.agent_id"))
    session_id: Mapped[str | None] = mapped_column(ForeignKey("sessions.id"))
    tool_call_id: Mapped[str]
    ordinal: Mapped[int] = mapped_column(NUMBER)
    message_id: Mapped[str | None]
    tool_name: Mapped[str]
    state: Mapped[str]
    input: Mapped[Any] = mapped_column(JSON())
    output: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    has_output: Mapped[bool]
    is_error: Mapped[bool | None]
    error_message: Mapped[str | None]
    approval: Mapped[dict[str, Any] | None] = mapped_column(OR_NULL)
    audit_trail: Mapped[list[Any]] = mapped_column(BINARY)
    duration_ms: Mapped[float | None]
    started_at: Mapped[dt.datetime | None]
    completed_at: Mapped[dt.datetime | None]
    created_at: Mapped[dt.datetime]
    updated_at: Mapped[dt.datetime]
