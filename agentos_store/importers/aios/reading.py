"""Making records of rows."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from agentos_store.importers.aios.records import AgentRecord, ContextRecord, EventRecord, TaskRecord
from agentos_store.importers.aios.references import References
from agentos_store.importers.aios.words import AGENT_STATES, PRIORITIES, TASK_STATUSES
from agentos_store.importers.event_words import event_type_of, severity_of
from agentos_store.importers.jsontext import JSON, UNSTORABLE
from agentos_store.importers.kode.redaction import redact
from agentos_store.importers.problems import SetAside
from agentos_store.importers.row import KEY_LENGTH, Row

TYPE_LENGTH: Final = 255
TITLE_LENGTH: Final = 500
NO_REASON: Final = "(not recorded)"

_ENDED: Final = frozenset({"completed", "failed", "cancelled"})
_WHOLE: Final = re.compile("-?[0-9]{1,18}")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")


def read_agent(row: Row, references: References, ids: str, *, keep_secrets: bool) -> AgentRecord:
    """Make the record; ``ids`` is the set of those that are taken."""
    agent_id = _key(row, "agent_id", references, ids)
    stats: JSON = row.object("stats_json") or {}
    if not keep_secrets:
        stats, secrets = redact(stats)
        for path in secrets:
            row.repaired(f"stats_json: {path}: a secret, which was redacted")
    assert isinstance(stats, dict)
    created_at = row.first_time("created_at", "updated_at", otherwise=references.around)
    return AgentRecord(
        agent_id=agent_id,
        role=row.text("role"),
        goal=row.text("goal"),
        backstory=row.text("backstory"),
        state=_agent_state(row),
        last_task_id=row.reference("last_task_id"),
        stats=stats,
        created_at=created_at,
        updated_at=row.first_time("updated_at", "created_at", otherwise=created_at),
        # Last, for it takes along what the other fields have kept.
        metadata=row.with_origin(None),
        repairs=row.repairs,
    )


def read_task(row: Row, references: References, ids: str, *, keep_status: bool) -> TaskRecord:
    """Make the record; ``ids`` is the set of those that are taken."""
    task_id = _key(row, "task_id", references, ids)
    task_type = row.text("task_type") or ""
    if not task_type:
        row.repaired("task_type: it was missing")
    word, status = _task_status(row, keep_status=keep_status)
    created_at = row.first_time("created_at", "started_at", "completed_at", otherwise=references.around)
    started_at, completed_at = row.time("started_at"), row.time("completed_at")
    updated_at = max(moment for moment in (created_at, started_at, completed_at) if moment is not None)
    result, error = row.exact_json("result_json"), row.text("error_message")
    return TaskRecord(
        task_id=task_id,
        agent_id=row.reference("agent_id"),
        title=" ".join((task_type, task_id) if task_type else (task_id,))[:TITLE_LENGTH],
        task_type=row.cut("task_type", task_type, TYPE_LENGTH),
        status=status,
        priority=_priority(row),
        result=result,
        error_message=error,
        exit_reason=_exit_reason(row, error, result) if status == "failed" else None,
        attempts=int(started_at is not None or word in {"running", "completed", "failed"}),
        created_at=created_at,
        updated_at=updated_at,
        started_at=started_at,
        completed_at=completed_at or (updated_at if status in _ENDED else None),
        duration=_duration(row, started_at, completed_at),
        metadata=row.with_origin(None),
        repairs=row.repairs,
    )


def read_context(row: Row, references: References, ids: str) -> ContextRecord:
    """Make the record; ``ids`` is the set of those that are taken."""
    context_id = _key(row, "context_id", references, ids)
    return ContextRecord(
        context_id=context_id,
        agent_id=row.reference("agent_id"),
        session_id=row.reference("session_id"),
        context_data=row.exact_json("context_data"),
        created_at=row.first_time("created_at", otherwise=references.around),
        expires_at=row.time("expires_at"),
        repairs=row.repairs,
    )


def read_event(row: Row, references: References, ids: str) -> EventRecord:
    """Make the record; ``ids`` is the set of those that are taken."""
    event_id = _key(row, "event_id", references, ids)
    event_type, wrong = event_type_of(row.text("event_type"))
    if wrong is not None:
        row.repaired(f"event_type: {wrong}")
    severity, wrong = severity_of(row.text("severity"))
    if wrong is not None:
        row.repaired(f"severity: {wrong}")
    data = row.exact_json("data_json")
    return EventRecord(
        table=row.table,
        source_key=row.key,
        event_id=event_id,
        event_type=event_type,
        agent_id=row.reference("agent_id"),
        task_id=task_of(data),
        severity=severity,
        data=data,
        created_at=row.first_time("timestamp", otherwise=references.around),
        repairs=row.repairs,
    )


def task_of(data: JSON) -> str | None:
    """Return the key of the task that an event's data names, or None."""
    named = data.get("task_id") if isinstance(data, dict) else None
    return named if isinstance(named, str) and is_key(named) else None


def is_key(text: str) -> bool:
    """Tell whether a text can be a key of the store."""
    return 0 < len(text) <= KEY_LENGTH and not _CONTROL.search(text) and not UNSTORABLE.search(text)


def _key(row: Row, column: str, references: References, ids: str) -> str:
    key = row.identifier(column)
    if not references.keys.add(ids, key):
        raise SetAside(f"an earlier row has the same {column}")
    return key


def _agent_state(row: Row) -> str:
    found, word = row.text("state"), row.word("state")
    if word not in AGENT_STATES:
        row.repaired(f"state: {found!r} became 'idle'" if word else "state: it was missing, so it became 'idle'")
        if word:
            row.keep("state", found)
        return "idle"
    if word != found:
        row.repaired(f"state: {found!r} was read as {word!r}")
    return word


def _task_status(row: Row, *, keep_status: bool) -> tuple[str, str]:
    """Return the word that was found, and the status that the task arrives with."""
    found, word = row.text("status"), row.word("status")
    if not word:
        row.repaired("status: it was missing, so it became 'pending'")
        word = "pending"
    elif word not in TASK_STATUSES:
        row.repaired(f"status: {found!r} is not known, so it became 'paused'")
        row.keep("status", found)
        return "paused", "paused"
    elif word != found:
        row.repaired(f"status: {found!r} was read as {word!r}")
    status = word if keep_status and word in {"pending", "running"} else TASK_STATUSES[word]
    if status != word:
        row.keep("status", word)
    return word, status


def _priority(row: Row) -> int:
    found, word = row.text("priority"), row.word("priority")
    if not word:
        row.repaired("priority: it was missing, so it became 0")
        return 0
    if word in PRIORITIES:
        if word != found:
            row.repaired(f"priority: {found!r} was read as {word!r}")
        return PRIORITIES[word]
    if _WHOLE.fullmatch(word):
        return int(word)
    row.repaired(f"priority: {found!r} is not known, so it became 0")
    row.keep("priority", found)
    return 0


def _duration(row: Row, started: dt.datetime | None, completed: dt.datetime | None) -> float | None:
    """Return the duration as it is given, else from start to end."""
    given = row.real("duration")
    if given is not None or started is None or completed is None or completed < started:
        return given
    return (completed - started).total_seconds()


def _exit_reason(row: Row, error: str | None, result: JSON) -> str:
    if error is not None and error.strip():
        return error
    if isinstance(result, dict):
        for name in ("exit_reason", "error", "error_message", "message", "reason"):
            reason = result.get(name)
            if isinstance(reason, str) and reason.strip():
                plain = row.plain("result_json", reason)
                assert isinstance(plain, str)
                return plain
    row.repaired(f"exit_reason: a failed task had none, so it became {NO_REASON!r}")
    return NO_REASON
