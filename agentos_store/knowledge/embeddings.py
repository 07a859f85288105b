"""Embeddings: writing those that the caller has, and having those made that are missing."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from agentos_store.engine.session import Session
from agentos_store.errors import InvalidValueError, NotFoundError, UnavailableError, UsageError
from agentos_store.knowledge.embedding_rows import (
    DELETE_MODEL,
    FIND,
    HASHES,
    LIST_MODELS,
    MISSING,
    MISSING_OF_SOURCE,
    MODEL,
    STALE,
    STALE_OF_MODEL,
    UNEMBEDDED,
    UNEMBEDDED_OF_SOURCE,
    write,
)
from agentos_store.knowledge.models import KbEmbedding, KbModel
from agentos_store.knowledge.replacing import embedded_text
from agentos_store.operation import F, Repository, Steps, in_steps, reads, repeatable, writes_once
from agentos_store.types import Float32Vector, Identifier, check_whole, new_ulid
from agentos_store.types.float32_vector import BYTES

BATCH = 64
"""Texts that an embedder is given at once."""

LARGEST_BATCH = 10_000
LARGEST_LIMIT = 100_000

Embedder = Callable[[list[str]], Any]
"""Texts in, a vector for each out, in their order; or a coroutine of them, for an ``AsyncStore``."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """What embedding did."""

    written: int
    skipped: int
    """Chunks that were gone by the time their vectors were there."""


@dataclass(frozen=True, slots=True)
class Unembedded:
    """A chunk without a fresh embedding of a model."""

    chunk_id: str
    text: str
    """What is to be embedded: its headings, an empty line and its content."""
    content_hash: str
    """By which it is seen later that this was the text."""


@dataclass(frozen=True, slots=True)
class StaleEmbedding:
    """An embedding of what its chunk was."""

    chunk_id: str
    model_name: str


async def _ask(embedder: Embedder, texts: list[str]) -> Any:
    if inspect.iscoroutinefunction(embedder):
        return await embedder(texts)
    # It may take seconds, and the event loop has other things to do.
    answer = await asyncio.to_thread(embedder, texts)
    return await answer if isinstance(answer, Awaitable) else answer


def _is_given(vectors: object, embedder: object, source_id: object, batch: object) -> bool:
    if (vectors is None) == (embedder is None):
        raise InvalidValueError("vectors", "give vectors, or an embedder that makes them")
    if vectors is not None:
        if source_id is not None:
            raise InvalidValueError("source_id", "goes with an embedder: vectors have their chunks")
        return True
    if not callable(embedder):
        raise InvalidValueError("embedder", "cannot be called")
    check_whole("batch", batch, 1, LARGEST_BATCH)
    return False


def _named(waiting: Sequence[Unembedded], vectors: Any) -> dict[str, Any]:
    try:
        found = list(vectors)
    except TypeError:
        raise InvalidValueError("embedder", "returned no sequence of vectors") from None
    if len(found) != len(waiting):
        raise InvalidValueError("embedder", f"returned {len(found):,} vectors for {len(waiting):,} texts")
    return {each.chunk_id: vector for each, vector in zip(waiting, found, strict=True)}


class KnowledgeEmbeddings(Repository[F]):
    """The part of the knowledge that is made by models."""

    @in_steps
    def embed(
        self: Any,
        model_name: str,
        vectors: Mapping[str, Any] | None = None,
        *,
        embedder: Embedder | None = None,
        source_id: str | None = None,
        batch: int = BATCH,
    ) -> Steps[Embedded]:
        """Store embeddings of chunks, under the name of the model that made them.

        ``vectors`` gives them by the keys of chunks: sequences of numbers, NumPy arrays, or float32 bytes. They are
        stored all or none. Raises InvalidValueError, which names the chunk, for a vector that is not finite, is zero
        throughout, or has other dimensions than the model's, and NotFoundError for an unknown chunk.

        Without them ``embedder`` is asked for all that is missing or stale, of a source or of all: it is called with
        ``batch`` texts at a time, while no transaction is open, and each batch is stored before the next is asked for,
        so that what is cut short goes on where it was. Chunks that are gone by then are skipped; a text that was
        changed meanwhile leaves a stale embedding. With an ``AsyncStore`` it may be a coroutine function; another one
        is called in a thread. UsageError refuses an embedder inside a transaction.
        """
        if _is_given(vectors, embedder, source_id, batch):
            assert vectors is not None
            return Embedded((yield lambda: self.add_embeddings(model_name, vectors)), 0)
        assert embedder is not None
        if self._runner.in_transaction:
            raise UsageError("an embedder takes long, and a transaction would be open meanwhile; call it outside")
        written = skipped = 0
        after = ""
        while True:
            waiting = yield partial(self.list_unembedded, model_name, source_id=source_id, after=after, limit=batch)
            if not waiting:
                return Embedded(written, skipped)
            texts = [each.text for each in waiting]
            answer = yield partial(_ask, embedder, texts) if self._asynchronous else partial(embedder, texts)
            made_of = {each.chunk_id: each.content_hash for each in waiting}
            count = yield partial(self.add_embeddings, model_name, _named(waiting, answer), made_of=made_of)
            written, skipped = written + count, skipped + len(waiting) - count
            after = waiting[-1].chunk_id

    @writes_once
    @repeatable
    def add_embeddings(
        self,
        session: Session,
        model_name: str,
        vectors: Mapping[str, Any],
        *,
        made_of: Mapping[str, str] | None = None,
    ) -> int:
        """Store embeddings by the keys of their chunks, as ``embed`` does; return how many.

        ``made_of`` gives by the same keys the content hashes of the texts that they were made of, by which it is seen
        that a chunk has changed; then chunks that are gone are passed over.
        """
        name = _NAME.check(model_name, "model_name")
        rows, dimensions = _checked(vectors, made_of)
        if not rows:
            return 0
        binds = {
            "model_name": name,
            "dimensions": dimensions,
            # Not drawn from the session: what others wrote between two tries makes it another state.
            "revision": new_ulid(),
            "created_at": session.now(),
            "least": 0 if made_of is not None else len(rows),
        }
        while True:
            is_written, count = write(session, binds, rows)
            if is_written:
                return int(count)
            _refuse(session, name, rows, dimensions, is_strict=made_of is None)
            if count == 0 and made_of is not None:
                # All of them are gone, so there is nothing to write.
                return 0
            # What stood in the way is gone by now, and nothing was written.
            session.settle()

    @reads
    def list_unembedded(
        self, session: Session, model_name: str, *, source_id: str | None = None, after: str = "", limit: int = BATCH
    ) -> Sequence[Unembedded]:
        """Return chunks without a fresh embedding of a model, by their keys, from behind one of them."""
        check_whole("limit", limit, 1, LARGEST_BATCH)
        values: dict[str, object] = {"model_name": model_name, "after": after, "limit_": limit}
        if source_id is not None:
            values["source_id"] = source_id
        rows = session.all(UNEMBEDDED if source_id is None else UNEMBEDDED_OF_SOURCE, values)
        return [Unembedded(key, embedded_text(heading, content), hash_) for key, heading, content, hash_ in rows]

    @reads
    def missing(self, session: Session, model_name: str, *, source_id: str | None = None) -> int:
        """Return how many chunks, of a source or of all, have no embedding of the model; it reads them all."""
        values = {"model_name": model_name} | ({} if source_id is None else {"source_id": source_id})
        found = session.first(MISSING if source_id is None else MISSING_OF_SOURCE, values)
        assert found is not None
        return int(found[0])

    @reads
    def stale(self, session: Session, model_name: str | None = None, *, limit: int = 1000) -> Sequence[StaleEmbedding]:
        """Return embeddings of what their chunks were, by key, of one model or of all; they are found still.

        ``embed`` makes them anew. It reads all embeddings, up to ``limit`` that are stale.
        """
        check_whole("limit", limit, 1, LARGEST_LIMIT)
        values: dict[str, object] = {"limit_": limit}
        if model_name is not None:
            values["model_name"] = model_name
        rows = session.all(STALE if model_name is None else STALE_OF_MODEL, values)
        return [StaleEmbedding(*row) for row in rows]

    @reads
    def find_embedding(self, session: Session, chunk_id: str, model_name: str) -> KbEmbedding | None:
        """Return a chunk's embedding, or None."""
        return session.first(FIND, {"chunk_id": chunk_id, "model_name": model_name})

    @reads
    def list_models(self, session: Session) -> Sequence[KbModel]:
        """Return the models that have embeddings, by name."""
        return session.all(LIST_MODELS)

    @writes_once
    @repeatable
    def delete_model(self, session: Session, model_name: str) -> None:
        """Forget all embeddings of a model; it may have other dimensions afterwards."""
        if not session.all(DELETE_MODEL, {"model_name": model_name}) and not session.repeated:
            raise NotFoundError("embedding model", model_name)

    @reads
    def build_index(self, session: Session, model_name: str) -> None:
        """Refuse to make an index of a model's vectors: a search compares all of them, exactly.

        Raises UnavailableError where the pgvector extension is missing, and UsageError where it is not.
        """
        _NAME.check(model_name, "model_name")
        if not session.capabilities.vector_index:
            raise UnavailableError(
                "an index of vectors needs PostgreSQL with the pgvector extension (CREATE EXTENSION vector), which this"
                " database does not have; searches by vector compare all embeddings"
            )
        raise UsageError("no index of vectors is made yet, though pgvector is there; searches compare all embeddings")


_NAME = Identifier()
_KEY = Identifier()
_VECTOR = Float32Vector()


def _checked(vectors: object, made_of: Mapping[str, str] | None) -> tuple[list[dict[str, Any]], int]:
    """Return rows by their keys, and how many dimensions they all have."""
    if not isinstance(vectors, Mapping):
        raise InvalidValueError("vectors", "must be a mapping from keys of chunks to vectors")
    if made_of is not None and not (isinstance(made_of, Mapping) and vectors.keys() <= made_of.keys()):
        raise InvalidValueError("made_of", "must be a mapping that has the keys of all vectors")
    rows: list[dict[str, Any]] = []
    dimensions = 0
    for key, vector in vectors.items():
        chunk_id = _KEY.check(key, "vectors")
        encoded = _VECTOR.check(vector, f"vectors[{chunk_id!r}]")
        found = len(encoded) // BYTES
        dimensions = dimensions or found
        if found != dimensions:
            raise _wrong_dimensions(chunk_id, found, dimensions, "others here")
        rows.append(
            {"chunk_id": chunk_id, "embedding": encoded, "content_hash": None if made_of is None else made_of[chunk_id]}
        )
    # Rows are locked in one order by all, so that no two writers wait for each other.
    return sorted(rows, key=lambda row: row["chunk_id"]), dimensions


def _wrong_dimensions(chunk_id: str, found: int, wanted: int, whose: str) -> InvalidValueError:
    return InvalidValueError(f"vectors[{chunk_id!r}]", f"has {found:,} dimensions, and {whose} have {wanted:,}")


def _refuse(
    session: Session, model_name: str, rows: Sequence[Mapping[str, Any]], dimensions: int, *, is_strict: bool
) -> None:
    """Raise what kept embeddings from being written; return when nothing does any more."""
    model = session.first(MODEL, {"model_name": model_name})
    if model is not None and model[0] != dimensions:
        raise _wrong_dimensions(rows[0]["chunk_id"], dimensions, model[0], f"the embeddings of {model_name!r}")
    if is_strict:
        there = dict(session.all(HASHES, {"keys": [row["chunk_id"] for row in rows]}))
        for row in rows:
            if row["chunk_id"] not in there:
                raise NotFoundError("chunk", row["chunk_id"])
