"""Forks: agents that go on from a point of another's conversation, with a copy of it up to there.

However long the conversation and however many the forks, the statements are the same few; the rows are copied inside
the database. What a conversation was in a generation never changes, so nothing has to be locked meanwhile.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Text as PlainText
from sqlalchemy import bindparam, case, cast, func, insert, literal, null, or_, select, text, union_all
from sqlalchemy.dialects import postgresql

from agentos_store.agents.changes import AGENTS, GET, done
from agentos_store.agents.models import Agent
from agentos_store.agents.snapshots import existed_then, required
from agentos_store.conversations.content import TOOL_USE, calls_of
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, build_model, insert_into
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError
from agentos_store.types import Text

_CALLS = ToolCallRecord.table()
_MESSAGES = Message.table()
_SESSIONS = Conversation.table()


@dataclass(frozen=True, slots=True)
class _Point:
    """Where a fork leaves its parent."""

    session_id: str
    generation: int
    up_to_seq: int
    last_sfp_index: int
    last_bookmark: Any


def forks(
    session: Session,
    agent_id: str,
    new_agent_ids: Sequence[str | None],
    *,
    snapshot_id: str | None,
    up_to_seq: int | None,
) -> list[Agent]:
    """Make a fork for each of the identifiers, which are made where they are None."""
    time = session.now()
    keys = [(session.new_ulid() if key is None else key, session.new_ulid()) for key in new_agent_ids]
    if session.repeated:
        made = [each for key, _ in keys if (each := done(session, key, time)) is not None]
        if len(made) == len(keys):
            return made
    agent = session.first(GET, {"agent_id": agent_id})
    if agent is None:
        raise NotFoundError("agent", agent_id)
    conversation, point = _point(session, agent, snapshot_id, up_to_seq)
    agents = [_agent_row(agent, point, key, session_id, time) for key, session_id in keys]
    session.execute_many(_ADD_SESSION, [_session_row(conversation, point, each, time) for _, each in keys])
    _add_agents(session, agents)
    binds = [
        {
            "parent_id": agent_id,
            "parent_session_id": point.session_id,
            "generation": point.generation,
            "up_to_seq": point.up_to_seq,
            "new_agent_id": key,
            "new_session_id": session_id,
        }
        for key, session_id in keys
    ]
    try:
        copied = session.execute_many(_COPY_MESSAGES, binds)
    except IntegrityViolation:
        why = "an agent of its messages was removed meanwhile; try again"
        raise ConflictError("session", point.session_id, why) from None
    if copied != len(keys) * (point.up_to_seq + 1):
        raise ConflictError("session", point.session_id, "some of its messages are missing, so it cannot be forked")
    session.execute_many(_COPY_CALLS, binds)
    _copy_unplaced(session, binds)
    return [build_model(Agent, row) for row in agents]


def _point(
    session: Session, agent: Agent, snapshot_id: str | None, up_to_seq: int | None
) -> tuple[Conversation, _Point]:
    if snapshot_id is not None:
        if up_to_seq is not None:
            raise InvalidValueError("up_to_seq", "cannot be combined with snapshot_id")
        then = required(session, agent.agent_id, snapshot_id)
        point = _Point(
            then.session_id,
            then.generation,
            then.up_to_seq,
            min(then.last_sfp_index, then.up_to_seq),
            then.last_bookmark,
        )
        return _conversation(session, then.session_id), point
    if agent.session_id is None:
        raise ConflictError("agent", agent.agent_id, "it has no conversation")
    conversation = _conversation(session, agent.session_id)
    last = conversation.next_seq - 1
    if up_to_seq is not None:
        if isinstance(up_to_seq, bool) or not isinstance(up_to_seq, int) or not -1 <= up_to_seq <= last:
            raise InvalidValueError("up_to_seq", f"must be a whole number from -1 to {last:,}, the last message's")
        last = up_to_seq
    sfp_index = min(agent.last_sfp_index, last)
    return conversation, _Point(conversation.id, conversation.generation, last, sfp_index, agent.last_bookmark)


def _conversation(session: Session, session_id: str) -> Conversation:
    found = session.first(_SESSION, {"session_id": session_id})
    if found is None:
        raise NotFoundError("session", session_id)
    return found


def _session_row(parent: Conversation, point: _Point, session_id: str, time: dt.datetime) -> dict[str, Any]:
    count = point.up_to_seq + 1
    return parent.to_dict() | {
        "id": session_id,
        "status": "active",
        "message_count": count,
        "next_seq": count,
        "generation": 0,
        # Copies spend nothing: usage is counted where it arose.
        "total_tokens": 0,
        "total_cost": Decimal(0),
        # The copies are messages of their own.
        "unindexed_from": 0 if count else None,
        "created_at": time,
        "updated_at": time,
    }


def _agent_row(parent: Agent, point: _Point, key: str, session_id: str, time: dt.datetime) -> dict[str, Any]:
    return parent.to_dict() | {
        "agent_id": key,
        "state": "idle",
        "lineage": [*parent.lineage, parent.agent_id],
        "parent_id": parent.agent_id,
        "session_id": session_id,
        "last_sfp_index": point.last_sfp_index,
        "last_bookmark": point.last_bookmark,
        "breakpoint": None,
        "last_task_id": None,
        "stats": {},
        "version": 1,
        "created_at": time,
        "updated_at": time,
    }


def _add_agents(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    try:
        session.execute_many(_ADD_AGENT, rows)
    except IntegrityViolation as violation:
        if violation.kind == "unique":
            # Only an identifier that the caller gave can be taken, and then it is the only one.
            raise AlreadyExistsError("agent", rows[0]["agent_id"]) from None
        raise explain(violation, Agent, rows[0], session) from None


_SESSION: Statement[Conversation] = Statement(
    select(_SESSIONS).where(
        _SESSIONS.c.id == bindparam("session_id", type_=_SESSIONS.c.id.type),
        text(f"{_SESSIONS.name}.deleted_at IS NULL"),
    ),
    returns=Conversation,
)
_ADD_SESSION: Statement[Any] = Statement(insert_into(Conversation))
_ADD_AGENT: Statement[Any] = Statement(insert_into(Agent))

_PARENT = bindparam("parent_id", type_=AGENTS.c.agent_id.type)
_NEW_AGENT = bindparam("new_agent_id", type_=AGENTS.c.agent_id.type)
_NEW_SESSION = bindparam("new_session_id", type_=_SESSIONS.c.id.type)
_THEN = (
    _MESSAGES.c.session_id == bindparam("parent_session_id", type_=_SESSIONS.c.id.type),
    *existed_then(
        bindparam("generation", type_=_MESSAGES.c.from_generation.type),
        bindparam("up_to_seq", type_=_MESSAGES.c.seq.type),
    ),
)
_TEXT = Text()


def _text(value: Any) -> Any:
    return cast(value, PlainText())


def _new_key(number: Any) -> Any:
    """Return the key of a copied row: no statement can make a ULID, but the conversation's is new."""
    return _text(_NEW_SESSION).op("||")(literal(".", _TEXT)).op("||")(_text(number))


def _copy_messages() -> Statement[Any]:
    values = {c.name: c for c in _MESSAGES.c} | {
        "id": _new_key(_MESSAGES.c.seq),
        "session_id": _text(_NEW_SESSION),
        # A conversation may have several agents; the others' messages stay theirs.
        "agent_id": case((_MESSAGES.c.agent_id == _PARENT, _NEW_AGENT), else_=_MESSAGES.c.agent_id),
        "from_generation": literal(0),
        "to_generation": null(),
        "copied_from": _MESSAGES.c.id,
    }
    source = select(*values.values()).where(*_THEN)
    return Statement(insert(_MESSAGES).from_select([*values], source, include_defaults=False))


_HERE = _CALLS.c.session_id == bindparam("parent_session_id", type_=_SESSIONS.c.id.type)


def _copied_call(seq: Any, key: Any) -> dict[str, Any]:
    """Return the columns of a copied call, for a message's number."""
    return {c.name: c for c in _CALLS.c} | {
        "id": key,
        "agent_id": case((_CALLS.c.agent_id == _PARENT, _NEW_AGENT), else_=_CALLS.c.agent_id),
        "session_id": _text(_NEW_SESSION),
        "message_id": _new_key(seq),
    }


# Under one agent a call's name is there once, so those of others are not copied; nor are those of the conversation
# that this one was itself copied from.
_OWN = or_(_CALLS.c.agent_id == _PARENT, _CALLS.c.agent_id.is_(None) & _HERE)


def _copy_calls() -> Statement[Any]:
    # A message that moved left a closed copy where it was; the calls are still those of the message itself. In one
    # condition with OR both would be searched for all calls where the database knows nothing of the table yet.
    its = union_all(
        select(_MESSAGES.c.seq, _MESSAGES.c.id.label("key")).where(*_THEN),
        select(_MESSAGES.c.seq, _MESSAGES.c.copied_from.label("key")).where(
            *_THEN, _MESSAGES.c.copied_from.is_not(None)
        ),
    ).subquery("its")
    number = func.row_number().over(order_by=(its.c.seq, _CALLS.c.ordinal, _CALLS.c.created_at, _CALLS.c.id))
    values = _copied_call(its.c.seq, _new_key(literal("call", _TEXT)).op("||")(_text(number)))
    source = select(*values.values()).select_from(its).join(_CALLS, _CALLS.c.message_id == its.c.key).where(_OWN)
    return Statement(insert(_CALLS).from_select([*values], source, include_defaults=False))


def _copy_unplaced(session: Session, binds: Sequence[Mapping[str, Any]]) -> None:
    """Copy the records that name no message of the conversation, to the messages that make calls of their names."""
    unplaced = dict(session.all(_UNPLACED, binds[0]))
    if not unplaced:
        return
    places: dict[str, int] = {}
    for seq, content, calls in session.all(_USES, binds[0]):
        for name in calls_of(content, calls):
            if name in unplaced:
                places.setdefault(unplaced[name], seq)
    session.execute_many(
        _COPY_ONE,
        [
            {**each, "call": call, "seq": seq, "number": number}
            for each in binds
            for number, (call, seq) in enumerate(places.items())
        ],
    )


# A message that was replaced since is closed, and is no part of a later generation.
_REPLACED = (
    select(literal(1)).where(_MESSAGES.c.id == _CALLS.c.message_id, _MESSAGES.c.to_generation.is_not(None)).exists()
)
_UNPLACED: Statement[Any] = Statement(
    select(_CALLS.c.tool_call_id, _CALLS.c.id).where(
        _OWN,
        or_(_CALLS.c.message_id.is_(None), _REPLACED),
    )
)
_USES: Statement[Any] = Statement(
    select(_MESSAGES.c.seq, _MESSAGES.c.content, _MESSAGES.c.tool_calls)
    .where(*_THEN, text(f"{_MESSAGES.name}.content_types & {TOOL_USE} <> 0"))
    .order_by(_MESSAGES.c.seq)
)


def _copy_one() -> Statement[Any]:
    seq = bindparam("seq", type_=_MESSAGES.c.seq.type)
    number = bindparam("number", type_=_MESSAGES.c.seq.type)
    values = _copied_call(seq, _new_key(literal("named", _TEXT)).op("||")(_text(number)))
    source = select(*values.values()).where(_CALLS.c.id == bindparam("call", type_=_CALLS.c.id.type))
    # One that came with its message is there.
    query = postgresql.insert(_CALLS).from_select([*values], source, include_defaults=False)
    return Statement(query.on_conflict_do_nothing())


_COPY_MESSAGES = _copy_messages()
_COPY_CALLS = _copy_calls()
_COPY_ONE = _copy_one()
