"""Messages."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base, Created
from agentos_store.types import Choice, ExactJSON, Identifier, Int64, JSONValue, Money, Text

ROLE = Choice("system", "user", "assistant", "tool")

CURRENT = "to_generation IS NULL"
"""The condition of the indexes that hold what conversations consist of now, without what they were."""


class Message(Created, Base):
    """One message of a conversation.

    A conversation that is rewritten keeps its old rows, closed: generation ``g`` consists of the rows with
    ``from_generation <= g`` and ``to_generation`` NULL or above ``g``. What is never rewritten lives in all of them.
    """

    __tablename__ = "messages"
    entity: ClassVar[str] = "message"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    session_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("sessions.id", ondelete="CASCADE"))
    agent_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("agents.agent_id", ondelete="SET NULL"))
    seq: Mapped[int] = mapped_column(Int64())
    """Its place in the conversation: 0, 1, 2, … without a gap."""
    from_generation: Mapped[int] = mapped_column(Int64())
    """The session's generation in which it took this place."""
    to_generation: Mapped[int | None] = mapped_column(Int64())
    """The generation in which it gave its place up; NULL while it is part of the conversation."""
    role: Mapped[str] = mapped_column(ROLE)
    name: Mapped[str | None] = mapped_column(Text(max_length=255))
    """Who speaks, where several share a role, or the tool that answers."""
    content: Mapped[Any] = mapped_column(ExactJSON(none_as_null=False))
    """A string, a list of blocks such as ``{"type": "text", "text": "…"}``, or None (the JSON ``null``)."""
    tool_calls: Mapped[Any | None] = mapped_column(ExactJSON(), nullable=True)
    """Calls beside the content, as OpenAI's format has them."""
    tool_call_id: Mapped[str | None] = mapped_column(Text(max_length=255))
    """The call that a message of role ``tool`` answers."""
    content_types: Mapped[int] = mapped_column(Int64())
    """Which types of content it holds, a bit for each: derived, for ``query(content_type=…)``."""
    tool_names: Mapped[list[Any] | None] = mapped_column(JSONValue(kind="array"))
    """The tools that it calls: derived, for ``query(tool_name=…)``; NULL for none."""
    model: Mapped[str | None] = mapped_column(Text(max_length=255))
    token_count: Mapped[int] = mapped_column(Int64())
    """What it counts for; input and output tokens together unless it was given."""
    input_tokens: Mapped[int | None] = mapped_column(Int64())
    output_tokens: Mapped[int | None] = mapped_column(Int64())
    cached_tokens: Mapped[int | None] = mapped_column(Int64())
    """Of the input tokens, those that the provider had cached."""
    cost: Mapped[Decimal | None] = mapped_column(Money())
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue(kind="object"))
    idempotency_key: Mapped[str | None] = mapped_column(Text(max_length=255))
    copied_from: Mapped[str | None] = mapped_column(Identifier())
    """The message that this one is a copy of, by a fork or a rewriting; its tokens and cost were spent there."""

    __table_args__ = (
        CheckConstraint("role IN ('system', 'user', 'assistant', 'tool')", name="role"),
        CheckConstraint("seq >= 0", name="seq_not_negative"),
        CheckConstraint("to_generation > from_generation", name="generations_in_order"),
        CheckConstraint("token_count >= 0", name="token_count_not_negative"),
        CheckConstraint("input_tokens >= 0", name="input_tokens_not_negative"),
        CheckConstraint("output_tokens >= 0", name="output_tokens_not_negative"),
        CheckConstraint("cached_tokens >= 0", name="cached_tokens_not_negative"),
        CheckConstraint("cost >= 0", name="cost_not_negative"),
        Index(
            "uq_messages_session_id_seq",
            "session_id",
            "seq",
            unique=True,
            sqlite_where=text(CURRENT),
            postgresql_where=text(CURRENT),
        ),
        Index(
            "uq_messages_session_id_idempotency_key",
            "session_id",
            "idempotency_key",
            unique=True,
            sqlite_where=text("idempotency_key IS NOT NULL"),
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        # What was paid is counted for rows that are closed too.
        Index("ix_messages_created_at_id", "created_at", "id"),
        Index(
            "ix_messages_closed",
            "created_at",
            "id",
            sqlite_where=text("to_generation IS NOT NULL"),
            postgresql_where=text("to_generation IS NOT NULL"),
        ),
        # What a session was, and what goes with it.
        Index("ix_messages_session_id_seq_from_generation", "session_id", "seq", "from_generation"),
        Index(
            "ix_messages_agent_id_created_at_id",
            "agent_id",
            "created_at",
            "id",
            sqlite_where=text("agent_id IS NOT NULL"),
            postgresql_where=text("agent_id IS NOT NULL"),
        ),
        *(
            Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))
            for name, columns, where in (
                ("ix_messages_role_created_at_id", ("role", "created_at", "id"), CURRENT),
                ("ix_messages_tool_use", ("created_at", "id"), f"{CURRENT} AND content_types & 2 <> 0"),
                ("ix_messages_tool_result", ("created_at", "id"), f"{CURRENT} AND content_types & 4 <> 0"),
                ("ix_messages_reasoning", ("created_at", "id"), f"{CURRENT} AND content_types & 8 <> 0"),
                ("ix_messages_other_content", ("created_at", "id"), f"{CURRENT} AND content_types > 15"),
            )
        ),
        Index(
            "ix_messages_tool_names",
            "tool_names",
            postgresql_using="gin",
            postgresql_where=text("tool_names IS NOT NULL"),
        ).ddl_if(dialect="postgresql"),
    )
