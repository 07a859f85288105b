"""Every repository, bound to one runner; a new domain is added here and nowhere else."""

from __future__ import annotations

from typing import Generic

from agentos_store.operation import F, Runner
from agentos_store.projects.repository import ProjectRepository
from agentos_store.tasks.audits import AuditRepository
from agentos_store.tasks.lineage import LineageRepository
from agentos_store.tasks.repository import TaskRepository


class Repositories(Generic[F]):
    """The operations of all domains."""

    def __init__(self, runner: Runner, *, asynchronous: bool) -> None:
        self.projects: ProjectRepository[F] = ProjectRepository(runner, asynchronous=asynchronous)
        """Projects and their repositories."""
        self.tasks: TaskRepository[F] = TaskRepository(runner, asynchronous=asynchronous)
        """Tasks, from the wish to the result."""
        self.lineage: LineageRepository[F] = LineageRepository(runner, asynchronous=asynchronous)
        """What tasks come from, and what they led to."""
        self.audits: AuditRepository[F] = AuditRepository(runner, asynchronous=asynchronous)
        """What happened to tasks, chained."""
