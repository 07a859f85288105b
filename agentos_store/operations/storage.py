"""How much is in a database: what of the metrics only the database knows."""

from __future__ import annotations

from agentos_store.agents.models import Agent
from agentos_store.conversations.message_models import Message
from agentos_store.engine.backend import Backend
from agentos_store.engine.session import Session
from agentos_store.operation import Access
from agentos_store.operations.counting import Count, RowCount
from agentos_store.operations.metrics import Storage


def read_storage(backend: Backend) -> Storage:
    """Ask the database."""

    def body(session: Session) -> tuple[Count, Count]:
        return _AGENTS.of(session), _MESSAGES.of(session)

    agents, messages = backend.run(Access.SNAPSHOT, "metrics", body, repeatable=True)
    return Storage(agents, messages, backend.size(), backend.server_state())


_AGENTS = RowCount(Agent.table(), Agent.table().c.deleted_at.is_(None))
_MESSAGES = RowCount(Message.table())
