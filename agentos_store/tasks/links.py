"""Operations on what tasks depend on, may touch, and have made."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, delete, literal, select
from sqlalchemy.dialects import postgresql

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, build_model, numbered_by_database, plain_json
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import CycleError, InvalidValueError, NotFoundError
from agentos_store.operation import F, Repository, reads, reads_together, repeatable, walks, writes, writes_once
from agentos_store.page import DEFAULT_LIMIT, Listing, Page, equals
from agentos_store.tasks.dependencies import (
    DependencyGraph,
    ancestors_of,
    dependency_graph,
    descendants_of,
    insert_dependency,
    project_dependency_graph,
    require_task,
    topological,
)
from agentos_store.tasks.link_models import DEPENDENCY_TYPE, REF_TYPE, TaskArtifactRef, TaskDependency, TaskRepoScope
from agentos_store.tasks.models import Task
from agentos_store.tasks.scope import allows, check_filters, check_path

LARGEST_KEY = 2600
"""Bytes of an artifact's unique key; PostgreSQL's indexes hold little more."""

_DEPENDENCIES = TaskDependency.table()
_SCOPES = TaskRepoScope.table()
_ARTIFACTS = TaskArtifactRef.table()
_TASKS = Task.table()

_DEPENDENCY_LISTING = Listing(
    TaskDependency,
    filters={
        "task_id": equals(TaskDependency.task_id),
        "depends_on_task_id": equals(TaskDependency.depends_on_task_id),
    },
    orders={"dependency_id": (_DEPENDENCIES.c.dependency_id,)},
    default="dependency_id",
)
_SCOPE_LISTING = Listing(
    TaskRepoScope,
    filters={"task_id": equals(TaskRepoScope.task_id), "repo_id": equals(TaskRepoScope.repo_id)},
    orders={"scope_id": (_SCOPES.c.scope_id,)},
    default="scope_id",
)
_ARTIFACT_LISTING = Listing(
    TaskArtifactRef,
    filters={
        "task_id": equals(TaskArtifactRef.task_id),
        "ref_type": equals(TaskArtifactRef.ref_type),
        "ref_value": equals(TaskArtifactRef.ref_value),
    },
    orders={"artifact_id": (_ARTIFACTS.c.artifact_id,)},
    default="artifact_id",
)


class TaskLinks(Repository[F]):
    """The part of the task repository that is about links between tasks, repositories and artifacts."""

    @writes
    @repeatable
    def add_dependency(
        self,
        session: Session,
        task_id: str,
        depends_on_task_id: str,
        *,
        dependency_type: str = "blocks",
        reason: str | None = None,
        created_by: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> TaskDependency:
        """Let a task depend on another; the same pair again gives the first link, at the stronger of both types.

        Raises CycleError with the path when the link would close a circle, also when two links race, and
        NotFoundError for an unknown task, the dependent one before the needed one. Writers of links stand in line.
        """
        row = {
            "task_id": task_id,
            "depends_on_task_id": depends_on_task_id,
            "dependency_type": dependency_type,
            "reason": reason,
            "created_by": created_by,
            "metadata": {} if metadata is None else plain_json(metadata),
            "created_at": session.now(),
        }
        return insert_dependency(session, row)

    @writes_once
    @repeatable
    def remove_dependency(self, session: Session, task_id: str, depends_on_task_id: str) -> None:
        """Remove the link; NotFoundError when there is none."""
        binds = {"task_id": task_id, "depends_on_task_id": depends_on_task_id}
        if session.execute(_REMOVE_DEPENDENCY, binds) == 0 and not session.repeated:
            raise NotFoundError("dependency", (task_id, depends_on_task_id))

    @reads
    def list_dependencies(
        self,
        session: Session,
        *,
        task_id: str | None = None,
        depends_on_task_id: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[TaskDependency]:
        """Return a page of links, of one task, to one task, or all, in the order in which they were made."""
        filters = {"task_id": task_id, "depends_on_task_id": depends_on_task_id}
        return _DEPENDENCY_LISTING.page(session, filters, limit=limit, cursor=cursor)

    iterate_dependencies = walks(list_dependencies)

    @reads_together
    def ancestors(self, session: Session, task_id: str) -> Sequence[Task]:
        """Return all tasks that the task depends on, directly or not, each before those that depend on it."""
        return ancestors_of(session, task_id)

    @reads_together
    def descendants(self, session: Session, task_id: str) -> Sequence[Task]:
        """Return all tasks that depend on the task, directly or not, each after those that it depends on."""
        return descendants_of(session, task_id)

    @reads_together
    def topological_order(self, session: Session, *, project_id: str | None = None) -> Sequence[str]:
        """Return the tasks of a project, or all, so that each comes after those that it depends on.

        Of tasks that could come next the older one does, then the one with the smaller identifier.
        """
        return topological(session, project_id)

    @reads_together
    def graph(self, session: Session, task_id: str, *, depth: int = 5, limit: int = 500) -> DependencyGraph:
        """Return the task with the tasks that it depends on and those that depend on it, ``depth`` steps each way."""
        return dependency_graph(session, task_id, depth=depth, limit=limit)

    @reads_together
    def project_graph(self, session: Session, project_id: str, *, limit: int = 500) -> DependencyGraph:
        """Return the tasks of a project and their dependencies, those on tasks of other projects included."""
        return project_dependency_graph(session, project_id, limit=limit)

    @writes
    @repeatable
    def infer_dependencies(
        self, session: Session, task_id: str, *, dependency_type: str = "suggests", created_by: str = "auto_detect"
    ) -> Sequence[TaskDependency]:
        """Let the task depend on each task that recorded one of its artifacts before it did; return these links.

        A link that would close a circle is left out: two tasks may each have been the first at something, and what was
        said by hand goes before what is guessed. A link that is there stays, at the stronger of both types.
        """
        DEPENDENCY_TYPE.check(dependency_type, "dependency_type")
        require_task(session, task_id)
        time = session.now()
        first: dict[str, tuple[str, str]] = {}
        for _, earlier, ref_type, ref_value in sorted(session.all(_SHARED, {"task_id": task_id})):
            first.setdefault(earlier, (ref_type, ref_value))
        links = []
        for earlier, (ref_type, ref_value) in first.items():
            row = {
                "task_id": task_id,
                "depends_on_task_id": earlier,
                "dependency_type": dependency_type,
                "reason": f"uses the same {ref_type}",
                "created_by": created_by,
                "metadata": {"rule": "artifact_ref", "ref_type": ref_type, "ref_value": ref_value},
                "created_at": time,
            }
            # It is raised before anything is sent that the database would refuse.
            with contextlib.suppress(CycleError):
                links.append(insert_dependency(session, row))
        return links

    @writes_once
    @repeatable
    def set_scope(
        self,
        session: Session,
        task_id: str,
        repo_id: str,
        scope: str = "full",
        *,
        path_filters: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> TaskRepoScope:
        """Say what the task may touch of a repository; said again, it replaces what was said before.

        ``paths`` needs ``path_filters``, patterns as in .gitignore: a path is in the scope when git would ignore it, so
        ``!`` takes back what an earlier pattern gave. The others take none.
        """
        filters = check_filters(scope, path_filters)
        row = {
            "task_id": task_id,
            "repo_id": repo_id,
            "scope": scope,
            "path_filters": filters,
            "metadata": {} if metadata is None else plain_json(metadata),
            "created_at": session.now(),
        }
        try:
            found = session.first(_SET_SCOPE, row)
        except IntegrityViolation as violation:
            raise explain(violation, TaskRepoScope, {**row, "scope_id": None}, session) from None
        assert found is not None
        return found

    @writes_once
    @repeatable
    def remove_scope(self, session: Session, task_id: str, repo_id: str) -> None:
        """Take back what was said about a repository; NotFoundError when nothing was."""
        if session.execute(_REMOVE_SCOPE, {"task_id": task_id, "repo_id": repo_id}) == 0 and not session.repeated:
            raise NotFoundError("scope", (task_id, repo_id))

    @reads
    def list_scopes(
        self,
        session: Session,
        *,
        task_id: str | None = None,
        repo_id: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[TaskRepoScope]:
        """Return a page of scopes, of one task, of one repository, or all."""
        return _SCOPE_LISTING.page(session, {"task_id": task_id, "repo_id": repo_id}, limit=limit, cursor=cursor)

    @reads
    def may_touch(self, session: Session, task_id: str, repo_id: str, path: str, *, write: bool = True) -> bool:
        """Tell whether the task may change (or, without ``write``, read) a path of a repository.

        A path is relative to the repository and written with ``/``, a directory with one at its end too; one that
        leads out of it, or may do so, is an InvalidValueError. A task may touch nothing of a repository that it has no
        scope in. NotFoundError for an unknown task.
        """
        inside = check_path(path)
        found = session.first(_GET_SCOPE, {"task_id": task_id, "repo_id": repo_id})
        if found is None:
            if session.first(_TASK_EXISTS, {"task_id": task_id}) is None:
                raise NotFoundError("task", task_id)
            return False
        return allows(found, inside, write=write)

    @writes_once
    @repeatable
    def add_artifact(
        self,
        session: Session,
        task_id: str,
        repo_id: str,
        ref_type: str,
        ref_value: str,
        *,
        summary: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> TaskArtifactRef:
        """Record something that the task made or used; the same again gives the first one's row, unchanged."""
        key = (task_id, repo_id, ref_type, ref_value)
        size = sum(len(part.encode(errors="replace")) for part in key if isinstance(part, str))
        if size > LARGEST_KEY:
            raise InvalidValueError(
                "ref_value", f"with its task and repository it takes more than {LARGEST_KEY:,} bytes"
            )
        row = {
            "task_id": task_id,
            "repo_id": repo_id,
            "ref_type": ref_type,
            "ref_value": ref_value,
            "summary": summary,
            "metadata": {} if metadata is None else plain_json(metadata),
            "created_at": session.now(),
        }
        try:
            added = session.first(_ADD_ARTIFACT, row)
        except IntegrityViolation as violation:
            raise explain(violation, TaskArtifactRef, {**row, "artifact_id": None}, session) from None
        if added is not None:
            return build_model(TaskArtifactRef, {**row, "artifact_id": added[0]})
        found = session.first(_GET_ARTIFACT, row)
        if found is None:
            # Only where a task is deleted between the two statements.
            raise NotFoundError("task", task_id)
        return found

    @reads
    def list_artifacts(
        self,
        session: Session,
        *,
        task_id: str | None = None,
        ref_type: str | None = None,
        ref_value: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[TaskArtifactRef]:
        """Return a page of artifacts in the order in which they were recorded; a value needs its type."""
        if ref_value is not None and ref_type is None:
            raise InvalidValueError("ref_type", "is needed with ref_value")
        filters = {"task_id": task_id, "ref_type": ref_type, "ref_value": ref_value}
        return _ARTIFACT_LISTING.page(session, filters, limit=limit, cursor=cursor)

    @reads
    def list_by_artifact(self, session: Session, ref_type: str, ref_value: str) -> Sequence[Task]:
        """Return all tasks that recorded the artifact, the first one first."""
        REF_TYPE.check(ref_type, "ref_type")
        rows = session.all(_BY_ARTIFACT, {"ref_type": ref_type, "ref_value": ref_value})
        return list({task.task_id: task for task in rows}.values())


def _bind(table: Any, name: str) -> Any:
    return bindparam(name, type_=table.c[name].type)


def _values(table: Any) -> dict[str, Any]:
    return {c.name: bindparam(c.name, type_=c.type) for c in table.c if not numbered_by_database(c)}


def _set_scope() -> Statement[TaskRepoScope]:
    statement = postgresql.insert(_SCOPES).values(_values(_SCOPES))
    new = statement.excluded
    query = statement.on_conflict_do_update(
        index_elements=[_SCOPES.c.task_id, _SCOPES.c.repo_id],
        set_={name: new[name] for name in ("scope", "path_filters", "metadata", "created_at")},
    )
    return Statement(query.returning(*_SCOPES.c), returns=TaskRepoScope)


_REMOVE_DEPENDENCY: Statement[Any] = Statement(
    delete(_DEPENDENCIES).where(
        _DEPENDENCIES.c.task_id == _bind(_DEPENDENCIES, "task_id"),
        _DEPENDENCIES.c.depends_on_task_id == _bind(_DEPENDENCIES, "depends_on_task_id"),
    )
)
_SET_SCOPE = _set_scope()
_GET_SCOPE: Statement[TaskRepoScope] = Statement(
    select(_SCOPES).where(
        _SCOPES.c.task_id == _bind(_SCOPES, "task_id"), _SCOPES.c.repo_id == _bind(_SCOPES, "repo_id")
    ),
    returns=TaskRepoScope,
)
_REMOVE_SCOPE: Statement[Any] = Statement(
    delete(_SCOPES).where(
        _SCOPES.c.task_id == _bind(_SCOPES, "task_id"), _SCOPES.c.repo_id == _bind(_SCOPES, "repo_id")
    )
)
_TASK_EXISTS: Statement[Any] = Statement(select(literal(1)).where(_TASKS.c.task_id == _bind(_TASKS, "task_id")))
_ADD_ARTIFACT: Statement[Any] = Statement(
    postgresql.insert(_ARTIFACTS)
    .values(_values(_ARTIFACTS))
    .on_conflict_do_nothing()
    .returning(_ARTIFACTS.c.artifact_id)
)
_GET_ARTIFACT: Statement[TaskArtifactRef] = Statement(
    select(_ARTIFACTS).where(
        *(_ARTIFACTS.c[name] == _bind(_ARTIFACTS, name) for name in ("task_id", "repo_id", "ref_type", "ref_value"))
    ),
    returns=TaskArtifactRef,
)
_BY_ARTIFACT: Statement[Task] = Statement(
    select(_TASKS)
    .join(_ARTIFACTS, _ARTIFACTS.c.task_id == _TASKS.c.task_id)
    .where(
        _ARTIFACTS.c.ref_type == _bind(_ARTIFACTS, "ref_type"),
        _ARTIFACTS.c.ref_value == _bind(_ARTIFACTS, "ref_value"),
    )
    .order_by(_ARTIFACTS.c.artifact_id),
    returns=Task,
)
_MINE = _ARTIFACTS.alias("mine")
_THEIRS = _ARTIFACTS.alias("theirs")
_SHARED: Statement[Any] = Statement(
    select(_THEIRS.c.artifact_id, _THEIRS.c.task_id, _THEIRS.c.ref_type, _THEIRS.c.ref_value)
    .select_from(_MINE)
    .join(
        _THEIRS,
        (_THEIRS.c.ref_type == _MINE.c.ref_type)
        & (_THEIRS.c.ref_value == _MINE.c.ref_value)
        & (_THEIRS.c.repo_id == _MINE.c.repo_id)
        & (_THEIRS.c.artifact_id < _MINE.c.artifact_id),
    )
    .where(_MINE.c.task_id == _bind(_ARTIFACTS, "task_id"), _THEIRS.c.task_id != _MINE.c.task_id)
)
