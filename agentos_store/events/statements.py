"""The statements by which events are read in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, bindparam, exists, func, literal, or_, select, tuple_
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from agentos_store.engine.statement import Statement
from agentos_store.events.models import Event, EventOrder
from agentos_store.types import Int64, Text

EVENTS = Event.table()
ORDERS = EventOrder.table()

BATCH = 256
"""Events that are read at once."""

WINDOW = 1024
"""Places that are gone through at once for the few events that filters let pass."""


class may_ask_origin(FunctionElement[Any]):  # noqa: N801  a function of SQL
    """Whether this role may ask which server it is."""

    type = Int64()
    inherit_cache = True
    name = "may_ask_origin"


class origin_of_database(FunctionElement[Any]):  # noqa: N801  a function of SQL
    """What tells this database on this server from its copies elsewhere."""

    type = Text()
    inherit_cache = True
    name = "origin_of_database"


class nameless_origin(FunctionElement[Any]):  # noqa: N801  a function of SQL
    """The same where the server does not say which one it is."""

    type = Text()
    inherit_cache = True
    name = "nameless_origin"


class horizon(FunctionElement[Any]):  # noqa: N801  a function of SQL
    """How far the order can be read: see ``Look.horizon``."""

    type = Int64()
    inherit_cache = True
    name = "horizon"


_DATABASE = "(SELECT oid::text FROM pg_catalog.pg_database WHERE datname = current_database())"

_TEXTS: dict[type[FunctionElement[Any]], tuple[str, str]] = {
    may_ask_origin: ("1", "has_function_privilege('pg_catalog.pg_control_system()', 'execute')::int"),
    origin_of_database: (
        "'sqlite'",
        f"(SELECT system_identifier::text FROM pg_catalog.pg_control_system()) || '/' || {_DATABASE}",
    ),
    nameless_origin: ("'sqlite'", f"'unknown/' || {_DATABASE}"),
    horizon: (
        "coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)",
        "txid_snapshot_xmin(txid_current_snapshot())",
    ),
}

for _kind, (_on_sqlite, _on_postgresql) in _TEXTS.items():
    compiles(_kind, "sqlite")(lambda element, compiler, text=_on_sqlite, **options: text)  # noqa: ARG005
    compiles(_kind, "postgresql")(lambda element, compiler, text=_on_postgresql, **options: text)  # noqa: ARG005


_ORIGIN_BIND = bindparam("origin", type_=ORDERS.c.origin.type)
_OF_ORIGIN = ORDERS.c.origin == _ORIGIN_BIND
# What this server has not run yet when the statement begins no row of its own can name.
_NEXT: Any = func.txid_snapshot_xmax(func.txid_current_snapshot(), type_=Int64())
_NOT_YET: Any = EVENTS.c.transaction_id >= _NEXT

MAY_ASK: Statement[Any] = Statement(select(may_ask_origin()))
ORIGIN: Statement[Any] = Statement(select(origin_of_database()))
NAMELESS_ORIGIN: Statement[Any] = Statement(select(nameless_origin()))
ORDER: Statement[EventOrder] = Statement(select(ORDERS).where(_OF_ORIGIN), returns=EventOrder)
STRANGE: Statement[Any] = Statement(
    select(ORDERS.c.origin).where(
        _OF_ORIGIN, exists(select(literal(1)).where(_NOT_YET, EVENTS.c.position > ORDERS.c.first_position))
    )
)


def _make(first_position: Any) -> Any:
    new = {name: bindparam(name, type_=ORDERS.c[name].type) for name in ("origin", "order_id", "created_at")}
    source = select(new["origin"], new["order_id"], first_position, new["created_at"])
    insert = postgresql.insert(ORDERS).from_select(
        ["origin", "order_id", "first_position", "created_at"], source, include_defaults=False
    )
    changed = {name: insert.excluded[name] for name in ("order_id", "first_position", "created_at")}
    return insert, changed


# The greatest of a sum: for the greatest position PostgreSQL would go down the primary key until it meets one.
_GREATEST = func.max(EVENTS.c.position + literal(0, Int64()))
_FIRST = func.coalesce(select(_GREATEST).where(_NOT_YET).scalar_subquery(), literal(0, Int64()))
_INSERT, _CHANGED = _make(_FIRST)
MAKE: Statement[Any] = Statement(
    _INSERT.on_conflict_do_update(
        index_elements=[ORDERS.c.origin],
        set_=_CHANGED,
        where=_INSERT.excluded.first_position > ORDERS.c.first_position,
    )
)
MAKE_SIMPLE: Statement[Any] = Statement(
    postgresql.insert(ORDERS)
    .values(
        **{name: bindparam(name, type_=ORDERS.c[name].type) for name in ("origin", "order_id", "created_at")},
        first_position=literal(0, Int64()),
    )
    .on_conflict_do_nothing()
)
_LOOKED_AT = (ORDERS.c.order_id, ORDERS.c.first_position, horizon().label("horizon"))
# Nothing that was restored from a server far ahead is waited for.
_HELD_BACK: Any = exists(
    select(literal(1)).where(EVENTS.c.transaction_id >= horizon(), EVENTS.c.transaction_id < _NEXT)
)
LOOK: Statement[Any] = Statement(select(*_LOOKED_AT, _HELD_BACK).where(_OF_ORIGIN))
LOOK_SIMPLE: Statement[Any] = Statement(select(*_LOOKED_AT, literal(0, Int64())).where(_OF_ORIGIN))
AT: Statement[Any] = Statement(
    select(EVENTS.c.event_id, EVENTS.c.transaction_id).where(
        EVENTS.c.position == bindparam("position", type_=EVENTS.c.position.type)
    )
)

_POSITION = bindparam("position", type_=Int64())
# Numbers of transactions are of one server from where the order of one ends to where that of the next one begins.
_BEGINNING = select(func.coalesce(func.max(ORDERS.c.first_position), literal(0, Int64()))).where(
    ORDERS.c.order_id == bindparam("order_id", type_=ORDERS.c.order_id.type), ORDERS.c.first_position < _POSITION
)
STILL_TO_COME: Statement[Any] = Statement(
    select(func.min(EVENTS.c.position)).where(
        EVENTS.c.position > _BEGINNING.scalar_subquery(),
        EVENTS.c.position < _POSITION,
        EVENTS.c.transaction_id > bindparam("transaction", type_=Int64()),
    )
)


def _range(*columns: Any, by_position: bool, backwards: bool = False) -> Select[Any]:
    query = select(*columns)
    order = [EVENTS.c.position] if by_position else [EVENTS.c.transaction_id, EVENTS.c.position]
    query = query.order_by(*(column.desc() if backwards else column for column in order))
    after, upto = bindparam("after", type_=Int64()), bindparam("upto", type_=Int64())
    if by_position:
        where = [EVENTS.c.position > after, EVENTS.c.position <= upto]
        return query.where(*where)
    here = tuple_(EVENTS.c.transaction_id, EVENTS.c.position)
    return query.where(
        here > tuple_(bindparam("after_transaction", type_=Int64()), after),
        here <= tuple_(bindparam("upto_transaction", type_=Int64()), upto),
        # A sum, lest PostgreSQL think of the primary key.
        EVENTS.c.position + literal(0, Int64()) > bindparam("by_position", type_=Int64()),
    )


def _place(by_position: bool) -> tuple[Any, Any]:
    return literal(0, Int64()) if by_position else EVENTS.c.transaction_id, EVENTS.c.position


NEXT: dict[bool, Statement[Event]] = {
    by_position: Statement(_range(*EVENTS.c, by_position=by_position).limit(literal(BATCH)), returns=Event)
    for by_position in (True, False)
}
STRETCH: dict[bool, Statement[Any]] = {
    by_position: Statement(
        _range(*_place(by_position), by_position=by_position).limit(literal(1)).offset(literal(WINDOW - 1))
    )
    for by_position in (True, False)
}
LAST: dict[bool, Statement[Any]] = {
    by_position: Statement(_range(*_place(by_position), by_position=by_position, backwards=True).limit(literal(1)))
    for by_position in (True, False)
}
_of_shape: dict[Any, Statement[Event]] = {}


def filtered(names: Sequence[str], types: int, *, by_position: bool) -> Statement[Event]:
    """Return the events of a stretch that pass filters: on these columns, and by so many types."""
    key = (by_position, types, *names)
    found = _of_shape.get(key)
    if found is None:
        # A limit keeps the filters out of it: an index of theirs would give all that an agent ever did, to be sorted.
        stretch = _range(*EVENTS.c, by_position=by_position).limit(literal(WINDOW)).subquery("stretch")
        wanted = [stretch.c[name] == bindparam(name, type_=EVENTS.c[name].type) for name in names]
        if types:
            binds = [bindparam(f"type_{i}", type_=EVENTS.c.event_type.type) for i in range(types)]
            wanted.append(or_(*(stretch.c.event_type == each for each in binds)))
        found = _of_shape[key] = Statement(select(stretch).where(*wanted), returns=Event)
    return found
