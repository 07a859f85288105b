"""What is stored: whether it can be found, fits together, and moves on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import func, literal, or_, select, text

from agentos_store.agents.models import Agent
from agentos_store.conversations import message_index
from agentos_store.conversations.message_models import CURRENT, Message
from agentos_store.conversations.models import User
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.clock import from_now, seconds
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.events.models import Event
from agentos_store.governance.inbox import InboxRepository
from agentos_store.governance.models import SupervisorInboxEntry
from agentos_store.housekeeping.models import MaintenanceRun
from agentos_store.knowledge import replacing as knowledge
from agentos_store.memory import items as memory
from agentos_store.operation import Access, Blocking
from agentos_store.operations.consistency import check_consistency
from agentos_store.operations.doctor.kinds import finding
from agentos_store.operations.doctor.patient import Patient
from agentos_store.operations.doctor.report import Finding, some, span
from agentos_store.search.repository import SearchRepository
from agentos_store.tasks.audits import AuditRepository
from agentos_store.tasks.models import LEASED, Task
from agentos_store.tasks.repository import TaskRepository

SOURCES = (memory.SOURCE, knowledge.SOURCE, message_index.SOURCE)

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

LAPSED = 300.0
"""Seconds since a claim lapsed, after which somebody should have noticed."""

INBOX_WAITS, TASKS_WAIT, CALLS_OPEN, APPROVALS_WAIT, RUN_UNFINISHED = HOUR, DAY, HOUR, DAY, HOUR
"""Seconds after which it is worth a word."""

SEARCH_BEHIND = 10_000
"""Messages that a search would index first."""

MOST_AGENTS, MOST_MESSAGES, MOST_WRITES = 1000, 100_000, 200
"""Agents, messages a day, and writes a second, beyond which the sources would move to a server."""


def inbox(patient: Patient) -> Iterator[Finding]:
    """Look whether the supervisor is at work."""
    count, oldest = _count(patient, _INBOX_STUCK, ago=-LAPSED)
    if count:
        yield finding(
            "inbox-stuck", f"{count:,} events in processing, whose claims lapsed since {oldest:%Y-%m-%d %H:%M}"
        )
    backlog = patient.bind(InboxRepository[Blocking]).backlog()
    age = backlog.oldest_pending_age
    if age is not None and age > INBOX_WAITS:
        yield finding(
            "inbox-waiting", f"the oldest of {backlog.by_status.get('pending', 0):,} events waits for {span(age)}"
        )
    if parked := backlog.by_status.get("parked", 0):
        yield finding("inbox-parked", f"{parked:,} parked events")


def tasks(patient: Patient) -> Iterator[Finding]:
    """Look whether workers are at work."""
    count, oldest = _count(patient, _TASKS_STUCK, ago=-LAPSED)
    if count:
        yield finding("tasks-stuck", f"{count:,} running tasks, whose claims lapsed since {oldest:%Y-%m-%d %H:%M}")
    queue = patient.bind(TaskRepository[Blocking]).queue_stats()
    age = queue.oldest_ready_age
    if age is not None and age > TASKS_WAIT:
        yield finding("tasks-waiting", f"the oldest of {queue.ready:,} ready tasks waits for {span(age)}")


def tool_calls(patient: Patient) -> Iterator[Finding]:
    """Look for calls that nobody seems to be at work on."""
    count, _ = _count(patient, _CALLS_OPEN, ago=-CALLS_OPEN)
    if count:
        yield finding("tool-calls-open", f"{count:,} calls for longer than {span(CALLS_OPEN)}")
    count, _ = _count(patient, _APPROVALS, ago=-APPROVALS_WAIT)
    if count:
        yield finding("approvals-waiting", f"{count:,} calls for longer than {span(APPROVALS_WAIT)}")


def quotas(patient: Patient) -> Iterator[Finding]:
    """Look for users beyond their quota."""
    count, _ = _count(patient, _OVER_QUOTA)
    if count:
        yield finding("quotas-exceeded", f"{count:,} users")


def runs(patient: Patient) -> Iterator[Finding]:
    """Look for upkeep that was killed."""
    rows = patient.read(lambda session: session.all(_UNFINISHED, {"ago": -RUN_UNFINISHED}))
    if rows:
        yield finding("run-unfinished", some([f"{count:,} of {kind}" for kind, count in rows]))


def search(patient: Patient) -> Iterator[Finding]:
    """Look whether what can be searched for is indexed."""
    behind = patient.read(lambda session: message_index.count_waiting(session, None))
    if behind > SEARCH_BEHIND:
        yield finding("search-behind", f"about {behind:,} messages are not indexed yet")
    if not patient.deep:
        overdue = patient.read(
            lambda session: [(each.kind, each.count_overdue(session)) for each in SOURCES if not each.lags]
        )
        missing = [f"{count:,} of kind {kind}" for kind, count in overdue if count]
        if missing:
            yield finding("search-incomplete", f"not indexed: {some(missing)}")
        return
    found = SearchRepository[Blocking](patient.runner, sources=SOURCES).check()
    wrong = [f"{each.overdue + each.stale:,} of kind {kind}" for kind, each in found.items() if not each.ok]
    if wrong:
        yield finding("search-incomplete", f"missing or changed: {some(wrong)}")
    orphans = [f"{each.orphaned:,} of kind {kind}" for kind, each in found.items() if each.orphaned]
    if orphans:
        yield finding("search-orphans", some(orphans))


def full_text(patient: Patient) -> Iterator[Finding]:
    """Let the full-text table be checked against the documents, in the queue of writers."""
    if not patient.deep or not patient.backend.capabilities.full_text_table:
        return
    probe = SearchRepository.probe
    repository = SearchRepository[Blocking](patient.runner, sources=SOURCES)
    if not patient.backend.run(Access.WRITE, "doctor", lambda session: probe(repository, session), repeatable=True):
        yield finding("search-damaged", "the full-text table fails its own check")


def consistency(patient: Patient) -> Iterator[Finding]:
    """Look what does not fit together."""
    if patient.deep:
        report = check_consistency(patient.backend)
        if not report.ok:
            yield finding(
                "consistency", some([f"{count:,} of {kind}" for kind, count in sorted(report.counts.items())])
            )


def audits(patient: Patient) -> Iterator[Finding]:
    """Look whether the audit chains are whole."""
    if patient.deep:
        found = patient.bind(AuditRepository[Blocking]).verify()
        if not found.ok:
            yield finding("audit-chains", f"{len(found.faults):,} of {found.chains:,} chains are not whole")


def use(patient: Patient) -> Iterator[Finding]:
    """Look what calls of the open store had to wait for."""
    if not patient.in_use:
        return
    figures = patient.backend.meter.figures()
    if figures.slow:
        yield finding("slow-operations", f"{figures.slow:,} of {figures.overall.count:,} calls")
    if figures.lock_waits:
        yield finding("write-waits", f"{figures.lock_waits:,} of {figures.overall.count:,} calls")


def growth(patient: Patient) -> Iterator[Finding]:
    """Look whether one file is still enough: only asked of SQLite."""
    agents, messages, written = patient.read(_grown)
    facts = [
        (agents > MOST_AGENTS, f"{agents:,} agents"),
        (messages > MOST_MESSAGES, f"{messages:,} messages within a day"),
        (
            written > MOST_WRITES * MINUTE,
            f"{written / MINUTE:,.0f} messages and events a second within the last minute",
        ),
    ]
    grown = [fact for beyond, fact in facts if beyond]
    if grown:
        yield finding("outgrown", some(grown))


CHECKS = (inbox, tasks, tool_calls, quotas, runs, search, full_text, consistency, audits, use)


def _count(patient: Patient, statement: Statement[Any], **values: object) -> tuple[int, Any]:
    found = patient.read(lambda session: session.first(statement, values))
    assert found is not None
    return found[0], found[1]


def _grown(session: Session) -> tuple[int, int, int]:
    ((agents,),) = session.all(_AGENTS)
    ((messages,),) = session.all(_MESSAGES, {"ago": -DAY})
    ((late_messages,),) = session.all(_MESSAGES, {"ago": -MINUTE})
    ((events,),) = session.all(_EVENTS, {"ago": -MINUTE})
    return agents, messages, late_messages + events


def _older(column: Any) -> Any:
    return column < from_now(seconds("ago"))


def _counted(table: Any, when: Any, *conditions: Any) -> Statement[Any]:
    oldest = func.min(when, type_=when.type)
    return Statement(select(func.count(), oldest).select_from(table).where(*conditions))


_INBOX = SupervisorInboxEntry.table()
_TASKS = Task.table()
_CALLS = ToolCallRecord.table()
_USERS = User.table()
_RUNS = MaintenanceRun.table()
_AT_WORK = or_(*(_CALLS.c.state == literal(state) for state in ("pending", "approved", "executing")))
_INBOX_STUCK = _counted(
    _INBOX, _INBOX.c.lease_until, text("supervisor_inbox.lease_until IS NOT NULL"), _older(_INBOX.c.lease_until)
)
_TASKS_STUCK = _counted(_TASKS, _TASKS.c.lease_until, text(f"tasks.{LEASED}"), _older(_TASKS.c.lease_until))
_CALLS_OPEN = _counted(_CALLS, _CALLS.c.created_at, _AT_WORK, _older(_CALLS.c.created_at))
_APPROVALS = _counted(
    _CALLS, _CALLS.c.created_at, _CALLS.c.state == literal("approval_required"), _older(_CALLS.c.created_at)
)
_OVER_QUOTA = _counted(_USERS, _USERS.c.created_at, _USERS.c.quota_used > _USERS.c.quota_total)
_LATER = _RUNS.alias("later")
_UNFINISHED: Statement[Any] = Statement(
    select(_RUNS.c.kind, func.count())
    .where(
        _RUNS.c.finished_at.is_(None),
        _older(_RUNS.c.started_at),
        ~select(_LATER.c.id)
        .where(
            _LATER.c.kind == _RUNS.c.kind, _LATER.c.started_at > _RUNS.c.started_at, _LATER.c.finished_at.is_not(None)
        )
        .exists(),
    )
    .group_by(_RUNS.c.kind)
    .order_by(_RUNS.c.kind)
)
_AGENTS: Statement[Any] = Statement(select(func.count()).select_from(Agent.table()))
_MESSAGES: Statement[Any] = Statement(
    select(func.count())
    .select_from(Message.table())
    .where(text(f"messages.{CURRENT}"), Message.table().c.created_at >= from_now(seconds("ago")))
)
_EVENTS: Statement[Any] = Statement(
    select(func.count()).select_from(Event.table()).where(Event.table().c.created_at >= from_now(seconds("ago")))
)
