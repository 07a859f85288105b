"""The course of a subscription: what it does, written once, as steps.

A step asks for a read, for a wait, or hands out an event. Between two steps nothing is held: no connection, no
transaction, no thread.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from agentos_store.engine.session import Session
from agentos_store.errors import StaleBookmarkError, UsageError
from agentos_store.events import order
from agentos_store.events.bookmarks import START, Bookmark, Place, mark_of_event, mark_of_filters, read_bookmark
from agentos_store.events.models import Event
from agentos_store.events.order import Filters, Known, Look
from agentos_store.operation import Access
from agentos_store.types import new_ulid

SHORTEST, LONGEST = 0.005, 0.1
"""Seconds until the next look while an older transaction keeps events back: its end rings no bell."""

TOLD = 30.0
"""Seconds after which the log names a transaction that keeps events back."""

log = logging.getLogger("agentos_store.events")


@dataclass(frozen=True, slots=True)
class Read:
    """A step that runs a body."""

    body: Callable[[Session], Any]
    access: Access = Access.READ
    is_look: bool = False
    """Whether it sees all that was committed until now, so that rings until now are answered by it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """A step that waits for news."""

    seconds: float | None
    """At most; None for as long as the bell says."""


Step = Read | Wait | Event


class Held:
    """For how long one older transaction has kept events back; the log tells of one that does so for long."""

    def __init__(self) -> None:
        self._horizon = 0
        self._since = 0.0
        self._told = False

    def look(self, at: Look) -> None:
        """Take note of how far the order can be read."""
        if not at.behind or at.horizon != self._horizon:
            self._horizon, self._since, self._told = at.horizon, time.monotonic(), False
        elif not self._told and time.monotonic() - self._since >= TOLD:
            self._told = True
            log.warning("a transaction that is open for long keeps events back: backend_xid %s", at.horizon % 2**32)


class Course:
    """Where a subscription stands, and the steps that lead on."""

    def __init__(
        self, *, bookmark: object, after: int | None, from_start: bool, filters: Filters, timeout: float | None
    ) -> None:
        self._filters = filters
        self._mark = mark_of_filters(filters.marked())
        self._given = None if bookmark is None else read_bookmark(bookmark, self._mark)
        if sum((bookmark is not None, after is not None, bool(from_start))) > 1:
            raise UsageError(
                "a subscription begins at a bookmark, after a position or from the start: give one of them"
            )
        self._after = after
        self._from_start = from_start
        self._timeout = timeout
        self._deadline: float | None = None
        self._known: Known | None = None
        self.reached: Bookmark | None = self._given
        """Behind what was handed out, and behind what filters kept back meanwhile."""
        self.has_begun = False
        """Whether it is settled where it begins."""

    def steps(self) -> Generator[Step, Any, None]:
        """Take it from the beginning; what a step yields is sent back."""
        place, event_id = yield from self._begin()
        self._reach(place, event_id)
        self.has_begun = True
        yield from self._follow(place)

    def _begin(self) -> Generator[Step, Any, tuple[Place, str | None]]:
        found: Known | str = yield Read(order.find_order)
        while isinstance(found, str):
            yield Read(functools.partial(_make_order, origin=found, order_id=new_ulid()), Access.STATEMENT)
            found = yield Read(order.find_order)
        self._known = found
        first: tuple[Place, str | None] = yield Read(self._first)
        return first

    def _first(self, session: Session) -> tuple[Place, str | None]:
        place = self._first_place(session)
        return place, order.event_at(session, place)

    def _first_place(self, session: Session) -> Place:
        at = self._look(session)
        if self._given is not None:
            order.verify(session, self._given, at)
            return order.place_here(session, self._given.place, at)
        if self._after is not None:
            return order.behind(session, self._after, at)
        return START if self._from_start else order.end(session, at)

    def _verify(self, session: Session, *, at: Look) -> None:
        assert self.reached is not None
        order.verify(session, self.reached, at)

    def _look(self, session: Session) -> Look:
        assert self._known is not None
        found = order.look(session, self._known.origin)
        if found is None or found.order_id != self._known.order_id:
            raise StaleBookmarkError
        return found

    def _follow(self, place: Place) -> Generator[Step, Any, None]:
        seen = 0
        pause = SHORTEST
        held = Held()
        while True:
            at: Look = yield Read(self._look, is_look=True)
            if at.horizon < seen:
                # A server that crashed may give the numbers of transactions again that wrote nothing. Or it is
                # another server by now, or an older state of it.
                yield Read(functools.partial(self._verify, at=at))
            seen = at.horizon
            place = yield from self._hand_out(place, at)
            pause = min(pause * 2, LONGEST) if at.behind else SHORTEST
            held.look(at)
            left = self._time_left()
            if left is not None and left <= 0:
                return
            limits = [each for each in (left, pause if at.behind else None) if each is not None]
            yield Wait(min(limits, default=None))

    def _hand_out(self, place: Place, at: Look) -> Generator[Step, Any, Place]:
        is_last = False
        while not is_last:
            batch: order.Batch = yield Read(self._reading(place, at))
            for event in batch.events:
                self._reach(order.place_of(event, by_position=_by_position(event, at)), event.event_id)
                event.__dict__["_bookmark"] = self.reached
                self._deadline = None
                yield event
            place, is_last = batch.place, batch.is_last
            self._reach(place, batch.event_id)
        return place

    def _reading(self, place: Place, at: Look) -> Callable[[Session], order.Batch]:
        return lambda session: order.read_next(session, place, at, self._filters)

    def _reach(self, place: Place, event_id: str | None) -> None:
        assert self._known is not None
        if self.reached is None or self.reached.place != place:
            mark = None if event_id is None else mark_of_event(event_id)
            self.reached = Bookmark(self._known.order_id, self._mark, place, mark)

    def _time_left(self) -> float | None:
        if self._timeout is None:
            return None
        if self._deadline is None:
            self._deadline = time.monotonic() + self._timeout
        return self._deadline - time.monotonic()


def _make_order(session: Session, *, origin: str, order_id: str) -> None:
    order.make_order(session, origin, order_id, session.now())


def _by_position(event: Event, at: Look) -> bool:
    return event.transaction_id == 0 or event.position <= at.by_position
