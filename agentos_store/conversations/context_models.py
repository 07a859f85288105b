"""Contexts: what an agent or a session works with for a while."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base, Created
from agentos_store.types import ExactJSON, Identifier, UTCDateTime


class Context(Created, Base):
    """A piece of working context, with the time at which it expires."""

    __tablename__ = "contexts"
    entity: ClassVar[str] = "context"

    context_id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    agent_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("agents.agent_id", ondelete="CASCADE"))
    session_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("sessions.id", ondelete="CASCADE"))
    context_data: Mapped[Any] = mapped_column(ExactJSON(none_as_null=False))
    expires_at: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    """From this instant, by the database's clock, it is invisible; NULL: never."""

    __table_args__ = (
        Index("ix_contexts_created_at_context_id", "created_at", "context_id"),
        Index("ix_contexts_agent_id_created_at_context_id", "agent_id", "created_at", "context_id"),
        Index("ix_contexts_session_id_created_at_context_id", "session_id", "created_at", "context_id"),
        Index(
            "ix_contexts_expires_at",
            "expires_at",
            sqlite_where=text("expires_at IS NOT NULL"),
            postgresql_where=text("expires_at IS NOT NULL"),
        ),
    )
