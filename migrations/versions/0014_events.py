"""Create events and event_orders.

What happens is logged, found again, and followed in the order in which it was committed.

On PostgreSQL the order is that of the transactions, which every row names by itself: positions are drawn before they
are committed, so a smaller one may appear after a greater one.

Safe beside the previous revision's code: it does not know the tables.
Locks: none that anybody could wait for; the tables are new.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014_events"
down_revision = "0013_queue"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
EXACT = sa.Text().with_variant(postgresql.JSON(), "postgresql")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Climb."""
    on_sqlite = op.get_context().dialect.name == "sqlite"
    op.create_table(
        "events",
        sa.Column("position", INTEGER, sa.Identity(), nullable=False),
        sa.Column(
            "transaction_id", INTEGER, nullable=False, server_default=sa.text("0" if on_sqlite else "txid_current()")
        ),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("agent_id", TEXT),
        sa.Column("session_id", TEXT),
        sa.Column("task_id", TEXT),
        sa.Column("channel", TEXT),
        sa.Column("seq", INTEGER),
        sa.Column("event_type", TEXT, nullable=False),
        sa.Column("severity", TEXT, nullable=False),
        sa.Column("data", EXACT),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_events")),
        sa.CheckConstraint("channel IN ('progress', 'control', 'monitor')", name=op.f("ck_events_channel")),
        sa.CheckConstraint("severity IN ('info', 'warning', 'error', 'critical')", name=op.f("ck_events_severity")),
        sqlite_autoincrement=True,
    )
    op.create_json_triggers("events", "data")
    op.create_index("uq_events_event_id", "events", ["event_id"], unique=True)
    for columns, where in (
        ((), None),
        (("agent_id",), "agent_id IS NOT NULL"),
        (("agent_id", "event_type"), "agent_id IS NOT NULL"),
        (("session_id",), "session_id IS NOT NULL"),
        (("task_id",), "task_id IS NOT NULL"),
        (("channel",), "channel IS NOT NULL"),
        (("event_type",), None),
        (("severity",), "severity <> 'info'"),
    ):
        ends = [*columns, "created_at", "position"]
        condition = None if where is None else sa.text(where)
        op.create_index(
            f"ix_events_{'_'.join(ends)}", "events", ends, sqlite_where=condition, postgresql_where=condition
        )
    if not on_sqlite:
        op.create_index("ix_events_transaction_id_position", "events", ["transaction_id", "position"])
    op.create_table(
        "event_orders",
        sa.Column("origin", TEXT, nullable=False),
        sa.Column("order_id", TEXT, nullable=False),
        sa.Column("first_position", INTEGER, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("origin", name=op.f("pk_event_orders")),
    )


def downgrade() -> None:
    """Descend."""
    op.drop_table("event_orders")
    op.drop_table("events")
