"""What becomes of each column of each table when a person or an agent is forgotten: said once, and here.

The statements are made from this, and a test holds it against the models: a table or a column that is not classified
fails it.

A row that is somebody's own **goes**. A row that others share, such as a task of a project, stays, and what it says is
**emptied**. A column that names who did something is **named** no more, in whosever row. What is **kept** where the row
stays has its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from sqlalchemy import case, literal, literal_column, null

from agentos_store.agents.models import Agent
from agentos_store.conversations.content import TOOL_RESULT
from agentos_store.conversations.message_models import Message
from agentos_store.models import metadata
from agentos_store.tasks.models import Task

FORGOTTEN = "(forgotten)"
"""Stands where a text may not be empty, or where it shall be seen that somebody was."""


class Owner(Enum):
    """Who rows belong to."""

    USER = "user"
    SESSION = "session"
    AGENT = "agent"
    TASK = "task"


@dataclass(frozen=True, slots=True)
class Gone:
    """The value goes with its row."""


@dataclass(frozen=True, slots=True)
class Emptied:
    """The value goes with its row, and is replaced where the row stays."""

    value: Any
    """SQL."""


@dataclass(frozen=True, slots=True)
class Named:
    """The value names who did something; it is replaced where that is who is forgotten."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The value stays where the row stays."""

    why: str


Fate = Gone | Emptied | Named | Kept


@dataclass(frozen=True, slots=True)
class Link:
    """Rows of a table that are an owner's: those with the owner's key in this column."""

    owner: Owner
    column: str
    goes: bool = True
    """Whether they go; otherwise they are emptied."""
    where: str = ""
    """A further condition, as SQL."""
    empties: tuple[str, ...] = ()
    """Which columns are emptied; without any, all that can be."""


@dataclass(frozen=True, slots=True)
class Classified:
    """What becomes of a table."""

    columns: Mapping[str, Fate]
    links: tuple[Link, ...] = ()
    kind: str | None = None
    """What the search calls documents that are made of its rows."""


@dataclass(frozen=True, slots=True)
class Actor:
    """A column that may name somebody in rows that are others'."""

    table: str
    column: str
    form: str = "value"
    """``value``: the name is the column's value; ``by``: what ``by`` says in JSON; ``element``: any string in JSON."""
    agents_only: bool = False


def _gone(names: str) -> dict[str, Fate]:
    return dict.fromkeys(names.split(), Gone())


def _named(names: str) -> dict[str, Fate]:
    return dict.fromkeys(names.split(), Named())


def _kept(why: str, names: str) -> dict[str, Fate]:
    return dict.fromkeys(names.split(), Kept(why))


def _emptied(**values: Any) -> dict[str, Fate]:
    return {name: Emptied(value) for name, value in values.items()}


def _nothing(names: str) -> dict[str, Fate]:
    return dict.fromkeys(names.split(), Emptied(null()))


_TASKS, _MESSAGES, _AGENTS = Task.table().c, Message.table().c, Agent.table().c
_USER, _SESSION, _AGENT, _TASK = Owner.USER, Owner.SESSION, Owner.AGENT, Owner.TASK

_KEY = "the key, which other rows name; identifiers are the caller's own"
_WORD = "a word of the program's, not of anybody's"
_NUMBER = "a number, a time or a switch"
_HASH = "a hash over others, too"
_SHARED = "belongs to a project or to all, not to a person"
_OTHERS = "names a row of others"
_UPKEEP = "tells of the store's own upkeep"

TABLES: Mapping[str, Classified] = {
    # --- who is forgotten, and what is theirs alone
    "users": Classified(
        _gone("id name email api_key_hash quota_total quota_used quota_reserved preferences created_at updated_at")
    ),
    "quota_reservations": Classified(_gone("id user_id tokens expires_at created_at"), (Link(_USER, "user_id"),)),
    "sessions": Classified(
        _gone(
            "id user_id channel title status model message_count next_seq generation total_tokens total_cost budget"
            " metadata deleted_at unindexed_from created_at updated_at"
        )
    ),
    "messages": Classified(
        {
            **_kept(_KEY, "id"),
            **_kept("the conversation is somebody else's", "session_id"),
            **_kept(_NUMBER, "seq from_generation to_generation created_at"),
            **_kept(_NUMBER, "token_count input_tokens output_tokens cached_tokens cost"),
            **_kept(_WORD, "role model"),
            **_kept(_OTHERS, "copied_from"),
            **_nothing("agent_id name tool_calls tool_call_id tool_names idempotency_key"),
            **_emptied(
                content=literal_column("'null'"),
                content_types=case((_MESSAGES.role == "tool", TOOL_RESULT), else_=0),
                metadata=literal({}, _MESSAGES.metadata.type),
            ),
        },
        (Link(_SESSION, "session_id"), Link(_AGENT, "agent_id", goes=False)),
        kind="message",
    ),
    "tool_call_records": Classified(
        {
            **_gone("id agent_id session_id tool_call_id ordinal message_id tool_name state input output has_output"),
            **_gone("is_error error_message duration_ms started_at completed_at created_at updated_at"),
            **_named("approval audit_trail"),
        },
        (Link(_SESSION, "session_id"), Link(_AGENT, "agent_id")),
    ),
    "contexts": Classified(
        _gone("context_id agent_id session_id context_data expires_at created_at"),
        (Link(_SESSION, "session_id"), Link(_AGENT, "agent_id")),
    ),
    "snapshots": Classified(
        _gone(
            "agent_id snapshot_id parent_snapshot_id session_id generation up_to_seq last_sfp_index last_bookmark"
            " metadata created_at"
        ),
        (Link(_SESSION, "session_id"), Link(_AGENT, "agent_id")),
    ),
    "agent_documents": Classified(
        _gone("agent_id kind key content metadata version created_at updated_at"), (Link(_AGENT, "agent_id"),)
    ),
    "events": Classified(
        _gone("position transaction_id event_id agent_id session_id task_id channel seq event_type severity data")
        | _gone("created_at"),
        (Link(_SESSION, "session_id"), Link(_AGENT, "agent_id"), Link(_TASK, "task_id")),
    ),
    "memory_items": Classified(
        _gone("id scope scope_id type content content_hash tags sources confidence project_id last_used_at use_count")
        | _gone("decayed_at retention_type expires_at auto_cleanup created_at updated_at"),
        (
            Link(_AGENT, "scope_id", where="scope = 'agent'"),
            Link(_TASK, "scope_id", where="scope = 'task'"),
        ),
        kind="memory",
    ),
    "search_documents": Classified(
        # They go with what they are made of.
        _gone("doc_id kind key part parts family length text_hash tokens")
    ),
    "leases": Classified(
        _gone("name token acquisition_id acquired_at expires_at") | _named("owner"),
        (Link(_USER, "name"), Link(_SESSION, "name"), Link(_AGENT, "name")),
    ),
    "import_ledger": Classified(
        # KODE's names an agent; the others name rows by keys of the source, so that what goes here stays away.
        _gone("source kind source_key our_key imported_at"),
        (Link(_AGENT, "source_key", where="source = 'kode' AND kind = 'conversation'"),),
    ),
    # --- what may be shared: it goes where it is somebody's alone, else it is emptied
    "agents": Classified(
        {
            **_kept(_KEY, "agent_id"),
            **_kept("the agent works for others, too", "template_id role goal backstory config_version metadata"),
            **_kept(_OTHERS, "parent_id last_task_id"),
            **_kept(_NUMBER, "last_sfp_index version deleted_at created_at updated_at state"),
            **_named("lineage"),
            **_nothing("session_id last_bookmark breakpoint"),
            **_emptied(stats=literal({}, _AGENTS.stats.type)),
        },
        (Link(_SESSION, "session_id", goes=False),),
    ),
    "tasks": Classified(
        {
            **_kept(_KEY, "task_id"),
            **_kept(_WORD, "status task_type router_version"),
            **_kept(_OTHERS, "project_id"),
            **_kept(_NUMBER, "priority attempts max_attempts run_after lease_until lease_token version"),
            **_kept(_NUMBER, "started_at completed_at duration created_at updated_at"),
            **_nothing("session_id agent_id payload result error_message route_plan_json requirements_json"),
            **_nothing("selected_instance_id idempotency_key claimed_by created_by"),
            **_emptied(
                title=literal(FORGOTTEN, _TASKS.title.type),
                # Whatever failed has a reason.
                exit_reason=case((_TASKS.status == "failed", FORGOTTEN), else_=null()),
                metadata=literal({}, _TASKS.metadata.type),
            ),
        },
        (Link(_SESSION, "session_id", goes=False),),
    ),
    "task_audits": Classified(
        {
            **_kept("the entry's place in its chain", "audit_id task_id prev_hash row_hash"),
            **_kept(_WORD, "level event_type"),
            **_kept(_OTHERS, "repo_id decision_id verdict_id"),
            **_kept(_NUMBER, "source_event_ts supervisor_processed_at created_at"),
            # By a way of its own, which leaves the chain whole.
            **_nothing("payload"),
        }
    ),
    "task_audit_heads": Classified(
        {**_kept(_KEY, "task_id"), **_kept(_HASH, "head_hash head_prev_hash pruned_hash")}
        | _kept(_NUMBER, "length pruned_to")
    ),
    "guardian_verdicts": Classified(
        _gone("id task_id triggered_by policy_json decision reasons_json created_at"), (Link(_TASK, "task_id"),)
    ),
    "supervisor_inbox": Classified(
        {
            **_gone("id task_id event_type event_ts payload_json status source attempts error_message"),
            **_gone("lease_until lease_token processed_at created_at"),
            **_named("claimed_by"),
        },
        (Link(_TASK, "task_id"),),
    ),
    "task_lineage": Classified(
        _gone("lineage_id task_id kind ref_id phase metadata created_at"), (Link(_TASK, "task_id"),)
    ),
    "task_repo_scope": Classified(
        _gone("scope_id task_id repo_id scope path_filters metadata created_at"), (Link(_TASK, "task_id"),)
    ),
    "task_artifact_ref": Classified(
        _gone("artifact_id task_id repo_id ref_type ref_value summary metadata created_at"), (Link(_TASK, "task_id"),)
    ),
    "task_dependency": Classified(
        {
            **_kept(_KEY, "dependency_id"),
            **_kept("the order of work is others' too", "task_id depends_on_task_id dependency_type created_at"),
            **_nothing("reason created_by"),
            **_emptied(metadata=literal({}, metadata.tables["task_dependency"].c.metadata.type)),
        },
        (Link(_TASK, "task_id", goes=False), Link(_TASK, "depends_on_task_id", goes=False)),
    ),
    # --- what is nobody's
    "projects": Classified(
        _kept(_SHARED, "id name path description status tags default_repo_id default_workdir settings")
        | _kept(_NUMBER, "added_at created_at updated_at")
        | _named("created_by")
    ),
    "project_repos": Classified(
        _kept(_SHARED, "id project_id repo_id repo_path name remote_url default_branch role is_writable metadata")
        | _kept(_NUMBER, "added_at updated_at")
    ),
    "kb_sources": Classified(
        _kept(_SHARED, "source_id project_id source_type source_path content_hash indexed_at metadata")
    ),
    "kb_chunks": Classified(
        _kept(_SHARED, "chunk_id source_id content chunk_index heading start_line end_line token_count content_hash")
        | _kept(_SHARED, "metadata created_at")
    ),
    "kb_models": Classified(_kept(_SHARED, "model_name dimensions revision created_at")),
    "kb_embeddings": Classified(
        _kept(_SHARED, "chunk_id model_name dimensions embedding content_hash revision created_at")
    ),
    "event_orders": Classified(_kept(_UPKEEP, "origin order_id first_position created_at")),
    "audit_pruning_permits": Classified(_kept("empty but inside a transaction", "task_id")),
    "maintenance_runs": Classified(_kept(_UPKEEP, "id kind started_at finished_at counts error") | _named("progress")),
}

EXECUTED = Link(
    _AGENT,
    "agent_id",
    goes=False,
    empties=("agent_id", "result", "error_message", "exit_reason", "selected_instance_id"),
)
"""Tasks that others gave to an agent that is forgotten: what they asked for stays, what it made of it goes."""

ACTORS = (
    Actor("projects", "created_by"),
    Actor("tasks", "created_by"),
    Actor("tasks", "claimed_by"),
    Actor("task_dependency", "created_by"),
    Actor("supervisor_inbox", "claimed_by"),
    Actor("leases", "owner"),
    Actor("tool_call_records", "approval", "by"),
    Actor("tool_call_records", "audit_trail", "by"),
    Actor("maintenance_runs", "progress", "by"),
    Actor("agents", "lineage", "element", agents_only=True),
)
"""Audits name who did something, too; there the payload is erased."""
