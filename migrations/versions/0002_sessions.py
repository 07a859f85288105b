"""Create users and sessions.

Tasks and agents refer to sessions, and sessions to users.

Safe beside the previous revision's code: it does not know the tables.
Locks: none that anybody could wait for; the tables are new.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002_sessions"
down_revision = "0001_projects"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# Billionths on SQLite, which has no exact decimals.
MONEY = sa.Integer().with_variant(sa.Numeric(19, 9), "postgresql")


def upgrade() -> None:
    """Climb."""
    op.create_table(
        "users",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("email", TEXT),
        sa.Column("api_key_hash", TEXT),
        sa.Column("quota_total", INTEGER, nullable=False),
        sa.Column("quota_used", INTEGER, nullable=False),
        sa.Column("preferences", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
        sa.CheckConstraint("quota_total >= 0", name=op.f("ck_users_quota_total_not_negative")),
        sa.CheckConstraint("quota_used >= 0", name=op.f("ck_users_quota_used_not_negative")),
    )
    op.create_index("ix_users_created_at_id", "users", ["created_at", "id"])
    op.create_table(
        "sessions",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("user_id", TEXT),
        sa.Column("channel", TEXT, nullable=False),
        sa.Column("title", TEXT),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("model", TEXT),
        sa.Column("message_count", INTEGER, nullable=False),
        sa.Column("next_seq", INTEGER, nullable=False),
        sa.Column("generation", INTEGER, nullable=False),
        sa.Column("total_tokens", INTEGER, nullable=False),
        sa.Column("total_cost", MONEY, nullable=False),
        sa.Column("budget", MONEY),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("deleted_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_sessions_user_id_users"), ondelete="RESTRICT"),
        sa.CheckConstraint("status IN ('active', 'paused', 'completed', 'cancelled')", name=op.f("ck_sessions_status")),
        sa.CheckConstraint("message_count >= 0", name=op.f("ck_sessions_message_count_not_negative")),
        sa.CheckConstraint("next_seq >= 0", name=op.f("ck_sessions_next_seq_not_negative")),
        sa.CheckConstraint("total_tokens >= 0", name=op.f("ck_sessions_total_tokens_not_negative")),
    )
    op.create_index("ix_sessions_user_id_updated_at_id", "sessions", ["user_id", "updated_at", "id"])
    op.create_index("ix_sessions_created_at_id", "sessions", ["created_at", "id"])
    if op.get_context().dialect.name != "sqlite":
        op.create_index("ix_users_preferences", "users", ["preferences"], postgresql_using="gin")
        op.create_index("ix_sessions_metadata", "sessions", ["metadata"], postgresql_using="gin")
    op.create_json_triggers("users", "preferences")
    op.create_json_triggers("sessions", "metadata")


def downgrade() -> None:
    """Descend."""
    op.drop_table("sessions")
    op.drop_table("users")
