"""How an agent's row is changed: each time in one statement, which counts the version and nothing else touches."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, func, null, select, text, update
from sqlalchemy.dialects import postgresql

from agentos_store.agents.models import Agent
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import ConflictError, InvalidValueError, NotFoundError

AGENTS = Agent.table()
OPEN: Any = text(f"{AGENTS.name}.deleted_at IS NULL")
KEY = bindparam("agent_id", type_=AGENTS.c.agent_id.type)
GET_ANY: Statement[Agent] = Statement(select(AGENTS).where(AGENTS.c.agent_id == KEY), returns=Agent)
GET: Statement[Agent] = Statement(select(AGENTS).where(AGENTS.c.agent_id == KEY, OPEN), returns=Agent)
_SAVES: dict[frozenset[str], Statement[Agent]] = {}
_CHANGES: dict[tuple[frozenset[str], str], Statement[Agent]] = {}


def add(session: Session, values: Mapping[str, Any], *, created_at: dt.datetime | None) -> Agent:
    """Add an agent with these columns."""
    time = session.now()
    return done(session, values["agent_id"], time) or session.insert(Agent, _new_row(time, created_at) | dict(values))


def put(session: Session, agent_id: str, changes: Mapping[str, Any], *, created_at: dt.datetime | None) -> Agent:
    """Let the agent have these columns, whether it was there or not; bring it back if it was deleted."""
    time = session.now()
    already = done(session, agent_id, time)
    if already is not None:
        return already
    row = _new_row(time, created_at) | {"agent_id": agent_id} | dict(changes)
    names = frozenset(changes)
    statement = _SAVES.get(names)
    if statement is None:
        statement = _SAVES[names] = _save_of(names)
    try:
        saved = session.first(statement, row)
    except IntegrityViolation as violation:
        raise explain(violation, Agent, row, session) from None
    assert saved is not None
    return saved


def check_place(changes: Mapping[str, Any]) -> None:
    """Raise InvalidValueError for a safe fork point that cannot be."""
    place = changes.get("last_sfp_index")
    if isinstance(place, int) and place < -1:
        raise InvalidValueError("last_sfp_index", "must be at least -1")


def _new_row(time: dt.datetime, created_at: dt.datetime | None) -> dict[str, Any]:
    return dict.fromkeys(AGENTS.c.keys()) | {
        "state": "idle",
        "lineage": [],
        "last_sfp_index": -1,
        "stats": {},
        "metadata": {},
        "version": 1,
        "created_at": time if created_at is None else created_at,
        "updated_at": time,
    }


def _save_of(names: frozenset[str]) -> Statement[Agent]:
    # One spelling serves both dialects.
    query = postgresql.insert(AGENTS).values({c.name: bindparam(c.name, type_=c.type) for c in AGENTS.c})
    changes: dict[str, Any] = {name: query.excluded[name] for name in sorted(names)}
    changes["version"] = AGENTS.c.version + 1
    changes["deleted_at"] = null()
    changes["updated_at"] = query.excluded.updated_at
    query = query.on_conflict_do_update(index_elements=[AGENTS.c.agent_id], set_=changes)
    return Statement(query.returning(*AGENTS.c), returns=Agent)


_WHICH: dict[str, Any] = {
    "open": [OPEN],
    "deleted": [text(f"{AGENTS.name}.deleted_at IS NOT NULL")],
    "any": [],
}


def change(
    session: Session,
    agent_id: str,
    changes: Mapping[str, Any],
    *,
    version: int | None = None,
    expected: str | None = None,
    which: str = "open",
) -> Agent:
    """Change these columns of an agent that is open, deleted, or either, or raise what keeps it from being changed."""
    key = frozenset(changes), which
    statement = _CHANGES.get(key)
    if statement is None:
        values = {name: bindparam(f"new_{name}", type_=AGENTS.c[name].type) for name in changes}
        statement = _CHANGES[key] = _change_of(values, which)
    time = session.now()
    binds = {f"new_{name}": value for name, value in changes.items()}
    binds |= {"agent_id": agent_id, "given_version": version, "expected": expected, "new_updated_at": time}
    already = done(session, agent_id, time)
    if already is not None:
        return already
    while True:
        try:
            changed = session.first(statement, binds)
        except IntegrityViolation as violation:
            row = dict.fromkeys(AGENTS.c.keys()) | dict(changes)
            raise explain(violation, Agent, row, session) from None
        if changed is not None:
            return changed
        found = required(session.first(GET_ANY, binds), agent_id)
        if which == "open" and found.deleted_at is not None:
            raise NotFoundError("agent", agent_id)
        if which == "deleted" and found.deleted_at is None:
            return found
        if version is not None and found.version != version:
            raise ConflictError("agent", agent_id, f"it is at version {found.version}, not {version}")
        if expected is not None and found.state != expected:
            raise ConflictError("agent", agent_id, f"it is {found.state}, not {expected}")
        # Whatever stood in the way is gone by now.


def _change_of(values: Mapping[str, Any], which: str) -> Statement[Agent]:
    version = bindparam("given_version", type_=AGENTS.c.version.type)
    state = bindparam("expected", type_=AGENTS.c.state.type)
    changed = {
        **values,
        "version": AGENTS.c.version + 1,
        "updated_at": bindparam("new_updated_at", type_=AGENTS.c.updated_at.type),
    }
    query = (
        update(AGENTS)
        .where(
            AGENTS.c.agent_id == KEY,
            *_WHICH[which],
            AGENTS.c.version == func.coalesce(version, AGENTS.c.version),
            AGENTS.c.state == func.coalesce(state, AGENTS.c.state),
        )
        .values(changed)
        .returning(*AGENTS.c)
    )
    called = {f"new_{name}": name for name in values} | {"given_version": "version"}
    return Statement(query, returns=Agent, called=called)


def merge(session: Session, agent_id: str, column: str, values: Mapping[str, Any]) -> Agent:
    """Set these keys of a column that holds a JSON object, and keep the others."""
    if not session.capabilities.row_locks:
        # Nobody else writes between the two statements.
        agent = required(session.first(GET, {"agent_id": agent_id}), agent_id)
        there = getattr(agent, {"metadata": "metadata_"}.get(column, column))
        merged = {**there, **values} if isinstance(values, Mapping) else values
        return change(session, agent_id, {column: merged})
    time = session.now()
    already = done(session, agent_id, time)
    if already is not None:
        return already
    binds = {"agent_id": agent_id, f"new_{column}": plain_json(values), "new_updated_at": time}
    return required(session.first(_MERGES[column], binds | {"given_version": None, "expected": None}), agent_id)


def _merge_of(column: str) -> Statement[Agent]:
    """Return the statement by which a database merges where several write at once: the later waits for the earlier."""
    added = bindparam(f"new_{column}", type_=AGENTS.c[column].type)
    return _change_of({column: AGENTS.c[column].op("||")(added)}, "open")


_MERGES = {column: _merge_of(column) for column in ("stats", "metadata")}


def done(session: Session, agent_id: str, time: dt.datetime) -> Agent | None:
    """Return the agent when an earlier try of this very call was committed, and its answer got lost."""
    found = session.first(GET_ANY, {"agent_id": agent_id}) if session.repeated else None
    # The time was drawn for this call alone. Somebody may have changed since what it made.
    return found if found is not None and time in (found.updated_at, found.created_at) else None


def required(agent: Agent | None, agent_id: str) -> Agent:
    """Return the agent; raise NotFoundError when there is none."""
    if agent is None:
        raise NotFoundError("agent", agent_id)
    return agent
