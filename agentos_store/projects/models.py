"""Projects and the repositories that belong to them."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Identity, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base, Timestamps
from agentos_store.types import Boolean, Choice, Identifier, Int64, JSONValue, Text, UTCDateTime

PROJECT_STATUS = Choice("active", "archived", "deleted")
REPO_ROLE = Choice("code", "docs", "infra", "mono_subdir")


class Project(Timestamps, Base):
    """A body of work that tasks belong to."""

    __tablename__ = "projects"
    entity: ClassVar[str] = "project"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    name: Mapped[str] = mapped_column(Text(max_length=400))
    """Unique among the projects that are not deleted, unless it is empty. PostgreSQL's indexes hold 2,700 bytes, which
    a name of 400 characters of four bytes each and an identifier stay below."""
    path: Mapped[str] = mapped_column(Text())
    description: Mapped[str | None] = mapped_column(Text())
    status: Mapped[str] = mapped_column(PROJECT_STATUS)
    tags: Mapped[list[Any]] = mapped_column(JSONValue(kind="array"))
    default_repo_id: Mapped[str | None] = mapped_column(Identifier())
    """The ``repo_id`` of one of the project's own repositories; NULL when there is none."""
    default_workdir: Mapped[str | None] = mapped_column(Text())
    settings: Mapped[dict[str, Any]] = mapped_column(JSONValue(kind="object"))
    added_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())
    created_by: Mapped[str | None] = mapped_column(Text())

    __table_args__ = (
        CheckConstraint("status IN ('active', 'archived', 'deleted')", name="status"),
        # A repository cannot be removed while it is the default, and only a repository of this project can be it.
        ForeignKeyConstraint(
            ["id", "default_repo_id"], ["project_repos.project_id", "project_repos.repo_id"], use_alter=True
        ),
        Index(
            "uq_projects_name",
            "name",
            unique=True,
            postgresql_where=text("status <> 'deleted' AND name <> ''"),
            sqlite_where=text("status <> 'deleted' AND name <> ''"),
        ),
        Index("ix_projects_created_at_id", "created_at", "id"),
        Index("ix_projects_status_created_at_id", "status", "created_at", "id"),
        Index("ix_projects_name_id", "name", "id"),
        Index("ix_projects_status_name_id", "status", "name", "id"),
        Index("ix_projects_id_default_repo_id", "id", "default_repo_id"),
        Index("ix_projects_tags", "tags", postgresql_using="gin").ddl_if(dialect="postgresql"),
    )


class ProjectRepo(Base):
    """A repository of a project, under the name that the project gives it."""

    __tablename__ = "project_repos"
    entity: ClassVar[str] = "repository"

    id: Mapped[int] = mapped_column(Int64(), Identity(), primary_key=True)
    project_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("projects.id", ondelete="CASCADE"))
    repo_id: Mapped[str] = mapped_column(Identifier())
    repo_path: Mapped[str] = mapped_column(Text())
    name: Mapped[str | None] = mapped_column(Text())
    remote_url: Mapped[str | None] = mapped_column(Text())
    default_branch: Mapped[str | None] = mapped_column(Text())
    role: Mapped[str] = mapped_column(REPO_ROLE)
    is_writable: Mapped[bool] = mapped_column(Boolean())
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue(kind="object"))
    added_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())
    updated_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())

    __table_args__ = (
        UniqueConstraint("project_id", "repo_id"),
        CheckConstraint("role IN ('code', 'docs', 'infra', 'mono_subdir')", name="role"),
        {"sqlite_autoincrement": True},
    )
