"""Create tasks, task_lineage, task_audits with their heads, and agents.last_task_id.

Audits are append-only by triggers, which look for a row in audit_pruning_permits when old entries are pruned.

Safe beside the previous revision's code: the new column of agents is nullable and old code never names it.
Locks: PostgreSQL holds ACCESS EXCLUSIVE on agents and SHARE ROW EXCLUSIVE on the tables that the new ones refer to,
for the catalogue changes only; SQLite adds the column in place.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004_tasks"
down_revision = "0003_agents"
branch_labels = None
depends_on = None

REWRITES = ("downgrade",)
"""The way down rebuilds agents on SQLite, which cannot drop a column with a foreign key."""

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
EXACT = sa.Text().with_variant(postgresql.JSON(), "postgresql")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
REAL: sa.REAL[float] = sa.REAL().with_variant(sa.Double(), "postgresql")

STATUSES = "'created', 'pending', 'running', 'paused', 'blocked', 'failed', 'completed', 'cancelled'"
LAST_TASK = "fk_agents_last_task_id_tasks"


def upgrade() -> None:
    """Climb."""
    _create_tasks()
    _create_lineage()
    _create_audits()
    schema = op.get_context().version_table_schema
    if op.get_context().dialect.name == "sqlite":
        # Alembic leaves the reference out of ADD COLUMN.
        op.execute(
            "ALTER TABLE agents ADD COLUMN last_task_id TEXT"
            f" CONSTRAINT {LAST_TASK} REFERENCES tasks (task_id) ON DELETE SET NULL"
        )
    else:
        op.add_column("agents", sa.Column("last_task_id", postgresql.TEXT(collation="C")), schema=schema)
        op.create_foreign_key(LAST_TASK, "agents", "tasks", ["last_task_id"], ["task_id"], ondelete="SET NULL")
        op.create_index("ix_tasks_metadata", "tasks", ["metadata"], postgresql_using="gin")
    op.create_index("ix_agents_last_task_id", "agents", ["last_task_id"])


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("title", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("task_type", TEXT, nullable=False),
        sa.Column("priority", INTEGER, nullable=False),
        sa.Column("payload", EXACT),
        sa.Column("result", EXACT),
        sa.Column("error_message", TEXT),
        sa.Column("exit_reason", TEXT),
        sa.Column("session_id", TEXT),
        sa.Column("project_id", TEXT),
        sa.Column("agent_id", TEXT),
        sa.Column("route_plan_json", JSON),
        sa.Column("requirements_json", JSON),
        sa.Column("selected_instance_id", TEXT),
        sa.Column("router_version", TEXT),
        sa.Column("attempts", INTEGER, nullable=False),
        sa.Column("max_attempts", INTEGER, nullable=False),
        sa.Column("run_after", TIME),
        sa.Column("claimed_by", TEXT),
        sa.Column("lease_until", TIME),
        sa.Column("lease_token", INTEGER, nullable=False),
        sa.Column("idempotency_key", TEXT),
        sa.Column("version", INTEGER, nullable=False),
        sa.Column("created_by", TEXT),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("started_at", TIME),
        sa.Column("completed_at", TIME),
        sa.Column("duration", REAL),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_tasks")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_tasks_session_id_sessions"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_tasks_project_id_projects"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.agent_id"], name=op.f("fk_tasks_agent_id_agents"), ondelete="SET NULL"
        ),
        sa.UniqueConstraint("task_type", "idempotency_key", name=op.f("uq_tasks_task_type_idempotency_key")),
        sa.CheckConstraint(f"status IN ({STATUSES})", name=op.f("ck_tasks_status")),
        sa.CheckConstraint("length(title) BETWEEN 1 AND 500", name=op.f("ck_tasks_title_length")),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_tasks_attempts_not_negative")),
        sa.CheckConstraint("max_attempts >= 1", name=op.f("ck_tasks_max_attempts_positive")),
        sa.CheckConstraint(
            "status <> 'failed' OR exit_reason IS NOT NULL", name=op.f("ck_tasks_failed_has_exit_reason")
        ),
    )
    op.create_index("ix_tasks_created_at_task_id", "tasks", ["created_at", "task_id"])
    for column in ("status", "task_type", "session_id", "project_id", "agent_id"):
        op.create_index(f"ix_tasks_{column}_created_at_task_id", "tasks", [column, "created_at", "task_id"])
    op.create_json_triggers("tasks", "payload", "result", "route_plan_json", "requirements_json", "metadata")


def _create_lineage() -> None:
    op.create_table(
        "task_lineage",
        sa.Column("lineage_id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("ref_id", TEXT, nullable=False),
        sa.Column("phase", TEXT),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("lineage_id", name=op.f("pk_task_lineage")),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.task_id"], name=op.f("fk_task_lineage_task_id_tasks"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint("task_id", "kind", "ref_id", name=op.f("uq_task_lineage_task_id_kind_ref_id")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_task_lineage_task_id_lineage_id", "task_lineage", ["task_id", "lineage_id"])
    op.create_index("ix_task_lineage_kind_ref_id_lineage_id", "task_lineage", ["kind", "ref_id", "lineage_id"])
    op.create_index("ix_task_lineage_kind_lineage_id", "task_lineage", ["kind", "lineage_id"])
    op.create_index("ix_task_lineage_ref_id_lineage_id", "task_lineage", ["ref_id", "lineage_id"])
    op.create_json_triggers("task_lineage", "metadata")


def _create_audits() -> None:
    op.create_table(
        "task_audits",
        sa.Column("audit_id", INTEGER, sa.Identity(), nullable=False),
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("repo_id", TEXT),
        sa.Column("level", TEXT, nullable=False),
        sa.Column("event_type", TEXT, nullable=False),
        sa.Column("payload", EXACT),
        sa.Column("decision_id", TEXT),
        sa.Column("source_event_ts", TIME),
        sa.Column("supervisor_processed_at", TIME),
        sa.Column("verdict_id", TEXT),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("prev_hash", TEXT, nullable=False),
        sa.Column("row_hash", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name=op.f("pk_task_audits")),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.task_id"], name=op.f("fk_task_audits_task_id_tasks"), ondelete="CASCADE"
        ),
        sa.UniqueConstraint("task_id", "prev_hash", name=op.f("uq_task_audits_task_id_prev_hash")),
        sa.UniqueConstraint("decision_id", name=op.f("uq_task_audits_decision_id")),
        sa.CheckConstraint("level IN ('info', 'warning', 'error')", name=op.f("ck_task_audits_level")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_task_audits_task_id_audit_id", "task_audits", ["task_id", "audit_id"])
    op.create_index("ix_task_audits_created_at_audit_id", "task_audits", ["created_at", "audit_id"])
    for column in ("task_id", "repo_id", "level", "event_type"):
        op.create_index(
            f"ix_task_audits_{column}_created_at_audit_id", "task_audits", [column, "created_at", "audit_id"]
        )
    op.create_table(
        "task_audit_heads",
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("length", INTEGER, nullable=False),
        sa.Column("head_hash", TEXT, nullable=False),
        sa.Column("head_prev_hash", TEXT, nullable=False),
        sa.Column("pruned_to", INTEGER, nullable=False),
        sa.Column("pruned_hash", TEXT),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_task_audit_heads")),
        sa.CheckConstraint("length >= 1", name=op.f("ck_task_audit_heads_length_positive")),
        sa.CheckConstraint("pruned_to BETWEEN 0 AND length", name=op.f("ck_task_audit_heads_pruned_within_length")),
    )
    op.create_table(
        "audit_pruning_permits",
        sa.Column("task_id", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("task_id", name=op.f("pk_audit_pruning_permits")),
    )
    op.create_json_triggers("task_audits", "payload")
    op.create_append_only_triggers("task_audits")


def downgrade() -> None:
    """Descend."""

    def drop_last_task(batch: Any) -> None:
        batch.drop_constraint(LAST_TASK, type_="foreignkey")
        batch.drop_column("last_task_id")

    op.drop_index("ix_agents_last_task_id", table_name="agents")
    if op.get_context().dialect.name == "sqlite":
        op.rebuild_table("agents", drop_last_task)
    else:
        op.drop_column("agents", "last_task_id", schema=op.get_context().version_table_schema)
    op.drop_table("task_audits")
    op.drop_append_only_function("task_audits")
    op.drop_table("audit_pruning_permits")
    op.drop_table("task_audit_heads")
    op.drop_table("task_lineage")
    op.drop_table("tasks")
