"""What agents remember: memory items, of which those that say the same become one."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Final

from agentos_store.importers.agentos.literals import read_list, read_tags
from agentos_store.importers.agentos.records import MemoryRecord
from agentos_store.importers.agentos.references import References, pair
from agentos_store.importers.jsontext import JSON
from agentos_store.importers.problems import Repair, SetAside
from agentos_store.importers.row import Row, ulid_time
from agentos_store.memory.models import RETENTIONS, SCOPES
from agentos_store.memory.texts import content_hash

TYPE_LENGTH: Final = 255
NO_TYPE: Final = "(unknown)"
NO_CONFIDENCE: Final = 0.5

_TASK: Final = "task:"
"""How AgentOS begins a source that is a task."""


def read_memory(row: Row, references: References, before: dt.datetime | None) -> MemoryRecord:
    """Make the record of one row; ``before`` is the time of the record before it."""
    memory_id = row.identifier("id")
    scope = row.word("scope")
    if scope not in SCOPES:
        # Nobody can tell for whom it holds, and to let it hold for all could be wrong.
        raise SetAside(f"its scope {(row.text('scope') or '')[:100]!r} is not known")
    if scope != row.text("scope"):
        row.repaired(f"scope: {row.text('scope')!r} was read as {scope!r}")
    content = row.exact_json("content")
    if content is None:
        raise SetAside("it has no content")
    named = row.reference("project_id")
    project_id = _project(row, references, scope, named)
    sources = read_list(row, "sources")
    created_at = row.first_time(
        "created_at", "updated_at", "last_used_at", otherwise=ulid_time(memory_id) or before or references.around
    )
    return MemoryRecord(
        id=memory_id,
        scope=scope,
        scope_id=named if scope == "project" else _task(references, sources) if scope == "task" else None,
        type=_type(row),
        content=content,
        tags=list(dict.fromkeys(read_tags(row, "tags"))),
        confidence=_confidence(row),
        project_id=project_id,
        last_used_at=row.time("last_used_at"),
        use_count=row.count("use_count"),
        retention_type=_retention(row),
        expires_at=row.time("expires_at"),
        auto_cleanup=row.truth("auto_cleanup", otherwise=True),
        created_at=created_at,
        updated_at=row.first_time("updated_at", "created_at", otherwise=created_at),
        # Last, for it takes along what the other fields have kept.
        sources=_with_origin(row, sources),
        repairs=row.repairs,
    )


def sameness(record: MemoryRecord) -> str:
    """Return what two records share that say the same, of the same type, in the same place."""
    return pair(record.scope, record.scope_id or "", record.type, content_hash(record.content))


def merged_memory(first: MemoryRecord, others: Sequence[MemoryRecord]) -> MemoryRecord:
    """Make one record of all rows that say the same; what becomes of tags, uses and the rest, the store's rule says."""
    if not others:
        return first
    rows: list[JSON] = [
        {
            "id": record.id,
            "project_id": record.project_id,
            "confidence": record.confidence,
            "created_at": record.created_at.isoformat(),
            "updated_at": record.updated_at.isoformat(),
        }
        for record in (first, *others)
    ]
    ids = ", ".join(record.id for record in others[:10])
    what = f"{len(rows)} rows say the same, of which one was made; the others are {ids}{', …' * (len(others) > 10)}"
    return dataclasses.replace(
        first,
        also=(*others[:-1], dataclasses.replace(others[-1], sources=[*others[-1].sources, {"agentos_merged": rows}])),
        repairs=(
            *first.repairs,
            *(repair for record in others for repair in record.repairs),
            Repair("memory_items", first.id, what),
        ),
    )


def _project(row: Row, references: References, scope: str, project_id: str | None) -> str | None:
    if project_id is None or references.has_project(project_id):
        return project_id
    row.repaired(f"project_id: there is no project {project_id!r}, so the memory belongs to none")
    if scope != "project":
        # There it is the place in which the memory holds.
        row.keep("project_id", project_id)
    return None


def _task(references: References, sources: Sequence[JSON]) -> str | None:
    tasks = {source.removeprefix(_TASK) for source in sources if isinstance(source, str) and source.startswith(_TASK)}
    known = [task for task in tasks if references.has_task(task)]
    return known[0] if len(tasks) == len(known) == 1 else None


def _type(row: Row) -> str:
    found = row.text("type")
    if found is None or not found.strip():
        row.repaired(f"type: it was missing, so it became {NO_TYPE!r}")
        return NO_TYPE
    return row.cut("type", found, TYPE_LENGTH)


def _confidence(row: Row) -> float:
    found = row.real("confidence")
    if found is None:
        row.repaired(f"confidence: it was missing, so it became {NO_CONFIDENCE}")
        return NO_CONFIDENCE
    confidence = min(max(found, 0.0), 1.0)
    if confidence != found:
        row.repaired(f"confidence: {found} became {confidence}")
    # A zero with a sign is no other confidence.
    return confidence + 0.0


def _retention(row: Row) -> str:
    word = row.word("retention_type")
    if word in RETENTIONS:
        if word != row.text("retention_type"):
            row.repaired(f"retention_type: {row.text('retention_type')!r} was read as {word!r}")
        return word
    row.repaired(f"retention_type: {row.text('retention_type')!r} became 'project'")
    return "project"


def _with_origin(row: Row, sources: list[JSON]) -> list[JSON]:
    kept = row.with_origin(None)
    return sources if kept is None else [*sources, kept]
