"""A person and an agent with something in every table, and a way to find what is left of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from sqlalchemy import Table

from agentos_store import Store
from agentos_store.agents.models import Agent, AgentDocument, Snapshot
from agentos_store.base import Base
from agentos_store.conversations.context_models import Context
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import QuotaReservation, User
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.session import Session
from agentos_store.events.models import Event
from agentos_store.governance.models import GuardianVerdict, SupervisorInboxEntry
from agentos_store.housekeeping.models import ImportLedgerEntry
from agentos_store.leases.models import Lease
from agentos_store.memory.models import MemoryItem
from agentos_store.models import metadata
from agentos_store.operation import Blocking, Repository, writes
from agentos_store.tasks.link_models import TaskArtifactRef, TaskDependency, TaskRepoScope
from agentos_store.tasks.models import Task, TaskLineage
from agentos_store.types import Choice, ErrorText, ExactJSON, Identifier, JSONValue, Text
from tests.plans import START, some_row

Raw = Callable[..., list[tuple[Any, ...]]]

USER, OTHER = "wanda", "otto"


def token(*parts: object) -> str:
    """Return a word that stands nowhere else, and shares no beginning with another, which an index would leave out."""
    return "k" + hashlib.sha256(repr(parts).encode()).hexdigest()[:20]


class Planting(Repository[Blocking]):
    """Writes rows with a word of their own in every column that can hold one."""

    name = "planting"

    @writes
    def add(self, session: Session, model: type[Base], row: dict[str, Any]) -> Any:
        return session.insert(model, row)


class World:
    """Plants words, and knows where each was planted."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.words: dict[str, str] = {}
        """By word: table and column."""
        self._rows = store.bind(Planting)
        self._number = 0

    def word(self, table: Table, column: str) -> str:
        self._number += 1
        made = token(table.name, column, self._number)
        self.words[made] = f"{table.name}.{column}"
        return made

    def plant(self, model: type[Base], keep: Collection[str] = (), **values: Any) -> Any:
        """Add a row with a word in each column but those that are given or named."""
        table = model.table()
        row = some_row(model)
        for column in table.columns:
            kind = column.type
            if column.name in values or column.name in keep or column.foreign_keys or isinstance(kind, Choice):
                continue
            if isinstance(kind, JSONValue | ExactJSON):
                said: Any = self.word(table, column.name)
                kind_of = getattr(kind, "kind", None)
                row[column.name] = {"object": {said: [said]}, "array": [said]}.get(kind_of or "", {"said": said})
                if (model, column.name) == (Message, "content"):
                    # As a text, so that it is found by a search.
                    row[column.name] = said
            elif isinstance(kind, Identifier | Text | ErrorText):
                row[column.name] = self.word(table, column.name)
        return self._rows.add(model, {**row, **values})


# --- where words are left: written down here too, so that a change of the classification shows

TASK_STAYS = {"task_id", "task_type", "router_version", "claimed_by"}
AGENT_STAYS = {"agent_id", "template_id", "role", "goal", "backstory", "config_version", "metadata", "lineage"}


def person(world: World) -> None:
    """A person with two conversations, an agent of their own, one that others have, and tasks of both kinds."""
    plant, store = world.plant, world.store
    store.projects.create(path="/shared", id="project")
    store.users.create(name="Otto", id=OTHER)
    store.sessions.create(user_id=OTHER, id="other")
    plant(User, id=USER, email="wanda@example.com", quota_total=1000)
    plant(QuotaReservation, user_id=USER, tokens=1)
    plant(Conversation, id="open", user_id=USER, next_seq=2, message_count=2)
    plant(Conversation, id="deleted", user_id=USER, deleted_at=START)
    _agents(world)
    for session_id in ("open", "deleted"):
        for seq in range(2):
            plant(Message, session_id=session_id, seq=seq, agent_id="own" if seq else None)
        plant(Message, session_id=session_id, seq=0, to_generation=1)
        plant(ToolCallRecord, session_id=session_id, agent_id="own")
        plant(Context, session_id=session_id)
        plant(Event, session_id=session_id)
        plant(Lease, name=session_id, token=1)
    for key, project in (("of-project", "project"), ("alone", None)):
        _task(world, key, project)
    plant(Lease, name=USER, token=1)
    _named(world, [USER, "wanda@example.com"])
    store.search.rebuild()


def _agents(world: World) -> None:
    plant = world.plant
    plant(Agent, agent_id="own", session_id="open")
    plant(Agent, AGENT_STAYS, agent_id="everybodys", session_id="deleted")
    world.store.messages.append("other", role="assistant", content="said to Otto", agent_id="everybodys")
    for agent_id in ("own", "everybodys"):
        plant(AgentDocument, agent_id=agent_id)
    plant(Context, agent_id="own")
    plant(Snapshot, agent_id="own", session_id="open")
    plant(Snapshot, agent_id="everybodys", session_id="deleted")
    plant(Event, agent_id="own")
    plant(MemoryItem, scope="agent", scope_id="own")
    plant(Lease, name="own", token=1)
    plant(ImportLedgerEntry, source="kode", kind="conversation", source_key="own")


def _task(world: World, key: str, project: str | None, **values: Any) -> None:
    plant, store = world.plant, world.store
    keep = TASK_STAYS if project else {"task_id"}
    given = {"task_id": key, "project_id": project, "max_attempts": 3, "status": "created", **values}
    plant(Task, keep, **{"session_id": "open", "agent_id": "own", **given})
    for number in range(3):
        store.audits.record(
            key, event_type="e", payload={"said": world.word(metadata.tables["task_audits"], "payload")}
        )
        store.audits.record(key, event_type="e", payload=None if number else {"by": "somebody"})
    for model in (TaskLineage, TaskRepoScope, TaskArtifactRef, GuardianVerdict, SupervisorInboxEntry, Event):
        plant(model, task_id=key)
    plant(MemoryItem, scope="task", scope_id=key)
    other = f"other-of-{key}"
    store.tasks.create(title="of Otto", task_id=other)
    plant(TaskDependency, task_id=key, depends_on_task_id=other)
    if project:
        plant(TaskDependency, task_id=other, depends_on_task_id=key)


def _named(world: World, names: list[str]) -> None:
    """Rows of others that name somebody who did something."""
    store, rows = world.store, world._rows
    for number, name in enumerate(names):
        store.projects.create(path=f"/p{number}", created_by=name)
        store.tasks.create(title="theirs", task_id=f"theirs-{number}", created_by=name, enqueue=True)
        store.tasks.transition(f"theirs-{number}", "running", by=name)
        store.audits.record(f"theirs-{number}", event_type="e", payload={"by": "somebody", "note": "stays"})
        needed = store.tasks.create(title="needed")
        row = {"task_id": f"theirs-{number}", "depends_on_task_id": needed.task_id, "created_by": name}
        rows.add(TaskDependency, some_row(TaskDependency, **row))
        row = {"id": f"i{number}", "task_id": needed.task_id, "event_type": "e", "claimed_by": name}
        rows.add(SupervisorInboxEntry, some_row(SupervisorInboxEntry, **row))
        rows.add(Lease, some_row(Lease, name=f"l{number}", token=1, owner=name))
        key, state = f"c{number}", "approval_required"
        store.tool_calls.record(tool_name="t", tool_call_id=key, session_id="other", state=state, by=name)
        store.tool_calls.decide(key, True, by=name, session_id="other")


def an_agent(world: World) -> None:
    """An agent that is forgotten itself, with a conversation, one before it, and work for others."""
    plant, store = world.plant, world.store
    store.projects.create(path="/shared", id="project")
    store.users.create(name="Otto", id=OTHER)
    store.sessions.create(user_id=OTHER, id="other")
    plant(Conversation, id="open", user_id=OTHER)
    plant(Agent, agent_id="own", session_id="open")
    store.agents.create("fork", parent_id="own", lineage=["own", "x"])
    plant(Message, session_id="open", agent_id="own", seq=0)
    for key, closed in (("now", None), ("before", 1)):
        plant(Message, {"model", "copied_from"}, id=key, session_id="other", agent_id="own", to_generation=closed)
    plant(ToolCallRecord, agent_id="own")
    plant(ToolCallRecord, agent_id="own", session_id="other")
    plant(AgentDocument, agent_id="own")
    plant(Context, agent_id="own")
    plant(Snapshot, agent_id="own", session_id="other")
    plant(Event, agent_id="own")
    plant(MemoryItem, scope="agent", scope_id="own")
    plant(Lease, name="own", token=1)
    plant(ImportLedgerEntry, source="kode", kind="conversation", source_key="own")
    for key, project in (("of-project", "project"), ("alone", None)):
        _task(world, key, project)
    asked = {"title": "asked for by Otto", "payload": {"stays": 1}, "agent_id": "own", "status": "failed"}
    kept = TASK_STAYS | {"route_plan_json", "requirements_json", "idempotency_key", "created_by", "metadata"}
    plant(Task, kept, task_id="executed", max_attempts=1, **asked)
    store.audits.record("executed", event_type="e", payload={"by": "own", "said": world.word(Task.table(), "by")})
    store.audits.record("executed", event_type="e", payload={"note": "stays"})
    _named(world, ["own"])
    store.search.rebuild()


# --- what is left


def left_in_rows(world: World, raw: Raw, also: Collection[str] = ()) -> set[str]:
    """Return where the words that any row of any table still holds were planted."""
    rows = []
    for name, table in metadata.tables.items():
        listed = " || ' ' || ".join(f"coalesce(CAST({column.name} AS TEXT), '')" for column in table.columns)
        rows += [row[0] for row in raw(f"SELECT {listed} FROM {name}")]
    text = "\n".join(rows)
    return {where for word, where in world.words.items() if word in text} | {each for each in also if each in text}


def left_in_files(world: World, path: Path, also: Collection[str] = ()) -> set[str]:
    """Return where the words of which any byte sequence is left in a file or its log were planted."""
    found = b"".join(each.read_bytes() for each in path.parent.glob(f"{path.name}*"))
    # What begins like its neighbour may lack its beginning.
    words = {where for word, where in world.words.items() if word[5:].encode() in found}
    return words | {each for each in also if each.encode() in found}
