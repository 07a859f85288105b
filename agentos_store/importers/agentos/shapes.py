"""The two shapes that a registry at version 0.25 comes in, told apart by their columns."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import StrEnum
from typing import Final

ORIGIN_KEY: Final = "agentos"
"""Where in the free JSON of a record stands what has no field of its own."""


class Shape(StrEnum):
    """Who made the tables."""

    AGENTOS = "agentos"
    """AgentOS's own migrations."""
    DOCUMENT = "document"
    """AgentOS's page on its database architecture, which differs from them."""


_DOCUMENT_ONLY: Final = (("task_lineage", "lineage_id"), ("project_repos", "repo_path"), ("kb_chunks", "chunk_index"))
_AGENTOS_ONLY: Final = (("task_lineage", "id"), ("project_repos", "workspace_relpath"), ("kb_chunks", "start_line"))

_PROJECTS: Final = (
    "id path added_at name description status tags default_repo_id default_workdir settings created_at updated_at"
    " created_by"
)
_TASKS: Final = (
    "task_id session_id title status created_at updated_at created_by metadata route_plan_json requirements_json"
    " selected_instance_id router_version"
)
_AUDITS: Final = (
    "audit_id task_id repo_id level event_type payload created_at decision_id source_event_ts supervisor_processed_at"
    " verdict_id"
)
_LINKS: Final = {
    "task_dependency": "dependency_id task_id depends_on_task_id dependency_type reason created_at created_by metadata",
    "task_repo_scope": "scope_id task_id repo_id scope path_filters created_at metadata",
    "task_artifact_ref": "artifact_id task_id repo_id ref_type ref_value summary created_at metadata",
}

_MEMORIES: Final = (
    "id scope type content tags sources created_at updated_at confidence project_id last_used_at use_count"
    " retention_type expires_at auto_cleanup"
)
_MESSAGES: Final = "message_id session_id role content created_at metadata"

COLUMNS: Final[Mapping[Shape, Mapping[str, tuple[str, ...]]]] = {
    shape: {table: tuple(columns.split()) for table, columns in tables.items()}
    for shape, tables in {
        Shape.AGENTOS: {
            "projects": _PROJECTS,
            "memory_items": _MEMORIES,
            "project_repos": "repo_id project_id name remote_url default_branch workspace_relpath role is_writable"
            " auth_profile created_at updated_at metadata",
            "task_sessions": "session_id channel metadata created_at last_activity",
            "chat_sessions": "session_id title task_id created_at updated_at metadata",
            "webui_sessions": "session_id user_id created_at updated_at metadata",
            "chat_messages": _MESSAGES,
            "webui_messages": _MESSAGES,
            "tasks": _TASKS,
            "task_lineage": "id task_id kind ref_id phase created_at metadata",
            "task_audits": _AUDITS,
            **_LINKS,
            "guardian_assignments": "assignment_id task_id guardian_code created_at reason_json status",
            "guardian_verdicts": "verdict_id assignment_id task_id guardian_code status created_at verdict_json",
            "supervisor_inbox": "event_id task_id event_type source payload received_at processed_at status"
            " error_message retry_count",
            "kb_sources": "source_id repo_id path file_hash mtime doc_type language tags created_at updated_at",
            "kb_chunks": "chunk_id source_id heading start_line end_line content content_hash token_count created_at",
            "kb_embeddings": "chunk_id model dims vector content_hash built_at",
        },
        Shape.DOCUMENT: {
            "projects": _PROJECTS,
            "memory_items": _MEMORIES,
            "project_repos": "id project_id repo_id repo_path added_at",
            "webui_sessions": "session_id user_id created_at updated_at metadata",
            "webui_messages": _MESSAGES,
            "tasks": _TASKS,
            "task_lineage": "lineage_id task_id kind ref_id phase created_at metadata",
            "task_audits": _AUDITS,
            **_LINKS,
            "guardian_verdicts": "id task_id triggered_by policy_json decision reasons_json created_at",
            "supervisor_inbox": "id task_id event_type event_ts payload_json status processed_at created_at",
            "kb_sources": "source_id project_id source_type source_path indexed_at metadata",
            "kb_chunks": "chunk_id source_id content chunk_index metadata created_at",
            "kb_embeddings": "chunk_id embedding model_name created_at",
        },
    }.items()
}
"""The columns that are read, by table; a registry that lacks one, or has another, is told of in its problems."""

VERSION_TABLE: Final = "schema_version"

KEYS: Final[Mapping[str, str]] = {
    "projects": "id",
    "project_repos": "repo_id",
    "task_sessions": "session_id",
    "chat_sessions": "session_id",
    "webui_sessions": "session_id",
    "chat_messages": "message_id",
    "webui_messages": "message_id",
    "tasks": "task_id",
    "guardian_assignments": "assignment_id",
    "memory_items": "id",
    "kb_sources": "source_id",
    "kb_chunks": "chunk_id",
    "kb_embeddings": "chunk_id",
}
"""The column that names a row in the report; where there is none it is the row's number."""


def shape_of(columns: Mapping[str, AbstractSet[str]]) -> Shape:
    """Tell the shape by the columns of the tables; what damage leaves of them decides by majority."""
    document = sum(column in columns.get(table, ()) for table, column in _DOCUMENT_ONLY)
    agentos = sum(column in columns.get(table, ()) for table, column in _AGENTOS_ONLY)
    return Shape.DOCUMENT if document > agentos else Shape.AGENTOS
