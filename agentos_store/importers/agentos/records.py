"""What the iterators give: rows of the source in the store's terms, each with the repairs that it took.

Texts hold neither U+0000 nor lone surrogates, times are aware and in UTC, enumerations have the store's words, and
each reference names a record that the same registry gives.

What has no field of its own stays in ``metadata`` (a project's: in ``settings``) under one key, ``"agentos"``; were the
user's own data to use that key already, it is ``"agentos_1"``, and so on. Beneath it are, each only where there is one:
``status`` (the old word, case folded), ``session_id`` (of a session that is gone), ``task_id`` (the task a chat was
about), and by its
column's name whatever was too long, the default repository that is gone, and any text that should have been JSON. A
verdict keeps it in ``policy_json``, a memory as the last of its ``sources``. Where one record was made of several links
or scopes, ``"agentos_merged"`` has what each row said.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from agentos_store.importers.jsontext import JSON
from agentos_store.importers.problems import Repair


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
    """AgentOS's word for the user, which becomes one: it has no table of them."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyRecord:
    """A task depends on another; no two have the same pair, and together they make no circle."""

    source_id: int
    task_id: str
    depends_on_task_id: str
    dependency_type: str
    """blocks, requires or suggests; of several rows the strongest."""
    reason: str | None
    created_by: str | None
    metadata: dict[str, JSON] | None
    created_at: dt.datetime
    merged: int = 0
    """Further rows of the source that went into this record."""
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeRecord:
    """What a task may touch of a repository; no two are about the same."""

    source_id: int
    task_id: str
    repo_id: str
    scope: str
    """full, paths or read_only."""
    path_filters: list[str]
    """Never empty with ``paths``, always with the others."""
    metadata: dict[str, JSON] | None
    created_at: dt.datetime
    merged: int = 0
    """Further rows of the source that went into this record."""
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRecord:
    """Something that a task made or used; no two are the same of the same task and repository."""

    source_id: int
    task_id: str
    repo_id: str
    ref_type: str
    """commit, branch, pr, patch, file or tag."""
    ref_value: str
    summary: str | None
    metadata: dict[str, JSON] | None
    created_at: dt.datetime
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRecord:
    """What a guardian decided about a task."""

    id: str
    task_id: str
    triggered_by: str
    """The guardian, or in the document's shape the event."""
    policy_json: dict[str, JSON]
    """From AgentOS: ``assignment_id``, ``guardian_code``, and of the assignment ``reason``, ``assignment_status`` and
    ``assigned_at``; ``verdict`` is what the verdict's own text has beyond all that."""
    decision: str
    """approve, reject or warn."""
    reasons_json: list[JSON]
    """From AgentOS: the flags, then each recommendation as ``{"recommendation": …}``."""
    created_at: dt.datetime
    assignment_row: int | None = None
    """The row number of the assignment that went into ``policy_json``."""
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxRecord:
    """An event that the supervisor has, or had, to look at; nobody holds it."""

    id: str
    task_id: str
    event_type: str
    event_ts: dt.datetime
    payload_json: JSON
    """``{"unparsed": text}`` for what was no JSON."""
    status: str
    """pending, processed, failed or parked."""
    source: str
    """Empty where the registry does not tell it."""
    attempts: int
    error_message: str | None
    processed_at: dt.datetime | None
    """Never None for a processed one."""
    created_at: dt.datetime
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRecord:
    """Something worth remembering; no two say the same, of the same type, in the same place."""

    id: str
    scope: str
    """task, agent, repo, project or global."""
    scope_id: str | None
    """The project of what holds in a project; of what holds in a task the task that is its only source of this kind.

    AgentOS has no column for it.
    """
    type: str
    content: JSON
    """Exact, and not None; ``{"unparsed": text}`` for what was no JSON."""
    tags: list[str]
    sources: list[JSON]
    confidence: float
    """As of the last change."""
    project_id: str | None
    last_used_at: dt.datetime | None
    use_count: int
    retention_type: str
    """temporary, project or permanent."""
    expires_at: dt.datetime | None
    auto_cleanup: bool
    created_at: dt.datetime
    updated_at: dt.datetime
    also: tuple[MemoryRecord, ...] = ()
    """What further rows say that say the same."""
    repairs: tuple[Repair, ...] = ()

    @property
    def merged(self) -> int:
        """Further rows of the source that went into this record."""
        return len(self.also)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRecord:
    """A file, directory or page that knowledge was taken from; no two of one project have one path."""

    source_id: str
    project_id: str | None
    source_type: str
    """file, directory or url."""
    source_path: str
    content_hash: str | None
    """Of the file, as AgentOS saw it."""
    metadata: dict[str, JSON]
    """From AgentOS: ``doc_type``, ``language`` and ``tags``; what tells of its repository and file is beneath
    ``"agentos"``."""
    indexed_at: dt.datetime
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRecord:
    """A piece of a source; those of one source come in their order."""

    chunk_id: str
    source_id: str
    content: str
    chunk_index: int
    """0, 1, … within its source."""
    heading: str | None
    start_line: int | None
    end_line: int | None
    token_count: int | None
    metadata: dict[str, JSON]
    created_at: dt.datetime
    repairs: tuple[Repair, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRecord:
    """What a model makes of a chunk; of one model all have as many dimensions as its first."""

    chunk_id: str
    model_name: str
    dimensions: int
    embedding: bytes
    """float32, little-endian, all finite and not all zero."""
    content_hash: str
    """The store's of the chunk, or AgentOS's of the older text that it is of."""
    created_at: dt.datetime
    repairs: tuple[Repair, ...] = ()
