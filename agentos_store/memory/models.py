"""What agents remember."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base, Timestamps
from agentos_store.types import Boolean, Choice, ExactJSON, Float64, Identifier, Int64, JSONValue, Text, UTCDateTime

SCOPES = ("task", "agent", "repo", "project", "global")
"""From the most specific to the widest."""

SCOPE = Choice(*SCOPES)
RETENTIONS = ("temporary", "project", "permanent")
"""From the weakest to the strongest."""

RETENTION_TYPE = Choice(*RETENTIONS)

FADES = "retention_type <> 'permanent'"
EXPIRES = "expires_at IS NOT NULL AND retention_type <> 'permanent'"
GOES = "retention_type = 'temporary' AND auto_cleanup"
"""Conditions of the indexes that decay and clean-up walk."""


class MemoryItem(Timestamps, Base):
    """Something worth remembering, once for each scope and type."""

    __tablename__ = "memory_items"
    entity: ClassVar[str] = "memory item"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    scope: Mapped[str] = mapped_column(SCOPE)
    scope_id: Mapped[str | None] = mapped_column(Identifier())
    """The task, agent, repository or project that it is about; NULL for what is global."""
    type: Mapped[str] = mapped_column(Text(1, 255))
    """``decision``, ``convention``, ``constraint``, ``known_issue``, or another."""
    content: Mapped[Any] = mapped_column(ExactJSON(), nullable=False)
    content_hash: Mapped[str] = mapped_column(Text(max_length=64))
    """SHA-256 of the content, whatever the order of its keys."""
    tags: Mapped[list[Any]] = mapped_column(JSONValue("array"))
    sources: Mapped[list[Any]] = mapped_column(JSONValue("array"))
    """Where it is known from."""
    confidence: Mapped[float] = mapped_column(Float64())
    """0 to 1, as of ``decayed_at``."""
    project_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("projects.id", ondelete="SET NULL"))
    last_used_at: Mapped[dt.datetime | None]
    use_count: Mapped[int] = mapped_column(Int64())
    decayed_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())
    """Up to when its confidence has faded: when it was made, and then whole days later."""
    retention_type: Mapped[str] = mapped_column(RETENTION_TYPE)
    expires_at: Mapped[dt.datetime | None]
    """From then on it is not found any more, and may be cleaned up; NULL: never."""
    auto_cleanup: Mapped[bool] = mapped_column(Boolean())
    """Whether a temporary item goes when it is not used."""

    __table_args__ = (
        CheckConstraint("scope IN ('task', 'agent', 'repo', 'project', 'global')", name="scope"),
        CheckConstraint("retention_type IN ('temporary', 'project', 'permanent')", name="retention_type"),
        CheckConstraint("confidence >= 0 AND confidence <= 1", name="confidence_from_0_to_1"),
        CheckConstraint("use_count >= 0", name="use_count_not_negative"),
        Index(
            "uq_memory_items_scope_scope_id_type_content_hash",
            "scope",
            text("coalesce(scope_id, '')"),
            "type",
            "content_hash",
            unique=True,
        ),
        Index(
            "ix_memory_items_scope_scope_id_confidence_id", "scope", text("coalesce(scope_id, '')"), "confidence", "id"
        ),
        Index("ix_memory_items_created_at_id", "created_at", "id"),
        Index("ix_memory_items_scope_created_at_id", "scope", "created_at", "id"),
        Index("ix_memory_items_scope_id_created_at_id", "scope_id", "created_at", "id"),
        Index("ix_memory_items_type_created_at_id", "type", "created_at", "id"),
        Index("ix_memory_items_project_id_created_at_id", "project_id", "created_at", "id"),
        Index("ix_memory_items_tags", "tags", postgresql_using="gin").ddl_if(dialect="postgresql"),
        *(
            Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))
            for name, columns, where in (
                ("ix_memory_items_decayed_at_id", ("decayed_at", "id"), FADES),
                ("ix_memory_items_expires_at_id", ("expires_at", "id"), EXPIRES),
                ("ix_memory_items_temporary", ("created_at", "id"), GOES),
            )
        ),
    )
