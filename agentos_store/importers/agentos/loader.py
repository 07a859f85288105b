"""The writing half of the import: each method writes one batch of rows, in one transaction, and may be repeated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, select, update

from agentos_store.base import Base
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import CycleError, InvalidValueError
from agentos_store.governance.models import GuardianVerdict, SupervisorInboxEntry
from agentos_store.importers.agentos.audit_chains import TASKS_THERE, write_audits
from agentos_store.importers.agentos.knowledge_rows import write_chunks, write_embeddings, write_sources
from agentos_store.importers.agentos.ledger import SOURCE
from agentos_store.importers.agentos.memory_rows import write_memories
from agentos_store.importers.agentos.projects import NAME_LENGTH
from agentos_store.importers.agentos.records import (
    ArtifactRecord,
    AuditRecord,
    ChunkRecord,
    DependencyRecord,
    EmbeddingRecord,
    InboxRecord,
    LineageRecord,
    MemoryRecord,
    ProjectRecord,
    RepoRecord,
    ScopeRecord,
    SessionRecord,
    SourceRecord,
    TaskRecord,
    VerdictRecord,
)
from agentos_store.importers.agentos.shapes import ORIGIN_KEY
from agentos_store.importers.conversations import EMPTY, SESSIONS_THERE, USERS_THERE, write_messages, write_users
from agentos_store.importers.records import MessageRecord, UserRecord
from agentos_store.importers.report import Note
from agentos_store.importers.row import add_origin
from agentos_store.importers.writing import (
    BATCH,
    Importing,
    NewRow,
    Outcome,
    add_rows,
    asking,
    stored,
    unless_taken,
    whole_row,
)
from agentos_store.operation import F, repeatable, writes
from agentos_store.projects.models import Project, ProjectRepo
from agentos_store.tasks.dependencies import insert_dependency
from agentos_store.tasks.link_models import TaskArtifactRef, TaskDependency, TaskRepoScope
from agentos_store.tasks.models import Task, TaskLineage
from agentos_store.tasks.states import ENDED


class Loader(Importing[F]):
    """The writing half of the import; every method may be repeated."""

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
        projects = stored(session, _PROJECTS_THERE, [record.project_id for record in records])
        rows: dict[int, NewRow] = {}
        for position, record in enumerate(records):
            if record.project_id not in projects:
                why = "its project was set aside"
                outcome.refused[position] = Note("project_repos", record.repo_id, why)
                continue
            rows[position] = NewRow(
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
        add_rows(session, ProjectRepo, rows, outcome)
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
    def users(self, session: Session, records: Sequence[UserRecord]) -> Outcome:
        """Write users."""
        return write_users(session, records, origin=ORIGIN_KEY)

    @writes
    @repeatable
    def sessions(self, session: Session, records: Sequence[SessionRecord]) -> Outcome:
        """Write sessions, without their messages, which come later; one whose user was set aside has none."""
        outcome = Outcome()
        users = stored(session, USERS_THERE, [record.user_id for record in records])
        rows: dict[int, NewRow] = {}
        for position, record in enumerate(records):
            table = f"{record.channel}_sessions" if record.channel in {"webui", "chat"} else "task_sessions"
            lost = record.user_id if record.user_id not in users else None
            if lost is not None:
                why = "user_id: the user was set aside; the id is in the metadata"
                outcome.change(position, Note(table, record.id, why))
            rows[position] = NewRow(
                table,
                record.id,
                {
                    "id": record.id,
                    "user_id": record.user_id if lost is None else None,
                    "channel": record.channel,
                    "title": record.title,
                    "status": "active",
                    **EMPTY,
                    "metadata": _with_origin(record.metadata, {"user_id": lost}),
                    "created_at": record.created_at,
                    "updated_at": record.updated_at,
                },
            )
        add_rows(session, Conversation, rows, outcome)
        return outcome

    @writes
    @repeatable
    def messages(self, session: Session, records: Sequence[MessageRecord]) -> Outcome:
        """Append messages to their sessions; a value that the store refuses is raised, and nothing stored then."""
        return write_messages(self, session, records, source=SOURCE)

    @writes
    @repeatable
    def tasks(self, session: Session, records: Sequence[TaskRecord]) -> Outcome:
        """Write tasks; one whose project or session was set aside comes in without it."""
        outcome = Outcome()
        projects = stored(session, _PROJECTS_THERE, [record.project_id for record in records])
        sessions = stored(session, SESSIONS_THERE, [record.session_id for record in records])
        rows: dict[int, NewRow] = {}
        for position, record in enumerate(records):
            lost = {
                "project_id": record.project_id if record.project_id not in projects else None,
                "session_id": record.session_id if record.session_id not in sessions else None,
            }
            for column in [column for column, key in lost.items() if key is not None]:
                why = f"{column}: what it names was set aside; the id is in the metadata"
                outcome.change(position, Note("tasks", record.task_id, why))
            rows[position] = NewRow(
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
        add_rows(session, Task, rows, outcome)
        return outcome

    @writes
    @repeatable
    def lineage(self, session: Session, records: Sequence[LineageRecord]) -> Outcome:
        """Write links."""
        outcome = Outcome()
        tasks = stored(session, TASKS_THERE, [record.task_id for record in records])
        rows: dict[int, NewRow] = {}
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
            rows[position] = NewRow("task_lineage", key, row)
        add_rows(session, TaskLineage, rows, outcome)
        return outcome

    @writes
    @repeatable
    def audits(self, session: Session, records: Sequence[AuditRecord]) -> Outcome:
        """Append audits to their tasks' chains, in their order, but for those that the ledger has."""
        return write_audits(session, records)

    @writes
    @repeatable
    def dependencies(self, session: Session, records: Sequence[DependencyRecord]) -> Outcome:
        """Write what tasks depend on, but for links that close a circle with those that the store has."""
        outcome = Outcome()
        ends = [end for record in records for end in (record.task_id, record.depends_on_task_id)]
        # A question has as many parameters as a batch has rows, and a link has two ends.
        tasks = {**stored(session, TASKS_THERE, ends[:BATCH]), **stored(session, TASKS_THERE, ends[BATCH:])}
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
            position: NewRow(
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
            position: NewRow(
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
            position: NewRow(
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
            position: NewRow(
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
    def memory(self, session: Session, records: Sequence[MemoryRecord]) -> Outcome:
        """Write what agents remember; it can be found once this returns."""
        return write_memories(session, records)

    @writes
    @repeatable
    def sources(self, session: Session, records: Sequence[SourceRecord]) -> Outcome:
        """Write sources of knowledge, without their chunks, which come later."""
        return write_sources(session, records)

    @writes
    @repeatable
    def chunks(self, session: Session, records: Sequence[ChunkRecord]) -> Outcome:
        """Write chunks of sources; they can be found once this returns."""
        return write_chunks(session, records)

    @writes
    @repeatable
    def embeddings(self, session: Session, records: Sequence[EmbeddingRecord]) -> Outcome:
        """Write what models make of chunks."""
        return write_embeddings(self, session, records)


def _with_origin(metadata: Mapping[str, Any] | None, kept: Mapping[str, Any]) -> dict[str, Any]:
    there = {name: value for name, value in kept.items() if value is not None}
    return add_origin(metadata, ORIGIN_KEY, there) if there else dict(metadata or {})


def _add_to_tasks(session: Session, model: type[Base], rows: dict[int, NewRow]) -> Outcome:
    """Insert rows that belong to tasks; one whose task was set aside is set aside too."""
    outcome = Outcome()
    tasks = stored(session, TASKS_THERE, [row.values["task_id"] for row in rows.values()])
    for position in [position for position, row in rows.items() if row.values["task_id"] not in tasks]:
        row = rows.pop(position)
        outcome.refused[position] = Note(row.table, row.key, "its task was set aside")
    add_rows(session, model, rows, outcome)
    return outcome


def _add_project(session: Session, row: dict[str, Any]) -> int:
    """Insert the project unless it is there; of two projects with one name this one is renamed."""
    project_id, name = str(row["id"]), str(row["name"])
    number = 1
    while not session.execute(unless_taken(Project), whole_row(Project, row)):
        if stored(session, _PROJECTS_THERE, [project_id]):
            row["name"] = name
            return 0
        ending = f" ({project_id})" if number == 1 else f" ({project_id} {number})"
        row["name"] = name[: NAME_LENGTH - len(ending)] + ending
        number += 1
    return 1


_PROJECTS = Project.table()
_REPOS = ProjectRepo.table()
_SESSIONS = Conversation.table()
_PROJECTS_THERE = asking(_PROJECTS.c.id, _PROJECTS.c.id)
_LINKS = TaskDependency.table()
_LINKED: Statement[Any] = Statement(
    select(_LINKS.c.dependency_id).where(
        _LINKS.c.task_id == bindparam("task", type_=_LINKS.c.task_id.type),
        _LINKS.c.depends_on_task_id == bindparam("needed", type_=_LINKS.c.task_id.type),
    )
)
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
