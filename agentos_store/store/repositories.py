"""Every repository, bound to one runner; a new domain is added here and nowhere else."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from agentos_store.agents.documents import DocumentRepository
from agentos_store.agents.repository import AgentRepository
from agentos_store.agents.snapshots import SnapshotRepository
from agentos_store.conversations import message_index
from agentos_store.conversations.contexts import ContextRepository
from agentos_store.conversations.messages import MessageRepository
from agentos_store.conversations.sessions import SessionRepository
from agentos_store.conversations.tool_calls import ToolCallRepository
from agentos_store.conversations.users import UserRepository
from agentos_store.events.repository import EventRepository
from agentos_store.governance.inbox import InboxRepository
from agentos_store.governance.verdicts import VerdictRepository
from agentos_store.knowledge import replacing as knowledge
from agentos_store.knowledge.repository import KnowledgeRepository
from agentos_store.leases.repository import LeaseRepository
from agentos_store.memory import items as memory
from agentos_store.memory.repository import MemoryRepository
from agentos_store.operation import F, Repository, Runner
from agentos_store.projects.repository import ProjectRepository
from agentos_store.search.repository import SearchRepository
from agentos_store.tasks.audits import AuditRepository
from agentos_store.tasks.lineage import LineageRepository
from agentos_store.tasks.repository import TaskRepository

SOURCES = (memory.SOURCE, knowledge.SOURCE, message_index.SOURCE)
"""What is searched; a new kind is added here."""

T = TypeVar("T", bound=Repository[Any])


class Repositories(Generic[F]):
    """The operations of all domains."""

    def __init__(self, runner: Runner, *, asynchronous: bool) -> None:
        self._runner = runner
        self._asynchronous = asynchronous
        self.projects: ProjectRepository[F] = ProjectRepository(runner, asynchronous=asynchronous)
        """Projects and their repositories."""
        self.tasks: TaskRepository[F] = TaskRepository(runner, asynchronous=asynchronous)
        """Tasks, from the wish to the result."""
        self.lineage: LineageRepository[F] = LineageRepository(runner, asynchronous=asynchronous)
        """What tasks come from, and what they led to."""
        self.audits: AuditRepository[F] = AuditRepository(runner, asynchronous=asynchronous)
        """What happened to tasks, chained."""
        self.verdicts: VerdictRepository[F] = VerdictRepository(runner, asynchronous=asynchronous)
        """What guardians decided about tasks."""
        self.inbox: InboxRepository[F] = InboxRepository(runner, asynchronous=asynchronous)
        """Events that the supervisor looks at, each once."""
        self.events: EventRepository[F] = EventRepository(runner, asynchronous=asynchronous)
        """What happens, to be found again and to be followed."""
        self.memory: MemoryRepository[F] = MemoryRepository(runner, asynchronous=asynchronous)
        """What agents remember."""
        self.kb: KnowledgeRepository[F] = KnowledgeRepository(runner, asynchronous=asynchronous)
        """What is known from files and pages."""
        self.search: SearchRepository[F] = SearchRepository(runner, asynchronous=asynchronous, sources=SOURCES)
        """The index behind every search."""

        self.leases: LeaseRepository[F] = LeaseRepository(runner, asynchronous=asynchronous)
        """Names that one at a time may hold."""
        self.users: UserRepository[F] = UserRepository(runner, asynchronous=asynchronous)
        """People and services, their quotas and what they used."""
        self.sessions: SessionRepository[F] = SessionRepository(runner, asynchronous=asynchronous)
        """Conversations."""
        self.messages: MessageRepository[F] = MessageRepository(runner, asynchronous=asynchronous)
        """What is said in conversations."""
        self.tool_calls: ToolCallRepository[F] = ToolCallRepository(runner, asynchronous=asynchronous)
        """What is called there."""
        self.contexts: ContextRepository[F] = ContextRepository(runner, asynchronous=asynchronous)
        """What agents and sessions work with for a while."""
        self.agents: AgentRepository[F] = AgentRepository(runner, asynchronous=asynchronous)
        """Agents: what they are, where they stand, and whom they descend from."""
        self.snapshots: SnapshotRepository[F] = SnapshotRepository(runner, asynchronous=asynchronous)
        """Moments of agents to which they, or forks of them, can go back."""
        self.documents: DocumentRepository[F] = DocumentRepository(runner, asynchronous=asynchronous)
        """What agents keep for themselves and read back whole."""

    def bind(self, repository: type[T]) -> T:
        """Return a repository of one's own, bound to this store: ``store.bind(MyRepository[Blocking])``.

        Its bodies are marked with ``reads`` and ``writes`` like the library's and run in the same way.
        """
        return repository(self._runner, asynchronous=self._asynchronous)
