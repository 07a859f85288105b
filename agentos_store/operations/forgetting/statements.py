"""The statements that forget, made from the classification."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Table, bindparam, cast, delete, func, literal, null, or_, select, text, tuple_, update
from sqlalchemy import Text as PlainText

from agentos_store.conversations.message_models import Message
from agentos_store.engine.among import among
from agentos_store.engine.holding import holds
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, insert_into
from agentos_store.migrate.triggers import APPEND_ONLY
from agentos_store.models import metadata
from agentos_store.operations.forgetting.classification import (
    EXECUTED,
    FORGOTTEN,
    TABLES,
    Actor,
    Emptied,
    Link,
    Owner,
)
from agentos_store.search import index
from agentos_store.search.parts import indexed
from agentos_store.tasks.models import AuditPruningPermit
from agentos_store.types import Int64, Text, UTCDateTime

_MESSAGES = Message.table()
_NOW = bindparam("now", type_=UTCDateTime())
_LIMIT: Any = bindparam("limit_")


class Rows:
    """The rows of one table that are an owner's by one column."""

    def __init__(self, table: Table, link: Link) -> None:
        self.table = table
        self.goes = link.goes
        self._kind = TABLES[table.name].kind
        column = table.c[link.column]
        self.clears = column.nullable and not link.goes
        """Whether rows that were emptied are no longer found by the column."""
        self._permitted = table.name in APPEND_ONLY
        self._where: list[Any] = [column == bindparam("key", type_=column.type)]
        if link.where:
            self._where.append(text(link.where))
        keys = tuple(table.primary_key)
        some = select(*keys).where(*self._where)
        if link.goes or self.clears:
            some = some.limit(_LIMIT)
        chosen: list[Any]
        if len(keys) == 1:
            chosen = [among(keys[0], some.correlate(None))]
        else:
            # By the column too, so that the rows are found by its index.
            chosen = [*self._where, tuple_(*keys).in_(some.correlate(None))]
        change: Any = delete(table) if link.goes else update(table).values(emptying(table, link))
        told = [keys[0], *([_MESSAGES.c.to_generation] if table is _MESSAGES else [])]
        self._take: Statement[Any] = Statement(change.where(*chosen).returning(*told))
        self._keys: Statement[Any] = Statement(select(*keys).where(*self._where))
        self._any: Statement[Any] = Statement(select(keys[0]).where(*self._where).limit(literal(1)))

    def take(self, session: Session, key: str, limit: int) -> int:
        """Let up to so many of the rows go, or be emptied, and return how many did."""
        if self._permitted:
            session.execute(_PERMIT, {"task_id": key})
        rows = session.all(self._take, {"key": key, "limit_": limit, "now": session.now()})
        if self._permitted:
            session.execute(_FORBID, {"task_id": key})
        if self._kind is not None and rows:
            self._follow(session, rows)
        return len(rows)

    def any(self, session: Session, key: str) -> bool:
        """Tell whether there is a row."""
        return session.first(self._any, {"key": key}) is not None

    def keys(self, session: Session, key: str) -> list[Any]:
        """Return the keys of all rows."""
        return session.all(self._keys, {"key": key})

    def _follow(self, session: Session, rows: Sequence[Any]) -> None:
        assert self._kind is not None
        # What a conversation consists of is in the index, be it without a word.
        stay = [row[0] for row in rows if not self.goes and row[1] is None]
        index.remove(session, self._kind, [row[0] for row in rows])
        index.put(session, self._kind, [indexed(key, []) for key in stay])


def emptying(table: Table, link: Link) -> Mapping[str, Any]:
    """Return what the columns of a row that stays are set to."""
    fates = TABLES[table.name].columns
    names = link.empties or [name for name, fate in fates.items() if isinstance(fate, Emptied)]
    values: dict[str, Any] = {}
    for name in names:
        fate = fates[name]
        values[name] = fate.value if isinstance(fate, Emptied) else null()
    if table.c[link.column].nullable:
        values[link.column] = null()
    return values | touched(table)


def touched(table: Table) -> dict[str, Any]:
    """Return what moves with every change of a row."""
    values: dict[str, Any] = {}
    if "updated_at" in table.c:
        values["updated_at"] = _NOW
    if "version" in table.c:
        values["version"] = table.c.version + 1
    return values


def _rows() -> dict[Owner, tuple[Rows, ...]]:
    found: dict[Owner, list[Rows]] = {owner: [] for owner in Owner}
    for name, classified in TABLES.items():
        for link in classified.links:
            # Agents and tasks are owners too, and come before what is theirs.
            if name not in {"agents", "tasks"}:
                found[link.owner].append(Rows(metadata.tables[name], link))
    return {owner: tuple(rows) for owner, rows in found.items()}


_PERMIT: Statement[Any] = Statement(insert_into(AuditPruningPermit))
_FORBID: Statement[Any] = Statement(
    delete(AuditPruningPermit.table()).where(
        AuditPruningPermit.table().c.task_id == bindparam("task_id", type_=AuditPruningPermit.table().c.task_id.type)
    )
)

ROWS: Mapping[Owner, tuple[Rows, ...]] = _rows()
"""By owner what is theirs, but agents and tasks."""


class Emptying:
    """Empties one agent or one task that stays; ``executed``: only what an agent that is forgotten made of the task."""

    def __init__(self, table: Table, link: Link) -> None:
        self.table = table
        (key,) = table.primary_key
        is_it = key == bindparam("key", type_=key.type)
        self._statement: Statement[Any] = Statement(update(table).where(is_it).values(emptying(table, link)))

    def __call__(self, session: Session, key: str) -> int:
        """Empty the row, and return how many there were."""
        return session.execute(self._statement, {"key": key, "now": session.now()})


def _link(table: str, owner: Owner) -> Link:
    (link,) = (link for link in TABLES[table].links if link.owner is owner)
    return link


DETACH_AGENT = Emptying(metadata.tables["agents"], _link("agents", Owner.SESSION))
EMPTY_TASK = Emptying(metadata.tables["tasks"], _link("tasks", Owner.SESSION))
EMPTY_EXECUTED = Emptying(metadata.tables["tasks"], EXECUTED)


class Owned:
    """The keys of the owners that are another owner's, in their order."""

    def __init__(self, table: str, column: str) -> None:
        found = metadata.tables[table]
        (key,) = found.primary_key
        theirs = found.c[column] == bindparam("key", type_=found.c[column].type)
        within = (key > bindparam("after", type_=Text()), key <= bindparam("upto", type_=Text()))
        self._last: Statement[Any] = Statement(select(func.max(key)).where(theirs))
        self._page: Statement[Any] = Statement(select(key).where(theirs, *within).order_by(key).limit(_LIMIT))

    def last(self, session: Session, key: str) -> str | None:
        """Return the last of the keys; None where there is none."""
        found: str | None = session.all(self._last, {"key": key})[0][0]
        return found

    def between(self, session: Session, key: str, after: str, upto: str, limit: int) -> list[str]:
        """Return the next keys up to one."""
        values = {"key": key, "after": after, "upto": upto, "limit_": limit}
        return [row[0] for row in session.all(self._page, values)]


class Naming:
    """The places where one column names somebody, in rows that may be anybody's."""

    def __init__(self, actor: Actor) -> None:
        table = metadata.tables[actor.table]
        self.table = table
        self._form = actor.form
        column = table.c[actor.column]
        (key,) = table.primary_key
        self._least: Any = -1 if isinstance(key.type, Int64) else ""
        plain = actor.form == "value"
        self._names = [bindparam(f"text_{n}", type_=column.type if plain else PlainText()) for n in range(PATTERNS)]
        names = or_(*(column == name if plain else holds(cast(column, PlainText()), name) for name in self._names))
        after = key > bindparam("after", type_=_any(key))
        self._end: Statement[Any] = Statement(
            select(key).where(after).order_by(key).limit(1).offset(bindparam("skipped"))
        )
        self._last: Statement[Any] = Statement(select(func.max(key)).where(after))
        self._found: Statement[Any] = Statement(
            select(key).where(after, key <= bindparam("upto", type_=_any(key)), names).order_by(key)
        )
        self._replace: Statement[Any] = Statement(
            update(table)
            .where(key == bindparam("key", type_=key.type), names)
            .values({actor.column: self._replaced(column), **touched(table)})
        )

    def _replaced(self, column: Column[Any]) -> Any:
        if self._form == "value":
            return literal(FORGOTTEN, column.type)
        replaced: Any = cast(column, PlainText())
        for number, name in enumerate(self._names):
            replaced = func.replace(replaced, name, bindparam(f"instead_{number}", type_=PlainText()))
        return cast(replaced, column.type)

    def next(self, session: Session, after: Any, size: int, names: Sequence[str]) -> tuple[Any, list[Any]]:
        """Look at so many rows behind a key; return where to go on, None at the end, and who names somebody."""
        after = self._least if after is None else after
        end = session.first(self._end, {"after": after, "skipped": size - 1})
        upto = session.all(self._last, {"after": after})[0][0] if end is None else end[0]
        if upto is None:
            return None, []
        found = session.all(self._found, {"after": after, "upto": upto, **self._texts(names)})
        return (None if end is None else upto), [row[0] for row in found]

    def replace(self, session: Session, keys: Sequence[Any], names: Sequence[str]) -> int:
        """Put a word for nobody in the place of the name in these rows; return how many there were."""
        given = {**self._texts(names), "now": session.now()}
        return session.execute_many(self._replace, [{"key": key, **given} for key in keys])

    def _texts(self, names: Sequence[str]) -> dict[str, str]:
        pairs = {"value": _values, "by": by, "element": _elements}[self._form](names)
        pairs = [pairs[number % len(pairs)] for number in range(PATTERNS)]
        given = {f"text_{number}": found for number, (found, _) in enumerate(pairs)}
        if self._form != "value":
            given |= {f"instead_{number}": instead for number, (_, instead) in enumerate(pairs)}
        return given


PATTERNS = 4


def _any(key: Column[Any]) -> Any:
    # A key from before the first is none.
    return key.type if isinstance(key.type, Int64) else Text()


def _values(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(name, FORGOTTEN) for name in names]


def _elements(names: Sequence[str]) -> list[tuple[str, str]]:
    return [(_quoted(name), _quoted(FORGOTTEN)) for name in names]


def by(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return how JSON says that it was done by one of these, as both databases write it, and what to say instead."""
    spelled = [(f'"by":{space}', name) for name in names for space in ("", " ")]
    return [(before + _quoted(name), before + _quoted(FORGOTTEN)) for before, name in spelled]


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
