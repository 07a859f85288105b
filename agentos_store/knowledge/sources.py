"""Rows of kb_sources: how one is found, made, and held while its chunks change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, func, literal, select, text, update
from sqlalchemy.dialects import postgresql

from agentos_store.engine.prefix import behind
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import NotFoundError
from agentos_store.knowledge.models import KbSource, SourcePath
from agentos_store.page import Filter, Listing, equals
from agentos_store.types import Text

SOURCES = KbSource.table()
KEY = bindparam("source_id", type_=SOURCES.c.source_id.type)

GET: Statement[KbSource] = Statement(select(SOURCES).where(SOURCES.c.source_id == KEY), returns=KbSource)
EXISTS: Statement[Any] = Statement(select(literal(1)).where(SOURCES.c.source_id == KEY))
_LOCK: Statement[KbSource] = Statement(
    select(SOURCES).where(SOURCES.c.source_id == KEY).with_for_update(), returns=KbSource
)
DELETE: Statement[Any] = Statement(delete(SOURCES).where(SOURCES.c.source_id == KEY))

# The literals are those of the unique index.
_IS_PLACE = (
    func.coalesce(bindparam("project_id", type_=SOURCES.c.project_id.type), text("''"))
    == func.coalesce(SOURCES.c.project_id, text("''")),
    SOURCES.c.source_path == bindparam("source_path", type_=SOURCES.c.source_path.type),
)
_OF_PLACE = select(SOURCES).where(*_IS_PLACE)
FIND: Statement[KbSource] = Statement(_OF_PLACE, returns=KbSource)
_LOCK_PLACE: Statement[KbSource] = Statement(_OF_PLACE.with_for_update(), returns=KbSource)

_INSERT: Statement[KbSource] = Statement(
    # One spelling serves both dialects; without a target it passes over any unique key that is taken.
    postgresql.insert(SOURCES)
    .values({column.name: bindparam(column.name, type_=column.type) for column in SOURCES.c})
    .on_conflict_do_nothing()
    .returning(*SOURCES.c),
    returns=KbSource,
)

_PREFIX = Text(1, SourcePath.MOST_BYTES)

LISTING = Listing(
    KbSource,
    filters={
        "project_id": equals(KbSource.project_id),
        "source_type": equals(KbSource.source_type),
        "prefix": Filter(_PREFIX, lambda name: SOURCES.c.source_path >= bindparam(name, type_=_PREFIX)),
        "behind": Filter(_PREFIX, lambda name: SOURCES.c.source_path < bindparam(name, type_=_PREFIX)),
    },
    orders={"source_path": (SOURCES.c.source_path, SOURCES.c.source_id)},
    default="source_path",
)


def filters(project_id: object, source_type: object, prefix: str | None) -> dict[str, object]:
    """Return what a list of sources is narrowed by."""
    end = None if prefix is None else behind(_PREFIX.check(prefix, "prefix"))
    return {"project_id": project_id, "source_type": source_type, "prefix": prefix, "behind": end}


@dataclass(frozen=True, slots=True)
class Held:
    """A source that the transaction holds, as it is, and whether this very call made it."""

    source: KbSource
    is_new: bool


def required(source: KbSource | None, key: str) -> KbSource:
    """Return the source; raise NotFoundError for None."""
    if source is None:
        raise NotFoundError("source", key)
    return source


def hold(session: Session, source_id: str) -> KbSource:
    """Return the source as it will stay until the commit: whoever changes its chunks holds it."""
    locked = _LOCK if session.capabilities.row_locks else GET
    return required(session.first(locked, {"source_id": source_id}), source_id)


def hold_or_make(session: Session, row: Mapping[str, Any]) -> Held:
    """Return the source of this place, made if there is none, as it will stay until the commit."""
    made = {
        **row,
        "source_id": session.new_ulid(),
        "content_hash": None,
        "indexed_at": None,
        "metadata": row["metadata"] or {},
    }
    locked = _LOCK_PLACE if session.capabilities.row_locks else FIND
    while True:
        found = session.first(locked, row)
        if found is not None:
            # An earlier try of this very call may have made it.
            return Held(found, found.source_id == made["source_id"])
        try:
            inserted = session.first(_INSERT, made)
        except IntegrityViolation as violation:
            raise explain(violation, KbSource, made, session) from None
        if inserted is not None:
            return Held(inserted, is_new=True)
        # Somebody was faster.


def place_of(
    project_id: str | None, source_path: str, source_type: str, metadata: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what is given of a source, by column."""
    return {
        "project_id": project_id,
        "source_path": source_path,
        "source_type": source_type,
        "metadata": None if metadata is None else plain_json(metadata),
    }


def differences(source: KbSource, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values that the source does not have yet; what is None is left as it is."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        column = SOURCES.c[name]
        if value is None:
            continue
        # Refused though it would be passed over.
        checked = column.type.check(value, name)  # type: ignore[attr-defined]
        now = source.metadata_ if name == "metadata" else getattr(source, name)
        if checked != now or (name == "metadata" and not alike(checked, now)):
            found[name] = checked
    return found


def alike(left: object, right: object) -> bool:
    """Tell whether two JSON values are the same: True is not 1 here, nor 1 a 1.0."""
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


_CHANGES: dict[frozenset[str], Statement[KbSource]] = {}


def change(session: Session, source: KbSource, changes: Mapping[str, Any]) -> KbSource:
    """Change these columns of a source that the transaction holds."""
    if not changes:
        return source
    names = frozenset(changes)
    statement = _CHANGES.get(names)
    if statement is None:
        values = {name: bindparam(f"new_{name}", type_=SOURCES.c[name].type) for name in sorted(names)}
        query = update(SOURCES).where(SOURCES.c.source_id == KEY).values(values).returning(*SOURCES.c)
        called = {f"new_{name}": name for name in names}
        statement = _CHANGES[names] = Statement(query, returns=KbSource, called=called)
    values = {f"new_{name}": value for name, value in changes.items()}
    return required(session.first(statement, {**values, "source_id": source.source_id}), source.source_id)
