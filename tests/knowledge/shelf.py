"""What the tests put into the store, and what they read of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agentos_store import Store
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.knowledge.repository import Refreshed

Run = Callable[..., list[tuple[Any, ...]]]
"""Runs a statement past the library."""


def pieces(*texts: str) -> list[NewChunk]:
    """Return chunks of these texts, each on a line of its own."""
    return [NewChunk(text, start_line=line, end_line=line) for line, text in enumerate(texts, 1)]


def shelve(store: Store, path: str, *texts: str, **options: Any) -> Refreshed:
    """Make a source consist of these texts, whatever it was."""
    return store.kb.refresh(source_path=path, content_hash=None, chunks=pieces(*texts), **options)


def contents(store: Store, source_id: str | None = None) -> list[str]:
    return [chunk.content for chunk in store.kb.iterate_chunks(source_id=source_id)]


def keys(store: Store, source_id: str | None = None) -> dict[str, str]:
    """Return the keys of chunks by their contents."""
    return {chunk.content: chunk.chunk_id for chunk in store.kb.iterate_chunks(source_id=source_id)}


def found(store: Store, *query: str, **options: Any) -> list[str]:
    return [hit.chunk.content for hit in store.kb.search(*query, **options)]


def lengths(texts: Sequence[str]) -> list[list[float]]:
    """Embed texts by how long they are, and how many of their letters are a."""
    return [[float(len(text)), text.count("a") + 1.0, 1.0] for text in texts]


def is_whole(store: Store) -> bool:
    """Tell whether the index holds the chunks that there are, and no others."""
    index = store.search.check("chunk")["chunk"]
    return not index.examples and index.documents == store.kb.count_chunks()
