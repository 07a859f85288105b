"""Every model of the store, and so the complete metadata."""

from __future__ import annotations

from agentos_store.agents.models import Agent, AgentDocument, Snapshot
from agentos_store.base import Base
from agentos_store.conversations.context_models import Context
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import QuotaReservation, Session, User
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.events.models import Event, EventOrder
from agentos_store.governance.models import GuardianVerdict, SupervisorInboxEntry
from agentos_store.housekeeping.models import ImportLedgerEntry, MaintenanceRun
from agentos_store.knowledge.models import KbChunk, KbEmbedding, KbModel, KbSource
from agentos_store.leases.models import Lease
from agentos_store.memory.models import MemoryItem
from agentos_store.projects.models import Project, ProjectRepo
from agentos_store.search.models import SearchDocument
from agentos_store.tasks.link_models import TaskArtifactRef, TaskDependency, TaskRepoScope
from agentos_store.tasks.models import AuditPruningPermit, Task, TaskAudit, TaskAuditHead, TaskLineage

__all__ = [
    "Agent",
    "AgentDocument",
    "AuditPruningPermit",
    "Base",
    "Context",
    "Event",
    "EventOrder",
    "GuardianVerdict",
    "ImportLedgerEntry",
    "KbChunk",
    "KbEmbedding",
    "KbModel",
    "KbSource",
    "Lease",
    "MaintenanceRun",
    "MemoryItem",
    "Message",
    "Project",
    "ProjectRepo",
    "QuotaReservation",
    "SearchDocument",
    "Session",
    "Snapshot",
    "SupervisorInboxEntry",
    "Task",
    "TaskArtifactRef",
    "TaskAudit",
    "TaskAuditHead",
    "TaskDependency",
    "TaskLineage",
    "TaskRepoScope",
    "ToolCallRecord",
    "User",
]

metadata = Base.metadata
