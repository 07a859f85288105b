"""Writing memories: each once, which the ledger tells, and into the item that says the same where the store has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentos_store.engine.session import Session
from agentos_store.engine.statement import build_model
from agentos_store.errors import ConflictError
from agentos_store.importers.agentos.ledger import enter, entered
from agentos_store.importers.agentos.records import MemoryRecord
from agentos_store.importers.agentos.shapes import ORIGIN_KEY
from agentos_store.importers.report import Note
from agentos_store.importers.writing import NewRow, Outcome, add_rows, asking, stored
from agentos_store.memory.items import ITEMS, SAME, change, locked
from agentos_store.memory.merging import merged
from agentos_store.memory.models import MemoryItem
from agentos_store.memory.texts import KIND, content_hash, document
from agentos_store.projects.models import Project
from agentos_store.search.index import put

TABLE = "memory_items"


def write_memories(session: Session, records: Sequence[MemoryRecord]) -> Outcome:
    """Write memories and index them.

    An item of the store that says the same, in the same place and of the same type, learns from a record when it comes
    in first, as from anything that is remembered again. Raises ConflictError when another import writes the same; of
    the batch nothing is stored then.
    """
    outcome = Outcome()
    known = entered(session, "memory", [record.id for record in records])
    there = stored(session, _ITEMS_THERE, [record.id for record in records])
    projects = stored(session, _PROJECTS_THERE, [record.project_id for record in records])
    rows: dict[int, NewRow] = {}
    for position, record in enumerate(records):
        row = _row(record, projects, position, outcome)
        if record.id in known:
            key, digest = known[record.id]
            if digest != row["content_hash"]:
                why = "another content came in under this key; the store keeps that one"
                outcome.refused[position] = Note(TABLE, record.id, why)
            elif key != record.id:
                outcome.merge(position, _note(record, key))
        elif record.id not in there:
            rows[position] = NewRow(TABLE, record.id, row)
        elif there[record.id] != row["content_hash"]:
            why = "the store has another memory with this key, and keeps it"
            outcome.refused[position] = Note(TABLE, record.id, why)
    add_rows(session, MemoryItem, rows, outcome)
    fresh = [position for position in rows if position not in outcome.refused]
    came_in = stored(session, _ITEMS_THERE, [records[position].id for position in fresh])
    items = {position: rows[position].values for position in fresh}
    put(
        session,
        KIND,
        [document(item["id"], item["content"], item["tags"]) for item in items.values() if item["id"] in came_in],
    )
    became: dict[str, tuple[str, str]] = {}
    for position, item in items.items():
        key = item["id"]
        if key not in came_in:
            key = _merge(session, item)
            outcome.merge(position, _note(records[position], key))
        became[item["id"]] = key, item["content_hash"]
    enter(session, "memory", became)
    return outcome


def _row(record: MemoryRecord, projects: Mapping[str, Any], position: int, outcome: Outcome) -> dict[str, Any]:
    """Return the item that a record becomes, and note what it loses."""
    row = _values(record)
    if record.also:
        said = [build_model(MemoryItem, _values(each)) for each in (record, *record.also)]
        row |= merged(said) | {"updated_at": max(item.updated_at for item in said)}
    project_id = row["project_id"]
    if project_id is not None and project_id not in projects:
        why = "project_id: the project was set aside; the id is among the sources"
        outcome.change(position, Note(TABLE, record.id, why))
        row["project_id"] = None
        row["sources"] = [*row["sources"], {ORIGIN_KEY: {"project_id": project_id}}]
    return row


def _values(record: MemoryRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "scope": record.scope,
        "scope_id": record.scope_id,
        "type": record.type,
        "content": record.content,
        "content_hash": content_hash(record.content),
        "tags": record.tags,
        "sources": record.sources,
        "confidence": record.confidence,
        "project_id": record.project_id,
        "last_used_at": record.last_used_at,
        "use_count": record.use_count,
        # Up to then AgentOS has let the confidence fade.
        "decayed_at": record.updated_at,
        "retention_type": record.retention_type,
        "expires_at": record.expires_at,
        "auto_cleanup": record.auto_cleanup,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
    }


def _merge(session: Session, row: Mapping[str, Any]) -> str:
    """Let the item that says the same as this row learn from it; return its key."""
    there = session.first(SAME, row)
    if there is None:
        why = "somebody else forgets the same memory just now; run the import again"
        raise ConflictError("memory item", row["id"], why)
    item = locked(session, there.id)
    change(session, item.id, merged([item, build_model(MemoryItem, row)]), time=session.now(), seen=item)
    return item.id


def _note(record: MemoryRecord, key: str) -> Note:
    return Note(TABLE, record.id, f"the store has an item that says the same, which has learnt from it: {key}")


_PROJECTS = Project.table()
_PROJECTS_THERE = asking(_PROJECTS.c.id, _PROJECTS.c.id)
_ITEMS_THERE = asking(ITEMS.c.id, ITEMS.c.content_hash)
