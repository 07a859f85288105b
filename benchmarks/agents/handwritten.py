"""SQLAlchemy written by hand for the same work: Core, and the ORM."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, Table, insert, null, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from benchmarks import rows
from benchmarks.agents import content
from benchmarks.agents.tables import Called, Worker
from benchmarks.conversations.content import SESSION, keys
from benchmarks.conversations.handwritten import SESSIONS
from benchmarks.handwritten import Handwritten
from benchmarks.measure import NotHonestError

AGENTS: Table = Worker.metadata.tables["agents"]
CALLS: Table = Called.metadata.tables["tool_call_records"]
UPSERT: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
MAY_COMPLETE = ("pending", "executing")


class _Handwritten(Handwritten):
    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._keys = keys()

    @staticmethod
    def values(calls: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return what tells calls from others."""
        return [(call.id, call.agent_id, call.input, call.approval, call.audit_trail) for call in calls]


class Core(_Handwritten):
    """Statements of Core, built at each call as they stand in the code."""

    def record(self, tool_call_id: str) -> object:
        """Record a call that has ended."""
        call = _call(next(self._keys), tool_call_id, rows.now())
        with self.engine.begin() as connection:
            return connection.execute(UPSERT[self.engine.dialect.name](CALLS).values(call).on_conflict_do_nothing())

    def complete(self, tool_call_id: str) -> object:
        """End a call that is executing; what its trail was is read first, which serves both databases."""
        at = rows.now()
        wanted = (CALLS.c.agent_id == content.AGENT, CALLS.c.tool_call_id == tool_call_id)
        with self.engine.begin() as connection:
            asked = select(CALLS.c.state, CALLS.c.started_at, CALLS.c.audit_trail).where(*wanted).with_for_update()
            state, started_at, trail = connection.execute(asked).one()
            if state not in MAY_COMPLETE:
                raise NotHonestError("the call is not executing")
            ended = {
                "state": "completed",
                "updated_at": at,
                "completed_at": at,
                "output": content.OUTPUT,
                "has_output": True,
                "is_error": False,
                "duration_ms": _elapsed(started_at, at),
                "audit_trail": [*trail, content.entry("completed", at)],
            }
            return connection.execute(update(CALLS).where(*wanted).values(ended).returning(CALLS)).one()

    def save(self, number: int) -> object:
        """Save the agent with another state and another safe fork point."""
        saved = UPSERT[self.engine.dialect.name](AGENTS).values(_agent(number, rows.now()))
        changes = {name: saved.excluded[name] for name in ("state", "last_sfp_index", "updated_at")}
        changes |= {"version": AGENTS.c.version + 1, "deleted_at": null()}
        saved = saved.on_conflict_do_update(index_elements=[AGENTS.c.agent_id], set_=changes).returning(AGENTS)
        with self.engine.begin() as connection:
            return connection.execute(saved).one()

    def waiting(self) -> Sequence[Any]:
        """Return the first page of the calls that wait; one row more tells whether others follow."""
        asked = select(CALLS).where(*_of_living(), CALLS.c.state == "approval_required")
        with self.engine.connect() as connection:
            found = connection.execute(asked.order_by(CALLS.c.created_at, CALLS.c.id).limit(content.PAGE + 1)).all()
        return found[: content.PAGE]


class ORM(_Handwritten):
    """Objects and a unit of work."""

    def record(self, tool_call_id: str) -> object:
        """Record a call that has ended."""
        call = Called(**_call(next(self._keys), tool_call_id, rows.now()))
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            session.add(call)
        return call

    def complete(self, tool_call_id: str) -> object:
        """End a call that is executing."""
        at = rows.now()
        asked = select(Called).where(Called.agent_id == content.AGENT, Called.tool_call_id == tool_call_id)
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            call = session.scalars(asked.with_for_update()).one()
            if call.state not in MAY_COMPLETE or call.started_at is None:
                raise NotHonestError("the call is not executing")
            call.state = "completed"
            call.updated_at = call.completed_at = at
            call.output = content.OUTPUT
            call.has_output, call.is_error = True, False
            call.duration_ms = _elapsed(call.started_at, at)
            call.audit_trail = [*call.audit_trail, content.entry("completed", at)]
        return call

    def save(self, number: int) -> object:
        """Save the agent with another state and another safe fork point."""
        at = rows.now()
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            worker = session.get(Worker, content.AGENT, with_for_update=True)
            if worker is None:
                values = _agent(number, at)
                worker = Worker(metadata_=values.pop("metadata"), **values)
                session.add(worker)
                return worker
            worker.state, worker.last_sfp_index = content.state(number), number
            worker.version += 1
            worker.updated_at, worker.deleted_at = at, None
        return worker

    def waiting(self) -> Sequence[Any]:
        """Return the first page of the calls that wait; one row more tells whether others follow."""
        asked = select(Called).where(*_of_living(), Called.state == "approval_required")
        with Session(self.engine) as session:
            found = session.scalars(asked.order_by(Called.created_at, Called.id).limit(content.PAGE + 1)).all()
        return found[: content.PAGE]


def add_many(core: Core, table: Table, many: Sequence[dict[str, Any]]) -> None:
    """Add rows."""
    with core.engine.begin() as connection:
        connection.execute(insert(table), many)


def _of_living() -> Any:
    agent = select(AGENTS.c.deleted_at).where(AGENTS.c.agent_id == CALLS.c.agent_id)
    session = select(SESSIONS.c.deleted_at).where(SESSIONS.c.id == CALLS.c.session_id)
    return agent.scalar_subquery().is_(None), session.scalar_subquery().is_(None)


def _call(key: str, tool_call_id: str, at: dt.datetime) -> dict[str, Any]:
    return {
        "id": key,
        "agent_id": content.AGENT,
        "session_id": SESSION,
        "tool_call_id": tool_call_id,
        "ordinal": 0,
        "tool_name": content.TOOL,
        "state": "completed",
        "input": content.INPUT,
        "output": content.OUTPUT,
        "has_output": True,
        "is_error": False,
        "audit_trail": [content.entry("completed", at)],
        "duration_ms": content.DURATION,
        "created_at": at,
        "updated_at": at,
        "completed_at": at,
    }


def _agent(number: int, at: dt.datetime) -> dict[str, Any]:
    return {
        "agent_id": content.AGENT,
        "state": content.state(number),
        "lineage": [],
        "last_sfp_index": number,
        "stats": {},
        "metadata": {},
        "version": 1,
        "created_at": at,
        "updated_at": at,
    }


def _elapsed(started_at: dt.datetime, at: dt.datetime) -> float:
    return (at - in_utc(started_at)) / dt.timedelta(milliseconds=1)


def in_utc(moment: dt.datetime) -> dt.datetime:
    """Return the time in UTC; what SQLAlchemy reads on SQLite is so already, but does not say it."""
    return moment.replace(tzinfo=dt.UTC) if moment.tzinfo is None else moment.astimezone(dt.UTC)
