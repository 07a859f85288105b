"""Agents, their snapshots and their documents."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base, Created, Timestamps
from agentos_store.types import Choice, ExactJSON, Identifier, Int64, JSONValue, Text, UTCDateTime

AGENT_STATE = Choice("idle", "busy", "failed", "archived")
DOCUMENT_KIND = Choice("todos", "history_window", "compression", "recovered_file", "media_cache")


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
        Index("ix_agents_state_created_at_agent_id", "state", "created_at", "agent_id"),
        Index("ix_agents_session_id_created_at_agent_id", "session_id", "created_at", "agent_id"),
        Index("ix_agents_parent_id_created_at_agent_id", "parent_id", "created_at", "agent_id"),
        Index("ix_agents_last_task_id", "last_task_id"),
        Index(
            "ix_agents_deleted",
            "deleted_at",
            "agent_id",
            sqlite_where=text("deleted_at IS NOT NULL"),
            postgresql_where=text("deleted_at IS NOT NULL"),
        ),
        Index("ix_agents_lineage", "lineage", postgresql_using="gin").ddl_if(dialect="postgresql"),
        Index("ix_agents_metadata", "metadata", postgresql_using="gin").ddl_if(dialect="postgresql"),
    )


class Snapshot(Created, Base):
    """What an agent and its conversation were at one moment.

    It holds no message: the conversation keeps its rows, so its generation and the last number say which they are.
    """

    __tablename__ = "snapshots"
    entity: ClassVar[str] = "snapshot"

    agent_id: Mapped[str] = mapped_column(
        Identifier(), ForeignKey("agents.agent_id", ondelete="CASCADE"), primary_key=True
    )
    snapshot_id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    parent_snapshot_id: Mapped[str | None] = mapped_column(Identifier())
    """The one that it was taken after: a name only, for that may be gone, or another agent's."""
    session_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("sessions.id", ondelete="CASCADE"))
    """The agent's conversation at that time; the agent may have another one by now."""
    generation: Mapped[int] = mapped_column(Int64())
    up_to_seq: Mapped[int] = mapped_column(Int64())
    """The number of the last message; -1 for a conversation without any."""
    last_sfp_index: Mapped[int] = mapped_column(Int64())
    last_bookmark: Mapped[dict[str, Any] | None] = mapped_column(JSONValue(kind="object"))
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue(kind="object"))

    __table_args__ = (
        CheckConstraint("generation >= 0", name="generation_not_negative"),
        CheckConstraint("up_to_seq >= -1", name="up_to_seq_not_below_minus_one"),
        CheckConstraint("last_sfp_index >= -1", name="last_sfp_index_not_below_minus_one"),
        Index("ix_snapshots_agent_id_created_at_snapshot_id", "agent_id", "created_at", "snapshot_id"),
        Index("ix_snapshots_session_id", "session_id"),
    )


class AgentDocument(Timestamps, Base):
    """Something that an agent keeps for itself, written and read as a whole."""

    __tablename__ = "agent_documents"
    entity: ClassVar[str] = "document"

    agent_id: Mapped[str] = mapped_column(
        Identifier(), ForeignKey("agents.agent_id", ondelete="CASCADE"), primary_key=True
    )
    kind: Mapped[str] = mapped_column(DOCUMENT_KIND, primary_key=True)
    key: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    """Which one of its kind: a time in milliseconds, a path, or ``main`` where there is only one."""
    content: Mapped[Any] = mapped_column(ExactJSON(none_as_null=False))
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue(kind="object"))
    version: Mapped[int] = mapped_column(Int64())
    """1 when it is new, and one more with each time it is written."""

    __table_args__ = (
        CheckConstraint(
            "kind IN ('todos', 'history_window', 'compression', 'recovered_file', 'media_cache')", name="kind"
        ),
    )
