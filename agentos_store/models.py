"""Every model of the store, and so the complete metadata."""

from __future__ import annotations

from agentos_store.agents.models import Agent
from agentos_store.base import Base
from agentos_store.conversations.models import Session, User
from agentos_store.governance.models import GuardianVerdict, SupervisorInboxEntry
from agentos_store.housekeeping.models import ImportLedgerEntry, MaintenanceRun
from agentos_store.projects.models import Project, ProjectRepo
from agentos_store.tasks.link_models import TaskArtifactRef, TaskDependency, TaskRepoScope
from agentos_store.tasks.models import AuditPruningPermit, Task, TaskAudit, TaskAuditHead, TaskLineage

__all__ = [
    "Agent",
    "AuditPruningPermit",
    "Base",
    "GuardianVerdict",
    "ImportLedgerEntry",
    "MaintenanceRun",
    "Project",
    "ProjectRepo",
    "Session",
    "SupervisorInboxEntry",
    "Task",
    "TaskArtifactRef",
    "TaskAudit",
    "TaskAuditHead",
    "TaskDependency",
    "TaskLineage",
    "TaskRepoScope",
    "User",
]

metadata = Base.metadata
