"""Sessions, from the three tables that AgentOS keeps them in."""

from __future__ import annotations

import dataclasses
from typing import Final

from agentos_store.importers.agentos.records import SessionRecord
from agentos_store.importers.agentos.references import References
from agentos_store.importers.agentos.shapes import ORIGIN_KEY
from agentos_store.importers.jsontext import JSON
from agentos_store.importers.problems import Repair
from agentos_store.importers.row import Row, ulid_time

CHANNEL_LENGTH: Final = 100

_CHANNELS: Final = {"chat_sessions": "chat", "webui_sessions": "webui"}
_RANK: Final = ("webui", "chat")
"""A session of several tables is where people are: an automatic one was made for its task only."""


def read_session(row: Row, references: References) -> SessionRecord:
    """Make the record of one row."""
    session_id = row.identifier("session_id")
    metadata = row.object("metadata")
    title = row.text("title")
    if not title and metadata is not None and isinstance(metadata.get("title"), str):
        title = str(metadata["title"])
    task_id = row.text("task_id")
    if task_id:
        row.keep("task_id", task_id)
    updated = "last_activity" if row.has_column("last_activity") else "updated_at"
    created_at = row.first_time("created_at", updated, otherwise=ulid_time(session_id) or references.around)
    return SessionRecord(
        id=session_id,
        channel=_CHANNELS.get(row.table) or row.cut("channel", row.text("channel") or "task", CHANNEL_LENGTH),
        title=title or None,
        user_id=row.reference("user_id"),
        created_at=created_at,
        updated_at=row.first_time(updated, "created_at", otherwise=created_at),
        metadata=row.with_origin(metadata),
        repairs=row.repairs,
    )


def merged(first: SessionRecord, second: SessionRecord, table: str) -> SessionRecord:
    """Make one record of two of the same session: the earliest start, the latest change, and all metadata."""
    metadata: dict[str, JSON] | None = None
    if first.metadata is not None or second.metadata is not None:
        metadata = dict(first.metadata or {})
        differing: dict[str, JSON] = {}
        for key, value in (second.metadata or {}).items():
            if key not in metadata:
                metadata[key] = value
            elif metadata[key] != value:
                differing[key] = value
        if differing:
            number = 1
            while f"{ORIGIN_KEY}_{table}_{number}" in metadata:
                number += 1
            metadata[f"{ORIGIN_KEY}_{table}_{number}"] = differing
    ranked = [channel for channel in _RANK if channel in {first.channel, second.channel}]
    note = Repair(
        table, second.id, f"the session stands in several rows, of which one was made; this is row {first.merged + 2}"
    )
    return dataclasses.replace(
        first,
        channel=ranked[0] if ranked else first.channel,
        title=first.title or second.title,
        user_id=first.user_id or second.user_id,
        metadata=metadata,
        created_at=min(first.created_at, second.created_at),
        updated_at=max(first.updated_at, second.updated_at),
        merged=first.merged + 1,
        repairs=(*first.repairs, *second.repairs, note),
    )
