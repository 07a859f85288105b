"""Verdicts of guardians, and the inbox of the supervisor."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base
from agentos_store.types import Choice, ErrorText, Identifier, Int64, JSONValue, Text, UTCDateTime

DECISION = Choice("approve", "reject", "warn")
INBOX_STATUS = Choice("pending", "processing", "processed", "failed", "parked")


def _partial(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where))


class GuardianVerdict(Base):
    """What a guardian decided about a task; never changed."""

    __tablename__ = "guardian_verdicts"
    entity: ClassVar[str] = "verdict"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    task_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("tasks.task_id", ondelete="CASCADE"))
    triggered_by: Mapped[str] = mapped_column(Text(1, 255))
    """The event, or the guardian, that asked for it."""
    policy_json: Mapped[dict[str, Any]] = mapped_column(JSONValue("object"))
    decision: Mapped[str] = mapped_column(DECISION)
    reasons_json: Mapped[list[Any]] = mapped_column(JSONValue("array"))
    created_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())

    __table_args__ = (
        CheckConstraint("decision IN ('approve', 'reject', 'warn')", name="decision"),
        Index("ix_guardian_verdicts_task_id_created_at_id", "task_id", "created_at", "id"),
        Index("ix_guardian_verdicts_decision_created_at_id", "decision", "created_at", "id"),
        Index("ix_guardian_verdicts_triggered_by_created_at_id", "triggered_by", "created_at", "id"),
        Index("ix_guardian_verdicts_created_at_id", "created_at", "id"),
    )


class SupervisorInboxEntry(Base):
    """An event that the supervisor has to look at, once."""

    __tablename__ = "supervisor_inbox"
    entity: ClassVar[str] = "inbox entry"

    id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    task_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("tasks.task_id", ondelete="CASCADE"))
    event_type: Mapped[str] = mapped_column(Text(1, 255))
    event_ts: Mapped[dt.datetime] = mapped_column(UTCDateTime())
    payload_json: Mapped[Any] = mapped_column(JSONValue(), nullable=True)
    status: Mapped[str] = mapped_column(INBOX_STATUS)
    source: Mapped[str] = mapped_column(Text(max_length=255))
    attempts: Mapped[int] = mapped_column(Int64())
    """Times it was claimed since it was added, or let out of parking."""
    error_message: Mapped[str | None] = mapped_column(ErrorText())
    claimed_by: Mapped[str | None] = mapped_column(Text())
    lease_until: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    """The claim lapses at this instant; NULL while nobody holds it."""
    lease_token: Mapped[int] = mapped_column(Int64())
    """Grows with each claim, so that a late worker is recognised."""
    processed_at: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    created_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())

    __table_args__ = (
        CheckConstraint("status IN ('pending', 'processing', 'processed', 'failed', 'parked')", name="status"),
        CheckConstraint("attempts >= 0", name="attempts_not_negative"),
        CheckConstraint("status = 'processing' OR lease_until IS NULL", name="lease_only_while_processing"),
        Index("ix_supervisor_inbox_status_event_ts_id", "status", "event_ts", "id"),
        Index("ix_supervisor_inbox_task_id_event_ts_id", "task_id", "event_ts", "id"),
        Index("ix_supervisor_inbox_event_ts_id", "event_ts", "id"),
        _partial("ix_supervisor_inbox_open", "event_ts", "id", where="status NOT IN ('processed', 'parked')"),
        _partial("ix_supervisor_inbox_held", "lease_until", where="lease_until IS NOT NULL"),
        _partial("ix_supervisor_inbox_done", "processed_at", "id", where="processed_at IS NOT NULL"),
    )
