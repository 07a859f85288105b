"""The order of events: which one this database has, how far it can be read, and what comes next in it.

On PostgreSQL positions are drawn when a row is written and appear when its transaction is committed, in any order. So
the order is that of (transaction, position), and it is read only below the oldest transaction that runs: whatever is
below is there or will never be, and whatever is still to come is above. On SQLite writers stand in line, and the
position alone is the order.

A place is always that of an event that was read, and never that of a transaction which wrote none: after a crash the
server may give the number of such a transaction again.

Transactions are numbered by the server. Rows that were restored from another one carry its numbers, some of which the
new server may give only in days to come. Up to the last such row events come by their positions alone.

A copy of a database goes on with its order. A place in transactions of the server before is found again among the
positions: behind the last event before which there is none that was still to come at that place.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentos_store.engine.session import Session
from agentos_store.errors import InvalidValueError, NotFoundError, StaleBookmarkError
from agentos_store.events import statements
from agentos_store.events.bookmarks import START, Bookmark, Place, mark_of_event
from agentos_store.events.models import Event
from agentos_store.events.statements import BATCH, EVENTS

MOST_TYPES = 100
"""Types of events that one subscription can ask for."""

FARTHEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Known:
    """The order that the database has."""

    origin: str
    order_id: str


@dataclass(frozen=True, slots=True)
class Look:
    """How far the order can be read at a moment."""

    order_id: str
    by_position: int
    """Up to this position events come by their positions alone."""
    horizon: int
    """On PostgreSQL the oldest transaction that runs; on SQLite the last position."""
    behind: bool
    """Whether there are events already that can be read only when an older transaction has ended."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The events that come next."""

    events: Sequence[Event]
    place: Place
    """Behind them, and behind the events that filters kept back."""
    event_id: str | None
    """The event at this place; None where there is none, or none that is new."""
    is_last: bool
    """Whether there is nothing more up to the horizon."""


class Filters:
    """Which events a subscription lets pass; their values are checked."""

    def __init__(self, given: Mapping[str, object], event_types: object) -> None:
        columns = {name: EVENTS.c[name] for name in given}
        self.values = {
            name: columns[name].type.check(value, name)  # type: ignore[attr-defined]  # all our types are gates
            for name, value in given.items()
            if value is not None
        }
        self.types = _checked_types(event_types)
        self.binds = self.values | {f"type_{i}": each for i, each in enumerate(self.types)}

    def __bool__(self) -> bool:
        """Tell whether any event may be kept back."""
        return bool(self.binds)

    def marked(self) -> dict[str, object]:
        """Return what tells them from other filters."""
        return {**self.values, "event_types": list(self.types) or None}


def _checked_types(given: object) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Sequence) or not 1 <= len(given) <= MOST_TYPES:
        raise InvalidValueError("event_types", f"must be a list of 1 to {MOST_TYPES} types")
    check = EVENTS.c.event_type.type.check  # type: ignore[attr-defined]  # all our types are gates
    return tuple(sorted({check(each, f"event_types[{i}]") for i, each in enumerate(given)}))


def find_order(session: Session) -> Known | str:
    """Return the order of this database, or, where it has none yet, its origin."""
    may_ask = session.first(statements.MAY_ASK)
    found = session.first(statements.ORIGIN if may_ask and may_ask[0] else statements.NAMELESS_ORIGIN)
    assert found is not None
    origin: str = found[0]
    order = session.first(statements.ORDER, {"origin": origin})
    if order is None or (
        not session.capabilities.ordered_commits and session.first(statements.STRANGE, {"origin": origin})
    ):
        return origin
    return Known(origin, order.order_id)


def make_order(session: Session, origin: str, order_id: str, time: dt.datetime) -> None:
    """Give the database an order for this origin, unless somebody has just done so."""
    statement = statements.MAKE_SIMPLE if session.capabilities.ordered_commits else statements.MAKE
    session.execute(statement, {"origin": origin, "order_id": order_id, "created_at": time})


def look(session: Session, origin: str) -> Look | None:
    """Return how far the order can be read; None when the database has no order for the origin any more."""
    found = session.first(
        statements.LOOK_SIMPLE if session.capabilities.ordered_commits else statements.LOOK, {"origin": origin}
    )
    return None if found is None else Look(found[0], found[1], found[2], behind=bool(found[3]))


def end(session: Session, at: Look) -> Place:
    """Return the place behind everything that can be read."""
    if session.capabilities.ordered_commits:
        return _last(session, START, Place(0, at.horizon), at, by_position=True) or START
    upto = Place(at.horizon - 1, FARTHEST)
    return _last(session, START, upto, at, by_position=False) or Place(0, at.by_position)


def behind(session: Session, position: int, at: Look) -> Place:
    """Return the place of the event at a position; raise NotFoundError where there is none."""
    EVENTS.c.position.type.check(position, "after")  # type: ignore[attr-defined]  # all our types are gates
    if position == 0:
        return START
    found = session.first(statements.AT, {"position": position})
    if found is None:
        raise NotFoundError("event", position)
    return Place(0 if position <= at.by_position else found[1], position)


def event_at(session: Session, place: Place) -> str | None:
    """Return the identifier of the event at a place; None where there is none."""
    found = session.first(statements.AT, {"position": place.position})
    return None if found is None else str(found[0])


def verify(session: Session, bookmark: Bookmark, at: Look) -> None:
    """Raise StaleBookmarkError for a bookmark from which this database cannot go on.

    A copy of the database, or a restored one, may have the same order and other events from some place on.
    """
    place = bookmark.place
    if _is_from_before(place, at):
        in_reach = True
    elif session.capabilities.ordered_commits:
        in_reach = place.transaction == 0 and place.position <= at.horizon
    elif place.transaction == 0:
        in_reach = place.position <= at.by_position
    else:
        in_reach = place.transaction < at.horizon
    if bookmark.order_id != at.order_id or not in_reach:
        raise StaleBookmarkError
    found = None if bookmark.event is None else session.first(statements.AT, {"position": place.position})
    # One that is gone was pruned.
    if found is not None and (mark_of_event(found[0]) != bookmark.event or place.transaction not in {0, found[1]}):
        raise StaleBookmarkError


def place_here(session: Session, place: Place, at: Look) -> Place:
    """Return where in this database it goes on from a place that was verified.

    What two transactions of the server before wrote side by side may come twice then; nothing is left out.
    """
    if not _is_from_before(place, at):
        return place
    values = {"order_id": at.order_id, "position": place.position, "transaction": place.transaction}
    found = session.first(statements.STILL_TO_COME, values)
    return Place(0, place.position if found is None or found[0] is None else found[0] - 1)


def _is_from_before(place: Place, at: Look) -> bool:
    """Tell whether a place names a transaction of the server from which the events were copied."""
    return place.transaction != 0 and place.position <= at.by_position


def read_next(session: Session, place: Place, at: Look, filters: Filters) -> Batch:
    """Return what comes next behind a place."""
    if session.capabilities.ordered_commits:
        return _read(session, place, Place(0, at.horizon), filters, at, by_position=True)
    if place.transaction == 0 and place.position < at.by_position:
        old = Place(0, at.by_position)
        batch = _read(session, place, old, filters, at, by_position=True)
        if not batch.is_last:
            return batch
        return Batch(batch.events, old, event_at(session, old), is_last=False)
    return _read(session, place, Place(at.horizon - 1, FARTHEST), filters, at, by_position=False)


def _read(session: Session, after: Place, upto: Place, filters: Filters, at: Look, *, by_position: bool) -> Batch:
    if after >= upto:
        return Batch((), after, None, is_last=True)
    if not filters:
        events = session.all(statements.NEXT[by_position], _binds(after, upto, at, by_position=by_position))
        reached = place_of(events[-1], by_position=by_position) if events else after
        return Batch(events, reached, events[-1].event_id if events else None, is_last=len(events) < BATCH)
    # A stretch that is bounded in any case, so that a filter that lets hardly anything pass makes no long statement.
    stretch = session.first(statements.STRETCH[by_position], _binds(after, upto, at, by_position=by_position))
    place = _last(session, after, upto, at, by_position=by_position) if stretch is None else Place(*stretch)
    if place is None:
        return Batch((), after, None, is_last=True)
    binds = _binds(after, place, at, by_position=by_position) | filters.binds
    events = session.all(
        statements.filtered(sorted(filters.values), len(filters.types), by_position=by_position), binds
    )
    events.sort(key=lambda event: place_of(event, by_position=by_position))
    return Batch(events, place, event_at(session, place), is_last=stretch is None)


def _last(session: Session, after: Place, upto: Place, at: Look, *, by_position: bool) -> Place | None:
    """Return the place of the last event between two places; None when there is none."""
    found = session.first(statements.LAST[by_position], _binds(after, upto, at, by_position=by_position))
    return None if found is None else Place(*found)


def _binds(after: Place, upto: Place, at: Look, *, by_position: bool) -> dict[str, object]:
    if by_position:
        return {"after": after.position, "upto": upto.position}
    return {
        "after_transaction": after.transaction,
        "after": after.position,
        "upto_transaction": upto.transaction,
        "upto": upto.position,
        "by_position": at.by_position,
    }


def place_of(event: Event, *, by_position: bool) -> Place:
    """Return the place of an event."""
    return Place(0 if by_position else event.transaction_id, event.position)
