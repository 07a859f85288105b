"""Create guardian_verdicts and supervisor_inbox.

Verdicts are append-only by the same triggers as audits.

Safe beside the previous revision's code: it does not know the tables.
Locks: PostgreSQL holds SHARE ROW EXCLUSIVE on tasks for the catalogue change only; SQLite locks nothing for long.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007_governance"
down_revision = "0006_task_links"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Climb."""
    op.create_table(
        "guardian_verdicts",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("triggered_by", TEXT, nullable=False),
        sa.Column("policy_json", JSON, nullable=False),
        sa.Column("decision", TEXT, nullable=False),
        sa.Column("reasons_json", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_guardian_verdicts")),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.task_id"], name=op.f("fk_guardian_verdicts_task_id_tasks"), ondelete="CASCADE"
        ),
        sa.CheckConstraint("decision IN ('approve', 'reject', 'warn')", name=op.f("ck_guardian_verdicts_decision")),
    )
    op.create_index("ix_guardian_verdicts_created_at_id", "guardian_verdicts", ["created_at", "id"])
    for column in ("task_id", "decision", "triggered_by"):
        op.create_index(
            f"ix_guardian_verdicts_{column}_created_at_id", "guardian_verdicts", [column, "created_at", "id"]
        )
    op.create_json_triggers("guardian_verdicts", "policy_json", "reasons_json")
    op.create_append_only_triggers("guardian_verdicts")
    op.create_table(
        "supervisor_inbox",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("task_id", TEXT, nullable=False),
        sa.Column("event_type", TEXT, nullable=False),
        sa.Column("event_ts", TIME, nullable=False),
        sa.Column("payload_json", JSON),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("attempts", INTEGER, nullable=False),
        sa.Column("error_message", TEXT),
        sa.Column("claimed_by", TEXT),
        sa.Column("lease_until", TIME),
        sa.Column("lease_token", INTEGER, nullable=False),
        sa.Column("processed_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_supervisor_inbox")),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.task_id"], name=op.f("fk_supervisor_inbox_task_id_tasks"), ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'processed', 'failed', 'parked')",
            name=op.f("ck_supervisor_inbox_status"),
        ),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_supervisor_inbox_attempts_not_negative")),
        sa.CheckConstraint(
            "status = 'processing' OR lease_until IS NULL", name=op.f("ck_supervisor_inbox_lease_only_while_processing")
        ),
    )
    op.create_index("ix_supervisor_inbox_event_ts_id", "supervisor_inbox", ["event_ts", "id"])
    for column in ("status", "task_id"):
        op.create_index(f"ix_supervisor_inbox_{column}_event_ts_id", "supervisor_inbox", [column, "event_ts", "id"])
    for name, columns, where in (
        ("open", ["event_ts", "id"], "status NOT IN ('processed', 'parked')"),
        ("held", ["lease_until"], "lease_until IS NOT NULL"),
        ("done", ["processed_at", "id"], "processed_at IS NOT NULL"),
    ):
        op.create_index(
            f"ix_supervisor_inbox_{name}",
            "supervisor_inbox",
            columns,
            postgresql_where=sa.text(where),
            sqlite_where=sa.text(where),
        )
    op.create_json_triggers("supervisor_inbox", "payload_json")


def downgrade() -> None:
    """Descend."""
    op.drop_table("supervisor_inbox")
    op.drop_table("guardian_verdicts")
    op.drop_append_only_function("guardian_verdicts")
