"""The writing half of the import: each method writes one batch of rows, in one transaction, and may be repeated."""

from __future__ import annotations

from collections.abc import Sequence

from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.session import Session
from agentos_store.importers.chapter14.records import SessionRecord, TaskRecord, ToolLogRecord
from agentos_store.importers.chapter14.references import ORIGIN_KEY
from agentos_store.importers.conversations import (
    EMPTY,
    MESSAGES_THERE,
    SESSIONS_THERE,
    USERS_THERE,
    write_messages,
    write_users,
)
from agentos_store.importers.records import MessageRecord, UserRecord
from agentos_store.importers.report import Note
from agentos_store.importers.row import add_origin
from agentos_store.importers.writing import Importing, NewRow, Outcome, add_rows, stored
from agentos_store.operation import F, repeatable, writes
from agentos_store.tasks.models import Task
from agentos_store.types import to_text

CHANNEL = "chapter14"

SOURCE = "chapter14"


class Loader(Importing[F]):
    """The writing half of the import; every method may be repeated."""

    @writes
    @repeatable
    def users(self, session: Session, records: Sequence[UserRecord]) -> Outcome:
        """Write users."""
        return write_users(session, records, origin=ORIGIN_KEY)

    @writes
    @repeatable
    def sessions(self, session: Session, records: Sequence[SessionRecord]) -> Outcome:
        """Write sessions, without their messages, which come later; one whose user was set aside has none."""
        outcome = Outcome()
        users = stored(session, USERS_THERE, [record.user_id for record in records])
        rows: dict[int, NewRow] = {}
        for position, record in enumerate(records):
            user_id, metadata = record.user_id, record.metadata or {}
            if user_id is not None and user_id not in users:
                why = "user_id: the user was set aside; the id is in the metadata"
                outcome.change(position, Note("sessions", record.id, why))
                metadata, user_id = add_origin(metadata, ORIGIN_KEY, {"user_id": user_id}), None
            rows[position] = NewRow(
                "sessions",
                record.id,
                {
                    "id": record.id,
                    "user_id": user_id,
                    "channel": CHANNEL,
                    "title": record.title,
                    "status": record.status,
                    "model": record.model,
                    **EMPTY,
                    "total_tokens": record.spent_tokens,
                    "total_cost": record.total_cost,
                    "metadata": metadata,
                    "created_at": record.created_at,
                    "updated_at": record.updated_at,
                },
            )
        add_rows(session, Conversation, rows, outcome)
        return outcome

    @writes
    @repeatable
    def messages(self, session: Session, records: Sequence[MessageRecord]) -> Outcome:
        """Append messages to their sessions; a value that the store refuses is raised, and nothing stored then."""
        return write_messages(self, session, records, source=SOURCE)

    @writes
    @repeatable
    def tasks(self, session: Session, records: Sequence[TaskRecord]) -> Outcome:
        """Write tasks; one whose session was set aside comes in without it."""
        outcome = Outcome()
        sessions = stored(session, SESSIONS_THERE, [record.session_id for record in records])
        rows: dict[int, NewRow] = {}
        for position, record in enumerate(records):
            session_id, metadata = record.session_id, record.metadata or {}
            if session_id is not None and session_id not in sessions:
                why = "session_id: the session was set aside; the id is in the metadata"
                outcome.change(position, Note("tasks", record.task_id, why))
                metadata, session_id = add_origin(metadata, ORIGIN_KEY, {"session_id": session_id}), None
            started, completed = record.started_at, record.completed_at
            lasted = None if started is None or completed is None else (completed - started).total_seconds()
            rows[position] = NewRow(
                "tasks",
                record.task_id,
                {
                    "task_id": record.task_id,
                    "title": record.title,
                    "status": record.status,
                    "task_type": record.task_type,
                    "priority": record.priority,
                    "payload": record.payload,
                    "result": record.result,
                    "exit_reason": record.exit_reason,
                    "session_id": session_id,
                    "attempts": record.attempts,
                    "max_attempts": record.max_attempts,
                    "lease_token": 0,
                    "version": 1,
                    "metadata": metadata,
                    "started_at": started,
                    "completed_at": completed,
                    "duration": lasted if lasted is not None and lasted >= 0 else None,
                    "created_at": record.created_at,
                    "updated_at": record.updated_at,
                },
            )
        add_rows(session, Task, rows, outcome)
        return outcome

    @writes
    @repeatable
    def tool_calls(self, session: Session, records: Sequence[ToolLogRecord]) -> Outcome:
        """Write logged calls of tools; one whose message was set aside comes in without it."""
        outcome = Outcome()
        sessions = stored(session, SESSIONS_THERE, [record.session_id for record in records])
        messages = stored(session, MESSAGES_THERE, [record.message_id for record in records])
        rows: dict[int, NewRow] = {}
        for position, record in enumerate(records):
            message_id = record.message_id
            if record.session_id not in sessions:
                outcome.refused[position] = Note("tool_logs", record.source_key, "its session was set aside")
                continue
            if message_id is not None and message_id not in messages:
                why = "message_id: the message was set aside, so it is left out"
                outcome.change(position, Note("tool_logs", record.source_key, why))
                message_id = None
            state = "failed" if record.is_error else "completed"
            rows[position] = NewRow(
                "tool_logs",
                record.source_key,
                {
                    "id": record.id,
                    "session_id": record.session_id,
                    "tool_call_id": record.tool_call_id,
                    "ordinal": record.ordinal,
                    "message_id": message_id,
                    "tool_name": record.tool_name,
                    "state": state,
                    "input": record.input,
                    "output": record.output,
                    "has_output": record.has_output,
                    "is_error": record.is_error,
                    "error_message": record.error_message,
                    "audit_trail": [{"state": state, "at": to_text(record.created_at)}],
                    "duration_ms": record.duration_ms,
                    "created_at": record.created_at,
                    "updated_at": record.created_at,
                    "completed_at": record.created_at,
                },
            )
        add_rows(session, ToolCallRecord, rows, outcome)
        return outcome
