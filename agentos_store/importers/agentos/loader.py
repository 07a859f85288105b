"""The writing half of the import: each method writes one batch of rows, in one transaction, and may be repeated."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from itertools import cycle, islice
from typing import Any

from sqlalchemy import Column, ColumnElement, bindparam, literal, select, update
from sqlalchemy.dialects import postgresql

from agentos_store.base import Base
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, insert_into, numbered_by_database
from agentos_store.engine.violations import IntegrityViolation
from agentos_store.errors import AlreadyExistsError, ConflictError, CycleError, InvalidValueError
from agentos_store.governance.models import GuardianVerdict, SupervisorInboxEntry
from agentos_store.housekeeping.models import ImportLedgerEntry, MaintenanceRun
from agentos_store.importers.agentos.projects import NAME_LENGTH
from agentos_store.importers.agentos.records import (
    ArtifactRecord,
    AuditRecord,
    DependencyRecord,
    InboxRecord,
    LineageRecord,
    ProjectRecord,
    RepoRecord,
    ScopeRecord,
    SessionRecord,
    TaskRecord,
    VerdictRecord,
)
from agentos_store.importers.agentos.row import ORIGIN_KEY
from agentos_store.importers.report import Note
from agentos_store.operation import F, Repository, repeatable, writes
from agentos_store.projects.models import Project, ProjectRepo
from agentos_store.tasks.dependencies import insert_dependency
from agentos_store.tasks.link_models import TaskArtifactRef, TaskDependency, TaskRepoScope
from agentos_store.tasks.models import Task, TaskLineage
from agentos_store.tasks.states import ENDED
from agentos_store.tasks.trail import AUDITS, Entry, append_many
from agentos_store.types import Gate

BATCH = 200
"""Rows of one transaction: few enough that other writers hardly notice."""

SOURCE = "agentos"


class Outcome:
    """What became of one batch; rows are named by their position in it."""

    __slots__ = ("changed", "imported", "refused")

    def __init__(self) -> None:
        self.imported = 0
        self.changed: dict[int, list[Note]] = {}
        """Rows that had to be changed to fit beside what the store has."""
        self.refused: dict[int, Note] = {}

    def change(self, position: int, note: Note) -> None:
        """Note a change."""
        self.changed.setdefault(position, []).append(note)


class Loader(Repository[F]):
    """The writing half of the import; every method may be repeated."""

    name = "import"

    @writes
    @repeatable
    def projects(self, session: Session, records: Sequence[ProjectRecord]) -> Outcome:
        """Write projects, without their default repositories, which come later."""
        outcome = Outcome()
        for position, record in enumerate(records):
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
            try:
                added = _add_project(session, row)
            except InvalidValueError as error:
                outcome.refused[position] = Note("projects", record.id, str(error))
                continue
            outcome.imported += added
            if row["name"] != record.name:
                why = f"name: another project has it, so it became {row['name']!r}"
                outcome.change(position, Note("projects", record.id, why))
        return outcome

    @writes
    @repeatable
    def repos(self, session: Session, records: Sequence[RepoRecord]) -> Outcome:
        """Write repositories."""
        outcome = Outcome()
        projects = _found(session, _PROJECTS_THERE, [record.project_id for record in records])
        rows: dict[int, _Row] = {}
        for position, record in enumerate(records):
            if record.project_id not in projects:
                why = "its project was set aside"
                outcome.refused[position] = Note("project_repos", record.repo_id, why)
                continue
            rows[position] = _Row(
                "project_repos",
                record.repo_id,
                {
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
                },
            )
        _add(session, ProjectRepo, rows, outcome)
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
        rows: dict[int, _Row] = {}
        for position, record in enumerate(records):
            table = f"{record.channel}_sessions" if record.channel in {"webui", "chat"} else "task_sessions"
            rows[position] = _Row(
                table,
                record.id,
                {
                    "id": record.id,
                    "channel": record.channel,
                    "title": record.title,
                    "status": "active",
                    "message_count": 0,
                    "next_seq": 0,
                    "generation": 0,
                    "total_tokens": 0,
                    "total_cost": Decimal(0),
                    "metadata": _with_origin(record.metadata, {"user_id": record.user_id}),
                    "created_at": record.created_at,
                    "updated_at": record.updated_at,
                },
            )
        _add(session, Conversation, rows, outcome)
        return outcome

    @writes
    @repeatable
    def tasks(self, session: Session, records: Sequence[TaskRecord]) -> Outcome:
        """Write tasks; one whose project or session was set aside comes in without it."""
        outcome = Outcome()
        projects = _found(session, _PROJECTS_THERE, [record.project_id for record in records])
        sessions = _found(session, _SESSIONS_THERE, [record.session_id for record in records])
        rows: dict[int, _Row] = {}
        for position, record in enumerate(records):
            lost = {
                "project_id": record.project_id if record.project_id not in projects else None,
                "session_id": record.session_id if record.session_id not in sessions else None,
            }
            for column in [column for column, key in lost.items() if key is not None]:
                why = f"{column}: what it names was set aside; the id is in the metadata"
                outcome.change(position, Note("tasks", record.task_id, why))
            rows[position] = _Row(
                "tasks",
                record.task_id,
                {
                    "task_id": record.task_id,
                    "title": record.title,
                    "status": record.status,
                    "task_type": "",
                    "priority": 0,
                    "exit_reason": record.exit_reason,
                    "session_id": record.session_id if lost["session_id"] is None else None,
                    "project_id": record.project_id if lost["project_id"] is None else None,
                    "route_plan_json": record.route_plan_json,
                    "requirements_json": record.requirements_json,
                    "selected_instance_id": record.selected_instance_id,
                    "router_version": record.router_version,
                    "attempts": 0,
                    "max_attempts": 3,
                    "lease_token": 0,
                    "version": 1,
                    "created_by": record.created_by,
                    "metadata": _with_origin(record.metadata, lost),
                    "completed_at": record.updated_at if record.status in ENDED else None,
                    "created_at": record.created_at,
                    "updated_at": record.updated_at,
                },
            )
        _add(session, Task, rows, outcome)
        return outcome

    @writes
    @repeatable
    def lineage(self, session: Session, records: Sequence[LineageRecord]) -> Outcome:
        """Write links."""
        outcome = Outcome()
        tasks = _found(session, _TASKS_THERE, [record.task_id for record in records])
        rows: dict[int, _Row] = {}
        for position, record in enumerate(records):
            key = str(record.source_id)
            if record.task_id not in tasks:
                outcome.refused[position] = Note("task_lineage", key, "its task was set aside")
                continue
            row = {
                "task_id": record.task_id,
                "kind": record.kind,
                "ref_id": record.ref_id,
                "phase": record.phase,
                "metadata": record.metadata or {},
                "created_at": record.created_at,
            }
            rows[position] = _Row("task_lineage", key, row)
        _add(session, TaskLineage, rows, outcome)
        return outcome

    @writes
    @repeatable
    def audits(self, session: Session, records: Sequence[AuditRecord]) -> Outcome:
        """Append audits to their tasks' chains, in their order, but for those that the ledger has."""
        outcome = Outcome()
        tasks = _found(session, _TASKS_THERE, [record.task_id for record in records])
        ledger = _found(session, _LEDGER, [_ledger_key(record) for record in records])
        decided = _found(session, _DECISIONS, [record.decision_id for record in records])
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

    @writes
    @repeatable
    def dependencies(self, session: Session, records: Sequence[DependencyRecord]) -> Outcome:
        """Write what tasks depend on, but for links that close a circle with those that the store has."""
        outcome = Outcome()
        ends = [end for record in records for end in (record.task_id, record.depends_on_task_id)]
        # A question has as many parameters as a batch has rows, and a link has two ends.
        tasks = {**_found(session, _TASKS_THERE, ends[:BATCH]), **_found(session, _TASKS_THERE, ends[BATCH:])}
        for position, record in enumerate(records):
            why: str | None = None
            if record.task_id not in tasks or record.depends_on_task_id not in tasks:
                why = "its task, or the one that it depends on, was set aside"
            elif session.first(_LINKED, {"task": record.task_id, "needed": record.depends_on_task_id}) is None:
                row = {
                    "task_id": record.task_id,
                    "depends_on_task_id": record.depends_on_task_id,
                    "dependency_type": record.dependency_type,
                    "reason": record.reason,
                    "created_by": record.created_by,
                    "metadata": record.metadata or {},
                    "created_at": record.created_at,
                }
                try:
                    insert_dependency(session, row)
                    outcome.imported += 1
                except (CycleError, InvalidValueError) as error:
                    why = str(error)
            if why is not None:
                outcome.refused[position] = Note("task_dependency", str(record.source_id), why)
        return outcome

    @writes
    @repeatable
    def scopes(self, session: Session, records: Sequence[ScopeRecord]) -> Outcome:
        """Write what tasks may touch; what the store says about a task and a repository stays."""
        rows = {
            position: _Row(
                "task_repo_scope",
                str(record.source_id),
                {
                    "task_id": record.task_id,
                    "repo_id": record.repo_id,
                    "scope": record.scope,
                    "path_filters": record.path_filters,
                    "metadata": record.metadata or {},
                    "created_at": record.created_at,
                },
            )
            for position, record in enumerate(records)
        }
        return _add_to_tasks(session, TaskRepoScope, rows)

    @writes
    @repeatable
    def artifacts(self, session: Session, records: Sequence[ArtifactRecord]) -> Outcome:
        """Write what tasks made or used."""
        rows = {
            position: _Row(
                "task_artifact_ref",
                str(record.source_id),
                {
                    "task_id": record.task_id,
                    "repo_id": record.repo_id,
                    "ref_type": record.ref_type,
                    "ref_value": record.ref_value,
                    "summary": record.summary,
                    "metadata": record.metadata or {},
                    "created_at": record.created_at,
                },
            )
            for position, record in enumerate(records)
        }
        return _add_to_tasks(session, TaskArtifactRef, rows)

    @writes
    @repeatable
    def verdicts(self, session: Session, records: Sequence[VerdictRecord]) -> Outcome:
        """Write verdicts; their audits came in with the others."""
        rows = {
            position: _Row(
                "guardian_verdicts",
                record.id,
                {
                    "id": record.id,
                    "task_id": record.task_id,
                    "triggered_by": record.triggered_by,
                    "policy_json": record.policy_json,
                    "decision": record.decision,
                    "reasons_json": record.reasons_json,
                    "created_at": record.created_at,
                },
            )
            for position, record in enumerate(records)
        }
        return _add_to_tasks(session, GuardianVerdict, rows)

    @writes
    @repeatable
    def inbox(self, session: Session, records: Sequence[InboxRecord]) -> Outcome:
        """Write the supervisor's events; nobody holds any of them."""
        rows = {
            position: _Row(
                "supervisor_inbox",
                record.id,
                {
                    "id": record.id,
                    "task_id": record.task_id,
                    "event_type": record.event_type,
                    "event_ts": record.event_ts,
                    "payload_json": record.payload_json,
                    "status": record.status,
                    "source": record.source,
                    "attempts": record.attempts,
                    "error_message": record.error_message,
                    "lease_token": 0,
                    "processed_at": record.processed_at,
                    "created_at": record.created_at,
                },
            )
            for position, record in enumerate(records)
        }
        return _add_to_tasks(session, SupervisorInboxEntry, rows)

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
        session.execute(_unless_taken(MaintenanceRun), _whole(MaintenanceRun, row))


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


def _with_origin(metadata: Mapping[str, Any] | None, kept: Mapping[str, object]) -> dict[str, Any]:
    """Return the metadata with what has no field here, under the reader's key or the next one that is free."""
    free = dict(metadata or {})
    there = {name: value for name, value in kept.items() if value is not None}
    if there:
        name, number = ORIGIN_KEY, 0
        while name in free:
            number += 1
            name = f"{ORIGIN_KEY}_{number}"
        free[name] = there
    return free


class _Row:
    """A row to be written, and what the report calls it."""

    __slots__ = ("key", "table", "values")

    def __init__(self, table: str, key: str, values: Mapping[str, Any]) -> None:
        self.table = table
        self.key = key
        self.values = values


def _add(session: Session, model: type[Base], rows: Mapping[int, _Row], outcome: Outcome) -> None:
    """Insert the rows whose unique keys are free, in one round trip; a row with a refused value is set aside."""
    statement = _unless_taken(model)
    try:
        outcome.imported += session.execute_many(statement, [_whole(model, row.values) for row in rows.values()])
    except InvalidValueError:
        # It was raised before anything was sent, and does not tell the row.
        for position, row in rows.items():
            try:
                outcome.imported += session.execute(statement, _whole(model, row.values))
            except InvalidValueError as error:
                outcome.refused[position] = Note(row.table, row.key, str(error))


def _add_to_tasks(session: Session, model: type[Base], rows: dict[int, _Row]) -> Outcome:
    """Insert rows that belong to tasks; one whose task was set aside is set aside too."""
    outcome = Outcome()
    tasks = _found(session, _TASKS_THERE, [row.values["task_id"] for row in rows.values()])
    for position in [position for position, row in rows.items() if row.values["task_id"] not in tasks]:
        row = rows.pop(position)
        outcome.refused[position] = Note(row.table, row.key, "its task was set aside")
    _add(session, model, rows, outcome)
    return outcome


def _add_project(session: Session, row: dict[str, Any]) -> int:
    """Insert the project unless it is there; of two projects with one name this one is renamed."""
    project_id, name = str(row["id"]), str(row["name"])
    number = 1
    while not session.execute(_unless_taken(Project), _whole(Project, row)):
        if _found(session, _PROJECTS_THERE, [project_id]):
            row["name"] = name
            return 0
        ending = f" ({project_id})" if number == 1 else f" ({project_id} {number})"
        row["name"] = name[: NAME_LENGTH - len(ending)] + ending
        number += 1
    return 1


_inserts: dict[type[Base], Statement[Any]] = {}


def _unless_taken(model: type[Base]) -> Statement[Any]:
    """Return the INSERT of a row that does nothing when one of its unique keys is taken."""
    statement = _inserts.get(model)
    if statement is None:
        table = model.table()
        columns = {c.name: bindparam(c.name, type_=c.type) for c in table.columns if not numbered_by_database(c)}
        statement = _inserts[model] = Statement(postgresql.insert(table).values(columns).on_conflict_do_nothing())
    return statement


def _whole(model: type[Base], values: Mapping[str, Any]) -> dict[str, Any]:
    return {column.name: values.get(column.name) for column in model.table().columns}


def _asking(key: Column[Any], value: Column[Any], *where: ColumnElement[bool]) -> Statement[Any]:
    """Return the question which of a batch's keys the store has, and what it has under them."""
    # As many parameters as a batch has rows, so that the statement is the same each time.
    keys = [bindparam(f"key_{number}", type_=key.type) for number in range(BATCH)]
    return Statement(select(key, value).where(key.in_(keys), *where))


def _found(session: Session, asking: Statement[Any], keys: Collection[str | None]) -> dict[str, Any]:
    there = {key: None for key in keys if key is not None}
    if not there:
        return {}
    binds = {f"key_{number}": key for number, key in enumerate(islice(cycle(there), BATCH))}
    return dict(session.all(asking, binds))


_PROJECTS = Project.table()
_REPOS = ProjectRepo.table()
_SESSIONS = Conversation.table()
_TASKS = Task.table()
_ENTRIES = ImportLedgerEntry.table()
_PROJECTS_THERE = _asking(_PROJECTS.c.id, _PROJECTS.c.id)
_SESSIONS_THERE = _asking(_SESSIONS.c.id, _SESSIONS.c.id)
_TASKS_THERE = _asking(_TASKS.c.task_id, _TASKS.c.task_id)
_DECISIONS = _asking(AUDITS.c.decision_id, AUDITS.c.audit_id)
_LEDGER = _asking(
    _ENTRIES.c.source_key,
    _ENTRIES.c.our_key,
    _ENTRIES.c.source == literal(SOURCE, _ENTRIES.c.source.type),
    _ENTRIES.c.kind == literal("audit", _ENTRIES.c.kind.type),
)
_LINKS = TaskDependency.table()
_LINKED: Statement[Any] = Statement(
    select(_LINKS.c.dependency_id).where(
        _LINKS.c.task_id == bindparam("task", type_=_LINKS.c.task_id.type),
        _LINKS.c.depends_on_task_id == bindparam("needed", type_=_LINKS.c.task_id.type),
    )
)
_ENTER: Statement[Any] = Statement(insert_into(ImportLedgerEntry))
_SET_DEFAULT_REPO: Statement[Any] = Statement(
    update(_PROJECTS)
    .where(
        _PROJECTS.c.id == bindparam("id", type_=_PROJECTS.c.id.type),
        _PROJECTS.c.default_repo_id.is_(None),
        _PROJECTS.c.updated_at == bindparam("imported", type_=_PROJECTS.c.updated_at.type),
        # A repository that was set aside can be nobody's default.
        select(_REPOS.c.id)
        .where(
            _REPOS.c.project_id == bindparam("id", type_=_PROJECTS.c.id.type),
            _REPOS.c.repo_id == bindparam("repo", type_=_REPOS.c.repo_id.type),
        )
        .exists(),
    )
    .values(default_repo_id=bindparam("repo", type_=_PROJECTS.c.default_repo_id.type))
)
