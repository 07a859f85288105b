"""Create messages, tool_call_records, contexts and quota_reservations; add users.quota_reserved.

What is said in sessions, what is called there, and what they may cost. Sessions get an index for each way to list them.

Safe beside the previous revision's code: it does not know the tables, and the column has a default.
Locks: PostgreSQL holds ACCESS EXCLUSIVE on users for the catalogue change only, and SHARE on sessions while its indexes
are built; SQLite adds the column in place.
"""

# The package adds operations to Alembic's, which type checkers do not see.
# mypy: disable-error-code="attr-defined"

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008_conversations"
down_revision = "0007_governance"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")
TIME = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
JSON = sa.Text().with_variant(postgresql.JSONB(), "postgresql")
EXACT = sa.Text().with_variant(postgresql.JSON(), "postgresql")
INTEGER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
BOOLEAN = sa.Integer().with_variant(sa.Boolean(), "postgresql")
REAL: sa.REAL[float] = sa.REAL().with_variant(sa.Double(), "postgresql")
# Billionths on SQLite, which has no exact decimals.
MONEY = sa.Integer().with_variant(sa.Numeric(19, 9), "postgresql")


def upgrade() -> None:
    """Climb."""
    op.add_column("users", sa.Column("quota_reserved", INTEGER, server_default=sa.text("0"), nullable=False))
    op.create_index("ix_sessions_updated_at_id", "sessions", ["updated_at", "id"])
    for column in ("status", "channel"):
        op.create_index(f"ix_sessions_{column}_created_at_id", "sessions", [column, "created_at", "id"])
    _create_quota_reservations()
    _create_messages()
    _create_tool_call_records()
    _create_contexts()


def _create_quota_reservations() -> None:
    op.create_table(
        "quota_reservations",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("tokens", INTEGER, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quota_reservations")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_quota_reservations_user_id_users"), ondelete="CASCADE"
        ),
        sa.CheckConstraint("tokens > 0", name=op.f("ck_quota_reservations_tokens_positive")),
    )
    op.create_index("ix_quota_reservations_user_id_expires_at", "quota_reservations", ["user_id", "expires_at"])
    op.create_index("ix_quota_reservations_expires_at", "quota_reservations", ["expires_at"])


def _create_messages() -> None:
    op.create_table(
        "messages",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("session_id", TEXT, nullable=False),
        sa.Column("agent_id", TEXT),
        sa.Column("seq", INTEGER, nullable=False),
        sa.Column("from_generation", INTEGER, nullable=False),
        sa.Column("to_generation", INTEGER),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("name", TEXT),
        sa.Column("content", EXACT, nullable=False),
        sa.Column("tool_calls", EXACT),
        sa.Column("tool_call_id", TEXT),
        sa.Column("content_types", INTEGER, nullable=False),
        sa.Column("tool_names", JSON),
        sa.Column("model", TEXT),
        sa.Column("token_count", INTEGER, nullable=False),
        sa.Column("input_tokens", INTEGER),
        sa.Column("output_tokens", INTEGER),
        sa.Column("cached_tokens", INTEGER),
        sa.Column("cost", MONEY),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("idempotency_key", TEXT),
        sa.Column("copied_from", TEXT),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_messages")),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_messages_session_id_sessions"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.agent_id"], name=op.f("fk_messages_agent_id_agents"), ondelete="SET NULL"
        ),
        sa.CheckConstraint("role IN ('system', 'user', 'assistant', 'tool')", name=op.f("ck_messages_role")),
        sa.CheckConstraint("seq >= 0", name=op.f("ck_messages_seq_not_negative")),
        sa.CheckConstraint("to_generation > from_generation", name=op.f("ck_messages_generations_in_order")),
        *(
            sa.CheckConstraint(f"{column} >= 0", name=op.f(f"ck_messages_{column}_not_negative"))
            for column in ("token_count", "input_tokens", "output_tokens", "cached_tokens", "cost")
        ),
    )
    op.create_json_triggers("messages", "content", "tool_calls", "tool_names", "metadata")
    current = "to_generation IS NULL"
    for name, columns, where in (
        ("uq_messages_session_id_seq", ["session_id", "seq"], current),
        ("uq_messages_session_id_idempotency_key", ["session_id", "idempotency_key"], "idempotency_key IS NOT NULL"),
    ):
        _create_partial_index(name, "messages", columns, where, unique=True)
    op.create_index("ix_messages_session_id_seq_from_generation", "messages", ["session_id", "seq", "from_generation"])
    by_time = ["created_at", "id"]
    op.create_index("ix_messages_created_at_id", "messages", by_time)
    for name, columns, where in (
        ("ix_messages_agent_id_created_at_id", ["agent_id", *by_time], "agent_id IS NOT NULL"),
        ("ix_messages_role_created_at_id", ["role", *by_time], current),
        ("ix_messages_tool_use", by_time, f"{current} AND content_types & 2 <> 0"),
        ("ix_messages_tool_result", by_time, f"{current} AND content_types & 4 <> 0"),
        ("ix_messages_reasoning", by_time, f"{current} AND content_types & 8 <> 0"),
        ("ix_messages_other_content", by_time, f"{current} AND content_types > 15"),
    ):
        _create_partial_index(name, "messages", columns, where)
    if op.get_context().dialect.name != "sqlite":
        op.create_index(
            "ix_messages_tool_names",
            "messages",
            ["tool_names"],
            postgresql_using="gin",
            postgresql_where=sa.text("tool_names IS NOT NULL"),
        )


def _create_tool_call_records() -> None:
    table = "tool_call_records"
    op.create_table(
        table,
        sa.Column("id", TEXT, nullable=False),
        sa.Column("agent_id", TEXT),
        sa.Column("session_id", TEXT),
        sa.Column("tool_call_id", TEXT, nullable=False),
        sa.Column("ordinal", INTEGER, nullable=False),
        sa.Column("message_id", TEXT),
        sa.Column("tool_name", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("input", EXACT, nullable=False),
        sa.Column("output", EXACT),
        sa.Column("has_output", BOOLEAN, nullable=False),
        sa.Column("is_error", BOOLEAN),
        sa.Column("error_message", TEXT),
        sa.Column("approval", JSON),
        sa.Column("audit_trail", JSON, nullable=False),
        sa.Column("duration_ms", REAL),
        sa.Column("started_at", TIME),
        sa.Column("completed_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tool_call_records")),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.agent_id"], name=op.f("fk_tool_call_records_agent_id_agents"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_tool_call_records_session_id_sessions"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["message_id"], ["messages.id"], name=op.f("fk_tool_call_records_message_id_messages"), ondelete="SET NULL"
        ),
        sa.CheckConstraint(
            "agent_id IS NOT NULL OR session_id IS NOT NULL", name=op.f("ck_tool_call_records_belongs_somewhere")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'approval_required', 'approved', 'executing', 'completed', 'failed', 'denied',"
            " 'sealed')",
            name=op.f("ck_tool_call_records_state"),
        ),
        sa.CheckConstraint("duration_ms >= 0", name=op.f("ck_tool_call_records_duration_ms_not_negative")),
    )
    op.create_json_triggers(table, "input", "output", "approval", "audit_trail")
    _create_partial_index(
        f"uq_{table}_agent_id_tool_call_id", table, ["agent_id", "tool_call_id"], "agent_id IS NOT NULL", unique=True
    )
    _create_partial_index(
        f"uq_{table}_session_id_tool_call_id", table, ["session_id", "tool_call_id"], "agent_id IS NULL", unique=True
    )
    for column in ("agent_id", "session_id", "tool_name", "state"):
        op.create_index(f"ix_{table}_{column}_created_at_id", table, [column, "created_at", "id"])
    op.create_index(f"ix_{table}_message_id", table, ["message_id"])
    op.create_index(f"ix_{table}_created_at_id", table, ["created_at", "id"])
    _create_partial_index(f"ix_{table}_errors", table, ["created_at", "id"], "is_error")
    _create_partial_index(f"ix_{table}_approvals", table, ["created_at", "id"], "approval IS NOT NULL")


def _create_contexts() -> None:
    op.create_table(
        "contexts",
        sa.Column("context_id", TEXT, nullable=False),
        sa.Column("agent_id", TEXT),
        sa.Column("session_id", TEXT),
        sa.Column("context_data", EXACT, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("context_id", name=op.f("pk_contexts")),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.agent_id"], name=op.f("fk_contexts_agent_id_agents"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name=op.f("fk_contexts_session_id_sessions"), ondelete="CASCADE"
        ),
    )
    op.create_json_triggers("contexts", "context_data")
    op.create_index("ix_contexts_created_at_context_id", "contexts", ["created_at", "context_id"])
    for column in ("agent_id", "session_id"):
        op.create_index(f"ix_contexts_{column}_created_at_context_id", "contexts", [column, "created_at", "context_id"])
    _create_partial_index("ix_contexts_expires_at", "contexts", ["expires_at"], "expires_at IS NOT NULL")


def _create_partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def downgrade() -> None:
    """Descend."""
    op.drop_table("contexts")
    op.drop_table("tool_call_records")
    op.drop_table("messages")
    op.drop_table("quota_reservations")
    for column in ("channel", "status"):
        op.drop_index(f"ix_sessions_{column}_created_at_id", "sessions")
    op.drop_index("ix_sessions_updated_at_id", "sessions")
    op.drop_column("users", "quota_reserved")
