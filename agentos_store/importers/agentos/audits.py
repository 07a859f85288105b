"""Audit trails, with the rows that AgentOS's migration 24 wrote into the wrong columns."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

from agentos_store.importers.agentos.records import AuditRecord
from agentos_store.importers.agentos.references import References
from agentos_store.importers.problems import SetAside
from agentos_store.importers.row import Row, ulid_time
from agentos_store.importers.source import Found, Value
from agentos_store.importers.times import parse_time
from agentos_store.tasks.trail import ERASED

NO_EVENT: Final = "(unknown)"
EVENT_LENGTH: Final = 255

_LEVELS: Final[Mapping[str, str]] = {"info": "info", "warn": "warning", "warning": "warning", "error": "error"}

_STANDS_IN: Final[Mapping[str, str]] = {
    "level": "repo_id",
    "event_type": "level",
    "payload": "event_type",
    "created_at": "payload",
    "decision_id": "created_at",
    "source_event_ts": "decision_id",
    "supervisor_processed_at": "source_event_ts",
    "verdict_id": "supervisor_processed_at",
    "repo_id": "verdict_id",
}
"""Migration 24 copied the rows by position into a table whose columns have another order: the value of each column and
the one that it ended up in."""


def turned_back(values: Mapping[str, Value]) -> Mapping[str, Value] | None:
    """Return the values of a rotated row in their own columns; None for a row that was never rotated.

    It is one if a level stands where the repository should be, none where the level should be, and a time in place of
    the payload.
    """
    if _folded(values.get("repo_id")) not in _LEVELS or _folded(values.get("level")) in _LEVELS:
        return None
    try:
        parse_time(values.get("payload"))
    except ValueError:
        return None
    return {**values, **{column: values.get(place) for column, place in _STANDS_IN.items()}}


def audit_row(found: Found) -> Row:
    """Take up a row, turned back if it was rotated."""
    values = turned_back(found.values)
    row = Row(found, None, values)
    if values is not None:
        row.repaired("its columns were rotated by AgentOS's migration 24, and were turned back")
    return row


def read_audit(row: Row, references: References, decisions: str, before: dt.datetime | None) -> AuditRecord:
    """Make the record; ``decisions`` is the set of those that are taken, ``before`` the time of the row before it."""
    task_id = row.identifier("task_id")
    if not references.has_task(task_id):
        raise SetAside("its task is not in the registry")
    level = _LEVELS.get(row.word("level"))
    if level is None:
        row.repaired(f"level: {row.text('level')!r} became 'info'")
        level = "info"
    event_type = row.text("event_type")
    if event_type is None or not event_type.strip():
        row.repaired(f"event_type: it was missing, so it became {NO_EVENT!r}")
        event_type = NO_EVENT
    elif len(event_type) > EVENT_LENGTH:
        raise SetAside(f"its event_type is longer than {EVENT_LENGTH} characters")
    elif event_type == ERASED:
        # It would vouch for entries that somebody else has emptied, and nothing would ever erase what it says.
        raise SetAside(f"its event_type is {ERASED}, which only an erasure records")
    decision_id = row.reference("decision_id")
    if decision_id is not None and not references.keys.add(decisions, decision_id):
        row.repaired(f"decision_id: an earlier row has {decision_id!r} too, so this one has none")
        decision_id = None
    return AuditRecord(
        source_id=row.rowid,
        task_id=task_id,
        repo_id=row.reference("repo_id"),
        level=level,
        event_type=event_type,
        payload=row.exact_json("payload"),
        has_payload=not row.is_null("payload"),
        created_at=row.first_time(
            "created_at",
            "supervisor_processed_at",
            "source_event_ts",
            otherwise=before or ulid_time(task_id) or references.around,
        ),
        decision_id=decision_id,
        source_event_ts=row.time("source_event_ts"),
        supervisor_processed_at=row.time("supervisor_processed_at"),
        verdict_id=row.reference("verdict_id"),
        repairs=row.repairs,
    )


def _folded(value: Value) -> str:
    return value.strip().casefold() if isinstance(value, str) else ""
