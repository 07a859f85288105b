"""What an agent's work comes to."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import bindparam, case, func, or_, select, text

from agentos_store.agents.models import Agent
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import NotFoundError

_AGENTS = Agent.table()
_SESSIONS = Conversation.table()
_CALLS = ToolCallRecord.table()


@dataclass(frozen=True, slots=True)
class AgentStats:
    """What an agent's conversation and its tool calls come to."""

    agent_id: str
    total_messages: int
    """Of which its conversation consists now."""
    total_tokens: int
    """Spent in its conversation, those on messages included that were rewritten since; copies spent none."""
    total_cost: Decimal
    total_tool_calls: int
    successful_tool_calls: int
    """Completed, and not said to be an error."""
    failed_tool_calls: int
    """Failed, denied, sealed, or said to be an error; the rest has not ended."""

    @property
    def success_rate(self) -> float | None:
        """Return the successful ones of those that ended; None while there are none."""
        ended = self.successful_tool_calls + self.failed_tool_calls
        return self.successful_tool_calls / ended if ended else None


def aggregate(session: Session, agent_id: str) -> AgentStats:
    """Return the figures of one agent, in one statement."""
    found = session.first(_AGGREGATE, {"agent_id": agent_id})
    if found is None:
        raise NotFoundError("agent", agent_id)
    messages, tokens, cost, calls, successful, failed = found
    spent = Decimal(0) if cost is None else cost
    return AgentStats(agent_id, messages or 0, tokens or 0, spent, calls, successful, failed)


_KEY = bindparam("agent_id", type_=_AGENTS.c.agent_id.type)
_FAILED = or_(*(_CALLS.c.state == state for state in ("failed", "denied", "sealed")), text(f"{_CALLS.name}.is_error"))
_SUCCESSFUL = _CALLS.c.state == "completed"


def _count(condition: Any) -> Any:
    return func.count(case((condition, 1)))


_AGGREGATE: Statement[Any] = Statement(
    select(
        _SESSIONS.c.message_count,
        _SESSIONS.c.total_tokens,
        _SESSIONS.c.total_cost,
        func.count(_CALLS.c.id),
        func.count(case((_FAILED, None), (_SUCCESSFUL, 1))),
        _count(_FAILED),
    )
    .select_from(_AGENTS)
    .outerjoin(_SESSIONS, (_SESSIONS.c.id == _AGENTS.c.session_id) & _SESSIONS.c.deleted_at.is_(None))
    .outerjoin(_CALLS, _CALLS.c.agent_id == _AGENTS.c.agent_id)
    .where(_AGENTS.c.agent_id == _KEY, text(f"{_AGENTS.name}.deleted_at IS NULL"))
    .group_by(_AGENTS.c.agent_id, _SESSIONS.c.id)
)
