"""Create agents.

An agent's last task is added with the table that it refers to: SQLite refuses rows whose foreign key names no table.

Safe beside the previous revision's code: it does not know the table.
Locks: none that anybody could wait for; the table is new.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003_agents"
down_revision = "0002_sessions"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Climb."""
    op.create_table(
        "agents",
        sa.Column("agent_id", TEXT, nullable=False),
        sa.Column("template_id", TEXT),
        sa.Column("role", TEXT),
        sa.Column("goal", TEXT),
        sa.Column("backstory", TEXT),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("lineage", JSON, nullable=False),
        sa.Column("parent_id", TEXT),
        sa.Column("session_id", TEXT),
        sa.Column("config_version", TEXT),
        sa.Column("last_sfp_index", INTEGER, nullable=False),
        sa.Column("last_bookmark", JSON),
        sa.Column("breakpoint", TEXT),
        sa.Column("stats", JSON, nullable=False),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("version", INTEGER, nullable=False),
        sa.Column("deleted_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("agent_id", name=op.f("pk_agents")),
        sa.ForeignKeyConstraint(
            ["parent_id"], ["agents.agent_id"], name=op.f("fk_agents_parent_id_agents"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_agents_session_id_sessions"), ondelete="SET NULL"
        ),
        sa.CheckConstraint("state IN ('idle', 'busy', 'failed', 'archived')", name=op.f("ck_agents_state")),
        sa.CheckConstraint("last_sfp_index >= -1", name=op.f("ck_agents_last_sfp_index_not_below_minus_one")),
    )
    op.create_index("ix_agents_created_at_agent_id", "agents", ["created_at", "agent_id"])
    op.create_index("ix_agents_template_id_created_at_agent_id", "agents", ["template_id", "created_at", "agent_id"])
    op.create_index("ix_agents_session_id", "agents", ["session_id"])
    op.create_index("ix_agents_parent_id", "agents", ["parent_id"])
    if op.get_context().dialect.name != "sqlite":
        op.create_index("ix_agents_lineage", "agents", ["lineage"], postgresql_using="gin")
    op.create_json_triggers("agents", "lineage", "last_bookmark", "stats", "metadata")


def downgrade() -> None:
    """Descend."""
    op.drop_table("agents")
