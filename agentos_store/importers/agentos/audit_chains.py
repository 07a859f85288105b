"""Writing audits: each to the end of its task's chain, and once, which the ledger tells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import literal

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, insert_into
from agentos_store.engine.violations import IntegrityViolation
from agentos_store.errors import AlreadyExistsError, ConflictError, InvalidValueError
from agentos_store.housekeeping.models import ImportLedgerEntry
from agentos_store.importers.agentos.records import AuditRecord
from agentos_store.importers.report import Note
from agentos_store.importers.writing import Outcome, asking, stored
from agentos_store.tasks.models import Task
from agentos_store.tasks.trail import AUDITS, Entry, append_many
from agentos_store.types import Gate

SOURCE = "agentos"


def write_audits(session: Session, records: Sequence[AuditRecord]) -> Outcome:
    """Append audits to their tasks' chains, in their order, but for those that the ledger has."""
    outcome = Outcome()
    tasks = stored(session, TASKS_THERE, [record.task_id for record in records])
    ledger = stored(session, _LEDGER, [_ledger_key(record) for record in records])
    decided = stored(session, _DECISIONS, [record.decision_id for record in records])
    fresh: dict[str, list[tuple[AuditRecord, Entry]]] = {}
    for position, record in enumerate(records):
        why: str | None = None
        try:
            entry = _entry(record)
        except InvalidValueError as error:
            why = str(error)
        else:
            known = ledger.get(_ledger_key(record))
            if known is not None:
                if known.rpartition(" ")[2] != entry.digest():
                    why = "another entry came in under this number; the store keeps that one"
            elif record.task_id not in tasks:
                why = "its task was set aside"
            elif record.decision_id in decided:
                why = "the store has an audit of this decision already; the store keeps that one"
            else:
                fresh.setdefault(record.task_id, []).append((record, entry))
        if why is not None:
            outcome.refused[position] = Note("task_audits", str(record.source_id), why)
    try:
        outcome.imported = _append(session, list(fresh.values()))
    except (AlreadyExistsError, IntegrityViolation):
        # Both looked before either had written; of the later one's batch nothing is stored.
        why = "somebody else writes the same audits, another import perhaps; run this one again afterwards"
        raise ConflictError("import", SOURCE, why) from None
    return outcome


def _append(session: Session, chains: Sequence[Sequence[tuple[AuditRecord, Entry]]]) -> int:
    """Add the entries of each task to its chain, enter them into the ledger, and return how many there were."""
    time = session.now()
    came_in: list[dict[str, Any]] = []
    for pairs in chains:
        added = append_many(session, [entry for _, entry in pairs])
        came_in += (
            {
                "source": SOURCE,
                "kind": "audit",
                "source_key": _ledger_key(record),
                "our_key": f"{audit.audit_id} {entry.digest()}",
                "imported_at": time,
            }
            for (record, entry), audit in zip(pairs, added, strict=True)
        )
    session.execute_many(_ENTER, came_in)
    return len(came_in)


def _entry(record: AuditRecord) -> Entry:
    """Make the entry; InvalidValueError for what the trail would refuse, while nothing of the chain is written yet."""
    entry = Entry(
        task_id=record.task_id,
        event_type=record.event_type,
        created_at=record.created_at,
        level=record.level,
        payload=record.payload,
        repo_id=record.repo_id,
        decision_id=record.decision_id,
        source_event_ts=record.source_event_ts,
        supervisor_processed_at=record.supervisor_processed_at,
        verdict_id=record.verdict_id,
    )
    for name, value in entry.values().items():
        gate = AUDITS.c[name].type
        assert isinstance(gate, Gate)
        if value is not None:
            gate.check(value, name)
    return entry


def _ledger_key(record: AuditRecord) -> str:
    # A number alone would be another audit's in another registry; a task belongs to one.
    return f"{record.task_id}/{record.source_id}"


_TASKS = Task.table()
_ENTRIES = ImportLedgerEntry.table()
TASKS_THERE = asking(_TASKS.c.task_id, _TASKS.c.task_id)
_DECISIONS = asking(AUDITS.c.decision_id, AUDITS.c.audit_id)
_LEDGER = asking(
    _ENTRIES.c.source_key,
    _ENTRIES.c.our_key,
    _ENTRIES.c.source == literal(SOURCE, _ENTRIES.c.source.type),
    _ENTRIES.c.kind == literal("audit", _ENTRIES.c.kind.type),
)
_ENTER: Statement[Any] = Statement(insert_into(ImportLedgerEntry))
