"""Writing users and messages: each once, the messages at the end of their sessions and in their order."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import bindparam, update

from agentos_store.conversations.message_models import Message
from agentos_store.conversations.messages import MessageRepository
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.models import User
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import AlreadyExistsError, ConflictError
from agentos_store.importers.records import MessageRecord, UserRecord
from agentos_store.importers.report import Note
from agentos_store.importers.row import add_origin
from agentos_store.importers.writing import NewRow, Outcome, add_rows, asking, stored
from agentos_store.operation import Repository


def write_users(session: Session, records: Sequence[UserRecord], *, origin: str) -> Outcome:
    """Write users; an address that somebody else has already stays in the preferences, under the origin's name."""
    outcome = Outcome()
    owners = stored(session, _EMAILS, [record.email for record in records])
    there = stored(session, USERS_THERE, [record.id for record in records])
    rows: dict[int, NewRow] = {}
    for position, record in enumerate(records):
        email, preferences = record.email, record.preferences or {}
        if email is not None and owners.get(email, record.id) != record.id and record.id not in there:
            outcome.change(position, Note(record.table, record.id, "email: another user of the store has it"))
            preferences = add_origin(preferences, origin, {"email": email})
            email = None
        rows[position] = NewRow(
            record.table,
            record.id,
            {
                "id": record.id,
                "name": record.name,
                "email": email,
                "api_key_hash": record.api_key_hash,
                "quota_total": record.quota_total,
                "quota_used": record.quota_used,
                "quota_reserved": 0,
                "preferences": preferences,
                "created_at": record.created_at,
                "updated_at": record.updated_at,
            },
        )
    add_rows(session, User, rows, outcome)
    return outcome


def write_messages(
    repository: Repository[Any], session: Session, records: Sequence[MessageRecord], *, source: str
) -> Outcome:
    """Append the messages that the store does not have yet to their sessions, which the store has.

    A message is known by its key, so one whose content was changed here stays as it is. Raises InvalidValueError for a
    value that the store refuses, and ConflictError when somebody else writes the same; of the batch nothing is stored
    then.
    """
    outcome = Outcome()
    there = stored(session, MESSAGES_THERE, [record.id for record in records])
    sessions = stored(session, _OPEN_SESSIONS, [record.session_id for record in records])
    new: dict[str, list[MessageRecord]] = {}
    for position, record in enumerate(records):
        why: str | None = None
        if record.id in there:
            if there[record.id] != record.session_id:
                why = "another session of the store has a message with this key"
        elif record.session_id not in sessions:
            why = "its session was set aside, or was deleted in the store"
        else:
            new.setdefault(record.session_id, []).append(record)
            outcome.imported += 1
        if why is not None:
            outcome.refused[position] = Note(record.table, record.source_key, why)
    try:
        append(
            repository, session, {key: [_values(record) for record in batch] for key, batch in new.items()}, sessions
        )
    except AlreadyExistsError:
        # Both looked before either had written.
        why = "somebody else writes the same messages, another import perhaps; run this one again afterwards"
        raise ConflictError("import", source, why) from None
    return outcome


def append(
    repository: Repository[Any],
    session: Session,
    messages: Mapping[str, Sequence[dict[str, Any]]],
    changed_at: Mapping[str, dt.datetime],
) -> None:
    """Append messages of the past to sessions: the last change of each is the one it had, or its newest message."""
    touched: list[dict[str, Any]] = []
    for session_id, batch in messages.items():
        MessageRepository.append_many(repository, session, session_id, batch)
        newest: dt.datetime = max(message["created_at"] for message in batch)
        touched.append({"id": session_id, "changed_at": max(changed_at[session_id], newest)})
    session.execute_many(_TOUCH, touched)


def _values(record: MessageRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "role": record.role,
        "content": record.content,
        "tool_calls": record.tool_calls,
        "tool_call_id": record.tool_call_id,
        "token_count": record.token_count,
        "metadata": record.metadata or {},
        "created_at": record.created_at,
    }


_USERS = User.table()
_SESSIONS = Conversation.table()
_MESSAGES = Message.table()
USERS_THERE = asking(_USERS.c.id, _USERS.c.id)
_EMAILS = asking(_USERS.c.email, _USERS.c.id)
MESSAGES_THERE = asking(_MESSAGES.c.id, _MESSAGES.c.session_id)
SESSIONS_THERE = asking(_SESSIONS.c.id, _SESSIONS.c.id)
_OPEN_SESSIONS = asking(_SESSIONS.c.id, _SESSIONS.c.updated_at, _SESSIONS.c.deleted_at.is_(None))
_TOUCH: Statement[Any] = Statement(
    update(_SESSIONS)
    .where(_SESSIONS.c.id == bindparam("id", type_=_SESSIONS.c.id.type))
    .values(updated_at=bindparam("changed_at", type_=_SESSIONS.c.updated_at.type))
)

EMPTY: Final[Mapping[str, Any]] = {
    "message_count": 0,
    "next_seq": 0,
    "generation": 0,
    "total_tokens": 0,
    "total_cost": Decimal(0),
}
"""The counters of a session whose messages come later, which count themselves."""
