"""The supervisor's decisions, as the audit trail has them: what was decided, and how long it took."""

from __future__ import annotations

import datetime as dt
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select, tuple_

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import NotFoundError
from agentos_store.tasks.models import TaskAudit
from agentos_store.tasks.transition import GET
from agentos_store.types.utc_datetime import EARLIEST, LATEST

_AUDITS = TaskAudit.table()
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision about a task."""

    decision_id: str
    audit_id: int
    event_type: str
    level: str
    payload: Any
    verdict_id: str | None
    source_event_ts: dt.datetime | None
    """When the event happened that was decided on."""
    supervisor_processed_at: dt.datetime | None
    lag: float | None
    """Seconds between the two; None where one is not known."""


@dataclass(frozen=True, slots=True)
class DecisionLag:
    """How long decisions took, from the event to its processing."""

    count: int
    p50: float | None
    """Seconds; None while there are no decisions."""
    p95: float | None
    longest: float | None


def decisions_of(session: Session, task_id: str) -> Sequence[Decision]:
    """Return the task's decisions in the order in which they were recorded; NotFoundError for an unknown task."""
    audits = session.all(_DECISIONS, {"task_id": task_id})
    if not audits and session.first(GET, {"task_id": task_id}) is None:
        raise NotFoundError("task", task_id)
    return [
        Decision(
            decision_id=str(audit.decision_id),
            audit_id=audit.audit_id,
            event_type=audit.event_type,
            level=audit.level,
            payload=audit.payload,
            verdict_id=audit.verdict_id,
            source_event_ts=audit.source_event_ts,
            supervisor_processed_at=audit.supervisor_processed_at,
            lag=_seconds(audit.source_event_ts, audit.supervisor_processed_at),
        )
        for audit in audits
    ]


def decision_lag(session: Session, after: dt.datetime | None, before: dt.datetime | None) -> DecisionLag:
    """Return the percentiles, by the nearest rank, of the decisions recorded in this time.

    They are computed here, eight bytes a decision, for SQLite has no percentiles.
    """
    lags = array("d")
    last = (EARLIEST if after is None else after, -1)
    end = LATEST if before is None else before
    while True:
        binds = {"after_time": last[0], "after_audit": last[1], "before": end, "limit_": _BATCH}
        rows = session.all(_TIMES, binds)
        lags.extend(lag for _, _, source, processed in rows if (lag := _seconds(source, processed)) is not None)
        if len(rows) < _BATCH:
            break
        last = (rows[-1][0], rows[-1][1])
    if not lags:
        return DecisionLag(0, None, None, None)
    ordered = sorted(lags)
    return DecisionLag(len(ordered), _percentile(ordered, 50), _percentile(ordered, 95), ordered[-1])


def _percentile(ordered: Sequence[float], percent: int) -> float:
    return ordered[-(-len(ordered) * percent // 100) - 1]


def _seconds(source: dt.datetime | None, processed: dt.datetime | None) -> float | None:
    return None if source is None or processed is None else (processed - source).total_seconds()


_DECISIONS: Statement[TaskAudit] = Statement(
    select(_AUDITS)
    .where(_AUDITS.c.task_id == bindparam("task_id", type_=_AUDITS.c.task_id.type), _AUDITS.c.decision_id.is_not(None))
    .order_by(_AUDITS.c.audit_id),
    returns=TaskAudit,
)
_AFTER_TIME = bindparam("after_time", type_=_AUDITS.c.created_at.type)
_AFTER_AUDIT = bindparam("after_audit", type_=_AUDITS.c.audit_id.type)
_TIMES: Statement[Any] = Statement(
    select(_AUDITS.c.created_at, _AUDITS.c.audit_id, _AUDITS.c.source_event_ts, _AUDITS.c.supervisor_processed_at)
    .where(
        tuple_(_AUDITS.c.created_at, _AUDITS.c.audit_id) > tuple_(_AFTER_TIME, _AFTER_AUDIT),
        _AUDITS.c.created_at < bindparam("before", type_=_AUDITS.c.created_at.type),
    )
    .order_by(_AUDITS.c.created_at, _AUDITS.c.audit_id)
    .limit(bindparam("limit_")),
    called={"after_time": "created_after", "before": "created_before"},
)
