"""Create maintenance_runs and import_ledger.

The ledger is what makes a second import of rows without a natural key change nothing.

Safe beside the previous revision's code: it does not know the tables.
Locks: none that anybody could wait for; the tables are new.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005_housekeeping"
down_revision = "0004_tasks"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Climb."""
    op.create_table(
        "maintenance_runs",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("finished_at", TIME),
        sa.Column("counts", JSON, nullable=False),
        sa.Column("progress", JSON, nullable=False),
        sa.Column("error", TEXT),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_maintenance_runs")),
    )
    op.create_index("ix_maintenance_runs_kind_started_at_id", "maintenance_runs", ["kind", "started_at", "id"])
    op.create_index("ix_maintenance_runs_started_at_id", "maintenance_runs", ["started_at", "id"])
    op.create_table(
        "import_ledger",
        sa.Column("source", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("source_key", TEXT, nullable=False),
        sa.Column("our_key", TEXT, nullable=False),
        sa.Column("imported_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("source", "kind", "source_key", name=op.f("pk_import_ledger")),
    )
    op.create_json_triggers("maintenance_runs", "counts", "progress")


def downgrade() -> None:
    """Descend."""
    op.drop_table("import_ledger")
    op.drop_table("maintenance_runs")
