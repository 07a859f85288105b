"""The writing half of the import: each method writes one batch of rows, in one transaction, and may be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import bindparam, exists, literal, select, text, update
from sqlalchemy.dialects import postgresql

from agentos_store.conversations.context_models import Context
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.recordset import recordset
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.events.repository import EventRepository
from agentos_store.housekeeping.models import ImportLedgerEntry
from agentos_store.importers.aios.records import (
    AgentRecord,
    ContextRecord,
    EventRecord,
    SessionRecord,
    TaskRecord,
)
from agentos_store.importers.aios.references import ORIGIN_KEY
from agentos_store.importers.conversations import EMPTY, SESSIONS_THERE
from agentos_store.importers.report import Note
from agentos_store.importers.row import add_origin
from agentos_store.importers.writing import Importing, NewRow, Outcome, add_rows, asking, stored, unless_taken
from agentos_store.models import Agent
from agentos_store.operation import F, repeatable, writes
from agentos_store.tasks.models import Task

CHANNEL: Final = "aios"
SOURCE: Final = "aios"
LINE: Final = "line"
"""In the ledger: a line of a log, which has no key of its own."""
MAX_ATTEMPTS: Final = 3
"""As for a task that is made here; AIOS does not count them."""


class Loader(Importing[F]):
    """The writing half of the import; every method may be repeated."""

    @writes
    @repeatable
    def agents(self, session: Session, records: Sequence[AgentRecord]) -> Outcome:
        """Write agents, without their last tasks, which are not there yet."""
        outcome = Outcome()
        rows = {
            position: NewRow(
                "agent_states",
                record.agent_id,
                {
                    "agent_id": record.agent_id,
                    "role": record.role,
                    "goal": record.goal,
                    "backstory": record.backstory,
                    "state": record.state,
                    "lineage": [],
                    "last_sfp_index": -1,
                    "stats": record.stats,
                    "metadata": record.metadata or {},
                    "version": 1,
                    "created_at": record.created_at,
                    "updated_at": record.updated_at,
                },
            )
            for position, record in enumerate(records)
        }
        add_rows(session, Agent, rows, outcome)
        return outcome

    @writes
    @repeatable
    def tasks(self, session: Session, records: Sequence[TaskRecord]) -> Outcome:
        """Write tasks; one whose agent is not there comes in without it."""
        outcome = Outcome()
        agents = stored(session, _AGENTS_THERE, [record.agent_id for record in records])
        rows: dict[int, NewRow] = {}
        for position, record in enumerate(records):
            agent_id, metadata = record.agent_id, record.metadata or {}
            if agent_id is not None and agent_id not in agents:
                why = "agent_id: there is no such agent; its id is in the metadata"
                outcome.change(position, Note("task_history", record.task_id, why))
                metadata, agent_id = add_origin(metadata, ORIGIN_KEY, {"agent_id": agent_id}), None
            rows[position] = NewRow(
                "task_history",
                record.task_id,
                {
                    "task_id": record.task_id,
                    "title": record.title,
                    "status": record.status,
                    "task_type": record.task_type,
                    "priority": record.priority,
                    "result": record.result,
                    "error_message": record.error_message,
                    "exit_reason": record.exit_reason,
                    "agent_id": agent_id,
                    "attempts": record.attempts,
                    "max_attempts": MAX_ATTEMPTS,
                    "lease_token": 0,
                    "version": 1,
                    "metadata": metadata,
                    "started_at": record.started_at,
                    "completed_at": record.completed_at,
                    "duration": record.duration,
                    "created_at": record.created_at,
                    "updated_at": record.updated_at,
                },
            )
        add_rows(session, Task, rows, outcome)
        return outcome

    @writes
    @repeatable
    def last_tasks(self, session: Session, records: Sequence[AgentRecord]) -> Outcome:
        """Link agents to their last tasks, as long as they are as the import left them.

        Tasks that are not there are told as changes, whatever became of the agent since.
        """
        outcome = Outcome()
        tasks = stored(session, _TASKS_THERE, [record.last_task_id for record in records])
        links: list[dict[str, Any]] = []
        for position, record in enumerate(records):
            if record.last_task_id is None:
                continue
            if record.last_task_id in tasks:
                links.append(
                    {
                        "agent_id": record.agent_id,
                        "last_task_id": record.last_task_id,
                        "updated_at": record.updated_at,
                    }
                )
            else:
                why = f"last_task_id: there is no such task, so it is left out: {record.last_task_id!r}"
                outcome.change(position, Note("agent_states", record.agent_id, why))
        outcome.imported = session.execute_many(_LINK, links)
        return outcome

    @writes
    @repeatable
    def sessions(self, session: Session, records: Sequence[SessionRecord]) -> Outcome:
        """Write sessions, of which AIOS tells no more than their names."""
        outcome = Outcome()
        rows = {
            position: NewRow(
                "contexts",
                record.id,
                {
                    "id": record.id,
                    "channel": CHANNEL,
                    "status": "active",
                    **EMPTY,
                    "metadata": {},
                    "created_at": record.created_at,
                    "updated_at": record.created_at,
                },
            )
            for position, record in enumerate(records)
        }
        add_rows(session, Conversation, rows, outcome)
        return outcome

    @writes
    @repeatable
    def contexts(self, session: Session, records: Sequence[ContextRecord]) -> Outcome:
        """Write contexts; one whose agent or session is not there comes in without it."""
        outcome = Outcome()
        agents = stored(session, _AGENTS_THERE, [record.agent_id for record in records])
        sessions = stored(session, SESSIONS_THERE, [record.session_id for record in records])
        rows: dict[int, NewRow] = {}
        for position, record in enumerate(records):
            agent_id, session_id = record.agent_id, record.session_id
            if agent_id is not None and agent_id not in agents:
                why = f"agent_id: there is no such agent, so it is left out: {agent_id!r}"
                outcome.change(position, Note("contexts", record.context_id, why))
                agent_id = None
            if session_id is not None and session_id not in sessions:
                why = f"session_id: there is no such session, so it is left out: {session_id!r}"
                outcome.change(position, Note("contexts", record.context_id, why))
                session_id = None
            rows[position] = NewRow(
                "contexts",
                record.context_id,
                {
                    "context_id": record.context_id,
                    "agent_id": agent_id,
                    "session_id": session_id,
                    "context_data": record.context_data,
                    "created_at": record.created_at,
                    "expires_at": record.expires_at,
                },
            )
        add_rows(session, Context, rows, outcome)
        return outcome

    @writes
    @repeatable
    def events(self, session: Session, records: Sequence[EventRecord]) -> Outcome:
        """Write events; a value that the store refuses is raised, and nothing stored then."""
        outcome = Outcome()
        outcome.imported = EventRepository.log_many(self, session, [_event(record) for record in records])
        return outcome

    @writes
    @repeatable
    def lines(self, session: Session, records: Sequence[EventRecord]) -> Outcome:
        """Write events of a log, those that the ledger does not know: what was removed here since stays removed.

        A value that the store refuses is raised, and nothing stored then.
        """
        outcome = Outcome()
        time = session.now()
        entries = [
            {"source": SOURCE, "kind": LINE, "source_key": record.event_id, "our_key": record.event_id}
            | {"imported_at": time}
            for record in records
        ]
        if session.capabilities.data_modifying_cte:
            unknown = {key for (key,) in session.all(_REMEMBER_LINES, {"lines": entries})}
            new = [record for record in records if record.event_id in unknown]
        else:
            known = stored(session, _LINES_KNOWN, [record.event_id for record in records])
            new = [record for record in records if record.event_id not in known]
            session.execute_many(unless_taken(ImportLedgerEntry), entries)
        outcome.imported = EventRepository.log_many(self, session, [_event(record) for record in new])
        return outcome


def _event(record: EventRecord) -> dict[str, Any]:
    return {
        "event_id": record.event_id,
        "event_type": record.event_type,
        "agent_id": record.agent_id,
        "task_id": record.task_id,
        "severity": record.severity,
        "data": record.data,
        "created_at": record.created_at,
    }


_AGENTS = Agent.table()
_ENTRIES = ImportLedgerEntry.table()
_TASKS = Task.table()
_AGENTS_THERE = asking(_AGENTS.c.agent_id, _AGENTS.c.agent_id)
_TASKS_THERE = asking(_TASKS.c.task_id, _TASKS.c.task_id)
_LINES_KNOWN = asking(
    _ENTRIES.c.source_key,
    _ENTRIES.c.our_key,
    _ENTRIES.c.source == literal(SOURCE, _ENTRIES.c.source.type),
    _ENTRIES.c.kind == literal(LINE, _ENTRIES.c.kind.type),
)


def _bind(column: Any) -> Any:
    return bindparam(column.name, type_=column.type)


def _remember_lines() -> Statement[Any]:
    lines, columns = recordset("lines", list(_ENTRIES.c))
    insertion = postgresql.insert(_ENTRIES).from_select([*columns], select(*columns.values()).select_from(lines))
    return Statement(insertion.on_conflict_do_nothing().returning(_ENTRIES.c.source_key))


_REMEMBER_LINES = _remember_lines()
"""Notes lines, and returns those that were not known."""
_LINK: Statement[Any] = Statement(
    update(_AGENTS)
    .where(
        _AGENTS.c.agent_id == _bind(_AGENTS.c.agent_id),
        # Every change that is made here counts the version up; an agent that no import brought has another time.
        _AGENTS.c.version == literal(1, _AGENTS.c.version.type),
        _AGENTS.c.updated_at == _bind(_AGENTS.c.updated_at),
        text(f"{_AGENTS.name}.last_task_id IS NULL"),
        exists(select(_TASKS.c.task_id).where(_TASKS.c.task_id == _bind(_AGENTS.c.last_task_id))),
    )
    .values(last_task_id=_bind(_AGENTS.c.last_task_id))
)
