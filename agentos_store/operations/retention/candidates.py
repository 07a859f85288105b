"""Which rows of a table may go: found by an index, in its order, a step at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, bindparam, delete, func, literal, select, tuple_

from agentos_store.base import Base
from agentos_store.engine.among import among
from agentos_store.engine.clock import from_now, seconds
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement

Place = tuple[Any, Any]
"""Where a row stands in the order: its time and its key."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a policy comes to for the rows of one state."""

    age: float | None
    """Seconds."""
    last: Place | None
    """The newest row that may go, where the newest stay; None without such a limit."""
    first: Place | None = None
    """The oldest row that may go, where it is known."""


class Candidates:
    """The rows of a table, in one state, that may go.

    ``time`` and the key are the order; ``age`` is what the age is taken from, where that is not ``time``, and never
    earlier. An index on time and key that holds the rows of ``where`` serves all statements. ``next`` tells ``also``
    of a row.
    """

    def __init__(
        self,
        model: type[Base],
        *,
        time: Column[Any],
        where: tuple[Any, ...] = (),
        age: Any = None,
        also: tuple[Column[Any], ...] = (),
    ) -> None:
        self.table = model.table()
        self.time = time
        self.age = time if age is None else age
        self.where = where
        (self.key,) = self.table.primary_key
        self._also = also
        self._statements: dict[tuple[str, frozenset[str]], Statement[Any]] = {}

    def last_but(self, session: Session, keep: int) -> Place | None:
        """Return the place of the newest row behind so many that stay, or None when there are no more than these."""
        found: Place | None = session.first(self._statement("last", frozenset()), {"keep": keep})
        return found

    def next(self, session: Session, limits: Limits, after: Place | None, number: int) -> list[Any]:
        """Return time, key and what else is told of the next rows that may go; what is locked is passed over."""
        return self._ask("next", session, limits, after, number)

    def remove(self, session: Session, limits: Limits, after: Place | None, number: int) -> list[Place]:
        """Remove the next rows that may go, and return their places, in no order."""
        return self._ask("remove", session, limits, after, number)

    def count(self, session: Session, limits: Limits) -> int:
        """Return how many rows may go."""
        values = _bound(limits, None)
        found: int = session.all(self._statement("count", frozenset(values)), values)[0][0]
        return found

    def _ask(self, what: str, session: Session, limits: Limits, after: Place | None, number: int) -> list[Any]:
        values = _bound(limits, after)
        return session.all(self._statement(what, frozenset(values)), {**values, "limit_": number})

    def _statement(self, what: str, names: frozenset[str]) -> Statement[Any]:
        found = self._statements.get((what, names))
        if found is None:
            found = self._statements[what, names] = Statement(self._built(what, names))
        return found

    def _built(self, what: str, names: frozenset[str]) -> Any:
        place = (self.time, self.key)
        if what == "last":
            newest = select(*place).where(*self.where).order_by(self.time.desc(), self.key.desc())
            return newest.limit(literal(1)).offset(bindparam("keep"))
        conditions = [*self.where]
        if "age" in names:
            before = from_now(seconds("age"))
            conditions.append(self.time < before)
            if self.age is not self.time:
                conditions.append(self.age < before)
        if "last_time" in names:
            conditions.append(tuple_(*place) <= self._place("last"))
        if "first_time" in names:
            conditions.append(tuple_(*place) >= self._place("first"))
        if "after_time" in names:
            conditions.append(tuple_(*place) > self._place("after"))
        if what == "count":
            return select(func.count()).select_from(self.table).where(*conditions)
        chosen = select(*place).where(*conditions).order_by(*place).limit(bindparam("limit_"))
        # Who has a row locked is about to change it, or removes it already.
        chosen = chosen.with_for_update(skip_locked=True)
        if what == "next":
            return chosen.add_columns(*self._also)
        keys = chosen.with_only_columns(self.key).correlate(None)
        return delete(self.table).where(among(self.key, keys)).returning(*place)

    def _place(self, name: str) -> Any:
        return tuple_(bindparam(f"{name}_time", type_=self.time.type), bindparam(f"{name}_key", type_=self.key.type))


def _bound(limits: Limits, after: Place | None) -> Mapping[str, Any]:
    values: dict[str, Any] = {}
    if limits.age is not None:
        values["age"] = -limits.age
    # One of them, for an index is searched by one.
    begin = ("first", limits.first) if after is None else ("after", after)
    for name, place in (("last", limits.last), begin):
        if place is not None:
            values[f"{name}_time"], values[f"{name}_key"] = place
    return values
