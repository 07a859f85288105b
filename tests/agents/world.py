"""Repositories of agents, and conversations whose rows are written directly."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import update

from agentos_store import Store
from agentos_store.agents.documents import DocumentRepository
from agentos_store.agents.repository import AgentRepository
from agentos_store.agents.snapshots import SnapshotRepository
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.operation import Blocking, Repository, reads, writes

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Rows(Repository[Blocking]):
    """Writes and reads whole rows."""

    name = "rows"

    @writes
    def add(self, session: Session, model: Any, rows: Sequence[dict[str, Any]]) -> None:
        for row in rows:
            session.insert(model, row)

    @writes
    def resize(self, session: Session, key: str, messages: int) -> None:
        """Let a conversation know how many messages it has."""
        table = Conversation.table()
        query = update(table).where(table.c.id == key).values(message_count=messages, next_seq=messages)
        session.execute(Statement(query, lasting=False))

    @reads
    def all(self, session: Session, query: Any, returns: Any = None) -> list[Any]:
        return session.all(Statement(query, returns=returns, lasting=False))


@dataclass
class World:
    """The repositories, and the makers of what they work on."""

    store: Store
    agents: AgentRepository[Blocking]
    snapshots: SnapshotRepository[Blocking]
    documents: DocumentRepository[Blocking]
    rows: Rows

    def conversation(self, key: str, messages: int = 0, **values: Any) -> str:
        """Add a conversation with so many messages; return its key."""
        row = {
            "id": key,
            "channel": "api",
            "status": "active",
            "message_count": messages,
            "next_seq": messages,
            "generation": 0,
            "total_tokens": 10 * messages,
            "total_cost": 0,
            "metadata": {},
            "created_at": START,
            "updated_at": START,
        }
        self.rows.add(Conversation, [row | values])
        self.messages(key, range(messages))
        return key

    def messages(self, key: str, numbers: Sequence[int], **values: Any) -> None:
        """Add messages with these numbers."""
        self.rows.add(Message, [message(key, number, **values) for number in numbers])

    def calls(self, message_id: str, *calls: str, **values: Any) -> None:
        """Add tool calls of a message."""
        rows = [tool_call(call, message_id=message_id, ordinal=i, **values) for i, call in enumerate(calls)]
        self.rows.add(ToolCallRecord, rows)


def message(key: str, number: int, **values: Any) -> dict[str, Any]:
    row = {
        "id": f"{key}.m{number}",
        "session_id": key,
        "seq": number,
        "from_generation": 0,
        "role": "user",
        "content": f"text {number}",
        "content_types": 1,
        "token_count": 10,
        "metadata": {},
        "created_at": START + dt.timedelta(seconds=number),
    }
    return row | values


def tool_call(call: str, **values: Any) -> dict[str, Any]:
    row = {
        "id": f"{values.get('agent_id')}/{values.get('session_id')}/{call}",
        "tool_call_id": call,
        "ordinal": 0,
        "tool_name": "bash_run",
        "state": "completed",
        "input": {"command": "ls"},
        "output": "out",
        "has_output": True,
        "audit_trail": [],
        "created_at": START,
        "updated_at": START,
    }
    return row | values


def world_of(store: Store) -> World:
    """Return the repositories of agents, bound to the store."""
    return World(
        store,
        store.bind(AgentRepository[Blocking]),
        store.bind(SnapshotRepository[Blocking]),
        store.bind(DocumentRepository[Blocking]),
        store.bind(Rows),
    )
