"""Create snapshots and agent_documents; give agents an index for each way to list them.

What an agent's conversation was at a moment, and what an agent keeps beside it.

Safe beside the previous revision's code: it does not know the tables, and each index that goes is the beginning of one
that comes.
Locks: PostgreSQL holds SHARE ROW EXCLUSIVE on agents and sessions for the foreign keys, SHARE on agents while the
indexes are built, and ACCESS EXCLUSIVE on it from when the first of the old ones is dropped; all until the commit.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009_agents"
down_revision = "0008_conversations"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
EXACT = sa.Text().with_variant(postgresql.JSON(), "postgresql")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Climb."""
    for column in ("state", "session_id", "parent_id"):
        op.create_index(f"ix_agents_{column}_created_at_agent_id", "agents", [column, "created_at", "agent_id"])
    if op.get_context().dialect.name != "sqlite":
        op.create_index("ix_agents_metadata", "agents", ["metadata"], postgresql_using="gin")
    for column in ("session_id", "parent_id"):
        op.drop_index(f"ix_agents_{column}", "agents")
    _create_snapshots()
    _create_agent_documents()


def _create_snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("agent_id", TEXT, nullable=False),
        sa.Column("snapshot_id", TEXT, nullable=False),
        sa.Column("parent_snapshot_id", TEXT),
        sa.Column("session_id", TEXT, nullable=False),
        sa.Column("generation", INTEGER, nullable=False),
        sa.Column("up_to_seq", INTEGER, nullable=False),
        sa.Column("last_sfp_index", INTEGER, nullable=False),
        sa.Column("last_bookmark", JSON),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "snapshot_id", name=op.f("pk_snapshots")),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.agent_id"], name=op.f("fk_snapshots_agent_id_agents"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_snapshots_session_id_sessions"), ondelete="CASCADE"
        ),
        sa.CheckConstraint("generation >= 0", name=op.f("ck_snapshots_generation_not_negative")),
        sa.CheckConstraint("up_to_seq >= -1", name=op.f("ck_snapshots_up_to_seq_not_below_minus_one")),
        sa.CheckConstraint("last_sfp_index >= -1", name=op.f("ck_snapshots_last_sfp_index_not_below_minus_one")),
    )
    op.create_json_triggers("snapshots", "last_bookmark", "metadata")
    op.create_index(
        "ix_snapshots_agent_id_created_at_snapshot_id", "snapshots", ["agent_id", "created_at", "snapshot_id"]
    )
    op.create_index("ix_snapshots_session_id", "snapshots", ["session_id"])


def _create_agent_documents() -> None:
    op.create_table(
        "agent_documents",
        sa.Column("agent_id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("content", EXACT, nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("version", INTEGER, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", "kind", "key", name=op.f("pk_agent_documents")),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.agent_id"], name=op.f("fk_agent_documents_agent_id_agents"), ondelete="CASCADE"
        ),
        sa.CheckConstraint(
            "kind IN ('todos', 'history_window', 'compression', 'recovered_file', 'media_cache')",
            name=op.f("ck_agent_documents_kind"),
        ),
    )
    op.create_json_triggers("agent_documents", "content", "metadata")


def downgrade() -> None:
    """Descend."""
    op.drop_table("agent_documents")
    op.drop_table("snapshots")
    for column in ("session_id", "parent_id"):
        op.create_index(f"ix_agents_{column}", "agents", [column])
    if op.get_context().dialect.name != "sqlite":
        op.drop_index("ix_agents_metadata", "agents")
    for column in ("state", "session_id", "parent_id"):
        op.drop_index(f"ix_agents_{column}_created_at_agent_id", "agents")
