"""Create projects and project_repos.

A project names one of its own repositories as its default, so the two tables refer to each other.

Safe beside the previous revision's code: there is none.
Locks: none that anybody could wait for; the tables are new.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001_projects"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BOOLEAN = sa.Integer().with_variant(sa.Boolean(), "postgresql")

DEFAULT_REPO = "fk_projects_id_default_repo_id_project_repos"
NAMED = sa.text("status <> 'deleted' AND name <> ''")


def upgrade() -> None:
    """Climb."""
    sqlite = op.get_context().dialect.name == "sqlite"
    default_repo = sa.ForeignKeyConstraint(
        ["id", "default_repo_id"], ["project_repos.project_id", "project_repos.repo_id"], name=op.f(DEFAULT_REPO)
    )
    op.create_table(
        "projects",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("path", TEXT, nullable=False),
        sa.Column("description", TEXT),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("tags", JSON, nullable=False),
        sa.Column("default_repo_id", TEXT),
        sa.Column("default_workdir", TEXT),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("added_at", TIME, nullable=False),
        sa.Column("created_by", TEXT),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.CheckConstraint("status IN ('active', 'archived', 'deleted')", name=op.f("ck_projects_status")),
        # SQLite takes a reference to a table that comes later; PostgreSQL is told afterwards.
        *([default_repo] if sqlite else []),
    )
    op.create_table(
        "project_repos",
        sa.Column("id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("project_id", TEXT, nullable=False),
        sa.Column("repo_id", TEXT, nullable=False),
        sa.Column("repo_path", TEXT, nullable=False),
        sa.Column("name", TEXT),
        sa.Column("remote_url", TEXT),
        sa.Column("default_branch", TEXT),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("is_writable", BOOLEAN, nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("added_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project_repos")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_project_repos_project_id_projects"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint("project_id", "repo_id", name=op.f("uq_project_repos_project_id_repo_id")),
        sa.CheckConstraint("role IN ('code', 'docs', 'infra', 'mono_subdir')", name=op.f("ck_project_repos_role")),
        sqlite_autoincrement=True,
    )
    if not sqlite:
        op.create_foreign_key(
            DEFAULT_REPO, "projects", "project_repos", ["id", "default_repo_id"], ["project_id", "repo_id"]
        )
        op.create_index("ix_projects_tags", "projects", ["tags"], postgresql_using="gin")
    op.create_index("uq_projects_name", "projects", ["name"], unique=True, postgresql_where=NAMED, sqlite_where=NAMED)
    op.create_index("ix_projects_created_at_id", "projects", ["created_at", "id"])
    op.create_index("ix_projects_status_created_at_id", "projects", ["status", "created_at", "id"])
    op.create_index("ix_projects_name_id", "projects", ["name", "id"])
    op.create_index("ix_projects_status_name_id", "projects", ["status", "name", "id"])
    op.create_index("ix_projects_id_default_repo_id", "projects", ["id", "default_repo_id"])
    op.create_json_triggers("projects", "tags", "settings")
    op.create_json_triggers("project_repos", "metadata")


def downgrade() -> None:
    """Descend."""
    if op.get_context().dialect.name != "sqlite":
        op.drop_constraint(DEFAULT_REPO, "projects", type_="foreignkey")
    op.drop_table("project_repos")
    op.drop_table("projects")
