"""Operations on what is known from files and pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select, update

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.errors import NotFoundError
from agentos_store.knowledge import sources
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.knowledge.embeddings import KnowledgeEmbeddings
from agentos_store.knowledge.finding import KnowledgeFinding
from agentos_store.knowledge.models import KbChunk, KbSource
from agentos_store.knowledge.replacing import (
    CHUNK_KEY,
    CHUNKS,
    CONTENT,
    COUNT,
    HEADING,
    KEYS,
    KIND,
    METADATA,
    NEXT_INDEX,
    Replaced,
    add,
    checked,
    hash_of,
    replace,
    texts_of,
)
from agentos_store.operation import F, reads, repeatable, walks, writes
from agentos_store.page import DEFAULT_LIMIT, Listing, Page, equals
from agentos_store.search.index import Writing, remove
from agentos_store.search.parts import indexed
from agentos_store.unset import UNSET, Unset, given


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What bringing a source up to date did."""

    source: KbSource
    is_new: bool
    is_unchanged: bool
    """Whether it was known by its hash, so that nothing was written."""
    added: int
    kept: int
    """Chunks whose text and heading stayed."""
    removed: int


_CHUNK_LISTING = Listing(
    KbChunk,
    filters={"source_id": equals(KbChunk.source_id)},
    orders={"place": (CHUNKS.c.source_id, CHUNKS.c.chunk_index, CHUNKS.c.chunk_id)},
    default="place",
)


class KnowledgeRepository(KnowledgeFinding[F], KnowledgeEmbeddings[F]):
    """Files, directories and pages, cut into chunks that are found by words and by vectors."""

    name = "kb"

    # --- sources

    @writes
    @repeatable
    def add_source(
        self,
        session: Session,
        *,
        source_path: str,
        source_type: str = "file",
        project_id: str | None = None,
        content_hash: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> KbSource:
        """Add a source, or change the one that has this path in the project; return it as it is then.

        A hash and metadata that are not given stay as they are, and when nothing is otherwise nothing is written. With
        another hash its chunks are out of date: ``indexed_at`` is None until they are replaced. Raises NotFoundError
        for a project that does not exist.
        """
        row = sources.place_of(project_id, source_path, source_type, metadata)
        held = sources.hold_or_make(session, row)
        changes = sources.differences(held.source, _own(row) | {"content_hash": content_hash})
        if "content_hash" in changes and held.source.indexed_at is not None:
            changes["indexed_at"] = None
        return sources.change(session, held.source, changes)

    @writes
    @repeatable
    def refresh(
        self,
        session: Session,
        *,
        source_path: str,
        content_hash: str | None,
        chunks: Sequence[NewChunk],
        project_id: str | None = None,
        source_type: str = "file",
        metadata: Mapping[str, Any] | None = None,
    ) -> Refreshed:
        """Add a source or bring it up to date, chunks and all, in one transaction.

        A source whose ``content_hash`` is the one given keeps its chunks, whatever is given of them; without a hash
        they are always compared. A chunk whose text and heading stayed keeps its key and its embeddings. Of two calls
        for one source at once, the chunks are those of one of them, whole. Raises NotFoundError for a project that
        does not exist.
        """
        rows = checked(chunks)
        now = session.now()
        row = sources.place_of(project_id, source_path, source_type, metadata)
        held = sources.hold_or_make(session, row)
        source = held.source
        changes = sources.differences(source, _own(row) | {"content_hash": content_hash})
        is_known = content_hash is not None and "content_hash" not in changes and source.indexed_at is not None
        if is_known:
            count = session.first(COUNT, {"source_id": source.source_id})
            assert count is not None
            done = Refreshed(
                sources.change(session, source, changes), held.is_new, not changes, added=0, kept=count[0], removed=0
            )
        else:
            replaced = replace(session, source.source_id, rows, now)
            if changes or replaced.added or replaced.removed or source.indexed_at is None:
                changes["indexed_at"] = now
            done = Refreshed(
                sources.change(session, source, changes),
                held.is_new,
                not (changes or replaced.added or replaced.removed),
                added=replaced.added,
                kept=replaced.kept,
                removed=replaced.removed,
            )
        first = session.keep(done)
        # An earlier try of this very call was committed, and its answer got lost.
        return first if session.repeated and done.is_unchanged else done

    @reads
    def get_source(self, session: Session, source_id: str) -> KbSource:
        """Return the source; raise NotFoundError for an unknown identifier."""
        return sources.required(session.first(sources.GET, {"source_id": source_id}), source_id)

    @reads
    def find_source(self, session: Session, project_id: str | None, source_path: str) -> KbSource | None:
        """Return the source of this path in the project, or among those without one; None when there is none."""
        return session.first(sources.FIND, {"project_id": project_id, "source_path": source_path})

    @reads
    def exists(self, session: Session, source_id: str) -> bool:
        """Tell whether there is such a source."""
        return session.first(sources.EXISTS, {"source_id": source_id}) is not None

    @reads
    def list_sources(
        self,
        session: Session,
        *,
        project_id: str | None = None,
        source_type: str | None = None,
        prefix: str | None = None,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[KbSource]:
        """Return a page of sources by their paths; ``prefix`` is what a path begins with."""
        filters = sources.filters(project_id, source_type, prefix)
        return sources.LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate_sources = walks(list_sources)

    @reads
    def count_sources(
        self,
        session: Session,
        *,
        project_id: str | None = None,
        source_type: str | None = None,
        prefix: str | None = None,
    ) -> int:
        """Return how many sources pass the filters."""
        filters = sources.filters(project_id, source_type, prefix)
        return sources.LISTING.count(session, filters)

    @writes
    @repeatable
    def delete_source(self, session: Session, source_id: str) -> None:
        """Forget the source with its chunks, their embeddings and what is indexed of them."""
        try:
            sources.hold(session, source_id)
        except NotFoundError:
            if session.repeated:
                return
            raise
        values = {"source_id": source_id}
        remove(session, KIND, [key for (key,) in session.all(KEYS, values)])
        session.execute(sources.DELETE, values)

    # --- chunks

    @writes
    @repeatable
    def replace_chunks(
        self, session: Session, source_id: str, chunks: Sequence[NewChunk], *, content_hash: str | None = None
    ) -> Replaced:
        """Make the source consist of these chunks, in their order, in one transaction.

        A chunk whose text and heading stayed keeps its key and its embeddings, though its lines or its place changed;
        when all is the same nothing is written. ``content_hash`` is that of the source from now on, if it is given.
        """
        rows = checked(chunks)
        now = session.now()
        source = sources.hold(session, source_id)
        replaced = replace(session, source_id, rows, now)
        changes = sources.differences(source, {"content_hash": content_hash})
        if changes or replaced.added or replaced.removed or source.indexed_at is None:
            changes["indexed_at"] = now
        sources.change(session, source, changes)
        first = session.keep(replaced)
        # An earlier try of this very call was committed, and its answer got lost.
        return replaced if replaced.added or replaced.removed or not session.repeated else first

    @writes
    def add_chunks(self, session: Session, source_id: str, chunks: Sequence[NewChunk]) -> Sequence[KbChunk]:
        """Add chunks behind those that the source has, and return them."""
        checked(chunks)
        source = sources.hold(session, source_id)
        (index,) = session.all(NEXT_INDEX, {"source_id": source_id})[0]
        now = session.now()
        added = add(session, source_id, checked(chunks, index), now)
        if added:
            sources.change(session, source, {"indexed_at": now})
        return added

    @writes
    @repeatable
    def update_chunk(
        self,
        session: Session,
        chunk_id: str,
        *,
        content: str | Unset = UNSET,
        heading: str | None | Unset = UNSET,
        metadata: Mapping[str, Any] | Unset = UNSET,
    ) -> KbChunk:
        """Change what is given of a chunk; with another text it is found by that, and its embeddings are stale."""
        changes = given(content=content, heading=heading, metadata=plain_json(metadata))
        if "content" in changes:
            CONTENT.check(content, "content")
        if changes.get("heading") is not None:
            HEADING.check(heading, "heading")
        if "metadata" in changes:
            METADATA.check(changes["metadata"], "metadata")
        seen = _required(session.first(_GET, {"chunk_id": chunk_id}), chunk_id)
        sources.hold(session, seen.source_id)
        # It may have changed before the source was held.
        chunk = _required(session.first(_GET, {"chunk_id": chunk_id}), chunk_id)
        values = {
            "content": chunk.content,
            "heading": chunk.heading,
            "metadata": chunk.metadata_,
            **changes,
        }
        values["content_hash"] = hash_of(values["heading"], values["content"])
        document = indexed(chunk_id, texts_of(values["heading"], values["content"]))
        binds = {f"new_{name}": value for name, value in values.items()}
        return _required(_UPDATE.first(session, {**binds, "chunk_id": chunk_id}, document), chunk_id)

    @reads
    def get_chunk(self, session: Session, chunk_id: str) -> KbChunk:
        """Return the chunk; raise NotFoundError for an unknown identifier."""
        return _required(session.first(_GET, {"chunk_id": chunk_id}), chunk_id)

    @reads
    def find_chunk(self, session: Session, chunk_id: str) -> KbChunk | None:
        """Return the chunk, or None."""
        return session.first(_GET, {"chunk_id": chunk_id})

    @reads
    def list_chunks(
        self,
        session: Session,
        *,
        source_id: str | None = None,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[KbChunk]:
        """Return a page of chunks, by their sources and their places in them."""
        return _CHUNK_LISTING.page(
            session, {"source_id": source_id}, order=order, limit=limit, cursor=cursor, offset=offset
        )

    iterate_chunks = walks(list_chunks)

    @reads
    def count_chunks(self, session: Session, *, source_id: str | None = None) -> int:
        """Return how many chunks there are, or a source has."""
        return _CHUNK_LISTING.count(session, {"source_id": source_id})


def _own(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("source_type", "metadata")}


def _required(chunk: KbChunk | None, key: str) -> KbChunk:
    if chunk is None:
        raise NotFoundError("chunk", key)
    return chunk


_GET: Statement[KbChunk] = Statement(select(CHUNKS).where(CHUNKS.c.chunk_id == CHUNK_KEY), returns=KbChunk)
_CHANGED = ("content", "heading", "metadata", "content_hash")
_UPDATE = Writing(
    update(CHUNKS)
    .where(CHUNKS.c.chunk_id == CHUNK_KEY)
    .values({name: bindparam(f"new_{name}", type_=CHUNKS.c[name].type) for name in _CHANGED})
    .returning(*CHUNKS.c),
    returns=KbChunk,
    kind=KIND,
    called={f"new_{name}": name for name in _CHANGED},
)
