"""Rows of memory_items: how one is read, and how it is changed and indexed together."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, func, or_, select, text, update

from agentos_store.engine.clock import from_now
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import AlreadyExistsError, NotFoundError
from agentos_store.memory.models import MemoryItem
from agentos_store.memory.texts import KIND, content_hash, texts_of
from agentos_store.search.index import Writing
from agentos_store.search.parts import indexed
from agentos_store.search.sources import Source

ITEMS = MemoryItem.table()
KEY = bindparam("id", type_=ITEMS.c.id.type)

GET: Statement[MemoryItem] = Statement(select(ITEMS).where(ITEMS.c.id == KEY), returns=MemoryItem)
LOCK: Statement[MemoryItem] = Statement(select(ITEMS).where(ITEMS.c.id == KEY).with_for_update(), returns=MemoryItem)

PLACE = func.coalesce(ITEMS.c.scope_id, text("''"))
"""The scope's identifier as the indexes have it."""

IS_SAME = (
    ITEMS.c.scope == bindparam("scope", type_=ITEMS.c.scope.type),
    func.coalesce(bindparam("scope_id", type_=ITEMS.c.scope_id.type), text("''")) == PLACE,
    ITEMS.c.type == bindparam("type", type_=ITEMS.c.type.type),
    ITEMS.c.content_hash == bindparam("content_hash", type_=ITEMS.c.content_hash.type),
)
SAME: Statement[MemoryItem] = Statement(select(ITEMS).where(*IS_SAME), returns=MemoryItem)
"""The item that has a content already, in a scope, as a type."""

SOURCE = Source(KIND, MemoryItem, lambda item: texts_of(item.content, item.tags))
"""What is searched of an item, for the index to be made again."""

IS_VALID = or_(ITEMS.c.expires_at.is_(None), ITEMS.c.expires_at > from_now(0.0))


def required(item: MemoryItem | None, key: str) -> MemoryItem:
    """Return the item; raise NotFoundError for None."""
    if item is None:
        raise NotFoundError("memory item", key)
    return item


def locked(session: Session, key: str) -> MemoryItem:
    """Return the item as it will stay until the commit."""
    return required(session.first(LOCK if session.capabilities.row_locks else GET, {"id": key}), key)


_CHANGES: dict[tuple[frozenset[str], bool, bool], Any] = {}


def change(
    session: Session, key: str, changes: Mapping[str, Any], *, time: dt.datetime, seen: MemoryItem | None = None
) -> MemoryItem | None:
    """Change these columns of an item, and what of it is indexed; None when there is none, or not as it was seen.

    Who changes the content or the tags must have seen the item.
    """
    values = dict(changes)
    if "content" in values:
        values["content_hash"] = content_hash(values["content"])
    # Nothing is indexed anew when the texts stay as they are.
    reindexed = (
        seen is not None and bool(values.keys() & {"content", "tags"}) and _texts(seen, values) != _texts(seen, {})
    )
    shape = (frozenset(values), seen is not None, reindexed)
    statement = _CHANGES.get(shape)
    if statement is None:
        statement = _CHANGES[shape] = _change_of(*shape)
    binds: dict[str, Any] = {f"new_{name}": value for name, value in values.items()}
    binds |= {"id": key, "new_updated_at": time}
    if seen is not None:
        binds["seen_updated_at"] = seen.updated_at
    try:
        if not reindexed:
            changed: MemoryItem | None = session.first(statement, binds)
            return changed
        assert seen is not None
        written: MemoryItem | None = statement.first(session, binds, indexed(key, _texts(seen, values)))
    except IntegrityViolation as violation:
        if violation.kind == "unique":
            raise AlreadyExistsError("memory item", key, field="content") from None
        raise explain(violation, MemoryItem, dict.fromkeys(ITEMS.c.keys()) | values, session) from None
    return written


def _texts(item: MemoryItem, changes: Mapping[str, Any]) -> list[str]:
    return texts_of(changes.get("content", item.content), changes.get("tags", item.tags))


def _change_of(names: frozenset[str], compares: bool, reindexes: bool) -> Any:
    columns = sorted({*names, "updated_at"})
    query = update(ITEMS).where(ITEMS.c.id == KEY)
    if compares:
        query = query.where(ITEMS.c.updated_at == bindparam("seen_updated_at", type_=ITEMS.c.updated_at.type))
    query = query.values({name: bindparam(f"new_{name}", type_=ITEMS.c[name].type) for name in columns})
    called = {f"new_{name}": name for name in names}
    returning = query.returning(*ITEMS.c)
    if reindexes:
        return Writing(returning, returns=MemoryItem, kind=KIND, called=called)
    return Statement(returning, returns=MemoryItem, called=called)
