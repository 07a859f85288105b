"""What a store knows beside its rows, and what goes on elsewhere: its last numbers, and the order of its events.

A number that was given once is never given again, even where its row is gone. And a subscriber to the events goes on in
the copy where it stood: a bookmark names an order of events, so the copy has the same one, in which what was moved
comes by its positions. The orders that the source knows of tell which numbers of transactions belong together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Column, MetaData, Table, bindparam, delete, func, insert, select
from sqlalchemy import Text as PlainText
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, insert_into
from agentos_store.engine.version import quote_name
from agentos_store.errors import InvalidValueError
from agentos_store.events import order
from agentos_store.events.models import EventOrder
from agentos_store.operations.moving.tables import moved_tables
from agentos_store.types import Int64, Text


@dataclass(frozen=True, slots=True)
class Era:
    """A stretch of events for which one server gave the numbers of transactions: up to the next one's beginning."""

    origin: str
    first_position: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What goes on in the copy."""

    numbers: Mapping[str, int] = field(default_factory=dict)
    """By table the greatest number that it has given or holds."""
    order_id: str | None = None
    """The order of the events; None when nobody has followed them yet."""
    eras: Sequence[Era] = ()
    """What is known of it, oldest first."""

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        eras = [{"origin": era.origin, "first_position": era.first_position} for era in self.eras]
        return {"numbers": dict(self.numbers), "order_id": self.order_id, "eras": eras}

    @classmethod
    def from_dict(cls, given: object) -> Facts:
        """Return what ``to_dict`` gave; raise InvalidValueError for anything else."""
        match given:
            case {"numbers": dict(numbers), "order_id": str() | None as order_id, "eras": list(eras)}:
                try:
                    found = tuple(Era(_text(era["origin"]), _whole(era["first_position"])) for era in eras)
                    known = {_numbered(name): _whole(number) for name, number in numbers.items()}
                    return cls(known, None if order_id is None else _text(order_id), found)
                except (KeyError, TypeError):
                    pass
        raise InvalidValueError("facts", "are not those of a store")


def read_facts(session: Session, schema: str | None) -> Facts:
    """Return the facts of a database; the session sees one moment, but numbers are never taken back anyway."""
    numbers = {}
    for table, (read, _) in _NUMBERS.items():
        found = session.first(read, _names(table, schema))
        assert found is not None
        numbers[table] = max(found[0] or 0, found[1] or 0)
    known = order.find_order(session)
    if isinstance(known, str):
        return Facts(numbers)
    rows = session.all(_ERAS, {"order_id": known.order_id})
    return Facts(numbers, known.order_id, tuple(Era(row.origin, row.first_position) for row in rows))


def write_facts(session: Session, schema: str | None, facts: Facts) -> None:
    """Let a database that holds the rows go on with the source's facts; doing it again changes nothing."""
    for table, number in facts.numbers.items():
        names = _names(table, schema)
        if not number:
            continue
        if schema is None:
            session.execute(_FORGET_NUMBER, names)
            session.execute(_KEEP_NUMBER, {**names, "number": number})
        else:
            session.all(_NUMBERS[table][1], {**names, "number": number})
    session.execute(_FORGET_ORDERS)
    # Also where nobody has followed them: the numbers of transactions that were copied are no places here.
    order_id = facts.order_id or session.new_ulid()
    known = order.find_order(session)
    # Without a row of its own a database tells its origin.
    assert isinstance(known, str)
    last = facts.numbers.get(EVENTS, 0)
    rows = {known: last}
    for era in facts.eras:
        # Where another server's numbers begin counts, also when its origin is this one: of another schema, or file.
        if era.first_position not in {0, last}:
            rows[f"{era.origin} from {era.first_position}"] = era.first_position
    time = session.now()
    session.execute_many(
        _KEEP_ORDER,
        [
            {"origin": origin, "order_id": order_id, "first_position": first, "created_at": time}
            for origin, first in rows.items()
        ],
    )


EVENTS = "events"


class last_number(FunctionElement[Any]):  # noqa: N801  a function of SQL
    """The last number that an identity has given; NULL when there is none."""

    type = Int64()
    inherit_cache = True
    name = "last_number"


@compiles(last_number, "sqlite")
def _last_sqlite(element: last_number, compiler: Any, **options: Any) -> str:
    table, _, _ = element.clauses
    return f"(SELECT seq FROM sqlite_sequence WHERE name = {compiler.process(table, **options)})"


@compiles(last_number, "postgresql")
def _last_postgresql(element: last_number, compiler: Any, **options: Any) -> str:
    _, qualified, column = (compiler.process(each, **options) for each in element.clauses)
    return f"pg_sequence_last_value(CAST(pg_get_serial_sequence({qualified}, {column}) AS regclass))"


def _name(name: str) -> Any:
    return bindparam(name, type_=Text())


def _statements(column: Column[Any]) -> tuple[Statement[Any], Statement[Any]]:
    given = (_name("table_name"), _name("qualified"), _name("column_name"))
    read = select(last_number(*given), select(func.max(column)).scalar_subquery())
    sequence = func.pg_get_serial_sequence(given[1], given[2])
    # Greater than what somebody else's row may have drawn meanwhile it need not be: nobody else is there.
    write = select(func.setval(sequence, bindparam("number", type_=Int64())))
    return Statement(read), Statement(write, writes=True)


_NUMBERS = {each.name: _statements(each.identity) for each in moved_tables() if each.identity is not None}


def _names(table: str, schema: str | None) -> dict[str, object]:
    qualified = quote_name(table) if schema is None else f"{quote_name(schema)}.{quote_name(table)}"
    identity = next(each.identity for each in moved_tables() if each.name == table)
    assert identity is not None
    return {"table_name": table, "qualified": qualified, "column_name": identity.name}


_SEQUENCE = Table("sqlite_sequence", MetaData(), Column("name", PlainText()), Column("seq", Int64()))
_FORGET_NUMBER: Statement[Any] = Statement(delete(_SEQUENCE).where(_SEQUENCE.c.name == _name("table_name")))
_KEEP_NUMBER: Statement[Any] = Statement(
    insert(_SEQUENCE).values(name=_name("table_name"), seq=bindparam("number", type_=Int64()))
)
_ORDERS = EventOrder.table()
_ERAS: Statement[EventOrder] = Statement(
    select(_ORDERS).where(_ORDERS.c.order_id == _name("order_id")).order_by(_ORDERS.c.first_position, _ORDERS.c.origin),
    returns=EventOrder,
)
_FORGET_ORDERS: Statement[Any] = Statement(delete(_ORDERS))
_KEEP_ORDER: Statement[Any] = Statement(insert_into(EventOrder))


def _text(given: object) -> str:
    return Text(1, 255).check(given, "facts")


def _whole(given: object) -> int:
    number = Int64().check(given, "facts")
    if number < 0:
        raise InvalidValueError("facts", "hold a number below zero")
    return number


def _numbered(name: object) -> str:
    if name not in _NUMBERS:
        raise InvalidValueError("facts", "name a table that has no numbers")
    return str(name)
