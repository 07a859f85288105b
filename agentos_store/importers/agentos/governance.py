"""Verdicts of guardians with the assignments that led to them, and the inbox of the supervisor."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Final

from agentos_store.importers.agentos.records import InboxRecord, VerdictRecord
from agentos_store.importers.agentos.references import References
from agentos_store.importers.jsontext import JSON
from agentos_store.importers.problems import SetAside
from agentos_store.importers.row import Row, ulid_time
from agentos_store.importers.source import Found
from agentos_store.importers.times import parse_time

WORD_LENGTH: Final = 255
NO_EVENT: Final = "(unknown)"
NO_GUARDIAN: Final = "(unknown)"

_DECISIONS: Final[Mapping[str, str]] = {
    "pass": "approve",
    "fail": "reject",
    "needs_changes": "warn",
    "approve": "approve",
    "reject": "reject",
    "warn": "warn",
}
_STATUSES: Final[Mapping[str, str]] = {
    "pending": "pending",
    "processing": "pending",
    "completed": "processed",
    "processed": "processed",
    "failed": "failed",
    "parked": "parked",
}


def governance_row(found: Found) -> Row:
    """Take up a row of either shape, under its own key."""
    return Row(found, next((key for key in ("verdict_id", "event_id", "id") if key in found.values), None))


def read_verdict(row: Row, references: References, ids: str, before: dt.datetime | None) -> VerdictRecord:
    """Make the record; ``ids`` is the set of those that are taken, ``before`` the time of the record before it."""
    agentos = row.has_column("verdict_id")
    verdict_id = row.identifier("verdict_id" if agentos else "id")
    task_id = row.identifier("task_id")
    if not references.has_task(task_id):
        raise SetAside("its task is not in the registry")
    column = "status" if agentos else "decision"
    found = row.text(column)
    decision = _DECISIONS.get(row.word(column))
    if decision is None:
        # Nobody can say for a guardian what it decided.
        raise SetAside(f"its verdict {(found or '')[:100]!r} is not known")
    if not references.keys.add(ids, verdict_id):
        raise SetAside("an earlier row has the same key")
    guardian = row.text("guardian_code" if agentos else "triggered_by")
    if guardian is None or not guardian:
        row.repaired(f"triggered_by: it was missing, so it became {NO_GUARDIAN!r}")
        guardian = NO_GUARDIAN
    triggered_by = row.cut("guardian_code" if agentos else "triggered_by", guardian, WORD_LENGTH)
    created_at = row.first_time("created_at", otherwise=before or ulid_time(task_id) or references.around)
    assignment: Row | None = None
    if agentos:
        body = row.object("verdict_json") or {}
        reasons = _reasons(row, body)
        assignment = _assignment(row, references)
        policy = _policy(row, body, assignment)
    else:
        reasons = _list(row, "reasons_json", row.json("reasons_json"))
        policy = row.object("policy_json") or {}
    return VerdictRecord(
        id=verdict_id,
        task_id=task_id,
        triggered_by=triggered_by,
        decision=decision,
        reasons_json=reasons,
        created_at=created_at,
        # Last, for it takes along what the other fields have kept.
        policy_json=row.with_origin(policy) or {},
        assignment_row=None if assignment is None else assignment.rowid,
        repairs=row.repairs,
    )


def read_inbox(row: Row, references: References, ids: str, before: dt.datetime | None) -> InboxRecord:
    """Make the record; ``ids`` is the set of those that are taken, ``before`` the time of the record before it."""
    agentos = row.has_column("event_id")
    event_id = row.identifier("event_id" if agentos else "id")
    task_id = row.identifier("task_id")
    if not references.has_task(task_id):
        raise SetAside("its task is not in the registry")
    event_type = row.text("event_type")
    if event_type is None or not event_type:
        row.repaired(f"event_type: it was missing, so it became {NO_EVENT!r}")
        event_type = NO_EVENT
    source = row.text("source") or ""
    for name, text in (("event_type", event_type), ("source", source)):
        if len(text) > WORD_LENGTH:
            raise SetAside(f"its {name} is longer than {WORD_LENGTH} characters")
    if not references.keys.add(ids, event_id):
        raise SetAside("an earlier row has the same key")
    payload = row.loose_json("payload" if agentos else "payload_json")
    around = before or ulid_time(task_id) or references.around
    if agentos:
        created_at = row.first_time("received_at", "processed_at", otherwise=around)
        event_ts = _event_time(row, payload) or created_at
    else:
        created_at = row.first_time("created_at", "event_ts", "processed_at", otherwise=around)
        event_ts = row.first_time("event_ts", "created_at", otherwise=created_at)
    status, error = _status(row)
    processed_at = row.time("processed_at")
    if processed_at is None and status == "processed":
        row.repaired("processed_at: it was missing, so it was taken from the time at which the event came")
        processed_at = created_at
    return InboxRecord(
        id=event_id,
        task_id=task_id,
        event_type=event_type,
        event_ts=event_ts,
        payload_json=payload,
        status=status,
        source=source,
        attempts=row.count("retry_count"),
        error_message=error,
        processed_at=processed_at,
        created_at=created_at,
        repairs=row.repairs,
    )


def _assignment(row: Row, references: References) -> Row | None:
    assignment_id = row.text("assignment_id")
    assignment = references.assignment(assignment_id) if assignment_id else None
    if assignment is None:
        row.repaired("assignment_id: there is no such assignment, so the reason for it is not known")
    return assignment


def _policy(row: Row, body: Mapping[str, JSON], assignment: Row | None) -> dict[str, JSON]:
    """Return who was assigned and why, and what the verdict's own text says beyond its row."""
    policy: dict[str, JSON] = {
        "assignment_id": row.text("assignment_id"),
        "guardian_code": row.text("guardian_code"),
    }
    if assignment is not None:
        policy["reason"] = assignment.loose_json("reason_json")
        policy["assignment_status"] = assignment.text("status")
        policy["assigned_at"] = assignment.text("created_at")
        # A guardian or a task other than the verdict's is worth knowing; the same ones need not be said twice.
        for name in ("task_id", "guardian_code"):
            if assignment.text(name) != row.text(name):
                policy[f"assignment_{name}"] = assignment.text(name)
    rest: dict[str, JSON] = {
        name: value
        for name, value in body.items()
        if name not in {"flags", "recommendations"} and not (row.has_column(name) and row.text(name) == value)
    }
    if rest:
        policy["verdict"] = rest
    return policy


def _reasons(row: Row, body: Mapping[str, JSON]) -> list[JSON]:
    """Return the flags as they are, and after them the recommendations, which are told by their name."""
    flags = _list(row, "verdict_json", body.get("flags"))
    recommendations = _list(row, "verdict_json", body.get("recommendations"))
    return [*flags, *({"recommendation": each} for each in recommendations)]


def _list(row: Row, column: str, value: JSON) -> list[JSON]:
    if value is None:
        return []
    if isinstance(value, list):
        return value
    row.repaired(f"{column}: what should be a list was none; it became the only one of it")
    return [value]


def _event_time(row: Row, payload: JSON) -> dt.datetime | None:
    found = payload.get("ts") if isinstance(payload, dict) else None
    if found is None or found == "":
        return None
    try:
        moment, _ = parse_time(found)
    except ValueError as error:
        row.repaired(f"event_ts: the payload's ts is left out: {error}")
        return None
    return moment


def _status(row: Row) -> tuple[str, str | None]:
    """Return the status and the error; an event that nobody here holds waits again, one in doubt waits for people."""
    error = row.text("error_message")
    found = row.text("status")
    word = row.word("status")
    status = _STATUSES.get(word)
    if status is None:
        row.repaired(f"status: {found!r} is not known, so it became 'parked'")
        return "parked", error or f"its status was {(found or '')[:100]!r}"
    if word == "processing":
        row.repaired("status: nobody here holds it, so 'processing' became 'pending'")
    elif found != word:
        row.repaired(f"status: {found!r} was read as {word!r}")
    return status, error
