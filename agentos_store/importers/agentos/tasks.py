"""Tasks and their lineage."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

from agentos_store.importers.agentos.records import LineageRecord, TaskRecord
from agentos_store.importers.agentos.references import References, pair
from agentos_store.importers.jsontext import JSON
from agentos_store.importers.problems import SetAside
from agentos_store.importers.row import Row, ulid_time

TITLE_LENGTH: Final = 500
KIND_LENGTH: Final = 100
REF_LENGTH: Final = 1000
REF_BYTES: Final = 1200
NO_TITLE: Final = "(untitled)"
NO_REASON: Final = "(not recorded)"

_STATUSES: Final[Mapping[str, str]] = {
    "draft": "created",
    "approved": "created",
    "orphan": "created",
    "created": "created",
    "pending": "paused",
    "queued": "paused",
    "running": "paused",
    "executing": "paused",
    "verifying": "paused",
    "verified": "paused",
    "paused": "paused",
    "blocked": "blocked",
    "failed": "failed",
    "done": "completed",
    "succeeded": "completed",
    "completed": "completed",
    "canceled": "cancelled",
    "cancelled": "cancelled",
}
"""Nothing becomes pending or running, so that no worker picks up old work by surprise."""

_KEPT: Final[Mapping[str, str]] = {
    "pending": "pending",
    "queued": "pending",
    "running": "running",
    "executing": "running",
    "verifying": "running",
    "verified": "running",
}


def read_task(row: Row, references: References, ids: str, *, keep_status: bool) -> TaskRecord:
    """Make the record; ``ids`` is the set of those that are taken."""
    task_id = row.identifier("task_id")
    if not references.keys.add(ids, task_id):
        raise SetAside("an earlier row has the same task_id")
    metadata = row.object("metadata")
    status, legacy = _status(row, keep_status=keep_status)
    created_at = row.first_time("created_at", "updated_at", otherwise=ulid_time(task_id) or references.around)
    route_plan, requirements = row.json("route_plan_json"), row.json("requirements_json")
    return TaskRecord(
        task_id=task_id,
        title=_title(row),
        status=status,
        session_id=_session(row, references),
        project_id=_project(row, references, metadata),
        created_by=row.text("created_by"),
        route_plan_json=route_plan,
        requirements_json=requirements,
        selected_instance_id=row.text("selected_instance_id"),
        router_version=row.text("router_version"),
        created_at=created_at,
        updated_at=row.first_time("updated_at", "created_at", otherwise=created_at),
        exit_reason=_exit_reason(row, metadata, status),
        legacy_status=legacy,
        # Last, for it takes along what the other fields have kept.
        metadata=row.with_origin(metadata),
        repairs=row.repairs,
    )


def read_lineage(row: Row, references: References, links: str, before: dt.datetime | None) -> LineageRecord:
    """Make the record; ``links`` is the set of those that are taken, ``before`` the time of the row before it."""
    task_id = row.identifier("task_id")
    if not references.has_task(task_id):
        raise SetAside("its task is not in the registry")
    kind, ref_id = row.required("kind", KIND_LENGTH), row.required("ref_id", REF_LENGTH)
    if len(ref_id.encode()) > REF_BYTES:
        raise SetAside(f"its ref_id is longer than {REF_BYTES} bytes")
    if not references.keys.add(links, pair(task_id, kind, ref_id)):
        raise SetAside("an earlier row is the same link")
    metadata = row.object("metadata")
    return LineageRecord(
        source_id=row.rowid,
        task_id=task_id,
        kind=kind,
        ref_id=ref_id,
        phase=row.text("phase"),
        created_at=row.first_time("created_at", otherwise=before or ulid_time(task_id) or references.around),
        metadata=row.with_origin(metadata),
        repairs=row.repairs,
    )


def _status(row: Row, *, keep_status: bool) -> tuple[str, str | None]:
    found = row.text("status")
    word = row.word("status")
    if not word:
        row.repaired("status: it was missing, so it became 'created'")
        return "created", None
    status = (_KEPT.get(word) if keep_status else None) or _STATUSES.get(word)
    if status is None:
        row.repaired(f"status: {found!r} is not known, so it became 'paused'")
        status = "paused"
    elif found != word:
        row.repaired(f"status: {found!r} was read as {word!r}")
    if found == status:
        return status, None
    row.keep("status", word)
    return status, found


def _title(row: Row) -> str:
    title = row.text("title")
    if title is None or not title.strip():
        row.repaired(f"title: it was missing, so it became {NO_TITLE!r}")
        return NO_TITLE
    return row.cut("title", title, TITLE_LENGTH)


def _session(row: Row, references: References) -> str | None:
    session_id = row.reference("session_id")
    if session_id is None or references.has_session(session_id):
        return session_id
    row.repaired("session_id: there is no such session; its id is in the metadata")
    row.keep("session_id", session_id)
    return None


def _project(row: Row, references: References, metadata: Mapping[str, JSON] | None) -> str | None:
    named = [(key, (metadata or {}).get(key)) for key in ("project_id", "project_hint")]
    for _, value in named:
        if isinstance(value, str) and value and references.has_project(value):
            return value
    for key, value in named:
        if value is not None:
            row.repaired(f"metadata: its {key} names no project of the registry")
    return None


def _exit_reason(row: Row, metadata: Mapping[str, JSON] | None, status: str) -> str | None:
    reason = (metadata or {}).get("exit_reason")
    if isinstance(reason, str) and reason.strip():
        return reason
    if status != "failed":
        return None
    row.repaired(f"exit_reason: a failed task had none, so it became {NO_REASON!r}")
    return NO_REASON
