"""What the store remembers of its own upkeep."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base
from agentos_store.types import ErrorText, Identifier, JSONValue, Text, UTCDateTime


class MaintenanceRun(Base):
    """One run of upkeep: an import, a clean-up, a copy, …"""

    __tablename__ = "maintenance_runs"
    entity: ClassVar[str] = "maintenance run"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    kind: Mapped[str] = mapped_column(Text(min_length=1, max_length=100))
    """import, retention, clean-up, decay, reindex, copy, …"""
    started_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())
    finished_at: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    """NULL while it runs, or when it was killed."""
    counts: Mapped[dict[str, Any]] = mapped_column(JSONValue(kind="object"))
    progress: Mapped[dict[str, Any]] = mapped_column(JSONValue(kind="object"))
    """Where a killed run resumes."""
    error: Mapped[str | None] = mapped_column(ErrorText())

    __table_args__ = (
        Index("ix_maintenance_runs_kind_started_at_id", "kind", "started_at", "id"),
        Index("ix_maintenance_runs_started_at_id", "started_at", "id"),
    )


class ImportLedgerEntry(Base):
    """A row of a source that was imported, so that a second import changes nothing."""

    __tablename__ = "import_ledger"
    entity: ClassVar[str] = "ledger entry"

    source: Mapped[str] = mapped_column(Text(min_length=1), primary_key=True)
    """Names the source: the same data gives the same name."""
    kind: Mapped[str] = mapped_column(Text(min_length=1), primary_key=True)
    source_key: Mapped[str] = mapped_column(Text(min_length=1), primary_key=True)
    our_key: Mapped[str] = mapped_column(Text(min_length=1))
    imported_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())
