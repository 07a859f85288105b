"""Operations on the audit trail."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, literal, select

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.operation import F, Repository, reads, reads_together, repeatable, walks, writes_once
from agentos_store.page import DEFAULT_LIMIT, Filter, Listing, Page, at_least, below, equals
from agentos_store.tasks.decisions import Decision, DecisionLag, decision_lag, decisions_of
from agentos_store.tasks.models import TaskAudit
from agentos_store.tasks.trail import AUDITS, ERASED, Entry, append
from agentos_store.tasks.verification import Verification, verify_chains

_KEY = bindparam("audit_id", type_=AUDITS.c.audit_id.type)
_GET: Statement[TaskAudit] = Statement(select(AUDITS).where(AUDITS.c.audit_id == _KEY), returns=TaskAudit)
_SAME: Statement[TaskAudit] = Statement(
    select(AUDITS).where(
        AUDITS.c.task_id == bindparam("task_id", type_=AUDITS.c.task_id.type),
        AUDITS.c.created_at == bindparam("created_at", type_=AUDITS.c.created_at.type),
        AUDITS.c.event_type == bindparam("event_type", type_=AUDITS.c.event_type.type),
    ),
    returns=TaskAudit,
)

_TIME = (AUDITS.c.created_at, AUDITS.c.audit_id)
_FILTERS = {
    "task_id": equals(TaskAudit.task_id),
    "repo_id": equals(TaskAudit.repo_id),
    "level": equals(TaskAudit.level),
    "event_type": equals(TaskAudit.event_type),
    "decision_id": equals(TaskAudit.decision_id),
    "created_after": at_least(TaskAudit.created_at),
    "created_before": below(TaskAudit.created_at),
}
_PREFIX_FILTERS = {
    **_FILTERS,
    "event_prefix": at_least(TaskAudit.event_type),
    "event_prefix_end": Filter(
        TaskAudit.event_type.type,
        lambda name: TaskAudit.event_type < bindparam(name, type_=AUDITS.c.event_type.type) + literal(_LAST),
    ),
}
_LAST = "\U0010ffff"
"""Sorts after every character that an event type is likely to go on with."""

_LISTING = Listing(TaskAudit, filters=_FILTERS, orders={"created_at": _TIME}, default="created_at")
_PREFIX_LISTING = Listing(
    TaskAudit,
    filters=_PREFIX_FILTERS,
    # The rows of a prefix lie together in the index by event type, so they come in its order.
    orders={"event_type": (AUDITS.c.event_type, *_TIME)},
    default="event_type",
)


class AuditRepository(Repository[F]):
    """Audits: what happened to a task, chained entry to entry, never changed."""

    name = "audits"

    @writes_once
    @repeatable
    def record(
        self,
        session: Session,
        task_id: str,
        *,
        event_type: str,
        payload: Any = None,
        level: str = "info",
        repo_id: str | None = None,
        decision_id: str | None = None,
        source_event_ts: dt.datetime | None = None,
        verdict_id: str | None = None,
        strict: bool = True,
    ) -> TaskAudit | None:
        """Add an entry to the task's chain.

        For an unknown task NotFoundError is raised, or None returned without ``strict``. AlreadyExistsError for a
        ``decision_id`` that is recorded already. Writers to one task's chain stand in line. ``audit.erased`` is
        recorded by erasures alone, and refused here.
        """
        if event_type == ERASED:
            raise InvalidValueError("event_type", f"{ERASED} is what an erasure records")
        time = session.now()
        decided = source_event_ts is not None or decision_id is not None
        entry = Entry(
            task_id=task_id,
            event_type=event_type,
            created_at=time,
            level=level,
            payload=payload,
            repo_id=repo_id,
            decision_id=decision_id,
            source_event_ts=source_event_ts,
            supervisor_processed_at=time if decided else None,
            verdict_id=verdict_id,
        )
        if session.repeated:
            # The time was drawn for this call alone, so an entry that has it is this call's.
            found = session.first(_SAME, {"task_id": task_id, "created_at": time, "event_type": event_type})
            if found is not None:
                return found
        try:
            return append(session, entry)
        except NotFoundError:
            if strict:
                raise
            return None

    @reads
    def get(self, session: Session, audit_id: int) -> TaskAudit:
        """Return the entry; raise NotFoundError for an unknown number."""
        found = session.first(_GET, {"audit_id": audit_id})
        if found is None:
            raise NotFoundError("audit", audit_id)
        return found

    @reads
    def find(self, session: Session, audit_id: int) -> TaskAudit | None:
        """Return the entry, or None."""
        return session.first(_GET, {"audit_id": audit_id})

    @reads
    def exists(self, session: Session, audit_id: int) -> bool:
        """Tell whether there is such an entry."""
        return session.first(_GET, {"audit_id": audit_id}) is not None

    @reads
    def query(
        self,
        session: Session,
        *,
        task_id: str | None = None,
        repo_id: str | None = None,
        level: str | None = None,
        event_type: str | None = None,
        event_prefix: str | None = None,
        decision_id: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[TaskAudit]:
        """Return a page of entries, the oldest first; with ``event_prefix`` they come by event type, then by time."""
        filters = {
            "task_id": task_id,
            "repo_id": repo_id,
            "level": level,
            "event_type": event_type,
            "decision_id": decision_id,
            "created_after": created_after,
            "created_before": created_before,
        }
        listing = _LISTING
        if event_prefix is not None:
            if event_type is not None:
                raise InvalidValueError("event_prefix", "cannot be combined with event_type")
            listing = _PREFIX_LISTING
            filters |= {"event_prefix": event_prefix, "event_prefix_end": event_prefix}
        return listing.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    list = query
    iterate = walks(query)

    @reads
    def count(
        self,
        session: Session,
        *,
        task_id: str | None = None,
        level: str | None = None,
        event_type: str | None = None,
        event_prefix: str | None = None,
    ) -> int:
        """Return how many entries pass the filters."""
        filters = {"task_id": task_id, "level": level, "event_type": event_type}
        if event_prefix is None:
            return _LISTING.count(session, filters)
        return _PREFIX_LISTING.count(
            session, filters | {"event_prefix": event_prefix, "event_prefix_end": event_prefix}
        )

    @reads
    def decision_trace(self, session: Session, task_id: str) -> Sequence[Decision]:
        """Return the decisions about a task in the order in which they were recorded, each with its lag."""
        return decisions_of(session, task_id)

    @reads_together
    def decision_lag(
        self,
        session: Session,
        *,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
    ) -> DecisionLag:
        """Return how long decisions took, from the event to its processing: count, median, 95th percentile, longest."""
        return decision_lag(session, created_after, created_before)

    @reads_together
    def verify(self, session: Session, task_id: str | None = None) -> Verification:
        """Check the chain of one task, or all chains, and name the first bad entry of each.

        Found are: a changed entry, one that is missing or was put in between, a tail that was cut, a chain whose head
        is gone. Entries whose payload was erased by ``forget`` are counted. Whoever rewrites a whole chain with its
        head cannot be found out without a copy of the head elsewhere.
        """
        return verify_chains(session, task_id)
