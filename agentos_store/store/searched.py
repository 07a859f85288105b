"""What is searched: the sources of all domains, which the index itself does not know."""

from __future__ import annotations

from agentos_store.conversations import message_index
from agentos_store.knowledge import replacing as knowledge
from agentos_store.memory import items as memory
from agentos_store.operation import F, Runner
from agentos_store.search.repository import SearchRepository

SOURCES = (memory.SOURCE, knowledge.SOURCE, message_index.SOURCE)
"""A new kind is added here."""


class StoreSearchRepository(SearchRepository[F]):
    """The index over all that a store holds."""

    def __init__(self, runner: Runner, *, asynchronous: bool = False) -> None:
        super().__init__(runner, asynchronous=asynchronous, sources=SOURCES)
