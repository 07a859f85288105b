"""Operations on events: log them, find them, follow them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

from sqlalchemy import and_, bindparam, text

from agentos_store.engine.session import Session
from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.events import writing
from agentos_store.events.course import Course
from agentos_store.events.models import UNUSUAL, USUAL, Event
from agentos_store.events.order import Filters
from agentos_store.events.subscription import subscribes
from agentos_store.operation import F, Repository, reads, repeatable, walks, writes_once
from agentos_store.page import DEFAULT_LIMIT, LARGEST_LIMIT, Filter, Listing, Page, at_least, below, equals
from agentos_store.types import Boolean, check_whole

_EVENTS = Event.table()
_SEVERITY: Any = _EVENTS.c.severity
_IS_USUAL: Any = text(f"{_EVENTS.name}.{USUAL}")
_IS_UNUSUAL: Any = text(f"{_EVENTS.name}.{UNUSUAL}")

_LISTING = Listing(
    Event,
    filters={
        **{name: equals(_EVENTS.c[name]) for name in ("agent_id", "session_id", "task_id", "channel", "event_type")},
        # Most events are of the usual severity, which needs no index; the others have one that holds them alone.
        "severity=info": Filter(Boolean(), lambda _: _IS_USUAL),
        "severity": Filter(
            _SEVERITY.type,
            lambda name: and_(_IS_UNUSUAL, _SEVERITY == bindparam(name, type_=_SEVERITY.type)),  # noqa: SIM300
        ),
        "created_after": at_least(_EVENTS.c.created_at),
        "created_before": below(_EVENTS.c.created_at),
    },
    orders={"created_at": (_EVENTS.c.created_at, _EVENTS.c.position)},
    default="created_at",
)


class EventRepository(Repository[F]):
    """What happens, in the order in which it was committed."""

    name = "events"

    @writes_once
    @repeatable
    def log(
        self,
        session: Session,
        event_type: str,
        *,
        agent_id: str | None = None,
        session_id: str | None = None,
        task_id: str | None = None,
        channel: str | None = None,
        severity: str = "info",
        data: Any = None,
        seq: int | None = None,
        event_id: str | None = None,
        created_at: dt.datetime | None = None,
    ) -> Event:
        """Write one event; under an ``event_id`` that is taken, return the event that has it, unchanged.

        What it names need not exist. ``seq`` is the source's own number and may repeat.
        """
        row = {
            "event_id": session.new_ulid() if event_id is None else event_id,
            "agent_id": agent_id,
            "session_id": session_id,
            "task_id": task_id,
            "channel": channel,
            "seq": seq,
            "event_type": event_type,
            "severity": severity,
            "data": data,
            "created_at": session.now() if created_at is None else created_at,
        }
        return writing.log(session, row, is_keyed=event_id is not None)

    @writing.writes_list
    @repeatable
    def log_many(self, session: Session, events: Iterable[Mapping[str, Any]]) -> int:
        """Write events in their order, all of them or none; return how many were new.

        Each is a mapping with the names that ``log`` takes. One whose ``event_id`` is taken already is left as it is,
        so a list can be written again after a failure. On SQLite nobody else writes meanwhile, so a list of millions is
        better written in parts.
        """
        return writing.log_many(session, events)

    @reads
    def get(self, session: Session, event_id: str) -> Event:
        """Return the event; raise NotFoundError for an unknown identifier."""
        found = session.first(writing.GET, {"event_id": event_id})
        if found is None:
            raise NotFoundError("event", event_id)
        return found

    @reads
    def find(self, session: Session, event_id: str) -> Event | None:
        """Return the event, or None."""
        return session.first(writing.GET, {"event_id": event_id})

    @reads
    def exists(self, session: Session, event_id: str) -> bool:
        """Tell whether there is such an event."""
        return session.first(writing.GET, {"event_id": event_id}) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        agent_id: str | None = None,
        session_id: str | None = None,
        task_id: str | None = None,
        event_type: str | None = None,
        channel: str | None = None,
        severity: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[Event]:
        """Return a page of events that pass all the filters, the oldest first, or with ``-created_at`` the newest.

        ``created_after`` is inclusive and ``created_before`` is not.
        """
        filters = {
            "agent_id": agent_id,
            "session_id": session_id,
            "task_id": task_id,
            "event_type": event_type,
            "channel": channel,
            **_of_severity(severity),
            "created_after": created_after,
            "created_before": created_before,
        }
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)
    query = reads(list.body)

    @reads
    def count(
        self,
        session: Session,
        *,
        agent_id: str | None = None,
        session_id: str | None = None,
        task_id: str | None = None,
        event_type: str | None = None,
        channel: str | None = None,
        severity: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
    ) -> int:
        """Return how many events pass the filters."""
        filters = {
            "agent_id": agent_id,
            "session_id": session_id,
            "task_id": task_id,
            "event_type": event_type,
            "channel": channel,
            **_of_severity(severity),
            "created_after": created_after,
            "created_before": created_before,
        }
        return _LISTING.count(session, filters)

    @reads
    def tail(
        self,
        session: Session,
        *,
        n: int = 20,
        agent_id: str | None = None,
        session_id: str | None = None,
        task_id: str | None = None,
        event_type: str | None = None,
        channel: str | None = None,
        severity: str | None = None,
    ) -> Sequence[Event]:
        """Return the ``n`` newest events that pass all the filters, the newest last."""
        check_whole("n", n, 1, LARGEST_LIMIT)
        filters = {
            "agent_id": agent_id,
            "session_id": session_id,
            "task_id": task_id,
            "event_type": event_type,
            "channel": channel,
            **_of_severity(severity),
        }
        return [*reversed(_LISTING.page(session, filters, order="-created_at", limit=n).items)]

    @subscribes
    def subscribe(
        self,
        bookmark: str | None = None,
        *,
        after: int | None = None,
        from_start: bool = False,
        agent_id: str | None = None,
        session_id: str | None = None,
        task_id: str | None = None,
        channel: str | None = None,
        severity: str | None = None,
        event_types: Sequence[str] | str | None = None,
        timeout: float | None = None,
    ) -> Course:
        """Follow events in the order in which they were committed, each once; wait for new ones.

        It begins behind a ``bookmark``, which each event that it hands out carries, or ``after`` the event at a
        position, or with the first one (``from_start``), or now. New events of this process arrive at once, those of
        others as soon as the database can tell, and in any case after a second. It ends when no event has come for
        ``timeout`` seconds (0: with the last one that is there), when it is closed, and when the store is. No
        connection is held while it waits.

        On PostgreSQL an event is handed out when every transaction that began writing before its own has ended, for
        one of them may write an event that comes before. "Now" may then include events that were just committed.

        A bookmark belongs to the filters that it was given under. Raises InvalidValueError for one that is malformed
        or of other filters, and StaleBookmarkError for one of another database, or of this one before it was restored;
        UsageError inside a transaction.
        """
        del self
        given = {
            "agent_id": agent_id,
            "session_id": session_id,
            "task_id": task_id,
            "channel": channel,
            "severity": severity,
        }
        return Course(
            bookmark=bookmark,
            after=after,
            from_start=from_start,
            filters=Filters(given, event_types),
            timeout=_checked_timeout(timeout),
        )


def _of_severity(severity: str | None) -> dict[str, Any]:
    if severity is None:
        return {}
    checked = _SEVERITY.type.check(severity, "severity")
    return {"severity=info": True} if checked == "info" else {"severity": checked}


def _checked_timeout(seconds: float | None) -> float | None:
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not isfinite(seconds) or seconds < 0:
        raise InvalidValueError("timeout", "must be a number of seconds, not below zero")
    return float(seconds)
