"""Keyset pages: lists that cost the same on the first page and on the thousandth, and never skip or repeat a row.

A repository declares which filters and orders a list has (``Listing``). Each combination that is used becomes one
statement, built from the model and prepared once. The cursor names the last row of a page by the values of the order's
columns, which end in the primary key, so that no two rows are alike.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import ColumnElement, bindparam, func, select, tuple_

from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidValueError
from agentos_store.types import Gate, UTCDateTime, check_whole, from_text, to_text

if TYPE_CHECKING:
    from agentos_store.base import Base
    from agentos_store.engine.session import Session

T = TypeVar("T")
B = TypeVar("B", bound="Base")

DEFAULT_LIMIT = 100
LARGEST_LIMIT = 10_000
LARGEST_OFFSET = 100_000
LONGEST_CURSOR = 65_536
"""Characters; what we make is much shorter."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some rows of a list, and where the next ones begin."""

    items: Sequence[T]
    next: str | None
    """The cursor to pass for the rows that follow; None on the last page."""

    def __iter__(self) -> Any:
        """Iterate over the rows of this page."""
        return iter(self.items)

    def __len__(self) -> int:
        """Return the number of rows of this page."""
        return len(self.items)


Condition = Callable[[str], ColumnElement[bool]]
"""Makes the condition of a filter, given the name of its value."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter of a list: what its value must be, and the condition that it sets."""

    type: Gate[Any]
    condition: Condition


def equals(column: Any) -> Filter:
    """Keep the rows whose column has the value."""
    return Filter(column.type, lambda name: column == bindparam(name, type_=column.type))


def at_least(column: Any) -> Filter:
    """Keep the rows whose column is not below the value."""
    return Filter(column.type, lambda name: column >= bindparam(name, type_=column.type))


def below(column: Any) -> Filter:
    """Keep the rows whose column is below the value."""
    return Filter(column.type, lambda name: column < bindparam(name, type_=column.type))


def contains(column: Any) -> Filter:
    """Keep the rows whose JSON column contains the value, as JSONB's ``@>`` means it, on every database."""
    return Filter(column.type, lambda name: column.contains(bindparam(name, type_=column.type)))


class Listing(Generic[B]):
    """The filters and orders of one list; unknown ones are refused, and nothing that a caller says becomes SQL text."""

    def __init__(
        self, model: type[B], *, filters: Mapping[str, Filter], orders: Mapping[str, Sequence[Any]], default: str
    ) -> None:
        self.model = model
        self.filters = filters
        self.orders = {name: tuple(columns) for name, columns in orders.items()}
        """By the name of an order its columns, the primary key last."""
        self.default = default
        self._pages: dict[Any, Statement[B]] = {}
        self._counts: dict[Any, Statement[Any]] = {}

    def page(
        self,
        session: Session,
        given: Mapping[str, object],
        *,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[B]:
        """Return one page. An order is a name, with ``-`` before it for the largest first.

        The offset counts from the start of the list, so that with a cursor it has been counted already.
        """
        order = self.default if order is None else order
        descending, columns = self._order(order)
        check_whole("limit", limit, 1, LARGEST_LIMIT)
        check_whole("offset", offset, 0, LARGEST_OFFSET)
        values = self._check(given)
        mark = self._mark(order, values)
        binds: dict[str, object] = {**values, "limit_": limit + 1, "offset_": offset}
        if cursor is not None:
            binds |= _decode(cursor, mark, columns) | {"offset_": 0}
        key = (order, frozenset(values), cursor is not None)
        statement = self._pages.get(key)
        if statement is None:
            statement = self._pages[key] = self._build(values, descending, columns, after=cursor is not None)
        rows, more = session.up_to(limit, statement, binds)
        if not more:
            return Page(rows, None)
        return Page(rows, _encode(mark, [getattr(rows[-1], column.key) for column in columns]))

    def count(self, session: Session, given: Mapping[str, object]) -> int:
        """Return how many rows pass the filters."""
        values = self._check(given)
        key = frozenset(values)
        statement = self._counts.get(key)
        if statement is None:
            query = select(func.count()).select_from(self.model.table()).where(*self._conditions(values))
            statement = self._counts[key] = Statement(query)
        found = session.first(statement, values)
        assert found is not None
        return int(found[0])

    def _build(self, values: Mapping[str, object], descending: bool, columns: Any, *, after: bool) -> Statement[B]:
        table = self.model.table()
        query = select(table).where(*self._conditions(values))
        if after:
            # Compared as a row, the columns use one index; spelled out with OR they would not.
            last = tuple_(*(bindparam(f"after_{i}", type_=c.type) for i, c in enumerate(columns)))
            here = tuple_(*columns)
            query = query.where(here < last if descending else here > last)
        query = query.order_by(*(c.desc() if descending else c.asc() for c in columns))
        return Statement(query.limit(bindparam("limit_")).offset(bindparam("offset_")), returns=self.model)

    def _conditions(self, values: Mapping[str, object]) -> list[ColumnElement[bool]]:
        return [self.filters[name].condition(name) for name in sorted(values)]

    def _order(self, order: str) -> tuple[bool, Sequence[Any]]:
        name = order.removeprefix("-") if isinstance(order, str) else order
        columns = self.orders.get(name) if isinstance(name, str) else None
        if columns is None:
            raise InvalidValueError(
                "order", f"must be one of {', '.join(self.orders)}, with - before it to turn it round"
            )
        return order.startswith("-"), columns

    def _check(self, given: Mapping[str, object]) -> dict[str, object]:
        unknown = [name for name in given if name not in self.filters]
        if unknown:
            raise InvalidValueError(unknown[0], f"no such filter; there are {', '.join(sorted(self.filters))}")
        return {name: self.filters[name].type.check(value, name) for name, value in given.items() if value is not None}

    def _mark(self, order: str, values: Mapping[str, object]) -> str:
        """Return what a cursor carries to be recognised: the query that it belongs to."""
        asked = self.model.__tablename__, order, sorted((name, repr(value)) for name, value in values.items())
        return hashlib.sha256(repr(asked).encode(errors="backslashreplace")).hexdigest()[:12]


def _encode(mark: str, values: Sequence[Any]) -> str:
    parts = [to_text(value) if isinstance(value, dt.datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps([mark, *parts]).encode()).decode().rstrip("=")


def _decode(cursor: object, mark: str, columns: Sequence[Any]) -> dict[str, object]:
    if not isinstance(cursor, str) or len(cursor) > LONGEST_CURSOR:
        raise InvalidValueError("cursor", "is not a cursor of this list")
    try:
        parts = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise InvalidValueError("cursor", "is not a cursor of this list") from None
    if not isinstance(parts, list) or len(parts) != len(columns) + 1 or not isinstance(parts[0], str):
        raise InvalidValueError("cursor", "is not a cursor of this list")
    if parts[0] != mark:
        raise InvalidValueError("cursor", "belongs to another query; filters and order must stay the same")
    return {f"after_{i}": _value(part, column) for i, (part, column) in enumerate(zip(parts[1:], columns, strict=True))}


def _value(part: object, column: Any) -> object:
    if isinstance(column.type, UTCDateTime):
        if not isinstance(part, str):
            raise InvalidValueError("cursor", "is not a cursor of this list")
        try:
            part = from_text(part)
        except ValueError:
            raise InvalidValueError("cursor", "is not a cursor of this list") from None
    value: object = column.type.check(part, "cursor")
    return value
