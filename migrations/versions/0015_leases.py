"""Create leases.

Who may do what only one may do at a time: across processes, on both databases, without holding a connection.

Safe beside the previous revision's code: it does not know the table.
Locks: none that anybody could wait for; the table is new.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015_leases"
down_revision = "0014_events"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Climb."""
    op.create_table(
        "leases",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("owner", TEXT),
        sa.Column("token", INTEGER, nullable=False),
        sa.Column("acquisition_id", TEXT, nullable=False),
        sa.Column("acquired_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
        sa.CheckConstraint("token > 0", name=op.f("ck_leases_token_positive")),
    )
    op.create_index("ix_leases_owner_name", "leases", ["owner", "name"])
    held = sa.text("owner IS NOT NULL")
    op.create_index("ix_leases_held", "leases", ["name"], sqlite_where=held, postgresql_where=held)


def downgrade() -> None:
    """Descend."""
    op.drop_table("leases")
