"""The writing half of the import: a transcript comes in whole, in one transaction, or not at all."""

from __future__ import annotations

import datetime as dt
from typing import Any

from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.conversations.tool_call_states import means_error
from agentos_store.engine.session import Session
from agentos_store.importers.conversations import EMPTY, append
from agentos_store.importers.openai.records import Transcript
from agentos_store.importers.writing import Importing, unless_taken, whole_row
from agentos_store.operation import F, repeatable, writes
from agentos_store.tasks.models import Task
from agentos_store.types import to_text

CHANNEL = "openai"
TASK_TYPE = "trajectory"

UNANSWERED = "the transcript has no answer to it"

_STEP = dt.timedelta(microseconds=1)


class Loader(Importing[F]):
    """The writing half of the import; every method may be repeated."""

    @writes
    @repeatable
    def transcript(self, session: Session, transcript: Transcript) -> bool:
        """Write a transcript; return False, and leave all as it is, when the store has it.

        Raises InvalidValueError for a value that the store refuses; then nothing is written.
        """
        began = session.now() if transcript.created_at is None else transcript.created_at
        key = transcript.session_id
        # Transcripts tell no times, so the messages keep their order by a microsecond each.
        times = [began + number * _STEP for number in range(len(transcript.messages))]
        ended = times[-1] if times else began
        if not session.execute(unless_taken(Conversation), whole_row(Conversation, _session(transcript, began))):
            return False
        messages = [
            {
                "id": f"{key}/{number}",
                "role": message.role,
                "content": message.content,
                "name": message.name,
                "tool_calls": message.tool_calls,
                "tool_call_id": message.tool_call_id,
                "metadata": message.metadata,
                "created_at": times[number],
            }
            for number, message in enumerate(transcript.messages)
        ]
        if messages:
            append(self, session, {key: messages}, {key: began})
        calls = [
            _ended(call.answer is not None, ended if call.answer is None else times[call.answer])
            | {
                "id": f"{key}/{call.message}/{call.ordinal}",
                "session_id": key,
                "tool_call_id": call.tool_call_id,
                "ordinal": call.ordinal,
                "message_id": f"{key}/{call.message}",
                "tool_name": call.tool_name,
                "input": call.input,
                "output": call.output,
                "has_output": call.answer is not None,
                "created_at": times[call.message],
            }
            for call in transcript.calls
        ]
        session.execute_many(unless_taken(ToolCallRecord), [whole_row(ToolCallRecord, call) for call in calls])
        if transcript.task is not None:
            session.execute(unless_taken(Task), whole_row(Task, _task(transcript, ended)))
        return True


def _session(transcript: Transcript, began: dt.datetime) -> dict[str, Any]:
    return {
        "id": transcript.session_id,
        "channel": CHANNEL,
        "title": transcript.title,
        "status": "completed",
        "model": transcript.model,
        **EMPTY,
        "metadata": transcript.metadata,
        "created_at": began,
        "updated_at": began,
    }


def _ended(answered: bool, time: dt.datetime) -> dict[str, Any]:
    """Return how a call ended; of an answer nobody said whether it was an error."""
    state = "completed" if answered else "sealed"
    return {
        "state": state,
        "is_error": None if answered else means_error(state),
        "error_message": None if answered else UNANSWERED,
        "audit_trail": [{"state": state, "at": to_text(time)}],
        "updated_at": time,
        "completed_at": time,
    }


def _task(transcript: Transcript, ended: dt.datetime) -> dict[str, Any]:
    task = transcript.task
    assert task is not None
    return {
        "task_id": transcript.session_id,
        "title": task.title,
        "status": "completed",
        "task_type": TASK_TYPE,
        "priority": 0,
        "result": task.result,
        "session_id": transcript.session_id,
        "attempts": 0,
        "max_attempts": 3,
        "lease_token": 0,
        "version": 1,
        "metadata": task.metadata,
        "completed_at": ended,
        "created_at": ended,
        "updated_at": ended,
    }
