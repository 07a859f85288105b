"""Writing events: one, or many at once, all of them or none."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import bindparam, column, func, insert, literal, literal_column, select, table
from sqlalchemy.dialects import postgresql

from agentos_store.engine.recordset import recordset
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, build_model, check_size
from agentos_store.engine.violations import IntegrityViolation
from agentos_store.errors import InvalidValueError
from agentos_store.events.models import Event
from agentos_store.operation import Repository, writes_once
from agentos_store.types import dumps_exact, new_ulids, to_text

EVENTS = Event.table()
GIVEN = tuple(c.name for c in EVENTS.c if c.name not in {"position", "transaction_id"})
"""What the database does not draw by itself."""

_CHUNK = 500
"""Events whose lines are made while the database works on those before."""

_NONE = dict.fromkeys(GIVEN)
_FEW = 20
"""Events for which it is not worth while to begin a stream."""

P = ParamSpec("P")
R = TypeVar("R")


class writes_list(writes_once[P, R]):  # noqa: N801  used as a decorator
    """Mark a body that writes the rows of an iterable, which is read before anything begins.

    It may be a generator that takes its time or looks into the store, and on SQLite a body that writes keeps all other
    writers waiting.
    """

    def _bind(self, instance: Repository[Any]) -> Callable[..., Any]:
        bound = super()._bind(instance)

        def reads_first(events: Any) -> Any:
            return bound([*events] if isinstance(events, Iterator) else events)

        return functools.update_wrapper(reads_first, bound)


def log(session: Session, row: dict[str, Any], *, is_keyed: bool) -> Event:
    """Write one event; under an identifier that is taken, return the event that has it."""
    session.announce()
    if not is_keyed and not session.repeated:
        drawn = session.first(_INSERT, row)
        assert drawn is not None
        return build_model(Event, {**row, "position": drawn[0], "transaction_id": drawn[1]})
    while True:
        drawn = session.first(_INSERT_NEW, row)
        if drawn is not None:
            return build_model(Event, {**row, "position": drawn[0], "transaction_id": drawn[1]})
        found = session.first(GET, row)
        if found is not None:
            return found
        # It was pruned between the two statements.


def log_many(session: Session, events: Iterable[Mapping[str, Any]]) -> int:
    """Write events, but those whose identifier is taken; return how many were new."""
    rows, is_keyed = _rows_of(session, events)
    if not rows:
        return 0
    session.announce()
    if not session.capabilities.data_modifying_cte:
        return _written(session, rows) + session.execute_many(_INSERT_EACH, rows)
    if is_keyed:
        rows = _first_of_each(rows, session.max_payload)
    # In a transaction a stream that meets an identifier that is taken would be the end of all that was done there.
    may_copy = session.capabilities.copy and not (is_keyed and session.in_transaction) and not session.repeated
    if may_copy and len(rows) > _FEW and not (is_keyed and _is_taken_elsewhere(session, rows)):
        try:
            return session.copy(Event, _COPIED, _chunks(rows, session.max_payload))
        except IntegrityViolation as violation:
            if violation.kind != "unique":
                raise
    written = _written(session, rows)
    return written if written == len(rows) else written + session.execute(_INSERT_ROWS, {"added": rows})


def _first_of_each(rows: list[dict[str, Any]], max_payload: int) -> list[dict[str, Any]]:
    """Return the rows without repeats, which an index lets pass that is of another partition; they are checked too."""
    found: dict[object, dict[str, Any]] = {}
    repeats = []
    for row in rows:
        key = row["event_id"]
        if found.setdefault(key if isinstance(key, str) else id(row), row) is not row:
            repeats.append(row)
    for _ in _chunks(repeats, max_payload):
        pass
    return list(found.values())


def _is_taken_elsewhere(session: Session, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether an event has one of the identifiers that the index of another partition would let pass."""
    divided = session.first(_IS_DIVIDED)
    return divided is not None and divided[0] and session.first(_ANY_TAKEN, {"added": rows}) is not None


def _rows_of(session: Session, events: Iterable[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    """Return complete rows, and whether the caller gave an identifier to any of them."""
    if isinstance(events, str | bytes | Mapping) or not isinstance(events, Iterable):
        raise InvalidValueError("events", "must be a list of mappings")
    given = session.keep(list(events))
    time = session.now()
    keys = session.keep(new_ulids(len(given)))
    known = len(_NONE)
    rows: list[dict[str, Any]] = []
    is_keyed = False
    for number, event in enumerate(given):
        if not isinstance(event, Mapping):
            raise InvalidValueError(f"events[{number}]", "must be a mapping")
        row: dict[str, Any] = {**_NONE, **event}
        if len(row) != known:
            unknown = next(name for name in event if name not in _NONE)
            raise InvalidValueError(f"events[{number}]", f"an event has no {unknown!r}")
        if row["event_id"] is None:
            row["event_id"] = keys[number]
        else:
            is_keyed = True
        if row["created_at"] is None:
            row["created_at"] = time
        if row["severity"] is None:
            row["severity"] = "info"
        rows.append(row)
    return rows, is_keyed


def _written(session: Session, rows: Sequence[Mapping[str, Any]]) -> int:
    """Return how many of the events an earlier try of this call has written."""
    if not session.repeated:
        return 0
    if session.capabilities.data_modifying_cte:
        counted = session.first(_COUNT_ROWS, {"added": rows})
        assert counted is not None
        return int(counted[0])
    found = (session.first(GET, row) for row in rows)
    return sum(1 for row, event in zip(rows, found, strict=True) if event and event.created_at == row["created_at"])


def _chunks(rows: Sequence[Mapping[str, Any]], max_payload: int) -> Iterator[str]:
    """Yield the rows in COPY's text format. What many events share is checked once.

    No field holds a tab or the end of a line, since identifiers have no control characters and JSON escapes them; none
    is empty but for NULL.
    """
    shared: list[tuple[str, Check, dict[object, str]]] = [(name, _CHECKS[name], {}) for name in _SHARED]
    check_key, check_seq, check_time = (_CHECKS[name] for name in ("event_id", "seq", "created_at"))
    moment, written = None, ""
    lines = []
    for row in rows:
        fields = [check_key(row["event_id"], "event_id")]
        for name, check, seen in shared:
            value = row[name]
            if value is None and name in _NULLABLE:
                fields.append("")
            elif type(value) is str:
                text = seen.get(value)
                if text is None:
                    text = seen[value] = check(value, name)
                fields.append(text)
            else:
                fields.append(check(value, name))
        seq, data = row["seq"], row["data"]
        fields.append("" if seq is None else str(check_seq(seq, "seq")))
        text = "" if data is None else dumps_exact(data, "data")
        check_size(text, "data", max_payload)
        fields.append(text)
        if row["created_at"] is not moment:
            moment = row["created_at"]
            written = to_text(check_time(moment, "created_at"))
        fields.append(written)
        lines.append("\t".join(fields))
        if len(lines) == _CHUNK:
            yield _chunk(lines)
            lines.clear()
    yield _chunk(lines)


def _chunk(lines: list[str]) -> str:
    return "\n".join([*lines, ""]).replace("\\", "\\\\")


Check = Callable[[object, str], Any]
_CHECKS: dict[str, Check] = {c.name: c.type.check for c in EVENTS.c}  # type: ignore[attr-defined]  # all our types are gates
_SHARED = ("agent_id", "session_id", "task_id", "channel", "event_type", "severity")
_COPIED = ("event_id", *_SHARED, "seq", "data", "created_at")
_NULLABLE = frozenset(c.name for c in EVENTS.c if c.nullable)

_KNOWN = EVENTS.alias("known")


def _is_new(event_id: Any) -> Any:
    # As a value: NOT EXISTS may become a join, and that may write the rows in another order.
    found = select(literal(1)).select_from(_KNOWN).where(_KNOWN.c.event_id == event_id).limit(literal(1))
    return found.scalar_subquery().is_(None)


GET: Statement[Event] = Statement(
    select(EVENTS).where(EVENTS.c.event_id == bindparam("event_id", type_=EVENTS.c.event_id.type)), returns=Event
)
_VALUES = {name: bindparam(name, type_=EVENTS.c[name].type) for name in GIVEN}
_DRAWN = (EVENTS.c.position, EVENTS.c.transaction_id)
_INSERT: Statement[Any] = Statement(insert(EVENTS).values(_VALUES).returning(*_DRAWN))
# Without naming what may be in the way: where the table is partitioned it has no unique key but that of positions, and
# an index of each partition refuses what is there already; so whether another one has it is asked beforehand.
_INSERT_NEW: Statement[Any] = Statement(
    postgresql.insert(EVENTS)
    .from_select([*_VALUES], select(*_VALUES.values()).where(_is_new(_VALUES["event_id"])), include_defaults=False)
    .on_conflict_do_nothing()
    .returning(*_DRAWN)
)
_INSERT_EACH: Statement[Any] = Statement(postgresql.insert(EVENTS).values(_VALUES).on_conflict_do_nothing())


def _insert_rows() -> Statement[Any]:
    added, columns = recordset("added", [EVENTS.c[name] for name in GIVEN])
    source = select(*columns.values()).select_from(added).where(_is_new(columns["event_id"]))
    return Statement(
        postgresql.insert(EVENTS).from_select([*columns], source, include_defaults=False).on_conflict_do_nothing()
    )


def _count_rows() -> Statement[Any]:
    added, columns = recordset("added", [EVENTS.c[name] for name in GIVEN])
    found = (EVENTS.c.event_id == columns["event_id"]) & (EVENTS.c.created_at == columns["created_at"])
    return Statement(select(func.count()).select_from(added.join(EVENTS, found)))


_INSERT_ROWS = _insert_rows()
_COUNT_ROWS = _count_rows()


def _any_taken() -> Statement[Any]:
    added, columns = recordset("added", [EVENTS.c.event_id])
    found = added.join(EVENTS, EVENTS.c.event_id == columns["event_id"])
    return Statement(select(literal(1)).select_from(found).limit(literal(1)))


def _is_divided() -> Statement[Any]:
    """Tell of any event whether it lies in a partition."""
    relations = table("pg_class", column("oid"), column("relispartition"), schema="pg_catalog")
    found = relations.join(_KNOWN, relations.c.oid == literal_column("known.tableoid"))
    return Statement(select(relations.c.relispartition).select_from(found).limit(literal(1)))


_ANY_TAKEN, _IS_DIVIDED = _any_taken(), _is_divided()
