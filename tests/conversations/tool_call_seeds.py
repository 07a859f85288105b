"""Agents and sessions for the tests of tool calls, deleted ones among them."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

from sqlalchemy import bindparam, delete

from agentos_store.agents.models import Agent
from agentos_store.base import Base
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_calls import ToolCallRepository
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import AlreadyExistsError
from agentos_store.operation import Blocking, Repository, writes
from tests.plans import some_row

Calls = ToolCallRepository[Blocking]
START = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


class Seeds(Repository[Blocking]):
    name = "seeds"

    @writes
    def session(self, session: Session, key: str, *, deleted: bool = False) -> str:
        session.insert(Conversation, some_row(Conversation, id=key, deleted_at=START if deleted else None))
        return key

    @writes
    def agent(self, session: Session, key: str, *, session_id: str | None = None, deleted: bool = False) -> str:
        values = {"session_id": session_id, "deleted_at": START if deleted else None}
        session.insert(Agent, some_row(Agent, agent_id=key, **values))
        return key

    @writes
    def remove(self, session: Session, model: type[Base], key: str) -> None:
        table = model.table()
        (column,) = table.primary_key.columns
        statement = delete(table).where(column == bindparam("key", type_=column.type))
        session.execute(Statement(statement, lasting=False), {"key": key})


def seeded(store: Any) -> Calls:
    """Make two agents and two sessions, unless they are there; the first agent's conversation is the first session."""
    seeds = store.bind(Seeds)
    with contextlib.suppress(AlreadyExistsError):
        for key in ("s1", "s2"):
            seeds.session(key)
        seeds.agent("a1", session_id="s1")
        seeds.agent("a2")
    return calls_of(store)


def calls_of(store: Any) -> Calls:
    found: Calls = store.bind(ToolCallRepository[Blocking])
    return found


def minutes(number: float) -> dt.datetime:
    return START + dt.timedelta(minutes=number)


def states(call: Any) -> list[str]:
    return [entry["state"] for entry in call.audit_trail]
