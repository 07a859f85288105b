"""Operations on projects and their repositories."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Column, MetaData, Table, bindparam, delete, literal, select, update

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.engine.violations import IntegrityViolation
from agentos_store.errors import AlreadyExistsError, ConflictError, NotFoundError
from agentos_store.operation import F, Repository, reads, repeatable, walks, writes, writes_once
from agentos_store.page import DEFAULT_LIMIT, Listing, Page, at_least, below, contains, equals
from agentos_store.projects.models import Project, ProjectRepo
from agentos_store.unset import UNSET, Unset, given

_PROJECTS = Project.table()
_REPOS = ProjectRepo.table()
_ID = bindparam("id", type_=_PROJECTS.c.id.type)
_PROJECT = bindparam("project_id", type_=_REPOS.c.project_id.type)
_REPO = bindparam("repo_id", type_=_REPOS.c.repo_id.type)

_GET = Statement(select(_PROJECTS).where(_PROJECTS.c.id == _ID), returns=Project)
_LOCK = Statement(select(_PROJECTS).where(_PROJECTS.c.id == _ID).with_for_update(), returns=Project)
_DELETE_REPO: Statement[Any] = Statement(
    delete(_REPOS).where(_REPOS.c.project_id == _PROJECT, _REPOS.c.repo_id == _REPO)
)
_GET_REPO: Statement[ProjectRepo] = Statement(
    select(_REPOS).where(_REPOS.c.project_id == _PROJECT, _REPOS.c.repo_id == _REPO), returns=ProjectRepo
)

_LISTING = Listing(
    Project,
    filters={
        "status": equals(Project.status),
        "name": equals(Project.name),
        "created_after": at_least(Project.created_at),
        "created_before": below(Project.created_at),
        "tags": contains(Project.tags),
    },
    orders={"created_at": (_PROJECTS.c.created_at, _PROJECTS.c.id), "name": (_PROJECTS.c.name, _PROJECTS.c.id)},
    default="created_at",
)
_REPO_LISTING = Listing(
    ProjectRepo,
    filters={"project_id": equals(ProjectRepo.project_id), "role": equals(ProjectRepo.role)},
    # Unique within a project, and a project is always given.
    orders={"repo_id": (_REPOS.c.repo_id,)},
    default="repo_id",
)


class ProjectRepository(Repository[F]):
    """Projects: bodies of work that tasks belong to, and the repositories that they are done in."""

    name = "projects"

    @writes_once
    @repeatable
    def create(
        self,
        session: Session,
        *,
        path: str,
        id: str | None = None,
        name: str = "",
        description: str | None = None,
        tags: Sequence[Any] = (),
        settings: Mapping[str, Any] | None = None,
        default_workdir: str | None = None,
        created_by: str | None = None,
    ) -> Project:
        """Add an active project; its identifier is made unless it is given.

        Raises AlreadyExistsError for an identifier, or for a name of another project that is not deleted.
        """
        time = session.now()
        key = session.new_ulid() if id is None else id
        if session.repeated:
            made = session.first(_GET, {"id": key})
            # The time was drawn for this call alone, so a project that has it is this call's.
            if made is not None and made.added_at == time:
                return made
        values = {
            "id": key,
            "name": name,
            "path": path,
            "description": description,
            "status": "active",
            "tags": plain_json(tags),
            "settings": {} if settings is None else plain_json(settings),
            "default_workdir": default_workdir,
            "created_by": created_by,
            "added_at": time,
            "created_at": time,
            "updated_at": time,
        }
        return session.insert(Project, values)

    @reads
    def get(self, session: Session, id: str) -> Project:
        """Return the project; raise NotFoundError for an unknown identifier."""
        return _required(session.first(_GET, {"id": id}), id)

    @reads
    def find(self, session: Session, id: str) -> Project | None:
        """Return the project, or None."""
        return session.first(_GET, {"id": id})

    @reads
    def exists(self, session: Session, id: str) -> bool:
        """Tell whether there is such a project."""
        return session.first(_EXISTS, {"id": id}) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        status: str | None = None,
        name: str | None = None,
        tags: Sequence[Any] | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[Project]:
        """Return a page of projects, the oldest first; orders are ``created_at`` and ``name``.

        ``tags`` keeps the projects that have all of them; on SQLite it narrows what the other filters leave.
        """
        filters = {
            "status": status,
            "name": name,
            "tags": plain_json(tags),
            "created_after": created_after,
            "created_before": created_before,
        }
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    @reads
    def count(self, session: Session, *, status: str | None = None, tags: Sequence[Any] | None = None) -> int:
        """Return how many projects pass the filters."""
        return _LISTING.count(session, {"status": status, "tags": plain_json(tags)})

    @writes_once
    @repeatable
    def update(
        self,
        session: Session,
        id: str,
        *,
        name: str | Unset = UNSET,
        path: str | Unset = UNSET,
        description: str | None | Unset = UNSET,
        tags: Sequence[Any] | Unset = UNSET,
        settings: Mapping[str, Any] | Unset = UNSET,
        default_workdir: str | None | Unset = UNSET,
    ) -> Project:
        """Change what is given and leave the rest.

        Raises AlreadyExistsError for a name of another project that is not deleted.
        """
        changes = given(
            name=name,
            path=path,
            description=description,
            tags=plain_json(tags),
            settings=plain_json(settings),
            default_workdir=default_workdir,
        )
        return _change(session, id, changes)

    @writes_once
    @repeatable
    def archive(self, session: Session, id: str) -> Project:
        """Put the project away; its tasks stay."""
        return _change(session, id, {"status": "archived"})

    @writes
    @repeatable
    def restore(self, session: Session, id: str) -> Project:
        """Make an archived or deleted project active again; AlreadyExistsError when its name was taken meanwhile."""
        project = _required(session.first(_GET, {"id": id}), id)
        return _change(session, id, {"status": "active"}, name=project.name)

    @writes
    @repeatable
    def delete(self, session: Session, id: str) -> Project:
        """Mark the project deleted, which frees its name; ConflictError while it has tasks: archive it instead."""
        _required(session.first(_LOCK if session.capabilities.row_locks else _GET, {"id": id}), id)
        # The lock waits for tasks that are just being added, so they are seen here.
        if session.first(_HAS_TASKS, {"id": id}) is not None:
            raise ConflictError("project", id, "it has tasks, so it can be archived but not deleted")
        return _change(session, id, {"status": "deleted"})

    @writes_once
    @repeatable
    def add_repo(
        self,
        session: Session,
        project_id: str,
        repo_id: str,
        *,
        repo_path: str,
        name: str | None = None,
        remote_url: str | None = None,
        default_branch: str | None = None,
        role: str = "code",
        is_writable: bool = True,
        metadata: Mapping[str, Any] | None = None,
    ) -> ProjectRepo:
        """Add a repository; AlreadyExistsError when the project has one under this ``repo_id``."""
        time = session.now()
        if session.repeated:
            made = session.first(_GET_REPO, {"project_id": project_id, "repo_id": repo_id})
            if made is not None and made.added_at == time:
                return made
        values = {
            "project_id": project_id,
            "repo_id": repo_id,
            "repo_path": repo_path,
            "name": name,
            "remote_url": remote_url,
            "default_branch": default_branch,
            "role": role,
            "is_writable": is_writable,
            "metadata": {} if metadata is None else plain_json(metadata),
            "added_at": time,
            "updated_at": time,
        }
        return session.insert(ProjectRepo, values)

    @writes
    @repeatable
    def remove_repo(self, session: Session, project_id: str, repo_id: str) -> None:
        """Remove a repository; if it was the default, the project has none afterwards."""
        _required(session.first(_LOCK if session.capabilities.row_locks else _GET, {"id": project_id}), project_id)
        time = session.now()
        session.execute(_CLEAR_DEFAULT, {"id": project_id, "repo_id": repo_id, "updated_at": time})
        if session.execute(_DELETE_REPO, {"project_id": project_id, "repo_id": repo_id}) == 0 and not session.repeated:
            raise NotFoundError("repository", repo_id)

    @reads
    def list_repos(
        self,
        session: Session,
        project_id: str,
        *,
        role: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[ProjectRepo]:
        """Return a page of the project's repositories, ordered by ``repo_id``."""
        return _REPO_LISTING.page(session, {"project_id": project_id, "role": role}, limit=limit, cursor=cursor)

    @writes
    @repeatable
    def set_default_repo(self, session: Session, project_id: str, repo_id: str | None) -> Project:
        """Make one of the project's repositories its default, or none; NotFoundError for one that it does not have."""
        _required(session.first(_LOCK if session.capabilities.row_locks else _GET, {"id": project_id}), project_id)
        if repo_id is not None and session.first(_GET_REPO, {"project_id": project_id, "repo_id": repo_id}) is None:
            raise NotFoundError("repository", repo_id)
        return _change(session, project_id, {"default_repo_id": repo_id})


_EXISTS: Statement[Any] = Statement(select(literal(1)).where(_PROJECTS.c.id == _ID))
# Tasks live on a higher floor, so they are known here by their table's name alone. It is a Table all the same: a
# table clause would be left out when the schema is written into the statement.
_TASKS = Table("tasks", MetaData(), Column("project_id", _PROJECTS.c.id.type))
_HAS_TASKS: Statement[Any] = Statement(select(literal(1)).where(_TASKS.c.project_id == _ID).limit(1))
_CLEAR_DEFAULT: Statement[Any] = Statement(
    update(_PROJECTS)
    .where(_PROJECTS.c.id == _ID, _PROJECTS.c.default_repo_id == _REPO)
    .values(default_repo_id=None, updated_at=bindparam("updated_at"))
)
_CHANGES: dict[frozenset[str], Statement[Project]] = {}


def _change(session: Session, key: str, changes: Mapping[str, Any], *, name: str | None = None) -> Project:
    """Change these columns; ``name`` is the one that the project has then, when it may be taken."""
    names = frozenset(changes)
    statement = _CHANGES.get(names)
    if statement is None:
        values = {name: bindparam(f"new_{name}", type_=_PROJECTS.c[name].type) for name in (*changes, "updated_at")}
        query = update(_PROJECTS).where(_PROJECTS.c.id == _ID).values(values).returning(*_PROJECTS.c)
        statement = _CHANGES[names] = Statement(query, returns=Project, called={f"new_{each}": each for each in names})
    values = {f"new_{name}": value for name, value in changes.items()}
    try:
        changed = session.first(statement, {**values, "id": key, "new_updated_at": session.now()})
    except IntegrityViolation as violation:
        if violation.kind == "unique":
            raise AlreadyExistsError("project", changes.get("name", name), field="name") from None
        raise
    return _required(changed, key)


def _required(project: Project | None, key: str) -> Project:
    if project is None:
        raise NotFoundError("project", key)
    return project
