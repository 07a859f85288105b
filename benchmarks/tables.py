"""The three tables as somebody would declare them for SQLAlchemy by hand, and an engine that is as durable."""

from __future__ import annotations

import datetime as dt
from typing import Any

from sqlalchemy import JSON, DateTime, Engine, ForeignKey, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks import rows

AS_TEXT = sqlite.DATETIME(  # type: ignore[no-untyped-call]
    storage_format=("%(year)04d-%(month)02d-%(day)02dT%(hour)02d:%(minute)02d:%(second)02d.%(microsecond)06dZ"),
    regexp=r"(\d+)-(\d+)-(\d+)T(\d+):(\d+):(\d+).(\d+)Z",
)

BINARY = JSON().with_variant(postgresql.JSONB(), "postgresql")


class Base(DeclarativeBase):
    """What the tables share."""

    type_annotation_map = {dt.datetime: DateTime(timezone=True).with_variant(AS_TEXT, "sqlite"), dict[str, Any]: JSON}  # noqa: RUF012


class Task(Base):
    """A task."""

    __tablename__ = "tasks"

    task_id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str]
    status: Mapped[str]
    task_type: Mapped[str]
    priority: Mapped[int]
    payload: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    error_message: Mapped[str | None]
    exit_reason: Mapped[str | None]
    session_id: Mapped[str | None]
    project_id: Mapped[str | None]
    agent_id: Mapped[str | None]
    route_plan_json: Mapped[dict[str, Any] | None] = mapped_column(BINARY)
    requirements_json: Mapped[dict[str, Any] | None] = mapped_column(BINARY)
    selected_instance_id: Mapped[str | None]
    router_version: Mapped[str | None]
    attempts: Mapped[int]
    max_attempts: Mapped[int]
    run_after: Mapped[dt.datetime | None]
    claimed_by: Mapped[str | None]
    lease_until: Mapped[dt.datetime | None]
    lease_token: Mapped[int]
    idempotency_key: Mapped[str | None]
    version: Mapped[int]
    created_by: Mapped[str | None]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", BINARY)
    started_at: Mapped[dt.datetime | None]
    completed_at: Mapped[dt.datetime | None]
    duration: Mapped[float | None]
    created_at: Mapped[dt.datetime]
    updated_at: Mapped[dt.datetime]


class Audit(Base):
    """An audit."""

    __tablename__ = "task_audits"

    audit_id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.task_id"))
    repo_id: Mapped[str | None]
    level: Mapped[str]
    event_type: Mapped[str]
    payload: Mapped[dict[str, Any] | None]
    decision_id: Mapped[str | None]
    source_event_ts: Mapped[dt.datetime | None]
    supervisor_processed_at: Mapped[dt.datetime | None]
    verdict_id: Mapped[str | None]
    created_at: Mapped[dt.datetime]
    prev_hash: Mapped[str]
    row_hash: Mapped[str]


class Head(Base):
    """The end of a chain."""

    __tablename__ = "task_audit_heads"

    task_id: Mapped[str] = mapped_column(primary_key=True)
    length: Mapped[int]
    head_hash: Mapped[str]
    head_prev_hash: Mapped[str]
    pruned_to: Mapped[int]
    pruned_hash: Mapped[str | None]


def engine_of(url: str) -> Engine:
    """Return an engine whose transactions are the ones that the raw drivers make."""
    engine = create_engine(make_url(url), json_serializer=rows.compact)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _prepare(connection: Any, _record: object) -> None:
    # SQLAlchemy's own BEGIN would come with the first write and fail under contention.
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "recursive_triggers=ON"):
        connection.execute(f"PRAGMA {pragma}")
