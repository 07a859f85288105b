"""Operations on the supervisor's inbox: each event is looked at once, whoever dies meanwhile."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, Update, bindparam, case, delete, func, literal, null, or_, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.sql.dml import ReturningUpdate

from agentos_store.engine.among import among
from agentos_store.engine.clock import from_now, seconds
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, build_model
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import LeaseLostError, NotFoundError
from agentos_store.governance.models import SupervisorInboxEntry
from agentos_store.operation import F, Repository, reads, reads_together, repeatable, walks, writes_once
from agentos_store.page import DEFAULT_LIMIT, Listing, Page, at_least, below, equals
from agentos_store.types import Text, check_duration, check_whole

_INBOX = SupervisorInboxEntry.table()
MAX_ATTEMPTS = 3
CLEANUP_BATCH = 1000
LARGEST_LIMIT = 10_000
PARKED_AT_ONCE = 100
LAPSED = "the lease lapsed"

_BY = Text(1)

_LISTING = Listing(
    SupervisorInboxEntry,
    filters={
        "status": equals(SupervisorInboxEntry.status),
        "task_id": equals(SupervisorInboxEntry.task_id),
        "event_after": at_least(SupervisorInboxEntry.event_ts),
        "event_before": below(SupervisorInboxEntry.event_ts),
    },
    orders={"event_ts": (_INBOX.c.event_ts, _INBOX.c.id)},
    default="event_ts",
)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in the inbox."""

    by_status: Mapping[str, int]
    oldest_pending_at: dt.datetime | None
    """When the oldest event happened that nobody is at work on; None when nothing waits."""
    oldest_pending_age: float | None
    """Seconds since then."""


class InboxRepository(Repository[F]):
    """The supervisor's inbox."""

    name = "inbox"

    @writes_once
    @repeatable
    def add(
        self,
        session: Session,
        task_id: str,
        *,
        event_type: str,
        event_ts: dt.datetime | None = None,
        payload: Any = None,
        id: str | None = None,
        source: str = "eventbus",
    ) -> SupervisorInboxEntry:
        """Add an event; adding one identifier again gives the first one's row as it is now."""
        time = session.now()
        row = dict.fromkeys(_INBOX.c.keys()) | {
            "id": session.new_ulid() if id is None else id,
            "task_id": task_id,
            "event_type": event_type,
            "event_ts": time if event_ts is None else event_ts,
            "payload_json": payload,
            "status": "pending",
            "source": source,
            "attempts": 0,
            "lease_token": 0,
            "created_at": time,
        }
        while True:
            try:
                added = session.execute(_ADD, row)
            except IntegrityViolation as violation:
                raise explain(violation, SupervisorInboxEntry, row, session) from None
            if added:
                return build_model(SupervisorInboxEntry, row)
            found = session.first(_GET, row)
            if found is not None:
                return found
            # It was cleaned up between the two statements.

    @writes_once
    def claim(
        self,
        session: Session,
        *,
        by: str,
        lease: dt.timedelta,
        limit: int = 1,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> Sequence[SupervisorInboxEntry]:
        """Take the oldest events that wait, at most ``limit`` of them, for one worker; return them, the oldest first.

        The claim holds for ``lease`` by the database's clock. Of two workers that claim at once each gets other events.
        An event whose holder died can be claimed again once its lease has lapsed; after ``max_attempts`` claims it is
        parked. A claim whose answer was lost is not repeated: what it took waits until its lease lapses.
        """
        _BY.check(by, "by")
        check_duration("lease", lease)
        check_whole("limit", limit, 1, LARGEST_LIMIT)
        check_whole("max_attempts", max_attempts)
        binds = {"by": by, "lease": lease.total_seconds(), "limit_": limit, "max_attempts": max_attempts}
        if session.capabilities.data_modifying_cte:
            taken = session.all(_CLAIM_AND_PARK, binds)
        else:
            session.execute(_PARK, binds)
            taken = session.all(_CLAIM, binds)
        # An UPDATE returns its rows in any order.
        return sorted(taken, key=lambda entry: (entry.event_ts, entry.id))

    @writes_once
    @repeatable
    def complete(self, session: Session, id: str, token: int) -> SupervisorInboxEntry:
        """Mark a claimed event processed; LeaseLostError when the claim is not this one any more."""
        found = session.first(_COMPLETE, {"id": id, "token": token})
        return found if found is not None else _lost(session, id, token, {"processed"})

    @writes_once
    @repeatable
    def fail(
        self,
        session: Session,
        id: str,
        token: int,
        *,
        error: str,
        max_attempts: int = MAX_ATTEMPTS,
    ) -> SupervisorInboxEntry:
        """Give a claimed event back as failed; it waits again, or is parked when it was claimed ``max_attempts`` times.

        LeaseLostError when the claim is not this one any more.
        """
        check_whole("max_attempts", max_attempts)
        binds = {"id": id, "token": token, "error": error, "max_attempts": max_attempts}
        found = session.first(_FAIL, binds)
        return found if found is not None else _lost(session, id, token, {"failed", "parked"})

    @writes_once
    def reclaim_lapsed(self, session: Session, *, max_attempts: int = MAX_ATTEMPTS) -> int:
        """Let the events of holders that died wait again, or park them; return how many.

        ``claim`` needs no such call: it takes them as they are.
        """
        check_whole("max_attempts", max_attempts)
        return session.execute(_RECLAIM, {"max_attempts": max_attempts})

    @writes_once
    @repeatable
    def unpark(self, session: Session, id: str) -> SupervisorInboxEntry:
        """Let a parked event wait again, with its attempts counted anew."""
        found = session.first(_UNPARK, {"id": id})
        if found is None and session.repeated:
            found = session.first(_GET, {"id": id})
        if found is None:
            raise NotFoundError("parked inbox entry", id)
        return found

    @reads
    def get(self, session: Session, id: str) -> SupervisorInboxEntry:
        """Return the event; raise NotFoundError for an unknown identifier."""
        found = session.first(_GET, {"id": id})
        if found is None:
            raise NotFoundError("inbox entry", id)
        return found

    @reads
    def find(self, session: Session, id: str) -> SupervisorInboxEntry | None:
        """Return the event, or None."""
        return session.first(_GET, {"id": id})

    @reads
    def exists(self, session: Session, id: str) -> bool:
        """Tell whether there is such an event."""
        return session.first(_GET, {"id": id}) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        status: str | None = None,
        task_id: str | None = None,
        event_after: dt.datetime | None = None,
        event_before: dt.datetime | None = None,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[SupervisorInboxEntry]:
        """Return a page of events, the oldest first."""
        filters = {"status": status, "task_id": task_id, "event_after": event_after, "event_before": event_before}
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    @reads
    def count(self, session: Session, *, status: str | None = None, task_id: str | None = None) -> int:
        """Return how many events pass the filters."""
        return _LISTING.count(session, {"status": status, "task_id": task_id})

    @reads_together
    def backlog(self, session: Session) -> Backlog:
        """Return how many events there are by status, and how long the oldest has waited.

        One whose holder died waits too, from the moment that its lease lapsed.
        """
        by_status = dict(session.all(_BY_STATUS))
        oldest = session.first(_OLDEST)
        if oldest is None:
            return Backlog(by_status, None, None)
        return Backlog(by_status, oldest[0], max(0.0, (oldest[1] - oldest[0]).total_seconds()))

    @writes_once
    def cleanup(self, session: Session, *, older_than: dt.timedelta, limit: int = CLEANUP_BATCH) -> int:
        """Remove events that were processed longer ago than this, at most ``limit`` of them; return how many.

        Call it until it returns less than ``limit``: each call is one short transaction.
        """
        check_duration("older_than", older_than)
        check_whole("limit", limit, 1, LARGEST_LIMIT)
        return session.execute(_CLEAN_UP, {"age": -older_than.total_seconds(), "limit_": limit})


def _lost(session: Session, key: str, token: int, done: set[str]) -> SupervisorInboxEntry:
    entry = session.first(_GET, {"id": key})
    if entry is None:
        raise NotFoundError("inbox entry", key)
    if session.repeated and entry.lease_token == token and entry.status in done:
        return entry
    raise LeaseLostError(f"inbox entry {key}", token)


_KEY = bindparam("id", type_=_INBOX.c.id.type)
_TOKEN = bindparam("token", type_=_INBOX.c.lease_token.type)
_LIMIT_OF_ATTEMPTS = bindparam("max_attempts", type_=_INBOX.c.attempts.type)
_HELD = (_INBOX.c.id == _KEY, _INBOX.c.status == "processing", _INBOX.c.lease_token == _TOKEN)
# Written out, for a partial index serves only a condition that says what the index says. It says what an event is not,
# for with "status = …" SQLite takes the index by status, and sorts all that wait.
_OPEN = text(f"{_INBOX.name}.status NOT IN ('processed', 'parked')")
_CLOSED = text(f"{_INBOX.name}.status NOT IN ('pending', 'processing', 'failed')")
_NOW = from_now(0.0)

_ADD: Statement[Any] = Statement(
    postgresql.insert(_INBOX)
    .values({c.name: bindparam(c.name, type_=c.type) for c in _INBOX.c})
    .on_conflict_do_nothing(),
    called={"payload_json": "payload"},
)
_GET: Statement[SupervisorInboxEntry] = Statement(
    select(_INBOX).where(_INBOX.c.id == _KEY), returns=SupervisorInboxEntry
)


def _free(query: Select[Any]) -> Any:
    """Return the condition that a row is one of the query's, but for those that another transaction is at work on."""
    return among(_INBOX.c.id, query.with_for_update(skip_locked=True).correlate(None))


_LAPSED = _INBOX.c.lease_until < _NOW
"""Only what is being processed has a lease."""
_GIVEN_BACK = {
    "error_message": func.coalesce(_INBOX.c.error_message, LAPSED),
    "claimed_by": null(),
    "lease_until": null(),
}
_RECLAIM: Statement[Any] = Statement(
    update(_INBOX)
    .where(_free(select(_INBOX.c.id).where(_LAPSED)))
    .values(status=case((_INBOX.c.attempts >= _LIMIT_OF_ATTEMPTS, "parked"), else_="failed"), **_GIVEN_BACK)
)


def _park() -> Update:
    worn_out = select(_INBOX.c.id).where(_LAPSED, _INBOX.c.attempts >= _LIMIT_OF_ATTEMPTS)
    # A claim does not become slow because many workers died at once.
    worn_out = worn_out.order_by(_INBOX.c.lease_until).limit(literal(PARKED_AT_ONCE))
    found = _free(worn_out)
    return update(_INBOX).where(found).values(status="parked", **_GIVEN_BACK)


_WAITS = (_OPEN, or_(_INBOX.c.lease_until.is_(None), _LAPSED))


def _claim() -> ReturningUpdate[Any]:
    # Those in work are passed over on the way: they are among the oldest, and no more than there are workers for.
    chosen = select(_INBOX.c.id).where(
        *_WAITS, or_(_INBOX.c.lease_until.is_(None), _INBOX.c.attempts < _LIMIT_OF_ATTEMPTS)
    )
    chosen = chosen.order_by(_INBOX.c.event_ts, _INBOX.c.id).limit(bindparam("limit_"))
    return (
        update(_INBOX)
        .where(_free(chosen))
        .values(
            status="processing",
            attempts=_INBOX.c.attempts + 1,
            lease_token=_INBOX.c.lease_token + 1,
            claimed_by=bindparam("by", type_=_INBOX.c.claimed_by.type),
            lease_until=from_now(seconds("lease")),
            error_message=case(
                (_INBOX.c.status == "processing", func.coalesce(_INBOX.c.error_message, LAPSED)),
                else_=_INBOX.c.error_message,
            ),
        )
        .returning(*_INBOX.c)
    )


_PARK: Statement[Any] = Statement(_park())
_CLAIM: Statement[SupervisorInboxEntry] = Statement(_claim(), returns=SupervisorInboxEntry)
_CLAIM_AND_PARK: Statement[SupervisorInboxEntry] = Statement(
    _claim().add_cte(_park().cte("parked")), returns=SupervisorInboxEntry
)
_COMPLETE: Statement[SupervisorInboxEntry] = Statement(
    update(_INBOX)
    .where(*_HELD)
    .values(status="processed", processed_at=_NOW, claimed_by=null(), lease_until=null(), error_message=null())
    .returning(*_INBOX.c),
    returns=SupervisorInboxEntry,
)
_FAIL: Statement[SupervisorInboxEntry] = Statement(
    update(_INBOX)
    .where(*_HELD)
    .values(
        status=case((_INBOX.c.attempts >= _LIMIT_OF_ATTEMPTS, "parked"), else_="failed"),
        error_message=bindparam("error", type_=_INBOX.c.error_message.type),
        claimed_by=null(),
        lease_until=null(),
    )
    .returning(*_INBOX.c),
    returns=SupervisorInboxEntry,
)
_UNPARK: Statement[SupervisorInboxEntry] = Statement(
    update(_INBOX)
    .where(_INBOX.c.id == _KEY, _INBOX.c.status == "parked")
    .values(status="pending", attempts=0)
    .returning(*_INBOX.c),
    returns=SupervisorInboxEntry,
)
_BY_STATUS: Statement[Any] = Statement(select(_INBOX.c.status, func.count()).group_by(_INBOX.c.status))
_OLDEST: Statement[Any] = Statement(
    select(_INBOX.c.event_ts, _NOW).where(*_WAITS).order_by(_INBOX.c.event_ts, _INBOX.c.id).limit(1)
)
_OLD = (
    select(_INBOX.c.id)
    .where(_CLOSED, _INBOX.c.processed_at < from_now(seconds("age")))
    .order_by(_INBOX.c.processed_at, _INBOX.c.id)
    .limit(bindparam("limit_"))
)
_CLEAN_UP: Statement[Any] = Statement(delete(_INBOX).where(_free(_OLD)))
