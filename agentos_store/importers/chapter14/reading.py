"""Making records of rows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Final

from agentos_store.errors import InvalidValueError
from agentos_store.importers.chapter14.keys import derived_ulid
from agentos_store.importers.chapter14.records import SessionRecord, TaskRecord, ToolLogRecord
from agentos_store.importers.chapter14.references import References
from agentos_store.importers.jsontext import JSON, parse_json
from agentos_store.importers.problems import SetAside
from agentos_store.importers.records import MessageRecord, UserRecord
from agentos_store.importers.row import Row
from agentos_store.types import Money

EMAIL_LENGTH: Final = 320
TYPE_LENGTH: Final = 255
TOOL_LENGTH: Final = 255
CALL_LENGTH: Final = 255
TITLE_LENGTH: Final = 500
NO_REASON: Final = "(not recorded)"
NO_NAME: Final = "(unnamed)"

# What the tables there have as their defaults.
QUOTA: Final = 100_000
TITLE: Final = "新对话"
MODEL: Final = "gpt-4o-mini"
RETRIES: Final = 3

_MOST: Final = 2**63 - 1
_ROLES: Final = frozenset({"system", "user", "assistant", "tool"})
_SESSION_STATUSES: Final = frozenset({"active", "paused", "completed", "cancelled"})
_TASK_STATUSES: Final[Mapping[str, str]] = {
    # No worker picks up old work by surprise.
    "pending": "paused",
    "running": "paused",
    "paused": "paused",
    "completed": "completed",
    "failed": "failed",
    "cancelled": "cancelled",
    "canceled": "cancelled",
}
_CENTS: Final = Context(prec=64, rounding=ROUND_HALF_EVEN)
_PLACES: Final = Decimal("1e-9")


def read_user(row: Row, references: References, ids: str, emails: str) -> UserRecord:
    """Make the record; ``ids`` and ``emails`` are the sets of those that are taken."""
    user_id = row.identifier("id")
    if not references.keys.add(ids, user_id):
        raise SetAside("an earlier row has the same id")
    name = row.text("name")
    if name is None:
        row.repaired("name: it was missing, so the id stands for it")
        name = user_id
    preferences = row.object("preferences_json")
    created_at = row.first_time("created_at", "updated_at", otherwise=references.around)
    return UserRecord(
        table="users",
        id=user_id,
        name=name,
        email=_email(row, references, emails),
        api_key_hash=row.text("api_key_hash"),
        quota_total=row.whole("quota_total", otherwise=QUOTA, least=0),
        quota_used=row.whole("quota_used", otherwise=0, least=0),
        created_at=created_at,
        updated_at=row.first_time("updated_at", "created_at", otherwise=created_at),
        # Last, for it takes along what the other fields have kept.
        preferences=row.with_origin(preferences),
        repairs=row.repairs,
    )


def read_session(row: Row, references: References, ids: str, messages: tuple[int, int]) -> SessionRecord:
    """Make the record; ``ids`` is the set of those that are taken, ``messages`` how many it has, and their tokens."""
    session_id = row.identifier("id")
    if not references.keys.add(ids, session_id):
        raise SetAside("an earlier row has the same id")
    count, tokens = messages
    found = row.whole("total_tokens", otherwise=0, least=0)
    if found != tokens:
        larger = f"its messages come to {tokens}, so it became {max(found, tokens)}"
        row.repaired(f"total_tokens: it was {found}, and {larger}")
    told = row.whole("message_count", otherwise=0, least=0)
    if told != count:
        row.repaired(f"message_count: it was {told}, and there are {count}")
    metadata = row.object("metadata_json")
    created_at = row.first_time("created_at", "updated_at", otherwise=references.around)
    return SessionRecord(
        id=session_id,
        user_id=_user(row, references),
        title=_default(row, "title", TITLE),
        status=_session_status(row),
        model=_default(row, "model", MODEL),
        spent_tokens=max(0, found - tokens),
        total_cost=_cost(row),
        created_at=created_at,
        updated_at=row.first_time("updated_at", "created_at", otherwise=created_at),
        metadata=row.with_origin(metadata),
        repairs=row.repairs,
    )


def read_message(row: Row, references: References) -> MessageRecord:
    """Make the record; its key and its time are the same in each run."""
    number = _number(row)
    session_id = row.identifier("session_id")
    if not references.has_session(session_id):
        raise SetAside("its session is not in the file")
    role = row.word("role")
    if role not in _ROLES:
        raise SetAside("its role is not known" if role else "it has no role")
    if role != row.text("role"):
        row.repaired(f"role: {row.text('role')!r} was read as {role!r}")
    created_at = _created_at(row, references, session_id)
    called = row.text("tool_call_id") or None
    return MessageRecord(
        table="messages",
        source_key=row.key,
        id=derived_ulid(created_at, "chapter14", "message", session_id, str(number)),
        session_id=session_id,
        role=role,
        content=row.exact_text("content"),
        tool_calls=_tool_calls(row),
        tool_call_id=None if called is None else row.cut("tool_call_id", called, CALL_LENGTH),
        token_count=row.whole("token_count", otherwise=0, least=0),
        created_at=created_at,
        metadata=row.with_origin(None),
        repairs=row.repairs,
    )


def read_task(row: Row, references: References, ids: str, *, keep_status: bool) -> TaskRecord:
    """Make the record; ``ids`` is the set of those that are taken."""
    task_id = row.identifier("id")
    if not references.keys.add(ids, task_id):
        raise SetAside("an earlier row has the same id")
    task_type = row.text("type") or ""
    if not task_type:
        row.repaired("type: it was missing")
    word, status = _task_status(row, keep_status=keep_status)
    retries = row.whole("retry_count", otherwise=0, least=0)
    allowed = row.whole("max_retries", otherwise=RETRIES, least=0)
    created_at = row.first_time("created_at", "started_at", "completed_at", otherwise=references.around)
    started_at, completed_at = row.time("started_at"), row.time("completed_at")
    result, ended = row.exact_json("result_json"), status in {"completed", "failed", "cancelled"}
    updated_at = max(moment for moment in (created_at, started_at, completed_at) if moment is not None)
    # A task that waits was claimed as often as it was sent back; any other that has begun once more.
    begun = word != "pending" and (started_at is not None or word in {"running", "completed", "failed"})
    return TaskRecord(
        task_id=task_id,
        session_id=_session(row, references),
        title=" ".join((task_type, task_id) if task_type else (task_id,))[:TITLE_LENGTH],
        task_type=row.cut("type", task_type, TYPE_LENGTH),
        status=status,
        priority=row.whole("priority", otherwise=0),
        payload=row.exact_json("payload_json"),
        result=result,
        exit_reason=_exit_reason(row, result) if status == "failed" else None,
        attempts=min(retries + begun, _MOST),
        max_attempts=min(allowed + 1, _MOST),
        created_at=created_at,
        updated_at=updated_at,
        started_at=started_at,
        completed_at=completed_at or (updated_at if ended else None),
        metadata=row.with_origin(None),
        repairs=row.repairs,
    )


def read_tool_log(row: Row, references: References, ordinals: str) -> ToolLogRecord:
    """Make the record; ``ordinals`` names the tally of the calls of each message."""
    number = _number(row)
    session_id = row.identifier("session_id")
    if not references.has_session(session_id):
        raise SetAside("its session is not in the file")
    tool_name = row.text("tool_name")
    if not tool_name:
        row.repaired(f"tool_name: it was missing, so it became {NO_NAME!r}")
        tool_name = NO_NAME
    created_at = _created_at(row, references, session_id)
    is_error = _is_error(row)
    error = row.text("error_message")
    message_id = _message(row, references, session_id)
    ordinal = 0 if message_id is None else references.keys.tally(ordinals, message_id) - 1
    return ToolLogRecord(
        id=derived_ulid(created_at, "chapter14", "tool log", session_id, str(number)),
        source_key=row.key,
        session_id=session_id,
        message_id=message_id,
        ordinal=ordinal,
        tool_call_id=f"log-{number}",
        tool_name=_shortened(row, "tool_name", tool_name, TOOL_LENGTH),
        input=row.exact_json("input_json"),
        output=row.exact_json("output_json"),
        has_output=not row.is_null("output_json"),
        is_error=is_error,
        error_message=error,
        duration_ms=_duration(row),
        created_at=created_at,
        repairs=row.repairs,
    )


def _number(row: Row) -> int:
    number = row.shown("id")
    if not isinstance(number, int):
        raise SetAside("its id is no number")
    return number


def _created_at(row: Row, references: References, session_id: str) -> dt.datetime:
    """Return when the row was made, or else when its session began, which is only then looked up."""
    moment = row.time("created_at")
    if moment is not None:
        return moment
    return row.first_time("created_at", otherwise=references.session_began(session_id))


def _email(row: Row, references: References, emails: str) -> str | None:
    email = row.text("email")
    if not email:
        return None
    if len(email) > EMAIL_LENGTH:
        row.repaired(f"email: it is longer than {EMAIL_LENGTH} characters, so it is in the preferences")
        row.keep("email", email)
        return None
    if not references.keys.add(emails, email):
        row.repaired("email: an earlier user has the same, so it is in the preferences")
        row.keep("email", email)
        return None
    return email


def _user(row: Row, references: References) -> str | None:
    user_id = row.reference("user_id")
    if user_id is None:
        if row.is_null("user_id"):
            row.repaired("user_id: it was missing")
        return None
    if references.has_user(user_id):
        return user_id
    row.repaired("user_id: there is no such user; the id is in the metadata")
    row.keep("user_id", user_id)
    return None


def _session(row: Row, references: References) -> str | None:
    session_id = row.reference("session_id")
    if session_id is None or references.has_session(session_id):
        return session_id
    row.repaired("session_id: there is no such session; its id is in the metadata")
    row.keep("session_id", session_id)
    return None


def _message(row: Row, references: References, session_id: str) -> str | None:
    if row.is_null("message_id"):
        return None
    number = row.shown("message_id")
    found = references.message(number) if isinstance(number, int) else None
    if found is not None:
        try:
            record = read_message(found, references)
        except SetAside:
            pass
        else:
            if record.session_id == session_id:
                return record.id
    row.repaired(f"message_id: its session has no message {number}, so it is left out")
    return None


def _default(row: Row, column: str, otherwise: str) -> str:
    text = row.text(column)
    if text is None:
        row.repaired(f"{column}: it was missing, so it became {otherwise!r}")
        return otherwise
    return text


def _session_status(row: Row) -> str:
    word = row.word("status")
    word = "cancelled" if word == "canceled" else word
    if word not in _SESSION_STATUSES:
        row.repaired(f"status: {row.text('status')!r} became 'active'")
        row.keep("status", row.text("status"))
        return "active"
    if word != row.text("status"):
        row.repaired(f"status: {row.text('status')!r} was read as {word!r}")
    return word


def _task_status(row: Row, *, keep_status: bool) -> tuple[str, str]:
    """Return the word that was found, and the status that the task arrives with."""
    found, word = row.text("status"), row.word("status")
    if not word:
        row.repaired("status: it was missing, so it became 'pending'")
        word = "pending"
    elif word not in _TASK_STATUSES:
        row.repaired(f"status: {found!r} is not known, so it became 'paused'")
        row.keep("status", found)
        return "paused", "paused"
    elif word != found:
        row.repaired(f"status: {found!r} was read as {word!r}")
    status = word if keep_status and word in {"pending", "running"} else _TASK_STATUSES[word]
    if status != word:
        row.keep("status", word)
    return word, status


def _exit_reason(row: Row, result: JSON) -> str:
    if isinstance(result, dict):
        for name in ("exit_reason", "error", "message", "reason"):
            reason = result.get(name)
            if isinstance(reason, str) and reason.strip():
                plain = row.plain("result_json", reason)
                assert isinstance(plain, str)
                return plain
    row.repaired(f"exit_reason: a failed task had none, so it became {NO_REASON!r}")
    return NO_REASON


def _tool_calls(row: Row) -> list[JSON] | None:
    text = row.exact_text("tool_calls_json")
    if text is None or not text.strip():
        return None
    try:
        calls, repeated = parse_json(text)
    except ValueError:
        row.repaired("tool_calls_json: it is no JSON; its text is kept")
        row.keep("tool_calls_json", row.text("tool_calls_json"))
        return None
    if calls is None:
        return None
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        row.repaired("tool_calls_json: it is no list of objects; its value is kept")
        row.keep("tool_calls_json", row.plain("tool_calls_json", calls))
        return None
    if repeated:
        row.repaired("tool_calls_json: of a key that was there twice the last value is kept")
    return calls


def _cost(row: Row) -> Decimal:
    number = row.real("total_cost")
    if number is None:
        if row.is_null("total_cost"):
            row.repaired("total_cost: it was missing, so it became 0")
        return Decimal(0)
    try:
        # The exact value of the float, rounded once.
        cost = Money().check(Decimal(number).quantize(_PLACES, context=_CENTS), "total_cost")
    except (InvalidOperation, InvalidValueError):
        cost = Decimal(-1)
    if cost >= 0:
        return cost
    row.repaired(f"total_cost: {number!r} became 0")
    row.keep("total_cost", number)
    return Decimal(0)


def _is_error(row: Row) -> bool | None:
    if row.is_null("success"):
        return None
    word = row.word("success")
    if word in {"0", "0.0", "false"}:
        return True
    if word not in {"1", "1.0", "true"}:
        row.repaired(f"success: {row.text('success')!r} was read as 1")
    return False


def _duration(row: Row) -> float | None:
    number = row.real("elapsed_ms")
    if number is not None and number < 0:
        row.repaired(f"elapsed_ms: {number!r} is below 0, so it is left out")
        return None
    return number


def _shortened(row: Row, column: str, text: str, length: int) -> str:
    if len(text) > length:
        row.repaired(f"{column}: it was cut to {length} characters: {text!r}")
    return text[:length]
