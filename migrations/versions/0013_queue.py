"""Add the indexes by which tasks are claimed.

A worker takes the most urgent task that waits, then the oldest, of all types or of one; tasks whose time has come and
tasks whose worker died are found by their times, and when many have become due, in the order of their urgency. All
indexes are partial: a task stands in them only while it waits or is held.

Safe beside the previous revision's code: no column changes, and old code claims no task.
Locks: PostgreSQL holds off writers of ``tasks`` while it builds the indexes; SQLite reads the table once for each.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013_queue"
down_revision = "0012_message_search"
branch_labels = None
depends_on = None

WAITS = "status NOT IN ('created', 'running', 'paused', 'blocked', 'failed', 'completed', 'cancelled')"
URGENT = (sa.text("priority DESC"), "created_at", "task_id")
INDEXES = (
    ("ix_tasks_at_once", URGENT, f"{WAITS} AND run_after IS NULL"),
    ("ix_tasks_type_at_once", ("task_type", *URGENT), f"{WAITS} AND run_after IS NULL"),
    ("ix_tasks_delayed", ("run_after",), f"{WAITS} AND run_after IS NOT NULL"),
    ("ix_tasks_due", (*URGENT, "run_after"), f"{WAITS} AND run_after IS NOT NULL"),
    ("ix_tasks_leased", ("lease_until",), "lease_until IS NOT NULL"),
)


def upgrade() -> None:
    """Climb."""
    for name, columns, where in INDEXES:
        condition = sa.text(where)
        op.create_index(name, "tasks", list(columns), sqlite_where=condition, postgresql_where=condition)


def downgrade() -> None:
    """Descend."""
    for name, _, _ in reversed(INDEXES):
        op.drop_index(name, "tasks")
