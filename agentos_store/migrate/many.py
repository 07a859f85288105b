"""The tenants of one PostgreSQL database: every schema that holds a store, found by its version table."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import URL

from agentos_store.engine.urls import display
from agentos_store.engine.version import TABLE, read_revision_postgresql
from agentos_store.errors import InvalidValueError, StoreError
from agentos_store.migrate.revisions import check_known, known, resolve
from agentos_store.migrate.target import Target

log = logging.getLogger("agentos_store.migrate")


@dataclass(frozen=True, slots=True)
class SchemaState:
    """One schema with a store, and what became of it."""

    schema: str
    revision: str | None
    """Where it is now; None when all revisions were taken back, or where nobody could look."""
    before: str | None
    """Where it was."""
    applied: int = 0
    """Revisions that this call applied; 0 where another process was faster."""
    error: StoreError | None = None
    """Why it could not be read or upgraded; nothing was changed there."""


Progress = Callable[[SchemaState, int, int], None]
"""Told of each schema when it is done, how many are, and how many there are."""


def find_schemas(url: str | URL | None = None, *, settings: Any = None) -> Sequence[SchemaState]:
    """Return every schema of the PostgreSQL database that holds a store, by name, and the revision of each.

    One whose revisions were all taken back is among them, without a revision. A schema that the role may not read has
    the error. Raises InvalidValueError for SQLite, and UnavailableError when there is no database.
    """
    target = _target(url, settings)
    return _look(target)


def upgrade_schemas(
    url: str | URL | None = None, *, revision: str = "head", settings: Any = None, progress: Progress | None = None
) -> Sequence[SchemaState]:
    """Bring every schema that holds a store to the newest revision, or to the one named; return them by name.

    They are upgraded one after another, each in a transaction of its own under its own lock, so that one that fails
    costs only itself: it has the error, and the others go on. Any number of processes may do this at once; each
    revision is applied once. A schema without a revision stays as it is, for somebody took its store away. Raises as
    ``find_schemas`` does.
    """
    wanted = resolve(revision)
    target = _target(url, settings)
    found = _look(target)
    work = [each for each in found if _is_behind(each, wanted)]
    done = {each.schema: _checked(each, target) for each in found if each not in work}
    # Processes that began together would all wait for the same schema.
    random.shuffle(work)
    for number, each in enumerate(work, start=1):
        outcome = done[each.schema] = _upgrade(each, target, wanted)
        if progress is not None:
            progress(outcome, number, len(work))
    return [done[each.schema] for each in found]


def _target(url: str | URL | None, settings: Any) -> Target:
    target = Target.of(url, settings=settings)
    if target.schema is None:
        raise InvalidValueError("all_schemas", "SQLite has none; each tenant has a file of its own")
    return target


def _look(target: Target) -> Sequence[SchemaState]:
    import psycopg

    from agentos_store.engine.postgresql.connect import connector
    from agentos_store.engine.postgresql.faults import translate

    try:
        with connector(target.url, target.settings)() as raw:
            return list(_read(raw))
    except psycopg.Error as error:
        raise translate(error) from None


def _read(raw: Any) -> Iterator[SchemaState]:
    import psycopg

    from agentos_store.engine.postgresql.faults import translate

    cursor = raw.cursor()
    names = [name for (name,) in cursor.execute(_SCHEMAS, (TABLE,)).fetchall()]
    for name in names:
        try:
            revision = read_revision_postgresql(cursor, name)
        except psycopg.Error as error:
            if raw.closed:
                raise
            yield SchemaState(name, None, None, error=translate(error))
        else:
            yield SchemaState(name, revision, revision)


def _is_behind(state: SchemaState, wanted: str) -> bool:
    revision = state.revision
    return revision in known() and known().index(revision) < known().index(wanted)


def _checked(state: SchemaState, target: Target) -> SchemaState:
    """Return the state of a schema that is not upgraded; a revision that this code does not know is an error."""
    try:
        check_known(state.revision, where=replace(target, schema=state.schema).describe())
    except StoreError as error:
        return replace(state, error=error)
    return state


def _upgrade(state: SchemaState, target: Target, wanted: str) -> SchemaState:
    from agentos_store.migrate.upgrade import upgrade

    try:
        # Somebody else's schema may have a name that no tenant can have.
        tenant = replace(target, schema=state.schema)
        applied = upgrade(tenant, wanted)
        return replace(state, revision=wanted if applied else tenant.revision(), applied=applied)
    except StoreError as error:
        log.warning("%s: schema %r not upgraded, %s", display(target.url), state.schema, type(error).__name__)
        return replace(state, error=error)


# What a role may not use is listed too, so that a tenant that was forgotten in the grants is seen.
_SCHEMAS = """
SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = %s AND c.relkind IN ('r', 'p') AND NOT pg_catalog.pg_is_other_temp_schema(n.oid)
ORDER BY n.nspname COLLATE "C"
"""
