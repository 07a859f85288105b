"""Users, their quotas, and their sessions."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base, Created, Timestamps
from agentos_store.types import Choice, Identifier, Int64, JSONValue, Money, Text, UTCDateTime

SESSION_STATUS = Choice("active", "paused", "completed", "cancelled")

UNINDEXED = "unindexed_from IS NOT NULL AND deleted_at IS NULL"
"""The condition of the index that holds the sessions of which a search has something to index before."""


class User(Timestamps, Base):
    """A person or a service on whose account sessions run."""

    __tablename__ = "users"
    entity: ClassVar[str] = "user"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    name: Mapped[str] = mapped_column(Text())
    email: Mapped[str | None] = mapped_column(Text(max_length=320))
    api_key_hash: Mapped[str | None] = mapped_column(Text())
    quota_total: Mapped[int] = mapped_column(Int64())
    """Tokens that the user may consume."""
    quota_used: Mapped[int] = mapped_column(Int64())
    """Tokens consumed, never more than the total by consumption; a total that is lowered may fall below it."""
    quota_reserved: Mapped[int] = mapped_column(Int64(), server_default=text("0"))
    """Tokens that reservations hold, those of lapsed ones included until somebody needs them."""
    preferences: Mapped[dict[str, Any]] = mapped_column(JSONValue(kind="object"))

    __table_args__ = (
        UniqueConstraint("email"),
        CheckConstraint("quota_total >= 0", name="quota_total_not_negative"),
        CheckConstraint("quota_used >= 0", name="quota_used_not_negative"),
        Index("ix_users_created_at_id", "created_at", "id"),
        Index("ix_users_preferences", "preferences", postgresql_using="gin").ddl_if(dialect="postgresql"),
    )


class QuotaReservation(Created, Base):
    """Tokens that are set aside for a piece of work, until it is settled or the reservation lapses."""

    __tablename__ = "quota_reservations"
    entity: ClassVar[str] = "quota reservation"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    user_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("users.id", ondelete="CASCADE"))
    tokens: Mapped[int] = mapped_column(Int64())
    expires_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())
    """From this instant, by the database's clock, it no longer counts."""

    __table_args__ = (
        CheckConstraint("tokens > 0", name="tokens_positive"),
        Index("ix_quota_reservations_user_id_expires_at", "user_id", "expires_at"),
        Index("ix_quota_reservations_expires_at", "expires_at"),
    )


class Session(Timestamps, Base):
    """A conversation."""

    __tablename__ = "sessions"
    entity: ClassVar[str] = "session"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    user_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("users.id", ondelete="RESTRICT"))
    channel: Mapped[str] = mapped_column(Text(max_length=100))
    """Where it is held: webui, api, task, …"""
    title: Mapped[str | None] = mapped_column(Text())
    status: Mapped[str] = mapped_column(SESSION_STATUS)
    model: Mapped[str | None] = mapped_column(Text())
    message_count: Mapped[int] = mapped_column(Int64())
    """Messages that the conversation consists of now."""
    next_seq: Mapped[int] = mapped_column(Int64())
    """The number that the next message gets."""
    generation: Mapped[int] = mapped_column(Int64())
    """Grows each time the middle of the conversation is rewritten."""
    total_tokens: Mapped[int] = mapped_column(Int64())
    """What all its messages came to, those included that were rewritten since: it never becomes less."""
    total_cost: Mapped[Decimal] = mapped_column(Money())
    budget: Mapped[Decimal | None] = mapped_column(Money())
    """NULL for a session without one."""
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue(kind="object"))
    deleted_at: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    """When it was softly deleted; NULL while it is not."""
    unindexed_from: Mapped[int | None] = mapped_column(Int64())
    """From this number on messages may be missing from the index of the search; NULL while none is."""

    __table_args__ = (
        CheckConstraint("status IN ('active', 'paused', 'completed', 'cancelled')", name="status"),
        CheckConstraint("message_count >= 0", name="message_count_not_negative"),
        CheckConstraint("next_seq >= 0", name="next_seq_not_negative"),
        CheckConstraint("total_tokens >= 0", name="total_tokens_not_negative"),
        Index("ix_sessions_user_id_updated_at_id", "user_id", "updated_at", "id"),
        Index("ix_sessions_created_at_id", "created_at", "id"),
        Index("ix_sessions_updated_at_id", "updated_at", "id"),
        Index("ix_sessions_status_created_at_id", "status", "created_at", "id"),
        Index(
            "ix_sessions_deleted",
            "deleted_at",
            "id",
            sqlite_where=text("deleted_at IS NOT NULL"),
            postgresql_where=text("deleted_at IS NOT NULL"),
        ),
        Index("ix_sessions_unindexed", "id", sqlite_where=text(UNINDEXED), postgresql_where=text(UNINDEXED)),
        Index("ix_sessions_channel_created_at_id", "channel", "created_at", "id"),
        Index("ix_sessions_metadata", "metadata", postgresql_using="gin").ddl_if(dialect="postgresql"),
    )
