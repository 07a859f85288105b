"""The two tables as somebody would declare them for SQLAlchemy by hand."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Integer, Numeric
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Mapped, mapped_column

from benchmarks.tables import BINARY, Base

MONEY = Numeric(19, 9).with_variant(Integer(), "sqlite")
NUMBER = BigInteger().with_variant(Integer(), "sqlite")
OR_NULL = JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


class Conversation(Base):
    """A session."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str | None]
    channel: Mapped[str]
    title: Mapped[str | None]
    status: Mapped[str]
    model: Mapped[str | None]
    message_count: Mapped[int] = mapped_column(NUMBER)
    next_seq: Mapped[int] = mapped_column(NUMBER)
    generation: Mapped[int] = mapped_column(NUMBER)
    total_tokens: Mapped[int] = mapped_column(NUMBER)
    total_cost: Mapped[Any] = mapped_column(MONEY)
    budget: Mapped[Any | None] = mapped_column(MONEY)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", BINARY)
    created_at: Mapped[dt.datetime]
    updated_at: Mapped[dt.datetime]
    deleted_at: Mapped[dt.datetime | None]
    unindexed_from: Mapped[int | None] = mapped_column(NUMBER)


class Said(Base):
    """A message."""

    __tablename__ = "messages"

    id: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id"))
    agent_id: Mapped[str | None]
    seq: Mapped[int] = mapped_column(NUMBER)
    from_generation: Mapped[int] = mapped_column(NUMBER)
    to_generation: Mapped[int | None] = mapped_column(NUMBER)
    role: Mapped[str]
    name: Mapped[str | None]
    content: Mapped[Any] = mapped_column(JSON())
    tool_calls: Mapped[Any | None] = mapped_column(JSON(none_as_null=True))
    tool_call_id: Mapped[str | None]
    content_types: Mapped[int] = mapped_column(NUMBER)
    tool_names: Mapped[list[Any] | None] = mapped_column(OR_NULL)
    model: Mapped[str | None]
    token_count: Mapped[int] = mapped_column(NUMBER)
    input_tokens: Mapped[int | None] = mapped_column(NUMBER)
    output_tokens: Mapped[int | None] = mapped_column(NUMBER)
    cached_tokens: Mapped[int | None] = mapped_column(NUMBER)
    cost: Mapped[Any | None] = mapped_column(MONEY)
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", BINARY)
    idempotency_key: Mapped[str | None]
    copied_from: Mapped[str | None]
    created_at: Mapped[dt.datetime]
