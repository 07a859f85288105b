"""Projects and their repositories."""

from __future__ import annotations

from typing import Final

from agentos_store.importers.agentos.literals import read_tags
from agentos_store.importers.agentos.records import ProjectRecord, RepoRecord
from agentos_store.importers.agentos.references import References, pair
from agentos_store.importers.problems import SetAside
from agentos_store.importers.row import Row

NAME_LENGTH: Final = 400

_STATUSES: Final = frozenset({"active", "archived", "deleted"})
_ROLES: Final = frozenset({"code", "docs", "infra", "mono_subdir"})


def read_project(row: Row, references: References, ids: str, names: str) -> ProjectRecord:
    """Make the record; ``ids`` and ``names`` are the sets of those that are taken."""
    project_id = row.identifier("id")
    if not references.keys.add(ids, project_id):
        raise SetAside("an earlier row has the same id")
    status = row.word("status")
    if status not in _STATUSES:
        if not row.is_null("status") or row.has_column("status"):
            row.repaired(f"status: {row.text('status')!r} became 'active'")
        status = "active"
    settings = row.object("settings") or {}
    added_at = row.first_time("added_at", "created_at", "updated_at", otherwise=references.around)
    created_at = row.first_time("created_at", "added_at", "updated_at", otherwise=added_at)
    return ProjectRecord(
        id=project_id,
        name=_name(row, references, names, project_id, status),
        path=_text_or(row, "path", ""),
        description=row.text("description"),
        status=status,
        tags=read_tags(row, "tags"),
        default_repo_id=_default_repo(row, references, project_id),
        default_workdir=row.text("default_workdir"),
        created_by=row.text("created_by"),
        added_at=added_at,
        created_at=created_at,
        updated_at=row.first_time("updated_at", "created_at", "added_at", otherwise=created_at),
        # Last, for it takes along what the other fields have kept.
        settings=row.with_origin(settings) or {},
        repairs=row.repairs,
    )


def read_repo(row: Row, references: References, ids: str) -> RepoRecord:
    """Make the record from either shape; ``ids`` is the set of those that are taken."""
    repo_id = row.identifier("repo_id")
    project_id = row.identifier("project_id")
    if not references.has_project(project_id):
        raise SetAside("its project is not in the registry")
    if not references.keys.add(ids, pair(project_id, repo_id)):
        raise SetAside("an earlier row is the same repository of the same project")
    role = row.word("role").replace("-", "_")
    if role not in _ROLES:
        if row.has_column("role"):
            row.repaired(f"role: {row.text('role')!r} became 'code'")
        role = "code"
    metadata = row.object("metadata")
    profile = row.text("auth_profile")
    if profile is not None:
        if metadata is not None and metadata.get("auth_profile", profile) != profile:
            row.keep("auth_profile", profile)
        else:
            metadata = {**(metadata or {}), "auth_profile": profile}
    added = "added_at" if row.has_column("added_at") else "created_at"
    added_at = row.first_time(added, "updated_at", otherwise=references.around)
    return RepoRecord(
        project_id=project_id,
        repo_id=repo_id,
        repo_path=_text_or(row, "repo_path" if row.has_column("repo_path") else "workspace_relpath", "."),
        name=row.text("name"),
        remote_url=row.text("remote_url"),
        default_branch=row.text("default_branch"),
        role=role,
        is_writable=row.truth("is_writable", otherwise=True),
        added_at=added_at,
        updated_at=row.first_time("updated_at", added, otherwise=added_at),
        metadata=row.with_origin(metadata),
        repairs=row.repairs,
    )


def _name(row: Row, references: References, names: str, project_id: str, status: str) -> str:
    name = row.text("name")
    if name is None:
        row.repaired("name: it was missing")
        return ""
    name = row.cut("name", name, NAME_LENGTH)
    if not name or status == "deleted":
        return name
    unique, number = name, 1
    while not references.keys.add(names, unique):
        suffix = f" ({project_id})" if number == 1 else f" ({project_id} {number})"
        unique = name[: NAME_LENGTH - len(suffix)] + suffix
        number += 1
    if unique != name:
        row.repaired(f"name: another project has the name {name!r}, so it became {unique!r}")
    return unique


def _default_repo(row: Row, references: References, project_id: str) -> str | None:
    repo_id = row.reference("default_repo_id")
    if repo_id is None or references.has_repo(project_id, repo_id):
        return repo_id
    row.repaired("default_repo_id: the project has no such repository, so it has no default any more")
    row.keep("default_repo_id", repo_id)
    return None


def _text_or(row: Row, column: str, otherwise: str) -> str:
    text = row.text(column)
    if text is None:
        row.repaired(f"{column}: it was missing, so it became {otherwise!r}")
        return otherwise
    return text
