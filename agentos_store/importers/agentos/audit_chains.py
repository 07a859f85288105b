"""Writing audits: each to the end of its task's chain, and once, which the ledger tells."""

from __future__ import annotations

from collections.abc import Sequence

from agentos_store.engine.session import Session
from agentos_store.engine.violations import IntegrityViolation
from agentos_store.errors import AlreadyExistsError, ConflictError, InvalidValueError
from agentos_store.importers.agentos.ledger import SOURCE, enter, entered
from agentos_store.importers.agentos.records import AuditRecord
from agentos_store.importers.report import Note
from agentos_store.importers.writing import Outcome, asking, stored
from agentos_store.tasks.models import Task
from agentos_store.tasks.trail import AUDITS, Entry, append_many
from agentos_store.types import Gate

KIND = "audit"


def write_audits(session: Session, records: Sequence[AuditRecord]) -> Outcome:
    """Append audits to their tasks' chains, in their order, but for those that the ledger has."""
    outcome = Outcome()
    tasks = stored(session, TASKS_THERE, [record.task_id for record in records])
    known = entered(session, KIND, [_ledger_key(record) for record in records])
    decided = stored(session, _DECISIONS, [record.decision_id for record in records])
    fresh: dict[str, list[tuple[AuditRecord, Entry]]] = {}
    for position, record in enumerate(records):
        why: str | None = None
        try:
            entry = _entry(record)
        except InvalidValueError as error:
            why = str(error)
        else:
            there = known.get(_ledger_key(record))
            if there is not None:
                if there[1] != entry.digest():
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
    became: dict[str, tuple[str, str]] = {}
    for pairs in chains:
        added = append_many(session, [entry for _, entry in pairs])
        for (record, entry), audit in zip(pairs, added, strict=True):
            became[_ledger_key(record)] = str(audit.audit_id), entry.digest()
    enter(session, KIND, became)
    return len(became)


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
TASKS_THERE = asking(_TASKS.c.task_id, _TASKS.c.task_id)
_DECISIONS = asking(AUDITS.c.decision_id, AUDITS.c.audit_id)
