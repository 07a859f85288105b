"""After a crash: calls that have not ended are sealed, and all calls of the conversation have a result or a record."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Column, ColumnElement, MetaData, Table, bindparam, func, literal, or_, select, text, update
from sqlalchemy.dialects import postgresql

from agentos_store.conversations.content import TOOL_RESULT, TOOL_USE
from agentos_store.conversations.message_models import CURRENT, Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.conversations.tool_call_states import OPEN
from agentos_store.conversations.tool_call_steps import CALLS, appended, entry
from agentos_store.engine.among import among
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidValueError, NotFoundError

INTERRUPTED = "The tool was interrupted; what it did is not known, and the call was sealed."
NOTE = "sealed after an interruption"
UNNAMED = "unknown"
"""The tool of a call that names none."""
_BATCH = 500

_MESSAGES = Message.table()
_SESSIONS = Conversation.table()
# Another domain's table is known by its name alone.
AGENTS = Table(
    "agents",
    MetaData(),
    Column("agent_id", CALLS.c.agent_id.type),
    Column("session_id", CALLS.c.session_id.type),
    Column("deleted_at", CALLS.c.created_at.type),
)


def settle(
    session: Session, agent_id: str | None, session_id: str | None, *, note: str, by: str | None, waiting: bool = True
) -> Sequence[ToolCallRecord]:
    """Seal what is open, record what the conversation calls without a result, and return both, the oldest first.

    Calls that wait for a person's word are sealed only with ``waiting``.
    """
    conversation = _conversation(session, agent_id, session_id)
    time = session.now()
    scope = (agent_id is not None, session_id is not None)
    values = {"agent_id": agent_id, "session_id": session_id, "at": time}
    if session.repeated and (found := session.all(_sealed(*scope), values)):
        # An earlier try of this very call was committed, and its answer got lost.
        return found
    operators = session.capabilities.data_modifying_cte
    sealed = entry("sealed", time, by=by, note=note)
    session.execute(_seal(*scope, operators=operators, waiting=waiting), {**values, "entry": sealed})
    if conversation is not None:
        record_unanswered(session, conversation, agent_id, time, sealed)
    return session.all(_sealed(*scope), values)


def _conversation(session: Session, agent_id: str | None, session_id: str | None) -> str | None:
    """Return the session whose messages are looked at: the one that is given, or the agent's."""
    if agent_id is None and session_id is None:
        raise InvalidValueError("agent_id", "an agent or a session is needed: others may be at work")
    own = None
    if agent_id is not None:
        agent = session.first(_AGENT, {"agent_id": agent_id})
        if agent is None:
            raise NotFoundError("agent", agent_id)
        own = agent[0]
    if session_id is None:
        return own
    if session.first(_SESSION, {"session_id": session_id}) is None:
        raise NotFoundError(Conversation.entity, session_id)
    return session_id


@dataclass(frozen=True, slots=True)
class Use:
    """A call as a message has it."""

    tool_call_id: str
    tool_name: str
    input: Any
    ordinal: int
    message_id: str
    agent_id: str | None
    created_at: dt.datetime


def record_unanswered(
    session: Session, session_id: str, agent_id: str | None, time: dt.datetime, sealed: dict[str, Any]
) -> None:
    """Give a sealed record to every call of the current conversation that has neither a result nor a record.

    With an agent, only calls of its own messages, and of those that belong to no agent, which then become its calls.
    """
    unknown = unrecorded(session, session_id, agent_id)
    session.execute_many(ADD, [_row(session, session_id, use, time, sealed) for use in unknown])


def unrecorded(session: Session, session_id: str, agent_id: str | None) -> list[Use]:
    """Return the calls of the current conversation that have neither a result nor a record."""
    uses = list(_unanswered(session, session_id, agent_id))
    if not uses:
        return []
    known: dict[str, set[str | None]] = {}
    found = session.all(_KNOWN_IN_SESSION, {"session_id": session_id})
    found += session.all(_KNOWN_OF_ITS_AGENTS, {"session_id": session_id})
    for owner in sorted({use.agent_id for use in uses if use.agent_id is not None}):
        found += session.all(_KNOWN_OF_AGENT, {"agent_id": owner})
    for name, owner in found:
        known.setdefault(name, set()).add(owner)
    return [use for use in uses if not _has_record(use, known.get(use.tool_call_id, set()))]


def _has_record(use: Use, owners: set[str | None]) -> bool:
    """Tell whether one of the records of this name is the call's; where one side names no agent, the name decides."""
    return bool(owners) if use.agent_id is None else not owners.isdisjoint((None, use.agent_id))


def _row(session: Session, session_id: str, use: Use, time: dt.datetime, sealed: dict[str, Any]) -> dict[str, Any]:
    return dict.fromkeys(CALLS.c.keys()) | {
        "id": session.new_ulid(),
        "agent_id": use.agent_id,
        "session_id": session_id,
        "tool_call_id": use.tool_call_id,
        "ordinal": use.ordinal,
        "message_id": use.message_id,
        "tool_name": use.tool_name,
        "state": "sealed",
        "input": use.input,
        "has_output": False,
        "is_error": True,
        "error_message": INTERRUPTED,
        "audit_trail": [sealed],
        "created_at": use.created_at,
        "updated_at": time,
        "completed_at": time,
    }


def _unanswered(session: Session, session_id: str, agent_id: str | None) -> Iterator[Use]:
    """Return the calls that no later message answers; one name may be used again once it was answered."""
    waiting: dict[str, Use] = {}
    last = -1
    while True:
        rows = session.all(_OF_TOOLS, {"session_id": session_id, "after": last, "limit_": _BATCH})
        for seq, *message in rows:
            last = seq
            _follow(waiting, *message)
        if len(rows) < _BATCH:
            break
    for use in waiting.values():
        if agent_id is None or use.agent_id == agent_id:
            yield use
        elif use.agent_id is None:
            yield Use(use.tool_call_id, use.tool_name, use.input, use.ordinal, use.message_id, agent_id, use.created_at)


def _follow(
    waiting: dict[str, Use],
    message_id: str,
    agent_id: str | None,
    role: str,
    content: Any,
    tool_calls: Any,
    tool_call_id: str | None,
    created_at: dt.datetime,
) -> None:
    blocks = [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
    if role == "assistant":
        calls = [_of_block(block) for block in blocks if block.get("type") == "tool_use"]
        calls += [_of_call(call) for call in tool_calls or [] if isinstance(call, dict)]
        for ordinal, (name, tool, given) in enumerate(calls):
            if _is_storable(CALLS.c.tool_call_id, name):
                tool_name = tool if _is_storable(CALLS.c.tool_name, tool) else UNNAMED
                # Put in anew, so that it stands behind those before it.
                waiting.pop(name, None)
                waiting[name] = Use(name, tool_name, given, ordinal, message_id, agent_id, created_at)
    answers = [block.get("tool_use_id") for block in blocks if block.get("type") == "tool_result"]
    for answer in [*answers, tool_call_id if role == "tool" else None]:
        if isinstance(answer, str):
            waiting.pop(answer, None)


def _of_block(block: dict[str, Any]) -> tuple[Any, Any, Any]:
    return block.get("id"), block.get("name"), block.get("input", {})


def _of_call(call: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return name, tool and input; OpenAI's format has tool and input inside, chapter 14 has them beside."""
    inside = call.get("function")
    said = inside if isinstance(inside, dict) else call
    # OpenAI's arguments are a text, which may be no JSON at all; it is kept as it is.
    return call.get("id"), said.get("name"), said.get("arguments", said.get("input", {}))


def _is_storable(column: Any, value: object) -> bool:
    try:
        column.type.check(value, column.name)
    except InvalidValueError:
        return False
    return True


def _scope(by_agent: bool, by_session: bool) -> list[ColumnElement[bool]]:
    agent = CALLS.c.agent_id == bindparam("agent_id", type_=CALLS.c.agent_id.type)
    conversation = CALLS.c.session_id == bindparam("session_id", type_=CALLS.c.session_id.type)
    return ([agent] if by_agent else []) + ([conversation] if by_session else [])


_AT = bindparam("at", type_=CALLS.c.updated_at.type)


@cache
def _seal(by_agent: bool, by_session: bool, *, operators: bool, waiting: bool) -> Statement[Any]:
    states = [state for state in OPEN if waiting or state != "approval_required"]
    error = CALLS.c.error_message
    return Statement(
        update(CALLS)
        .where(*_scope(by_agent, by_session), or_(*(CALLS.c.state == state for state in states)))
        .values(
            state="sealed",
            is_error=literal(True, CALLS.c.is_error.type),
            error_message=func.coalesce(error, literal(INTERRUPTED, error.type)),
            updated_at=_AT,
            completed_at=_AT,
            audit_trail=appended(operators=operators),
        )
    )


@cache
def _sealed(by_agent: bool, by_session: bool) -> Statement[ToolCallRecord]:
    """Return the calls that were sealed at this time."""
    return Statement(
        select(CALLS)
        .where(*_scope(by_agent, by_session), CALLS.c.state == "sealed", CALLS.c.updated_at == _AT)
        .order_by(CALLS.c.created_at, CALLS.c.id),
        returns=ToolCallRecord,
    )


ADD: Statement[Any] = Statement(
    postgresql.insert(CALLS)
    .values({column.name: bindparam(column.name, type_=column.type) for column in CALLS.c})
    .on_conflict_do_nothing()
)
_SESSION_ID = bindparam("session_id", type_=CALLS.c.session_id.type)
_AGENT_ID = bindparam("agent_id", type_=CALLS.c.agent_id.type)
_AGENT: Statement[Any] = Statement(select(AGENTS.c.session_id).where(AGENTS.c.agent_id == _AGENT_ID))
_SESSION: Statement[Any] = Statement(select(_SESSIONS.c.id).where(_SESSIONS.c.id == _SESSION_ID))
_KNOWN = select(CALLS.c.tool_call_id, CALLS.c.agent_id)
_KNOWN_IN_SESSION: Statement[Any] = Statement(_KNOWN.where(CALLS.c.session_id == _SESSION_ID))
_KNOWN_OF_AGENT: Statement[Any] = Statement(_KNOWN.where(CALLS.c.agent_id == _AGENT_ID))
_KNOWN_OF_ITS_AGENTS: Statement[Any] = Statement(
    _KNOWN.where(among(CALLS.c.agent_id, select(AGENTS.c.agent_id).where(AGENTS.c.session_id == _SESSION_ID)))
)
_OF_TOOLS: Statement[Any] = Statement(
    select(
        _MESSAGES.c.seq,
        _MESSAGES.c.id,
        _MESSAGES.c.agent_id,
        _MESSAGES.c.role,
        _MESSAGES.c.content,
        _MESSAGES.c.tool_calls,
        _MESSAGES.c.tool_call_id,
        _MESSAGES.c.created_at,
    )
    .where(
        _MESSAGES.c.session_id == _SESSION_ID,
        _MESSAGES.c.seq > bindparam("after", type_=_MESSAGES.c.seq.type),
        text(f"{_MESSAGES.name}.{CURRENT} AND {_MESSAGES.name}.content_types & {TOOL_USE | TOOL_RESULT} <> 0"),
    )
    .order_by(_MESSAGES.c.seq)
    .limit(bindparam("limit_"))
)
