"""The library, called as its users call it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from agentos_store import Store
from benchmarks.conversations import content


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

    def append(self, session_id: str) -> object:
        """Add a message."""
        return self.store.messages.append(session_id, **content.MESSAGE)

    def append_many(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> object:
        """Add many at once."""
        return self.store.messages.append_many(session_id, messages)

    def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Save a whole conversation of which the end is new."""
        self.store.messages.save(session_id, messages)

    def last(self, session_id: str) -> list[dict[str, Any]]:
        """Return the last messages as a language model wants them."""
        return self.store.messages.history(session_id, last=content.LAST)

    def latest(self, user_id: str) -> Sequence[Any]:
        """Return the sessions of a user that were in use last."""
        return self.store.sessions.list(user_id=user_id, limit=content.LATEST).items

    @staticmethod
    def keys(sessions: Sequence[Any]) -> list[str]:
        """Return the keys of sessions."""
        return [session.id for session in sessions]
