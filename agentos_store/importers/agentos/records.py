"""What the iterators give: rows of the source in the store's terms, each with the repairs that it took.

Texts hold neither U+0000 nor lone surrogates, times are aware and in UTC, enumerations have the store's words, and
each reference names a record that the same registry gives.

What has no field of its own stays in ``metadata`` (a project's: in ``settings``) under one key, ``"agentos"``; were the
user's own data to use that key already, it is ``"agentos_1"``, and so on. Beneath it are, each only where there is one:
``status`` (the old word, case folded), ``session_id`` (of a session that is gone), ``task_id`` (the task a chat was
about), and by its
column's name whatever was too long, the default repository that is gone, and any text that should have been JSON.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from agentos_store.importers.agentos.jsontext import JSON
from agentos_store.importers.agentos.report import Repair


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectRecord:
    """A project; its name is no other undeleted project's."""

    id: str
    name: str
    """Empty when it has none."""
    path: str
    description: str | None
    status: str
    """active, archived or deleted."""
    tags: list[str]
    default_repo_id: str | None
    default_workdir: str | None
    settings: dict[str, JSON]
    added_at: dt.datetime
    created_at: dt.datetime
    updated_at: dt.datetime
    created_by: str | None
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoRecord:
    """A repository of a project."""

    project_id: str
    repo_id: str
    repo_path: str
    name: str | None
    remote_url: str | None
    default_branch: str | None
    role: str
    """code, docs, infra or mono_subdir."""
    is_writable: bool
    metadata: dict[str, JSON] | None
    """With ``auth_profile``, the name of the credentials that AgentOS used, where there is one."""
    added_at: dt.datetime
    updated_at: dt.datetime
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """A session, from whichever of the tables it stood in; one that stood in several is one record."""

    id: str
    channel: str
    """``webui``, ``chat``, or the word of ``task_sessions``, ``task`` when it has none."""
    title: str | None
    user_id: str | None
    """AgentOS's word for the user; it has no table of users."""
    metadata: dict[str, JSON] | None
    created_at: dt.datetime
    updated_at: dt.datetime
    merged: int = 0
    """Further rows of the source that went into this record."""
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task."""

    task_id: str
    title: str
    status: str
    session_id: str | None
    project_id: str | None
    """From the metadata's ``project_id`` or ``project_hint``, where it names a project."""
    created_by: str | None
    metadata: dict[str, JSON] | None
    route_plan_json: JSON
    requirements_json: JSON
    selected_instance_id: str | None
    router_version: str | None
    created_at: dt.datetime
    updated_at: dt.datetime
    exit_reason: str | None
    """Never None for a failed task."""
    legacy_status: str | None
    """The status as it was found, where it was another word."""
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageRecord:
    """A link of a task to what it came from or led to; no two have the same task, kind and reference."""

    source_id: int
    task_id: str
    kind: str
    ref_id: str
    phase: str | None
    metadata: dict[str, JSON] | None
    created_at: dt.datetime
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """A line of a task's audit trail; no two have the same decision."""

    source_id: int
    task_id: str
    repo_id: str | None
    level: str
    """info, warning or error."""
    event_type: str
    payload: JSON
    """Exact; ``{"unparsed": text}`` for what was no JSON."""
    has_payload: bool
    """Tells the JSON value null (True) from no payload at all (False)."""
    created_at: dt.datetime
    decision_id: str | None
    source_event_ts: dt.datetime | None
    supervisor_processed_at: dt.datetime | None
    verdict_id: str | None
    repairs: tuple[Repair, ...] = ()
