"""The writing half of the import: an agent comes in whole, in one transaction, or not at all; its events follow."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import bindparam, select, text, update

from agentos_store.conversations.message_models import CURRENT, Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.events.repository import EventRepository
from agentos_store.importers.conversations import EMPTY
from agentos_store.importers.kode.conversation import Told, Writer, derived_id, imported_before
from agentos_store.importers.kode.parts import new_snapshots, write_calls, write_documents, write_snapshots
from agentos_store.importers.kode.records import AgentRecord, EventRecord, InfoRecord
from agentos_store.importers.kode.survey import AGENTS, DOCUMENTS, MESSAGES
from agentos_store.importers.kode.written import Written, all_set_aside
from agentos_store.importers.report import Note
from agentos_store.importers.writing import Importing, Outcome, unless_taken, whole_row
from agentos_store.models import Agent
from agentos_store.operation import F, repeatable, writes

CHANNEL: Final = "kode"
EARLIER: Final = "earlier_messages"
"""What a snapshot holds and the conversation does not any more."""


class Loader(Importing[F]):
    """The writing half of the import; every method may be repeated."""

    @writes
    @repeatable
    def agent(self, session: Session, record: AgentRecord) -> Written:
        """Write an agent with its conversation, calls, documents and snapshots, as far as they are new.

        What the store changed since an earlier import is kept; so is an agent of that name that no import brought, or
        that was deleted here: then all of the record is set aside. Raises InvalidValueError for a value of the agent
        itself that the store refuses; then nothing is written.
        """
        written = Written()
        updated_at = max(_told_by(record).updated_at or record.created_at, record.created_at)
        there = session.first(_AGENT, {"agent_id": record.agent_id})
        is_new = False
        if there is None:
            is_new = bool(session.execute(unless_taken(Conversation), whole_row(Conversation, _session(record))))
            if not is_new:
                # Another import may have written it meanwhile.
                there = session.first(_AGENT, {"agent_id": record.agent_id})
        if not is_new and (why := _foreign(session, record, there)) is not None:
            return all_set_aside(record, why)
        counts = written.of(AGENTS)
        if there is None:
            values = _agent(session, record, updated_at, written)
            counts.imported += session.execute(unless_taken(Agent), whole_row(Agent, values))
            counts.repeated += 1 - counts.imported
        elif there[2] < updated_at and record.info is not None:
            values = _fields(record, record.info)
            counts.imported += session.execute(_CHANGE, {**values, "agent_id": record.agent_id, "now": updated_at})
            counts.repeated += 1 - counts.imported
        else:
            counts.repeated += 1
        new = new_snapshots(session, record)
        conversation = Writer(self, session, record)
        told = conversation.write(new, is_new=is_new)
        _count_messages(session, record, updated_at, told, written)
        write_snapshots(session, record, new, told, written)
        write_calls(session, record, conversation, written)
        for kind in DOCUMENTS:
            write_documents(session, record, kind, written)
        return written

    @writes
    @repeatable
    def events(self, session: Session, records: Sequence[EventRecord]) -> Outcome:
        """Write events of an agent that is in the store; one value that the store refuses is raised, nothing stored."""
        outcome = Outcome()
        outcome.imported = EventRepository.log_many(self, session, [_event(record) for record in records])
        return outcome


def _event(record: EventRecord) -> dict[str, Any]:
    return {
        "event_id": derived_id(record.agent_id, "event", record.channel, record.digest),
        "agent_id": record.agent_id,
        # The conversation has its agent's name.
        "session_id": record.agent_id,
        "channel": record.channel,
        "seq": record.seq,
        "event_type": record.event_type,
        "severity": record.severity,
        "data": record.data,
        "created_at": record.created_at,
    }


def _agent(session: Session, record: AgentRecord, updated_at: dt.datetime, written: Written) -> dict[str, Any]:
    parent_id = record.parent_id
    if parent_id is not None and session.first(_AGENT, {"agent_id": parent_id}) is None:
        written.changed.append(Note(AGENTS, record.agent_id, "parent_id: its parent was not imported"))
        parent_id = None
    return {
        **_fields(record, record.info),
        "agent_id": record.agent_id,
        "state": "idle",
        "parent_id": parent_id,
        "session_id": record.agent_id,
        "stats": {},
        "version": 1,
        "created_at": record.created_at,
        "updated_at": updated_at,
    }


def _count_messages(
    session: Session, record: AgentRecord, updated_at: dt.datetime, told: Told, written: Written
) -> None:
    counts = written.of(MESSAGES)
    counts.imported, counts.repeated, counts.set_aside = told.imported, told.repeated, told.set_aside
    written.refused += told.notes
    if told.earlier:
        written.of(EARLIER).imported = told.earlier
    if told.imported or told.earlier:
        newest = session.first(_NEWEST, {"session_id": record.agent_id})
        moment = max(updated_at, newest[0] if newest is not None else record.created_at)
        session.execute(_TOUCH, {"session_id": record.agent_id, "moment": moment})


def _told_by(record: AgentRecord) -> InfoRecord:
    return record.info or _NOTHING


def _fields(record: AgentRecord, info: InfoRecord | None) -> dict[str, Any]:
    """Return what an agent's info says, by column."""
    told = info or _NOTHING
    return {
        "template_id": told.template_id,
        # Where KODE did not note it, the path tells.
        "lineage": told.lineage or ([] if record.parent_id is None else [record.parent_id]),
        "config_version": told.config_version,
        "last_sfp_index": told.last_sfp_index,
        "last_bookmark": told.last_bookmark,
        "breakpoint": told.breakpoint,
        "metadata": told.metadata,
    }


def _session(record: AgentRecord) -> dict[str, Any]:
    return {
        "id": record.agent_id,
        "channel": CHANNEL,
        "status": "active",
        "model": _told_by(record).model,
        **EMPTY,
        "metadata": {},
        "created_at": record.created_at,
        "updated_at": record.created_at,
    }


def _foreign(session: Session, record: AgentRecord, there: tuple[Any, ...] | None) -> str | None:
    """Return why nothing may be written under this agent's name; None when an import brought what is there."""
    if there is not None and there[1] is not None:
        return "it was deleted in the store"
    if not imported_before(session, record.agent_id):
        return "the store has an agent or a session of this name already, which did not come from here"
    found = session.first(_OPEN_SESSION, {"session_id": record.agent_id})
    if found is None or (there is not None and there[0] != record.agent_id):
        return "its conversation was deleted in the store, or another one was put in its place"
    return None


_NOTHING: Final = InfoRecord(
    template_id=None,
    created_at=None,
    updated_at=None,
    lineage=[],
    config_version=None,
    last_sfp_index=-1,
    last_bookmark=None,
    breakpoint=None,
    model=None,
    metadata={},
)


def _bind(column: Any, name: str | None = None) -> Any:
    return bindparam(name or column.name, type_=column.type)


_AGENTS = Agent.table()
_SESSIONS = Conversation.table()
_MESSAGES = Message.table()
_SESSION_ID = _bind(_SESSIONS.c.id, "session_id")
_IS_AGENT = _AGENTS.c.agent_id == _bind(_AGENTS.c.agent_id)
_AGENT: Statement[Any] = Statement(
    select(_AGENTS.c.session_id, _AGENTS.c.deleted_at, _AGENTS.c.updated_at).where(_IS_AGENT)
)
_OPEN_SESSION: Statement[Any] = Statement(
    select(_SESSIONS.c.id).where(_SESSIONS.c.id == _SESSION_ID, text(f"{_SESSIONS.name}.deleted_at IS NULL"))
)
_FIELDS = (
    "template_id",
    "lineage",
    "config_version",
    "last_sfp_index",
    "last_bookmark",
    "breakpoint",
    "metadata",
)
_CHANGE: Statement[Any] = Statement(
    update(_AGENTS)
    .where(_IS_AGENT, _AGENTS.c.updated_at < _bind(_AGENTS.c.updated_at, "now"))
    .values(
        {name: _bind(_AGENTS.c[name]) for name in _FIELDS}
        | {"version": _AGENTS.c.version + 1, "updated_at": _bind(_AGENTS.c.updated_at, "now")}
    )
)
_NEWEST: Statement[Any] = Statement(
    select(_MESSAGES.c.created_at)
    .where(_MESSAGES.c.session_id == _SESSION_ID, text(f"{_MESSAGES.name}.{CURRENT}"))
    .order_by(_MESSAGES.c.seq.desc())
    .limit(1)
)
_TOUCH: Statement[Any] = Statement(
    update(_SESSIONS).where(_SESSIONS.c.id == _SESSION_ID).values(updated_at=_bind(_SESSIONS.c.updated_at, "moment"))
)
