"""The library, called as its users call it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from agentos_store import Store
from benchmarks.agents import content
from benchmarks.conversations.content import SESSION


class Ours:
    """A store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a database."""
        return cls(Store.open(url))

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def record(self, tool_call_id: str) -> object:
        """Record a call that has ended."""
        return self.store.tool_calls.record(
            tool_name=content.TOOL,
            tool_call_id=tool_call_id,
            agent_id=content.AGENT,
            session_id=SESSION,
            input=content.INPUT,
            state="completed",
            output=content.OUTPUT,
            duration_ms=content.DURATION,
        )

    def complete(self, tool_call_id: str) -> object:
        """End a call that is executing."""
        return self.store.tool_calls.update_state(
            tool_call_id, "completed", agent_id=content.AGENT, output=content.OUTPUT
        )

    def save(self, number: int) -> object:
        """Save the agent with another state and another safe fork point."""
        return self.store.agents.save(content.AGENT, state=content.state(number), last_sfp_index=number)

    def waiting(self) -> Sequence[Any]:
        """Return the first page of the calls that wait for approval."""
        return self.store.tool_calls.pending_approvals(limit=content.PAGE).items

    @staticmethod
    def values(calls: Sequence[Any], /) -> list[tuple[Any, ...]]:
        """Return what tells calls from others."""
        return [(call.id, call.agent_id, call.input, call.approval, call.audit_trail) for call in calls]
