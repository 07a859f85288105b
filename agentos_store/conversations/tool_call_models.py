"""Tool calls."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base, Timestamps
from agentos_store.types import (
    Boolean,
    Choice,
    ErrorText,
    ExactJSON,
    Float64,
    Identifier,
    Int64,
    JSONValue,
    Text,
    UTCDateTime,
)

TOOL_CALL_STATE = Choice(
    "pending", "approval_required", "approved", "executing", "completed", "failed", "denied", "sealed"
)


class ToolCallRecord(Timestamps, Base):
    """One call of a tool: what was asked, who allowed it, and what came of it."""

    __tablename__ = "tool_call_records"
    entity: ClassVar[str] = "tool call"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    agent_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("agents.agent_id", ondelete="CASCADE"))
    session_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("sessions.id", ondelete="CASCADE"))
    tool_call_id: Mapped[str] = mapped_column(Text(min_length=1, max_length=255))
    """The model's name for the call: unique within its agent, or within its session where there is no agent."""
    ordinal: Mapped[int] = mapped_column(Int64())
    """Its place among the calls of its message."""
    message_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("messages.id", ondelete="SET NULL"))
    """The message that made the call."""
    tool_name: Mapped[str] = mapped_column(Text(min_length=1, max_length=255))
    state: Mapped[str] = mapped_column(TOOL_CALL_STATE)
    input: Mapped[Any] = mapped_column(ExactJSON(none_as_null=False))
    output: Mapped[Any | None] = mapped_column(ExactJSON(), nullable=True)
    """What the tool returned; None too while ``has_output`` is false."""
    has_output: Mapped[bool] = mapped_column(Boolean())
    """Whether the tool returned something, be it None."""
    is_error: Mapped[bool | None] = mapped_column(Boolean())
    """NULL where nobody said."""
    error_message: Mapped[str | None] = mapped_column(ErrorText())
    approval: Mapped[dict[str, Any] | None] = mapped_column(JSONValue(kind="object"))
    """Whether one is required, the decision, by whom, when, and a note; NULL where none was asked for."""
    audit_trail: Mapped[list[Any]] = mapped_column(JSONValue(kind="array"))
    """Its states in order, each with its time and a note; grows only."""
    duration_ms: Mapped[float | None] = mapped_column(Float64())
    started_at: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    completed_at: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())

    __table_args__ = (
        CheckConstraint("agent_id IS NOT NULL OR session_id IS NOT NULL", name="belongs_somewhere"),
        CheckConstraint(
            "state IN ('pending', 'approval_required', 'approved', 'executing', 'completed', 'failed', 'denied',"
            " 'sealed')",
            name="state",
        ),
        CheckConstraint("duration_ms >= 0", name="duration_ms_not_negative"),
        Index(
            "uq_tool_call_records_agent_id_tool_call_id",
            "agent_id",
            "tool_call_id",
            unique=True,
            sqlite_where=text("agent_id IS NOT NULL"),
            postgresql_where=text("agent_id IS NOT NULL"),
        ),
        Index(
            "uq_tool_call_records_session_id_tool_call_id",
            "session_id",
            "tool_call_id",
            unique=True,
            sqlite_where=text("agent_id IS NULL"),
            postgresql_where=text("agent_id IS NULL"),
        ),
        Index("ix_tool_call_records_agent_id_created_at_id", "agent_id", "created_at", "id"),
        Index("ix_tool_call_records_session_id_created_at_id", "session_id", "created_at", "id"),
        Index("ix_tool_call_records_message_id", "message_id"),
        Index("ix_tool_call_records_created_at_id", "created_at", "id"),
        Index("ix_tool_call_records_tool_name_created_at_id", "tool_name", "created_at", "id"),
        Index("ix_tool_call_records_state_created_at_id", "state", "created_at", "id"),
        Index(
            "ix_tool_call_records_errors",
            "created_at",
            "id",
            sqlite_where=text("is_error"),
            postgresql_where=text("is_error"),
        ),
        Index(
            "ix_tool_call_records_approvals",
            "created_at",
            "id",
            sqlite_where=text("approval IS NOT NULL"),
            postgresql_where=text("approval IS NOT NULL"),
        ),
    )
