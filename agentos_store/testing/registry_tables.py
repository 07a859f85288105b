"""The tables of AgentOS registries: a table a line, and a line that is indented goes on with the one before it."""

from __future__ import annotations

from typing import Final

BOTH: Final = """
schema_version: version TEXT, applied_at TIMESTAMP
projects: id TEXT, path TEXT, added_at TIMESTAMP, name TEXT, description TEXT, status TEXT, tags TEXT,
  default_repo_id TEXT, default_workdir TEXT, settings TEXT, created_at TIMESTAMP, updated_at TIMESTAMP,
  created_by TEXT
tasks: task_id TEXT, session_id TEXT, title TEXT, status TEXT, created_at TIMESTAMP, updated_at TIMESTAMP,
  created_by TEXT, metadata TEXT, route_plan_json TEXT, requirements_json TEXT, selected_instance_id TEXT,
  router_version TEXT
task_audits: audit_id INTEGER, task_id TEXT, repo_id TEXT, level TEXT, event_type TEXT, payload TEXT,
  created_at TIMESTAMP, decision_id TEXT, source_event_ts TEXT, supervisor_processed_at TEXT, verdict_id TEXT
task_dependency: dependency_id INTEGER, task_id TEXT, depends_on_task_id TEXT, dependency_type TEXT,
  reason TEXT, created_at TIMESTAMP, created_by TEXT, metadata TEXT
task_artifact_ref: artifact_id INTEGER, task_id TEXT, repo_id TEXT, ref_type TEXT, ref_value TEXT, summary TEXT,
  created_at TIMESTAMP, metadata TEXT
task_repo_scope: scope_id INTEGER, task_id TEXT, repo_id TEXT, scope TEXT, path_filters TEXT,
  created_at TIMESTAMP, metadata TEXT
memory_items: id TEXT, scope TEXT, type TEXT, content TEXT, tags TEXT, sources TEXT, created_at TIMESTAMP,
  updated_at TIMESTAMP, confidence REAL, project_id TEXT, last_used_at TIMESTAMP, use_count INTEGER,
  retention_type TEXT, expires_at TIMESTAMP, auto_cleanup INTEGER
webui_sessions: session_id TEXT, user_id TEXT, created_at TEXT, updated_at TEXT, metadata TEXT
webui_messages: message_id TEXT, session_id TEXT, role TEXT, content TEXT, created_at TEXT, metadata TEXT
"""
"""In both shapes."""

AGENTOS: Final = """
project_repos: repo_id TEXT, project_id TEXT, name TEXT, remote_url TEXT, default_branch TEXT,
  workspace_relpath TEXT, role TEXT, is_writable INTEGER, auth_profile TEXT, created_at TIMESTAMP,
  updated_at TIMESTAMP, metadata TEXT
task_sessions: session_id TEXT, channel TEXT, metadata TEXT, created_at TIMESTAMP, last_activity TIMESTAMP
chat_sessions: session_id TEXT, title TEXT, task_id TEXT, created_at TIMESTAMP, updated_at TIMESTAMP,
  metadata TEXT
chat_messages: message_id TEXT, session_id TEXT, role TEXT, content TEXT, created_at TIMESTAMP, metadata TEXT
task_lineage: id INTEGER, task_id TEXT, kind TEXT, ref_id TEXT, phase TEXT, created_at TIMESTAMP, metadata TEXT
guardian_assignments: assignment_id TEXT, task_id TEXT, guardian_code TEXT, created_at TIMESTAMP,
  reason_json TEXT, status TEXT
guardian_verdicts: verdict_id TEXT, assignment_id TEXT, task_id TEXT, guardian_code TEXT, status TEXT,
  created_at TIMESTAMP, verdict_json TEXT
supervisor_inbox: event_id TEXT, task_id TEXT, event_type TEXT, source TEXT, payload TEXT,
  received_at TIMESTAMP, processed_at TIMESTAMP, status TEXT, error_message TEXT, retry_count INTEGER
kb_sources: source_id TEXT, repo_id TEXT, path TEXT, file_hash TEXT, mtime INTEGER, doc_type TEXT,
  language TEXT, tags TEXT, created_at TEXT, updated_at TEXT
kb_chunks: chunk_id TEXT, source_id TEXT, heading TEXT, start_line INTEGER, end_line INTEGER, content TEXT,
  content_hash TEXT, token_count INTEGER, created_at TEXT
kb_embeddings: chunk_id TEXT, model TEXT, dims INTEGER, vector BLOB, content_hash TEXT, built_at INTEGER
runs: id INTEGER, project_id TEXT, type TEXT, status TEXT, started_at TIMESTAMP, completed_at TIMESTAMP,
  error TEXT, lease_until TIMESTAMP
patches: id INTEGER, patch_id TEXT, run_id INTEGER, step_id INTEGER, intent TEXT, files TEXT, diff_hash TEXT,
  created_at TIMESTAMP
snippets: id TEXT, title TEXT, language TEXT, code TEXT, tags_json TEXT, source_type TEXT,
  source_session_id TEXT, source_message_id TEXT, source_model TEXT, created_at INTEGER, updated_at INTEGER
"""
"""As AgentOS's own migrations make them."""

DOCUMENT: Final = """
project_repos: id INTEGER, project_id TEXT, repo_id TEXT, repo_path TEXT, added_at TIMESTAMP
task_lineage: lineage_id INTEGER, task_id TEXT, kind TEXT, ref_id TEXT, phase TEXT, created_at TIMESTAMP,
  metadata TEXT
guardian_verdicts: id TEXT, task_id TEXT, triggered_by TEXT, policy_json TEXT, decision TEXT, reasons_json TEXT,
  created_at TEXT
supervisor_inbox: id TEXT, task_id TEXT, event_type TEXT, event_ts TEXT, payload_json TEXT, status TEXT,
  processed_at TEXT, created_at TEXT
kb_sources: source_id TEXT, project_id TEXT, source_type TEXT, source_path TEXT, indexed_at TEXT, metadata TEXT
kb_chunks: chunk_id TEXT, source_id TEXT, content TEXT, chunk_index INTEGER, metadata TEXT, created_at TEXT
kb_embeddings: chunk_id TEXT, embedding BLOB, model_name TEXT, created_at TEXT
"""
"""As AgentOS's page on its database architecture has them."""
