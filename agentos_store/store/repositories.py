"""Every repository, bound to one runner; a new domain is added here and nowhere else.

A domain is imported when a program first uses it: all of them take four times as long to import as SQLAlchemy, and few
programs use them all.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from agentos_store.engine import fork
from agentos_store.operation import F, Repository, Runner

if TYPE_CHECKING:
    from types import ModuleType

    from agentos_store.agents.documents import DocumentRepository
    from agentos_store.agents.repository import AgentRepository
    from agentos_store.agents.snapshots import SnapshotRepository
    from agentos_store.conversations.contexts import ContextRepository
    from agentos_store.conversations.messages import MessageRepository
    from agentos_store.conversations.sessions import SessionRepository
    from agentos_store.conversations.tool_calls import ToolCallRepository
    from agentos_store.conversations.users import UserRepository
    from agentos_store.events.repository import EventRepository
    from agentos_store.governance.inbox import InboxRepository
    from agentos_store.governance.verdicts import VerdictRepository
    from agentos_store.knowledge.repository import KnowledgeRepository
    from agentos_store.leases.repository import LeaseRepository
    from agentos_store.memory.repository import MemoryRepository
    from agentos_store.projects.repository import ProjectRepository
    from agentos_store.search.repository import SearchRepository
    from agentos_store.tasks.audits import AuditRepository
    from agentos_store.tasks.lineage import LineageRepository
    from agentos_store.tasks.repository import TaskRepository

REPOSITORIES = {
    "projects": ("agentos_store.projects.repository", "ProjectRepository"),
    "tasks": ("agentos_store.tasks.repository", "TaskRepository"),
    "lineage": ("agentos_store.tasks.lineage", "LineageRepository"),
    "audits": ("agentos_store.tasks.audits", "AuditRepository"),
    "verdicts": ("agentos_store.governance.verdicts", "VerdictRepository"),
    "inbox": ("agentos_store.governance.inbox", "InboxRepository"),
    "events": ("agentos_store.events.repository", "EventRepository"),
    "memory": ("agentos_store.memory.repository", "MemoryRepository"),
    "kb": ("agentos_store.knowledge.repository", "KnowledgeRepository"),
    "search": ("agentos_store.store.searched", "StoreSearchRepository"),
    "leases": ("agentos_store.leases.repository", "LeaseRepository"),
    "users": ("agentos_store.conversations.users", "UserRepository"),
    "sessions": ("agentos_store.conversations.sessions", "SessionRepository"),
    "messages": ("agentos_store.conversations.messages", "MessageRepository"),
    "tool_calls": ("agentos_store.conversations.tool_calls", "ToolCallRepository"),
    "contexts": ("agentos_store.conversations.contexts", "ContextRepository"),
    "agents": ("agentos_store.agents.repository", "AgentRepository"),
    "snapshots": ("agentos_store.agents.snapshots", "SnapshotRepository"),
    "documents": ("agentos_store.agents.documents", "DocumentRepository"),
}
"""By the attribute of the store: the module of the repository, and its class."""

MODELS = "agentos_store.models"
"""Imported before any repository: a row that is refused is explained by the tables of other domains, too."""

T = TypeVar("T", bound=Repository[Any])


class Repositories(Generic[F]):
    """The operations of all domains."""

    projects: ProjectRepository[F]
    """Projects and their repositories."""
    tasks: TaskRepository[F]
    """Tasks, from the wish to the result."""
    lineage: LineageRepository[F]
    """What tasks come from, and what they led to."""
    audits: AuditRepository[F]
    """What happened to tasks, chained."""
    verdicts: VerdictRepository[F]
    """What guardians decided about tasks."""
    inbox: InboxRepository[F]
    """Events that the supervisor looks at, each once."""
    events: EventRepository[F]
    """What happens, to be found again and to be followed."""
    memory: MemoryRepository[F]
    """What agents remember."""
    kb: KnowledgeRepository[F]
    """What is known from files and pages."""
    search: SearchRepository[F]
    """The index behind every search."""

    leases: LeaseRepository[F]
    """Names that one at a time may hold."""
    users: UserRepository[F]
    """People and services, their quotas and what they used."""
    sessions: SessionRepository[F]
    """Conversations."""
    messages: MessageRepository[F]
    """What is said in conversations."""
    tool_calls: ToolCallRepository[F]
    """What is called there."""
    contexts: ContextRepository[F]
    """What agents and sessions work with for a while."""
    agents: AgentRepository[F]
    """Agents: what they are, where they stand, and whom they descend from."""
    snapshots: SnapshotRepository[F]
    """Moments of agents to which they, or forks of them, can go back."""
    documents: DocumentRepository[F]
    """What agents keep for themselves and read back whole."""

    def __init__(self, runner: Runner, *, asynchronous: bool) -> None:
        self._runner = runner
        self._asynchronous = asynchronous

    def bind(self, repository: type[T]) -> T:
        """Return a repository of one's own, bound to this store: ``store.bind(MyRepository[Blocking])``.

        Its bodies are marked with ``reads`` and ``writes`` like the library's and run in the same way.
        """
        _imported(MODELS)
        return repository(self._runner, asynchronous=self._asynchronous)

    if not TYPE_CHECKING:
        # Hidden from type checkers, who would otherwise believe in any attribute.

        def __getattr__(self, name: str) -> Any:
            """Return the repository of this name at its first use; afterwards it is an attribute like others."""
            if name not in REPOSITORIES:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            module, repository = REPOSITORIES[name]
            made = getattr(_imported(module), repository)(self._runner, asynchronous=self._asynchronous)
            # Of two threads that are here at once both get the same one.
            return self.__dict__.setdefault(name, made)

        def __dir__(self) -> list[str]:
            return sorted({*super().__dir__(), *REPOSITORIES})


def import_every_domain() -> None:
    """Import all that a store may use, so that no first use of a domain has to wait for its import.

    For a program that forks workers, which then share it, and for one in which the first call must not take longer
    than the next ones.
    """
    for module, _ in REPOSITORIES.values():
        _imported(module)


@cache
def _imported(module: str) -> ModuleType:
    # An interrupt reaches the main thread alone. In the middle of an import it would leave Python's lock of the module
    # taken for ever, and whoever uses the domain next would wait for it.
    with fork.lock, ThreadPoolExecutor(1, thread_name_prefix="agentos_store import") as thread:
        try:
            done = thread.submit(_import, module)
        except RuntimeError:
            # There can be no more threads.
            return _import(module)
        return done.result()


def _import(module: str) -> ModuleType:
    import_module(MODELS)
    return import_module(module)
