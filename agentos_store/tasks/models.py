"""Tasks, the links to what they come from and led to, and the audit trail."""

from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar

from sqlalchemy import CheckConstraint, ForeignKey, Identity, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from agentos_store.base import Base, Timestamps
from agentos_store.errors import InvalidValueError
from agentos_store.tasks.states import STATUSES
from agentos_store.types import Choice, ErrorText, ExactJSON, Float64, Identifier, Int64, JSONValue, Text, UTCDateTime

TASK_STATUS = Choice(*STATUSES)
AUDIT_LEVEL = Choice("info", "warning", "error")

_STATUSES = ", ".join(f"'{status}'" for status in STATUSES)

# Conditions of partial indexes, which serve only a statement that says the same. They say what a task is not, for with
# "status = …" the databases take the index by status, and sort all that wait.
_WAITS, RUNS = (
    "status NOT IN ({})".format(", ".join(f"'{status}'" for status in STATUSES if status != only))
    for only in ("pending", "running")
)
AT_ONCE = f"{_WAITS} AND run_after IS NULL"
"""A task waits and may be claimed at once, as far as its own row says."""
DELAYED = f"{_WAITS} AND run_after IS NOT NULL"
"""A task waits for its time."""
LEASED = "lease_until IS NOT NULL"
"""Somebody has claimed the task."""


def _partial(name: str, *columns: Any, where: str) -> Index:
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where))


class Task(Timestamps, Base):
    """A unit of work that one agent claims, runs and finishes."""

    __tablename__ = "tasks"
    entity: ClassVar[str] = "task"

    task_id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    title: Mapped[str] = mapped_column(Text(min_length=1, max_length=500))
    status: Mapped[str] = mapped_column(TASK_STATUS)
    task_type: Mapped[str] = mapped_column(Text(max_length=255))
    """What kind of work it is; empty for no kind in particular."""
    priority: Mapped[int] = mapped_column(Int64())
    """The higher, the sooner it is claimed; 0 is ordinary."""
    payload: Mapped[Any] = mapped_column(ExactJSON(), nullable=True)
    """What the task works on; NULL when there is nothing."""
    result: Mapped[Any] = mapped_column(ExactJSON(), nullable=True)
    error_message: Mapped[str | None] = mapped_column(ErrorText())
    exit_reason: Mapped[str | None] = mapped_column(Text())
    """Why it ended; always there when it failed."""
    session_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("sessions.id", ondelete="SET NULL"))
    project_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("projects.id", ondelete="RESTRICT"))
    agent_id: Mapped[str | None] = mapped_column(Identifier(), ForeignKey("agents.agent_id", ondelete="SET NULL"))
    """Who executes it."""
    route_plan_json: Mapped[Any] = mapped_column(JSONValue(), nullable=True)
    requirements_json: Mapped[Any] = mapped_column(JSONValue(), nullable=True)
    selected_instance_id: Mapped[str | None] = mapped_column(Text())
    router_version: Mapped[str | None] = mapped_column(Text())
    attempts: Mapped[int] = mapped_column(Int64())
    """Times it was claimed since it was made or tried anew, those not counted that were given back."""
    max_attempts: Mapped[int] = mapped_column(Int64())
    run_after: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    """Not claimed before this instant; NULL for at once. A try that failed moves it into the future."""
    claimed_by: Mapped[str | None] = mapped_column(Text())
    lease_until: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    """The claim lapses at this instant; NULL while nobody holds it."""
    lease_token: Mapped[int] = mapped_column(Int64())
    """Grows with each claim, so that a late worker is recognised."""
    idempotency_key: Mapped[str | None] = mapped_column(Identifier())
    """Unique for each task type."""
    version: Mapped[int] = mapped_column(Int64())
    """Grows with every change, for optimistic locking; 1 at first."""
    created_by: Mapped[str | None] = mapped_column(Text())
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue(kind="object"))
    started_at: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    """When it ran for the first time."""
    completed_at: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    """When it ended: completed, failed or cancelled."""
    duration: Mapped[float | None] = mapped_column(Float64())
    """Seconds from start to end, derived unless it is given."""

    __table_args__ = (
        CheckConstraint(f"status IN ({_STATUSES})", name="status"),
        CheckConstraint("length(title) BETWEEN 1 AND 500", name="title_length"),
        CheckConstraint("attempts >= 0", name="attempts_not_negative"),
        CheckConstraint("max_attempts >= 1", name="max_attempts_positive"),
        CheckConstraint("status <> 'failed' OR exit_reason IS NOT NULL", name="failed_has_exit_reason"),
        UniqueConstraint("task_type", "idempotency_key"),
        Index("ix_tasks_created_at_task_id", "created_at", "task_id"),
        Index("ix_tasks_status_created_at_task_id", "status", "created_at", "task_id"),
        Index("ix_tasks_task_type_created_at_task_id", "task_type", "created_at", "task_id"),
        Index("ix_tasks_session_id_created_at_task_id", "session_id", "created_at", "task_id"),
        Index("ix_tasks_project_id_created_at_task_id", "project_id", "created_at", "task_id"),
        Index("ix_tasks_agent_id_created_at_task_id", "agent_id", "created_at", "task_id"),
        Index("ix_tasks_metadata", "metadata", postgresql_using="gin").ddl_if(dialect="postgresql"),
        # The most urgent first, then the oldest: the order in which tasks are claimed.
        _partial("ix_tasks_at_once", text("priority DESC"), "created_at", "task_id", where=AT_ONCE),
        _partial("ix_tasks_type_at_once", "task_type", text("priority DESC"), "created_at", "task_id", where=AT_ONCE),
        _partial("ix_tasks_delayed", "run_after", where=DELAYED),
        _partial("ix_tasks_due", text("priority DESC"), "created_at", "task_id", "run_after", where=DELAYED),
        _partial("ix_tasks_leased", "lease_until", where=LEASED),
    )


class Reference(Text):
    """Text of 1 to 1,000 characters that takes 1,200 bytes at most in UTF-8.

    PostgreSQL's indexes hold 2,700 bytes, which the longest identifier, kind and reference stay below together.
    """

    MOST_BYTES = 1200

    def __init__(self) -> None:
        super().__init__(min_length=1, max_length=1000)

    def check_length(self, text: str, name: str) -> None:
        """Refuse a text that is too short or too long, in characters or in bytes."""
        super().check_length(text, name)
        size = len(text.encode())
        if size > self.MOST_BYTES:
            raise InvalidValueError(name, f"{size:,} bytes in UTF-8 are more than the limit of {self.MOST_BYTES:,}")


class TaskLineage(Base):
    """A link from a task to something that it comes from or that it led to."""

    __tablename__ = "task_lineage"
    entity: ClassVar[str] = "lineage link"

    lineage_id: Mapped[int] = mapped_column(Int64(), Identity(), primary_key=True)
    task_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("tasks.task_id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(Text(min_length=1, max_length=100))
    """nl_request, intent, execution_request, commit, or another word."""
    ref_id: Mapped[str] = mapped_column(Reference())
    phase: Mapped[str | None] = mapped_column(Text())
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", JSONValue(kind="object"))
    created_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())

    __table_args__ = (
        UniqueConstraint("task_id", "kind", "ref_id"),
        Index("ix_task_lineage_task_id_lineage_id", "task_id", "lineage_id"),
        Index("ix_task_lineage_kind_ref_id_lineage_id", "kind", "ref_id", "lineage_id"),
        Index("ix_task_lineage_kind_lineage_id", "kind", "lineage_id"),
        Index("ix_task_lineage_ref_id_lineage_id", "ref_id", "lineage_id"),
        {"sqlite_autoincrement": True},
    )


class TaskAudit(Base):
    """One entry of a task's audit trail, chained to the one before it."""

    __tablename__ = "task_audits"
    entity: ClassVar[str] = "audit"

    audit_id: Mapped[int] = mapped_column(Int64(), Identity(), primary_key=True)
    task_id: Mapped[str] = mapped_column(Identifier(), ForeignKey("tasks.task_id", ondelete="CASCADE"))
    repo_id: Mapped[str | None] = mapped_column(Identifier())
    level: Mapped[str] = mapped_column(AUDIT_LEVEL)
    event_type: Mapped[str] = mapped_column(Text(min_length=1, max_length=255))
    payload: Mapped[Any] = mapped_column(ExactJSON(), nullable=True)
    decision_id: Mapped[str | None] = mapped_column(Identifier())
    """Unique where it is not NULL: one decision is recorded once."""
    source_event_ts: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    """When the event happened that the supervisor decided on."""
    supervisor_processed_at: Mapped[dt.datetime | None] = mapped_column(UTCDateTime())
    verdict_id: Mapped[str | None] = mapped_column(Identifier())
    created_at: Mapped[dt.datetime] = mapped_column(UTCDateTime())
    prev_hash: Mapped[str] = mapped_column(Text())
    """The hash of the entry before; 64 zeros for the first."""
    row_hash: Mapped[str] = mapped_column(Text())
    """SHA-256 over ``prev_hash`` and this entry's content, in hexadecimal."""

    __table_args__ = (
        CheckConstraint("level IN ('info', 'warning', 'error')", name="level"),
        UniqueConstraint("task_id", "prev_hash"),
        UniqueConstraint("decision_id"),
        Index("ix_task_audits_task_id_audit_id", "task_id", "audit_id"),
        Index("ix_task_audits_task_id_created_at_audit_id", "task_id", "created_at", "audit_id"),
        Index("ix_task_audits_created_at_audit_id", "created_at", "audit_id"),
        Index("ix_task_audits_repo_id_created_at_audit_id", "repo_id", "created_at", "audit_id"),
        Index("ix_task_audits_level_created_at_audit_id", "level", "created_at", "audit_id"),
        Index("ix_task_audits_event_type_created_at_audit_id", "event_type", "created_at", "audit_id"),
        {"sqlite_autoincrement": True},
    )


class TaskAuditHead(Base):
    """The end of a task's audit chain. It outlives the task, and shows a tail that was cut."""

    __tablename__ = "task_audit_heads"
    entity: ClassVar[str] = "audit chain"

    task_id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
    length: Mapped[int] = mapped_column(Int64())
    """Entries ever recorded, the pruned ones included."""
    head_hash: Mapped[str] = mapped_column(Text())
    """``row_hash`` of the newest entry."""
    head_prev_hash: Mapped[str] = mapped_column(Text())
    """``prev_hash`` of the newest entry: lets one statement move the head and tell where it stood."""
    pruned_to: Mapped[int] = mapped_column(Int64())
    """How many of the oldest entries were removed rightfully."""
    pruned_hash: Mapped[str | None] = mapped_column(Text())
    """``row_hash`` of the last entry that was removed; NULL while none was."""

    __table_args__ = (
        CheckConstraint("length >= 1", name="length_positive"),
        CheckConstraint("pruned_to BETWEEN 0 AND length", name="pruned_within_length"),
    )


class AuditPruningPermit(Base):
    """Stands in the table only inside a transaction that removes audit entries rightfully; the triggers look for it."""

    __tablename__ = "audit_pruning_permits"
    entity: ClassVar[str] = "pruning permit"

    task_id: Mapped[str] = mapped_column(Identifier(), primary_key=True)
