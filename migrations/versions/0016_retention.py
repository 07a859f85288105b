"""Add the indexes by which retention finds what is deleted or given up.

Safe beside the previous revision's code: it need not know an index.
Locks: PostgreSQL holds SHARE on the table while an index is built, which reads the table once; few rows are in these.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016_retention"
down_revision = "0015_leases"
branch_labels = None
depends_on = None

INDEXES = (
    ("ix_agents_deleted", "agents", ("deleted_at", "agent_id"), "deleted_at IS NOT NULL"),
    ("ix_messages_closed", "messages", ("created_at", "id"), "to_generation IS NOT NULL"),
    ("ix_sessions_deleted", "sessions", ("deleted_at", "id"), "deleted_at IS NOT NULL"),
)


def upgrade() -> None:
    """Climb."""
    for name, table, columns, where in INDEXES:
        op.create_index(op.f(name), table, list(columns), sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def downgrade() -> None:
    """Descend."""
    for name, table, _, _ in reversed(INDEXES):
        op.drop_index(op.f(name), table_name=table)
