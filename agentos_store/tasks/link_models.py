"""What tasks depend on, what they may touch, and what they made."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base
from agentos_store.tasks.models import Reference
from agentos_store.types import Choice, Identifier, Int64, JSONValue, Text, UTCDateTime

DEPENDENCY_TYPE = Choice("blocks", "requires", "suggests")
SCOPE = Choice("full", "paths", "read_only")
REF_TYPE = Choice("commit", "branch", "pr", "patch", "file", "tag")


class TaskDependency(Base):
    """One task depends on another; together the links have no circle."""

    __tablename__ = "task_dependency"
    entity: ClassVar[str] = "dependency"

    dependency_id: Mapped[int] = mapped_column(Int64(), Identity(), primary_key=True)
    task_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("tasks.task_id", ondelete="CASCADE"))
    depends_on_task_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("tasks.task_id", ondelete="CASCADE"))
    dependency_type: Mapped[str] = mapped_column(DEPENDENCY_TYPE)
    """A task with unfinished ``blocks`` or ``requires`` is not claimable; ``suggests`` is only a hint."""
    reason: Mapped[str | None] = mapped_column(Text())
    created_by: Mapped[str | None] = mapped_column(Text())
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue("object"))
    created_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())

    __table_args__ = (
        UniqueConstraint("task_id", "depends_on_task_id"),
        CheckConstraint("dependency_type IN ('blocks', 'requires', 'suggests')", name="dependency_type"),
        CheckConstraint("task_id <> depends_on_task_id", name="not_on_itself"),
        Index("ix_task_dependency_task_id_dependency_id", "task_id", "dependency_id"),
        Index("ix_task_dependency_depends_on_task_id_dependency_id", "depends_on_task_id", "dependency_id"),
        {"sqlite_autoincrement": True},
    )


class TaskRepoScope(Base):
    """What a task may touch of a repository."""

    __tablename__ = "task_repo_scope"
    entity: ClassVar[str] = "scope"

    scope_id: Mapped[int] = mapped_column(Int64(), Identity(), primary_key=True)
    task_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("tasks.task_id", ondelete="CASCADE"))
    repo_id: Mapped[str] = mapped_column(Identifier())
    scope: Mapped[str] = mapped_column(SCOPE)
    """``full``, ``paths`` (those that a filter names), or ``read_only``."""
    path_filters: Mapped[list[Any]] = mapped_column(JSONValue("array"))
    """Patterns as in .gitignore; used with ``paths``."""
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue("object"))
    created_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())

    __table_args__ = (
        UniqueConstraint("task_id", "repo_id"),
        CheckConstraint("scope IN ('full', 'paths', 'read_only')", name="scope"),
        Index("ix_task_repo_scope_task_id_scope_id", "task_id", "scope_id"),
        Index("ix_task_repo_scope_repo_id_scope_id", "repo_id", "scope_id"),
        {"sqlite_autoincrement": True},
    )


class TaskArtifactRef(Base):
    """Something that a task made or used: a commit, a branch, a file, …"""

    __tablename__ = "task_artifact_ref"
    entity: ClassVar[str] = "artifact"

    artifact_id: Mapped[int] = mapped_column(Int64(), Identity(), primary_key=True)
    task_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("tasks.task_id", ondelete="CASCADE"))
    repo_id: Mapped[str] = mapped_column(Identifier())
    ref_type: Mapped[str] = mapped_column(REF_TYPE)
    ref_value: Mapped[str] = mapped_column(Reference())
    summary: Mapped[str | None] = mapped_column(Text())
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue("object"))
    created_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())

    __table_args__ = (
        UniqueConstraint("task_id", "repo_id", "ref_type", "ref_value"),
        CheckConstraint("ref_type IN ('commit', 'branch', 'pr', 'patch', 'file', 'tag')", name="ref_type"),
        Index("ix_task_artifact_ref_ref_type_ref_value_artifact_id", "ref_type", "ref_value", "artifact_id"),
        Index("ix_task_artifact_ref_ref_type_artifact_id", "ref_type", "artifact_id"),
        Index("ix_task_artifact_ref_task_id_artifact_id", "task_id", "artifact_id"),
        {"sqlite_autoincrement": True},
    )
