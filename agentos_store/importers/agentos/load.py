"""Bringing a registry into a store: in batches, each one transaction, so that a run that is killed can be repeated.

Rows with a key of their own are passed over when the store has them. Audits have none that survives, so the ledger
remembers which of them came in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import bindparam, select, update
from sqlalchemy.dialects import postgresql

from agentos_store.base import Base
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, numbered_by_database
from agentos_store.errors import ConflictError
from agentos_store.housekeeping.models import ImportLedgerEntry, MaintenanceRun
from agentos_store.importers.agentos.records import (
    AuditRecord,
    LineageRecord,
    ProjectRecord,
    RepoRecord,
    SessionRecord,
    TaskRecord,
)
from agentos_store.importers.agentos.registry import Registry, open_registry
from agentos_store.importers.agentos.report import Problem
from agentos_store.importers.report import ImportReport, Note, Progress
from agentos_store.operation import Blocking, F, Repository, repeatable, writes
from agentos_store.projects.models import Project, ProjectRepo
from agentos_store.store import Store
from agentos_store.tasks.models import Task, TaskLineage
from agentos_store.tasks.states import ENDED
from agentos_store.tasks.trail import AUDITS, Entry, append_many

BATCH = 200
"""Rows of one transaction: few enough that other writers hardly notice."""

SOURCE = "agentos"

T = TypeVar("T")


def import_registry(
    store: Store,
    path: str | os.PathLike[str],
    *,
    keep_status: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import projects, repositories, sessions, tasks, lineage and audits of an AgentOS registry.

    The file is only read. Each row arrives, repaired where it has to be, or is set aside with its reason. What the
    store has already stays as it is there, so a second run changes nothing, and a run that was killed is repeated.
    With ``keep_status`` tasks that waited or ran arrive pending and running, else paused, so that no worker picks up
    old work by surprise. Raises what ``open_registry`` raises.
    """
    with open_registry(path) as registry:
        report = ImportReport(str(path), registry.shape.value, registry.version)
        loader = store.bind(Loader[Blocking])
        for problem in registry.problems:
            report.aside(Note(problem.table, problem.key, problem.reason))
        run = _Run(registry, report, progress)
        run.load("projects", registry.projects(), loader.projects)
        run.load("repositories", registry.repos(), loader.repos)
        for batch in _batches(item for item in registry.projects() if isinstance(item, ProjectRecord)):
            loader.default_repos(batch)
        run.load("sessions", registry.sessions(), loader.sessions)
        run.load("tasks", registry.tasks(keep_status=keep_status), loader.tasks)
        run.load("lineage", registry.lineage(), loader.lineage)
        run.load("audits", registry.audits(), loader.audits)
        left = registry.not_yet()
        report.not_yet, report.no_place = left.later, left.no_place
        if registry.changed:
            raise ConflictError("registry", str(path), "it was written to during the import; run the import again")
        if report.imported:
            loader.remember({kind: counts.imported for kind, counts in report.counts.items()})
    return report


class _Run:
    """One import under way."""

    def __init__(self, registry: Registry, report: ImportReport, progress: Progress | None) -> None:
        self._registry = registry
        self._report = report
        self._progress = progress

    def load(self, kind: str, items: Iterator[T | Problem], write: Callable[[Sequence[T]], Outcome]) -> None:
        """Write the records in batches and count what became of every row."""
        counts = self._report.of(kind)
        total = self._registry.total(kind)
        for batch in _batches(items):
            records: list[T] = []
            for item in batch:
                counts.read += 1
                if isinstance(item, Problem):
                    counts.set_aside += 1
                    self._report.aside(Note(item.table, item.key, item.reason))
                else:
                    records.append(item)
            outcome = write(records)
            counts.imported += outcome.imported
            counts.repeated += len(records) - outcome.imported - len(outcome.refused)
            counts.set_aside += len(outcome.refused)
            for note in outcome.refused:
                self._report.aside(note)
            for record in records:
                repairs = getattr(record, "repairs", ())
                counts.repaired += bool(repairs)
                for repair in repairs:
                    self._report.repair(Note(repair.table, repair.key, repair.what))
            for note in outcome.changed:
                counts.repaired += 1
                self._report.repair(note)
            if self._progress is not None:
                self._progress(kind, counts.read, max(total, counts.read))


class Outcome:
    """What became of one batch."""

    __slots__ = ("changed", "imported", "refused")

    def __init__(self) -> None:
        self.imported = 0
        self.changed: list[Note] = []
        """Rows that had to be changed to fit beside what the store has."""
        self.refused: list[Note] = []


class Loader(Repository[F]):
    """The writing half of the import; every method may be repeated."""

    name = "import"

    @writes
    @repeatable
    def projects(self, session: Session, records: Sequence[ProjectRecord]) -> Outcome:
        """Write projects, without their default repositories, which come later."""
        outcome = Outcome()
        for record in records:
            row = {
                "id": record.id,
                "name": record.name,
                "path": record.path,
                "description": record.description,
                "status": record.status,
                "tags": record.tags,
                "default_workdir": record.default_workdir,
                "settings": record.settings,
                "added_at": record.added_at,
                "created_by": record.created_by,
                "created_at": record.created_at,
                "updated_at": record.updated_at,
            }
            if _add(session, Project, row):
                outcome.imported += 1
            elif session.first(_PROJECT, {"id": record.id}) is None:
                # Not this project stands in the way but another one of the same name.
                row["name"] = f"{record.name} ({record.id})"
                outcome.imported += _add(session, Project, row)
                outcome.changed.append(Note("projects", record.id, "another project has its name; it is renamed"))
        return outcome

    @writes
    @repeatable
    def repos(self, session: Session, records: Sequence[RepoRecord]) -> Outcome:
        """Write repositories."""
        outcome = Outcome()
        for record in records:
            row = {
                "project_id": record.project_id,
                "repo_id": record.repo_id,
                "repo_path": record.repo_path,
                "name": record.name,
                "remote_url": record.remote_url,
                "default_branch": record.default_branch,
                "role": record.role,
                "is_writable": record.is_writable,
                "metadata": record.metadata or {},
                "added_at": record.added_at,
                "updated_at": record.updated_at,
            }
            outcome.imported += _add(session, ProjectRepo, row)
        return outcome

    @writes
    @repeatable
    def default_repos(self, session: Session, records: Sequence[ProjectRecord]) -> None:
        """Name the default repositories of projects that nobody has changed since they came in."""
        for record in records:
            if record.default_repo_id is not None:
                binds = {"id": record.id, "repo": record.default_repo_id, "imported": record.updated_at}
                session.execute(_SET_DEFAULT_REPO, binds)

    @writes
    @repeatable
    def sessions(self, session: Session, records: Sequence[SessionRecord]) -> Outcome:
        """Write sessions. AgentOS has no users, only words for them, so the word goes into the metadata."""
        outcome = Outcome()
        for record in records:
            metadata: dict[str, Any] = dict(record.metadata or {})
            if record.user_id is not None:
                metadata.setdefault("agentos_user", record.user_id)
            row = {
                "id": record.id,
                "channel": record.channel,
                "title": record.title,
                "status": "active",
                "message_count": 0,
                "next_seq": 0,
                "generation": 0,
                "total_tokens": 0,
                "total_cost": Decimal(0),
                "metadata": metadata,
                "created_at": record.created_at,
                "updated_at": record.updated_at,
            }
            outcome.imported += _add(session, Conversation, row)
        return outcome

    @writes
    @repeatable
    def tasks(self, session: Session, records: Sequence[TaskRecord]) -> Outcome:
        """Write tasks."""
        outcome = Outcome()
        for record in records:
            row = {
                "task_id": record.task_id,
                "title": record.title,
                "status": record.status,
                "task_type": "",
                "priority": 0,
                "exit_reason": record.exit_reason,
                "session_id": record.session_id,
                "project_id": record.project_id,
                "route_plan_json": record.route_plan_json,
                "requirements_json": record.requirements_json,
                "selected_instance_id": record.selected_instance_id,
                "router_version": record.router_version,
                "attempts": 0,
                "max_attempts": 3,
                "lease_token": 0,
                "version": 1,
                "created_by": record.created_by,
                "metadata": record.metadata or {},
                "completed_at": record.updated_at if record.status in ENDED else None,
                "created_at": record.created_at,
                "updated_at": record.updated_at,
            }
            outcome.imported += _add(session, Task, row)
        return outcome

    @writes
    @repeatable
    def lineage(self, session: Session, records: Sequence[LineageRecord]) -> Outcome:
        """Write links."""
        outcome = Outcome()
        for record in records:
            row = {
                "task_id": record.task_id,
                "kind": record.kind,
                "ref_id": record.ref_id,
                "phase": record.phase,
                "metadata": record.metadata or {},
                "created_at": record.created_at,
            }
            outcome.imported += _add(session, TaskLineage, row)
        return outcome

    @writes
    @repeatable
    def audits(self, session: Session, records: Sequence[AuditRecord]) -> Outcome:
        """Append audits to their tasks' chains, in their order, but for those that the ledger has."""
        outcome = Outcome()
        fresh: dict[str, list[tuple[AuditRecord, Entry]]] = {}
        for record in records:
            entry = _entry(record)
            known = session.first(_LEDGER, {"source": SOURCE, "kind": "audit", "source_key": _ledger_key(record)})
            if (
                known is None
                and record.decision_id is not None
                and session.first(_DECISION, {"decision_id": record.decision_id})
            ):
                why = "the store has an audit of this decision already; the store keeps that one"
                outcome.refused.append(Note("task_audits", str(record.source_id), why))
            elif known is None:
                fresh.setdefault(record.task_id, []).append((record, entry))
            elif known is not None and known[0].rpartition(" ")[2] != entry.digest():
                why = "another entry came in under this number; the store keeps that one"
                outcome.refused.append(Note("task_audits", str(record.source_id), why))
        time = session.now()
        for pairs in fresh.values():
            added = append_many(session, [entry for _, entry in pairs])
            for (record, entry), audit in zip(pairs, added, strict=True):
                row = {
                    "source": SOURCE,
                    "kind": "audit",
                    "source_key": _ledger_key(record),
                    "our_key": f"{audit.audit_id} {entry.digest()}",
                    "imported_at": time,
                }
                session.insert(ImportLedgerEntry, row)
            outcome.imported += len(pairs)
        return outcome

    @writes
    @repeatable
    def remember(self, session: Session, counts: Mapping[str, int]) -> None:
        """Note in the housekeeping that an import took place."""
        time = session.now()
        row = {
            "id": session.new_ulid(),
            "kind": "import",
            "started_at": time,
            "finished_at": time,
            "counts": {**counts},
            "progress": {},
        }
        _add(session, MaintenanceRun, row)


def _entry(record: AuditRecord) -> Entry:
    return Entry(
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


def _ledger_key(record: AuditRecord) -> str:
    # A number alone would be another audit's in another registry; a task belongs to one.
    return f"{record.task_id}/{record.source_id}"


def _batches(items: Iterator[T]) -> Iterator[list[T]]:
    while batch := list(islice(items, BATCH)):
        yield batch


_INSERTS: dict[type[Base], Statement[Any]] = {}


def _add(session: Session, model: type[Base], values: Mapping[str, Any]) -> int:
    """Insert a row unless one of its unique keys is taken; return how many rows that made."""
    table = model.table()
    columns = [column for column in table.columns if not numbered_by_database(column)]
    statement = _INSERTS.get(model)
    if statement is None:
        query = postgresql.insert(table).values({c.name: bindparam(c.name, type_=c.type) for c in columns})
        statement = _INSERTS[model] = Statement(query.on_conflict_do_nothing())
    return session.execute(statement, {column.name: values.get(column.name) for column in columns})


_PROJECTS = Project.table()
_PROJECT: Statement[Any] = Statement(
    select(_PROJECTS.c.id).where(_PROJECTS.c.id == bindparam("id", type_=_PROJECTS.c.id.type))
)
_SET_DEFAULT_REPO: Statement[Any] = Statement(
    update(_PROJECTS)
    .where(
        _PROJECTS.c.id == bindparam("id", type_=_PROJECTS.c.id.type),
        _PROJECTS.c.default_repo_id.is_(None),
        _PROJECTS.c.updated_at == bindparam("imported", type_=_PROJECTS.c.updated_at.type),
    )
    .values(default_repo_id=bindparam("repo", type_=_PROJECTS.c.default_repo_id.type))
)
_DECISION: Statement[Any] = Statement(
    select(AUDITS.c.audit_id).where(AUDITS.c.decision_id == bindparam("decision_id", type_=AUDITS.c.decision_id.type))
)
_ENTRIES = ImportLedgerEntry.table()
_LEDGER: Statement[Any] = Statement(
    select(_ENTRIES.c.our_key).where(
        _ENTRIES.c.source == bindparam("source", type_=_ENTRIES.c.source.type),
        _ENTRIES.c.kind == bindparam("kind", type_=_ENTRIES.c.kind.type),
        _ENTRIES.c.source_key == bindparam("source_key", type_=_ENTRIES.c.source_key.type),
    )
)
