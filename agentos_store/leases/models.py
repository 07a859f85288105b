"""Leases: who may do what only one may do at a time, and until when."""

from __future__ import annotations

import datetime as dt
from typing import ClassVar, NamedTuple

from sqlalchemy import CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base
from agentos_store.types import Identifier, Int64, UTCDateTime


class Lease(Base):
    """The right to something that only one may do at a time, until an instant of the database's clock.

    The row stays when the lease was given back or has lapsed, so that its token grows for ever.
    """

    __tablename__ = "leases"
    entity: ClassVar[str] = "lease"

    name: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    owner: Mapped[str | None] = mapped_column(Identifier())
    """Who acquired it, for people to read; NULL once it was given back."""
    token: Mapped[int] = mapped_column(Int64())
    """Grows with each acquisition, so that a holder that was too late is recognised."""
    acquisition_id: Mapped[str] = mapped_column(Identifier())
    """Names the call that acquired it, which recognises its own work when the answer was lost."""
    acquired_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())
    expires_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())
    """It lapses at this instant, unless it is renewed."""

    __table_args__ = (
        CheckConstraint("token > 0", name="token_positive"),
        # Neither holds a time, so that a renewal changes no index.
        Index("ix_leases_owner_name", "owner", "name"),
        Index(
            "ix_leases_held",
            "name",
            postgresql_where=text("owner IS NOT NULL"),
            sqlite_where=text("owner IS NOT NULL"),
        ),
    )


class Fence(NamedTuple):
    """What a lease is recognised by: enough to guard a write, also in a process that did not acquire it."""

    name: str
    token: int
