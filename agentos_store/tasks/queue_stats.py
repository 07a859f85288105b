"""How the queue stands: what waits, what is being done, and for how long the oldest has waited."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, func, literal, select, text, true

from agentos_store.engine.clock import from_now
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.tasks.claiming import unfinished
from agentos_store.tasks.models import LEASED
from agentos_store.tasks.transition import TASKS


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How the queue stands."""

    pending: int
    """Tasks that wait: ``ready``, ``delayed`` and ``blocked`` ones."""
    ready: int
    """Those that the next worker could claim."""
    delayed: int
    """Those whose ``run_after`` has not come."""
    blocked: int
    """Those whose time has come and that depend on something unfinished."""
    running: int
    """Tasks that are being done, those of dead workers included."""
    lapsed: int
    """Tasks whose worker has let its lease lapse; the next claim lets them wait again."""
    oldest_ready_at: dt.datetime | None
    """When the oldest ready task was created; None when nothing is ready."""
    oldest_ready_age: float | None
    """Seconds since then."""


def queue_stats(session: Session) -> QueueStats:
    """Count, at one moment."""
    waiting = session.first(_WAITING)
    working = session.first(_WORKING)
    assert waiting is not None
    assert working is not None
    pending, delayed, blocked, oldest, now = waiting
    age = None if oldest is None else max(0.0, (now - oldest).total_seconds())
    ready = pending - delayed - blocked
    return QueueStats(pending, ready, delayed, blocked, working[0], working[1], oldest, age)


_NOW = from_now(0.0)


def _waiting() -> Statement[Any]:
    is_delayed = and_(TASKS.c.run_after.is_not(None), TASKS.c.run_after > _NOW)
    is_due = ~func.coalesce(is_delayed, literal(False))
    rows = (
        select(
            TASKS.c.created_at,
            is_delayed.label("is_delayed"),
            and_(is_due, unfinished(TASKS.c.task_id).is_(true())).label("is_blocked"),
        )
        .where(TASKS.c.status == literal("pending"))
        .subquery("waiting")
    )
    is_ready = and_(~rows.c.is_delayed, ~rows.c.is_blocked)
    counts: Any = (
        func.count(),
        func.count().filter(rows.c.is_delayed),
        func.count().filter(rows.c.is_blocked),
        func.min(rows.c.created_at, type_=TASKS.c.created_at.type).filter(is_ready),
        _NOW,
    )
    return Statement(select(*counts))


_WAITING = _waiting()
_LAPSED: Any = func.count().filter(and_(text(f"tasks.{LEASED}"), TASKS.c.lease_until < _NOW))
_WORKING: Statement[Any] = Statement(select(func.count(), _LAPSED).where(TASKS.c.status == literal("running")))
