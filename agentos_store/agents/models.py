"""Agents."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base, Timestamps
from agentos_store.types import Choice, Identifier, Int64, JSONValue, Text, UTCDateTime

AGENT_STATE = Choice("idle", "busy", "failed", "archived")


class Agent(Timestamps, Base):
    """An agent: what it is, where it stands, and whom it descends from."""

    __tablename__ = "agents"
    entity: ClassVar[str] = "agent"

    agent_id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    template_id: Mapped[str | None] = mapped_column(Identifier())
    """NULL for an agent that was made without a template."""
    role: Mapped[str | None] = mapped_column(Text())
    goal: Mapped[str | None] = mapped_column(Text())
    backstory: Mapped[str | None] = mapped_column(Text())
    state: Mapped[str] = mapped_column(AGENT_STATE)
    lineage: Mapped[list[Any]] = mapped_column(JSONValue(kind="array"))
    """The identifiers of its ancestors, the oldest first."""
    parent_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("agents.agent_id", ondelete="SET NULL"))
    session_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("sessions.id", ondelete="SET NULL"))
    """Its conversation."""
    config_version: Mapped[str | None] = mapped_column(Text())
    last_sfp_index: Mapped[int] = mapped_column(Int64())
    """The safe fork point that was reached last; -1 before the first."""
    last_bookmark: Mapped[dict[str, Any] | None] = mapped_column(JSONValue(kind="object"))
    breakpoint: Mapped[str | None] = mapped_column(Text())
    last_task_id: Mapped[str | None] = mapped_column(
        Identifier(), ForeignKey("tasks.task_id", ondelete="SET NULL", use_alter=True)
    )
    stats: Mapped[dict[str, Any]] = mapped_column(JSONValue(kind="object"))
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue(kind="object"))
    version: Mapped[int] = mapped_column(Int64())
    """Grows with every change, for optimistic locking."""
    deleted_at: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    """When it was softly deleted; NULL while it is not."""

    __table_args__ = (
        CheckConstraint("state IN ('idle', 'busy', 'failed', 'archived')", name="state"),
        CheckConstraint("last_sfp_index >= -1", name="last_sfp_index_not_below_minus_one"),
        Index("ix_agents_created_at_agent_id", "created_at", "agent_id"),
        Index("ix_agents_template_id_created_at_agent_id", "template_id", "created_at", "agent_id"),
        Index("ix_agents_session_id", "session_id"),
        Index("ix_agents_parent_id", "parent_id"),
        Index("ix_agents_last_task_id", "last_task_id"),
        Index("ix_agents_lineage", "lineage", postgresql_using="gin").ddl_if(dialect="postgresql"),
    )
