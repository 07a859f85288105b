"""Operations on verdicts."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, func, select

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.errors import NotFoundError
from agentos_store.governance.models import DECISION, GuardianVerdict
from agentos_store.operation import F, Repository, reads, reads_together, repeatable, walks, writes
from agentos_store.page import DEFAULT_LIMIT, Listing, Page, at_least, below, equals
from agentos_store.tasks.models import Task
from agentos_store.tasks.trail import Entry, append
from agentos_store.tasks.transition import Step, take
from agentos_store.types import Gate, JSONValue, Text

_VERDICTS = GuardianVerdict.table()
EVENT_TYPE = "guardian.verdict"
_LEVELS = {"approve": "info", "warn": "warning", "reject": "warning"}

_CHECKS: Mapping[str, Gate[Any]] = {
    "triggered_by": Text(1, 255),
    "decision": DECISION,
    "policy": JSONValue("object"),
    "reasons": JSONValue("array"),
}
"""What the parameters must be, under the names that the caller knows them by."""

_LISTING = Listing(
    GuardianVerdict,
    filters={
        "task_id": equals(GuardianVerdict.task_id),
        "decision": equals(GuardianVerdict.decision),
        "triggered_by": equals(GuardianVerdict.triggered_by),
        "created_after": at_least(GuardianVerdict.created_at),
        "created_before": below(GuardianVerdict.created_at),
    },
    orders={"created_at": (_VERDICTS.c.created_at, _VERDICTS.c.id)},
    default="created_at",
)


@dataclass(frozen=True, slots=True)
class VerdictStats:
    """What the verdicts came to."""

    total: int
    by_decision: Mapping[str, int]
    by_trigger: Mapping[str, Mapping[str, int]]
    """By what triggered them, then by decision."""
    approval_rate: float | None
    """Approvals of all verdicts; None while there are none."""


class VerdictRepository(Repository[F]):
    """Verdicts: what guardians decided about tasks, never changed."""

    name = "verdicts"

    @writes
    @repeatable
    def record(
        self,
        session: Session,
        task_id: str,
        *,
        triggered_by: str,
        decision: str,
        policy: Mapping[str, Any] | None = None,
        reasons: Sequence[Any] = (),
        id: str | None = None,
        transition_to: str | None = None,
        exit_reason: str | None = None,
    ) -> GuardianVerdict:
        """Record a verdict with its audit entry, and the task's step that follows from it: all of them or none.

        Raises NotFoundError for an unknown task, AlreadyExistsError for an identifier that is taken, and what
        ``tasks.transition`` raises for the step.
        """
        given = {
            "triggered_by": triggered_by,
            "decision": decision,
            "policy": {} if policy is None else plain_json(policy),
            "reasons": plain_json(reasons),
        }
        for name, value in given.items():
            _CHECKS[name].check(value, name)
        time = session.now()
        key = session.new_ulid() if id is None else id
        if session.repeated:
            # The time was drawn for this call alone: an earlier try of it was committed, and its answer got lost.
            found = session.first(_GET, {"id": key})
            if found is not None and found.created_at == time:
                return found
        if transition_to is not None and session.capabilities.row_locks:
            # A step locks the task and then the head of its audit chain, so the verdict's entry must not be the first
            # to take the head.
            session.first(_LOCK_TASK, {"task_id": task_id})
        row = {
            "id": key,
            "task_id": task_id,
            "triggered_by": triggered_by,
            "policy_json": given["policy"],
            "decision": decision,
            "reasons_json": given["reasons"],
            "created_at": time,
        }
        verdict = session.insert(GuardianVerdict, row)
        payload = {"decision": decision, "triggered_by": triggered_by, "reasons": given["reasons"]}
        entry = Entry(
            task_id=task_id,
            event_type=EVENT_TYPE,
            level=_LEVELS[decision],
            payload=payload,
            verdict_id=key,
            created_at=time,
        )
        append(session, entry)
        if transition_to is not None:
            take(session, Step(task_id=task_id, to=transition_to, by=triggered_by, exit_reason=exit_reason))
        return verdict

    @reads
    def get(self, session: Session, id: str) -> GuardianVerdict:
        """Return the verdict; raise NotFoundError for an unknown identifier."""
        found = session.first(_GET, {"id": id})
        if found is None:
            raise NotFoundError("verdict", id)
        return found

    @reads
    def find(self, session: Session, id: str) -> GuardianVerdict | None:
        """Return the verdict, or None."""
        return session.first(_GET, {"id": id})

    @reads
    def exists(self, session: Session, id: str) -> bool:
        """Tell whether there is such a verdict."""
        return session.first(_GET, {"id": id}) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        task_id: str | None = None,
        decision: str | None = None,
        triggered_by: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[GuardianVerdict]:
        """Return a page of verdicts, the oldest first."""
        filters = {
            "task_id": task_id,
            "decision": decision,
            "triggered_by": triggered_by,
            "created_after": created_after,
            "created_before": created_before,
        }
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    @reads
    def count(self, session: Session, *, task_id: str | None = None, decision: str | None = None) -> int:
        """Return how many verdicts pass the filters."""
        return _LISTING.count(session, {"task_id": task_id, "decision": decision})

    @reads
    def latest(self, session: Session, task_id: str) -> GuardianVerdict | None:
        """Return the task's newest verdict, or None."""
        page = _LISTING.page(session, {"task_id": task_id}, order="-created_at", limit=1)
        return page.items[0] if page.items else None

    @reads_together
    def stats(self, session: Session) -> VerdictStats:
        """Count the verdicts by decision and by what triggered them."""
        by_decision: dict[str, int] = {}
        by_trigger: dict[str, dict[str, int]] = {}
        for trigger, decision, count in session.all(_STATS):
            by_decision[decision] = by_decision.get(decision, 0) + count
            by_trigger.setdefault(trigger, {})[decision] = count
        total = sum(by_decision.values())
        rate = by_decision.get("approve", 0) / total if total else None
        return VerdictStats(total, by_decision, by_trigger, rate)


_GET: Statement[GuardianVerdict] = Statement(
    select(_VERDICTS).where(_VERDICTS.c.id == bindparam("id", type_=_VERDICTS.c.id.type)), returns=GuardianVerdict
)
_TASKS = Task.table()
_LOCK_TASK: Statement[Any] = Statement(
    select(_TASKS.c.task_id)
    .where(_TASKS.c.task_id == bindparam("task_id", type_=_TASKS.c.task_id.type))
    .with_for_update(key_share=True)
)
_STATS: Statement[Any] = Statement(
    select(_VERDICTS.c.triggered_by, _VERDICTS.c.decision, func.count())
    .group_by(_VERDICTS.c.triggered_by, _VERDICTS.c.decision)
    .order_by(_VERDICTS.c.triggered_by, _VERDICTS.c.decision)
)
