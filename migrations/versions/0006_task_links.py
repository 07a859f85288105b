"""Create task_dependency, task_repo_scope and task_artifact_ref.

What tasks depend on, what they may touch, and what they made.

Safe beside the previous revision's code: it does not know the tables.
Locks: PostgreSQL holds SHARE ROW EXCLUSIVE on tasks for the catalogue change only; SQLite locks nothing for long.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006_task_links"
down_revision = "0005_housekeeping"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Climb."""
    op.create_table(
        "task_dependency",
        sa.Column("dependency_id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("depends_on_task_id", TEXT, nullable=False),
        sa.Column("dependency_type", TEXT, nullable=False),
        sa.Column("reason", TEXT),
        sa.Column("created_by", TEXT),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("dependency_id", name=op.f("pk_task_dependency")),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.task_id"], name=op.f("fk_task_dependency_task_id_tasks"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["depends_on_task_id"],
            ["tasks.task_id"],
            name=op.f("fk_task_dependency_depends_on_task_id_tasks"),
            ondelete="CASCADE",
        ),
        sa.UniqueConstraint(
            "task_id", "depends_on_task_id", name=op.f("uq_task_dependency_task_id_depends_on_task_id")
        ),
        sa.CheckConstraint(
            "dependency_type IN ('blocks', 'requires', 'suggests')", name=op.f("ck_task_dependency_dependency_type")
        ),
        sa.CheckConstraint("task_id <> depends_on_task_id", name=op.f("ck_task_dependency_not_on_itself")),
        sqlite_autoincrement=True,
    )
    for column in ("task_id", "depends_on_task_id"):
        op.create_index(f"ix_task_dependency_{column}_dependency_id", "task_dependency", [column, "dependency_id"])
    op.create_json_triggers("task_dependency", "metadata")
    op.create_table(
        "task_repo_scope",
        sa.Column("scope_id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("repo_id", TEXT, nullable=False),
        sa.Column("scope", TEXT, nullable=False),
        sa.Column("path_filters", JSON, nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("scope_id", name=op.f("pk_task_repo_scope")),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.task_id"], name=op.f("fk_task_repo_scope_task_id_tasks"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint("task_id", "repo_id", name=op.f("uq_task_repo_scope_task_id_repo_id")),
        sa.CheckConstraint("scope IN ('full', 'paths', 'read_only')", name=op.f("ck_task_repo_scope_scope")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_task_repo_scope_task_id_scope_id", "task_repo_scope", ["task_id", "scope_id"])
    op.create_index("ix_task_repo_scope_repo_id_scope_id", "task_repo_scope", ["repo_id", "scope_id"])
    op.create_json_triggers("task_repo_scope", "path_filters", "metadata")
    op.create_table(
        "task_artifact_ref",
        sa.Column("artifact_id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("repo_id", TEXT, nullable=False),
        sa.Column("ref_type", TEXT, nullable=False),
        sa.Column("ref_value", TEXT, nullable=False),
        sa.Column("summary", TEXT),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("artifact_id", name=op.f("pk_task_artifact_ref")),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.task_id"], name=op.f("fk_task_artifact_ref_task_id_tasks"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint(
            "task_id",
            "repo_id",
            "ref_type",
            "ref_value",
            name=op.f("uq_task_artifact_ref_task_id_repo_id_ref_type_ref_value"),
        ),
        sa.CheckConstraint(
            "ref_type IN ('commit', 'branch', 'pr', 'patch', 'file', 'tag')", name=op.f("ck_task_artifact_ref_ref_type")
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_task_artifact_ref_ref_type_ref_value_artifact_id",
        "task_artifact_ref",
        ["ref_type", "ref_value", "artifact_id"],
    )
    op.create_index("ix_task_artifact_ref_ref_type_artifact_id", "task_artifact_ref", ["ref_type", "artifact_id"])
    op.create_index("ix_task_artifact_ref_task_id_artifact_id", "task_artifact_ref", ["task_id", "artifact_id"])
    op.create_json_triggers("task_artifact_ref", "metadata")


def downgrade() -> None:
    """Descend."""
    op.drop_table("task_artifact_ref")
    op.drop_table("task_repo_scope")
    op.drop_table("task_dependency")
