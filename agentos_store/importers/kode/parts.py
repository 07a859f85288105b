"""Writing what belongs to an agent beside its messages: snapshots, tool calls, documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Table, bindparam, literal, select, update
from sqlalchemy.dialects import postgresql

from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.conversations.tool_call_states import ENDED
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidValueError
from agentos_store.importers.kode.conversation import Told, Writer, derived_id
from agentos_store.importers.kode.records import AgentRecord, CallRecord, SnapshotRecord
from agentos_store.importers.kode.survey import CALLS, DOCUMENTS, SNAPSHOTS
from agentos_store.importers.kode.written import Written
from agentos_store.importers.report import Note
from agentos_store.importers.times import EARLIEST
from agentos_store.importers.writing import NewRow, Outcome, add_rows, whole_row
from agentos_store.models import AgentDocument, Snapshot


def new_snapshots(session: Session, record: AgentRecord) -> list[SnapshotRecord]:
    """Return the snapshots that the store does not have, or has an older one of; the oldest first."""
    taken = dict(session.all(_SNAPSHOTS, {"agent_id": record.agent_id}))
    # KODE writes a snapshot of the same name over the one before.
    return [each for each in record.snapshots if taken.get(each.snapshot_id, EARLIEST) < each.created_at]


def write_snapshots(
    session: Session, record: AgentRecord, new: Sequence[SnapshotRecord], told: Told, written: Written
) -> None:
    """Write snapshots, each with its place in the conversation."""
    if not record.snapshots:
        return
    outcome = Outcome()
    for position, snapshot in enumerate(new):
        place = told.places.get(snapshot.snapshot_id)
        if place is None:
            why = "what it holds is not in the conversation, which cannot be read, or went on in the store"
            outcome.refused[position] = Note(SNAPSHOTS, snapshot.file, why)
            continue
        row = {
            "agent_id": record.agent_id,
            "snapshot_id": snapshot.snapshot_id,
            "session_id": record.agent_id,
            "generation": place.generation,
            "up_to_seq": place.up_to_seq,
            "last_sfp_index": snapshot.last_sfp_index,
            "last_bookmark": snapshot.last_bookmark,
            "metadata": snapshot.metadata,
            "created_at": snapshot.created_at,
        }
        try:
            outcome.imported += session.execute(_WRITE_SNAPSHOT, whole_row(Snapshot, row))
        except InvalidValueError as error:
            outcome.refused[position] = Note(SNAPSHOTS, snapshot.file, str(error))
    written.add(SNAPSHOTS, outcome, len(record.snapshots))


def write_calls(session: Session, record: AgentRecord, conversation: Writer, written: Written) -> None:
    """Write calls; one that the store has goes on where the source is further and the store has not ended it."""
    calls = record.calls or []
    if not calls:
        return
    there = {key for (key,) in session.all(_CALLS, {"agent_id": record.agent_id})}
    # Asked for only where a call is new.
    ids = conversation.ids() if any(each.tool_call_id not in there for each in calls) else {}
    outcome = Outcome()
    new: dict[int, NewRow] = {}
    old: dict[int, dict[str, Any]] = {}
    where = f"{record.agent_id}/runtime/tool-calls"
    for position, call in enumerate(calls):
        values = _call(record, call, ids)
        if call.tool_call_id in there:
            old[position] = values
        else:
            new[position] = NewRow(CALLS, f"{where} {call.tool_call_id}", values)
    add_rows(session, ToolCallRecord, new, outcome)
    for position, values in old.items():
        try:
            outcome.imported += session.execute(_ADVANCE, values)
        except InvalidValueError as error:
            outcome.refused[position] = Note(CALLS, f"{where} {calls[position].tool_call_id}", str(error))
    written.add(CALLS, outcome, len(calls))


def write_documents(session: Session, record: AgentRecord, kind: str, written: Written) -> None:
    """Write the documents of one kind; one that the store has is replaced where the source's was written later."""
    called = DOCUMENTS[kind]
    documents = [each for each in record.documents if each.kind == kind]
    if not documents:
        return
    outcome = Outcome()
    for position, document in enumerate(documents):
        row = {
            "agent_id": record.agent_id,
            "kind": document.kind,
            "key": document.key,
            "content": document.content,
            "version": 1,
            "metadata": {},
            "created_at": document.written_at,
            "updated_at": document.written_at,
        }
        try:
            outcome.imported += session.execute(_WRITE_DOCUMENT, whole_row(AgentDocument, row))
        except InvalidValueError as error:
            outcome.refused[position] = Note(called, document.file, str(error))
    written.add(called, outcome, len(documents))


def _call(record: AgentRecord, call: CallRecord, ids: Mapping[int, str]) -> dict[str, Any]:
    return {
        "id": derived_id(record.agent_id, "call", call.tool_call_id),
        "agent_id": record.agent_id,
        "session_id": record.agent_id,
        "tool_call_id": call.tool_call_id,
        "ordinal": call.ordinal,
        "message_id": None if call.message is None else ids.get(call.message),
        "tool_name": call.tool_name,
        "state": call.state,
        "input": call.input,
        "output": call.output,
        "has_output": call.has_output,
        "is_error": call.is_error,
        "error_message": call.error_message,
        "approval": call.approval,
        "audit_trail": call.audit_trail,
        "duration_ms": call.duration_ms,
        "started_at": call.started_at,
        "completed_at": call.completed_at,
        "created_at": call.created_at,
        "updated_at": call.updated_at,
    }


def _bind(column: Any) -> Any:
    return bindparam(column.name, type_=column.type)


_CALL = ToolCallRecord.table()
_SNAPSHOT = Snapshot.table()
_DOCUMENTS = AgentDocument.table()
_SNAPSHOTS: Statement[Any] = Statement(
    select(_SNAPSHOT.c.snapshot_id, _SNAPSHOT.c.created_at).where(_SNAPSHOT.c.agent_id == _bind(_SNAPSHOT.c.agent_id))
)
_CALLS: Statement[Any] = Statement(select(_CALL.c.tool_call_id).where(_CALL.c.agent_id == _bind(_CALL.c.agent_id)))
_ADVANCED = (
    "state",
    "output",
    "has_output",
    "is_error",
    "error_message",
    "approval",
    "audit_trail",
    "duration_ms",
    "started_at",
    "completed_at",
    "updated_at",
)
_ADVANCE: Statement[Any] = Statement(
    update(_CALL)
    .where(
        _CALL.c.agent_id == _bind(_CALL.c.agent_id),
        _CALL.c.tool_call_id == _bind(_CALL.c.tool_call_id),
        _CALL.c.updated_at < _bind(_CALL.c.updated_at),
        _CALL.c.state.not_in([literal(state, _CALL.c.state.type) for state in ENDED]),
    )
    .values({name: _bind(_CALL.c[name]) for name in _ADVANCED})
)


def _later_wins(table: Table, changed: Mapping[str, Any], time: str) -> Statement[Any]:
    """Return the INSERT of a row that is put in the place of an older one with the same key."""
    statement = postgresql.insert(table).values({column.name: _bind(column) for column in table.c})
    new = statement.excluded
    return Statement(
        statement.on_conflict_do_update(
            index_elements=list(table.primary_key),
            set_={name: new[name] for name in (*changed, time)} | {k: v for k, v in changed.items() if v is not None},
            where=table.c[time] < new[time],
        )
    )


_WRITE_SNAPSHOT = _later_wins(
    _SNAPSHOT,
    dict.fromkeys(("session_id", "generation", "up_to_seq", "last_sfp_index", "last_bookmark", "metadata")),
    "created_at",
)
_WRITE_DOCUMENT = _later_wins(_DOCUMENTS, {"content": None, "version": _DOCUMENTS.c.version + 1}, "updated_at")
