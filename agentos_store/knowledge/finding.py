"""Finding chunks: by words, by what is near to a vector, or by both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import FromClause, Select, bindparam, or_, select, union

from agentos_store.engine.among import searched
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json, row_builder
from agentos_store.errors import InvalidValueError
from agentos_store.knowledge.models import KbChunk, KbSource
from agentos_store.knowledge.replacing import CHUNKS, KIND, texts_of
from agentos_store.knowledge.sources import SOURCES
from agentos_store.knowledge.vectors import EMBEDDINGS, MODELS, Views, view_of, walk_nearest
from agentos_store.operation import F, Repository, Runner, reads
from agentos_store.search.asking import LARGEST_LIMIT, ask, check_look, check_page
from agentos_store.search.fusion import fuse
from agentos_store.search.keys import keys_in
from agentos_store.search.query import Query, parse
from agentos_store.search.ranking import Ranking
from agentos_store.search.snippets import MARKS, WIDTH, snippet
from agentos_store.search.vectors import Wanted
from agentos_store.types import Identifier, JSONValue

DEPTH = 2 * LARGEST_LIMIT
"""Places of each ranking that are fused: as far as anybody can page, so that each page is what it is alone."""

ATTEMPTS = 10
"""Times that a ranking is made again because hits were deleted while it was made."""


@dataclass(frozen=True, slots=True)
class ChunkHit:
    """A chunk that a search found."""

    chunk: KbChunk
    source: KbSource
    score: float
    """The greater, the better it fits. Of words, vectors and both these are different scales."""
    snippet: str
    """A piece of its content, else of its heading, with what was searched for marked; without that, its beginning."""

    @property
    def source_path(self) -> str:
        """Where it is from."""
        return self.source.source_path


class KnowledgeFinding(Repository[F]):
    """The part of the knowledge that finds."""

    def __init__(self, runner: Runner, *, asynchronous: bool = False) -> None:
        super().__init__(runner, asynchronous=asynchronous)
        self._views = Views()

    @reads
    def search(
        self,
        session: Session,
        query: str | None = None,
        *,
        vector: Any = None,
        model_name: str | None = None,
        metric: str = "cosine",
        project_id: str | None = None,
        source_id: str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        limit: int = 20,
        offset: int = 0,
        marks: tuple[str, str] = MARKS,
        width: int = WIDTH,
    ) -> Sequence[ChunkHit]:
        """Return the chunks that fit best, the best first, ties by key; ``limit`` and ``offset`` up to 1,000.

        With a ``query``, those that hold its words in their headings and content: plain words must all be there;
        ``"a phrase"``, ``word*`` and ``-word`` are understood, and any other character is text. With a ``vector``,
        those whose embedding of ``model_name`` is nearest by ``cosine``, ``dot`` or ``l2``, all embeddings being
        compared. With both, both rankings are fused by rank; a chunk that only one of them has is ranked by that one.

        ``metadata`` keeps the chunks that contain it in their own metadata or in their source's; ``tags`` are those
        under ``"tags"`` there. Filters narrow what is ranked, so that as many are found as there are. A vector needs
        NumPy. Raises NotFoundError for a model that has no embeddings.
        """
        asked = None if query is None else ask(query)
        check_page(limit, offset)
        check_look(marks, width)
        filters = _filters(project_id, source_id, tags, metadata)
        if vector is None:
            if asked is None:
                raise InvalidValueError("query", "give a query, a vector, or both")
            rows = _found(session, asked, filters, limit, offset) if asked else []
            return _hits([(row, row[-1], asked) for row in rows], marks, width)
        wanted = Wanted(vector, metric)
        if model_name is None:
            raise InvalidValueError("model_name", "must say which embeddings the vector is compared with")
        name = Identifier().check(model_name, "model_name")
        words = None if asked is None else [key for key, _ in _ranked(session, asked, filters)] if asked else []
        found = self._nearest(session, name, wanted, words, filters, limit + offset)
        with_words = frozenset(words or ())
        chosen = [(row, score, asked if row[0] in with_words else None) for row, score in found[offset:]]
        return _hits(chosen, marks, width)

    def _nearest(
        self,
        session: Session,
        model_name: str,
        wanted: Wanted,
        words: Sequence[str] | None,
        filters: Mapping[str, object],
        count: int,
    ) -> list[tuple[Sequence[Any], float]]:
        """Return the rows of the best chunks with their scores; their words are ranked already."""
        view = self._views.last(model_name)
        is_new = view is None or view.matrix is None or view.matrix.dimensions != wanted.dimensions
        if view is None or is_new:
            view = view_of(session, model_name, wanted, last=view, anew=False)
        among = _allowed(session, filters) if filters else None
        gone: set[str] = set()
        for _ in range(ATTEMPTS):
            if view.matrix is None:
                ranked = walk_nearest(session, model_name, wanted, count if words is None else DEPTH, among)
            else:
                ranked = view.matrix.nearest(wanted, count if words is None else DEPTH, among)
            near = {key for key, _ in ranked}
            if words is not None:
                ranked = fuse([[key for key in words if key not in gone], [key for key, _ in ranked]], count)
            rows, revision = _fetch(session, [key for key, _ in ranked], model_name)
            missing = [key for key, _ in ranked if key not in rows or (key in near and rows[key][-1] is None)]
            if not missing and (is_new or revision == view.revision):
                break
            # What was read just now is an answer, whatever was written since; what is not there any more is none.
            gone.update(missing)
            view = view_of(session, model_name, wanted, last=view, anew=bool(missing))
            is_new = True
        if not session.wrote:
            # Else this may be rolled back, and what was deleted is there again.
            self._views.note(model_name, view)
        return [(rows[key], score) for key, score in ranked if key in rows]


def _hits(
    found: Sequence[tuple[Sequence[Any], float, Query | None]], marks: tuple[str, str], width: int
) -> list[ChunkHit]:
    """Return hits of rows with their scores, and with the words that each of them has."""
    build_chunk, build_source = row_builder(KbChunk, _CHUNK_NAMES), row_builder(KbSource, _SOURCE_NAMES)
    # Several of them may be of one source.
    sources: dict[str, KbSource] = {}
    hits = []
    for row, score, asked in found:
        of_source = row[len(_CHUNK_NAMES) :]
        source = sources.get(of_source[0])
        if source is None:
            source = sources[of_source[0]] = build_source(of_source)
        # The content says more than a heading, which is shown anyway.
        texts = texts_of(row[_HEADING], row[_CONTENT])[::-1]
        shown = snippet(texts, asked or _NO_WORDS, width=width, marks=marks)
        hits.append(ChunkHit(build_chunk(row), source, score, shown))
    return hits


_CHUNK_NAMES = tuple(CHUNKS.c.keys())
_SOURCE_NAMES = tuple(SOURCES.c.keys())
_HEADING = _CHUNK_NAMES.index("heading")
_CONTENT = _CHUNK_NAMES.index("content")
_NO_WORDS = parse("")


# --- words


def _found(
    session: Session, asked: Query, filters: Mapping[str, object], limit: int, offset: int
) -> list[Sequence[Any]]:
    """Return the rows that the words find, each with its score behind."""
    ranking = _ranking(filters)
    if asked.is_indexed:
        return ranking.page(session, asked, filters, limit, offset)
    # The index was asked as much as it should be; what it found is asked the rest.
    rows = ranking.every(session, asked, filters)
    matching_rows = (row for row in rows if asked.matches(texts_of(row[_HEADING], row[_CONTENT])))
    return list(islice(matching_rows, offset, offset + limit))


def _ranked(session: Session, asked: Query, filters: Mapping[str, object]) -> list[tuple[str, float]]:
    """Return the keys that the words find, the best first, with their scores."""
    if not asked.is_indexed:
        return [(row[0], row[-1]) for row in _found(session, asked, filters, DEPTH, 0)]
    return _ranking(filters).keys(session, asked, filters, DEPTH)


_PATTERN = JSONValue("object")
_CONDITIONS: dict[str, Any] = {
    "project_id": SOURCES.c.project_id == bindparam("project_id", type_=SOURCES.c.project_id.type),
    "source_id": CHUNKS.c.source_id == bindparam("source_id", type_=CHUNKS.c.source_id.type),
}
_IN_CHUNK = KbChunk.metadata_.contains(bindparam("metadata", type_=_PATTERN))
_IN_SOURCE = KbSource.metadata_.contains(bindparam("metadata", type_=_PATTERN))

_RANKINGS: dict[frozenset[str], Ranking] = {}
_ALLOWED: dict[frozenset[str], Statement[Any]] = {}


def _ranking(filters: Mapping[str, object]) -> Ranking:
    names = frozenset(filters)
    found = _RANKINGS.get(names)
    if found is None:
        found = _RANKINGS[names] = _ranking_of(names)
    return found


def _conditions(names: Iterable[str]) -> list[Any]:
    return [or_(_IN_CHUNK, _IN_SOURCE) if name == "metadata" else _CONDITIONS[name] for name in sorted(names)]


def _ranking_of(names: frozenset[str]) -> Ranking:
    def keys(found: FromClause) -> Select[Any]:
        tables = found.join(CHUNKS, searched(CHUNKS.c.chunk_id, found.c.key))
        if names & {"project_id", "metadata"}:
            tables = tables.join(SOURCES, searched(SOURCES.c.source_id, CHUNKS.c.source_id))
        return select(found.c.key, found.c.score).select_from(tables).where(*_conditions(names))

    def rows(best: FromClause) -> Select[Any]:
        chunk, source = CHUNKS.alias("chunk"), SOURCES.alias("source")
        tables = best.join(chunk, searched(chunk.c.chunk_id, best.c.key))
        tables = tables.join(source, searched(source.c.source_id, chunk.c.source_id))
        return select(*chunk.c, *source.c, best.c.score).select_from(tables)

    return Ranking(KIND, keys, rows, filtered=bool(names))


# --- filters


def _filters(
    project_id: object, source_id: object, tags: object, metadata: Mapping[str, Any] | None
) -> dict[str, object]:
    pattern = None if metadata is None else _PATTERN.check(plain_json(metadata), "metadata")
    if tags is not None and (isinstance(tags, str) or not isinstance(tags, Sequence)):
        raise InvalidValueError("tags", "must be a sequence of texts")
    if tags:
        if pattern is not None and "tags" in pattern:
            raise InvalidValueError("tags", "are in the metadata that is asked for, too; give them once")
        pattern = _PATTERN.check({**(pattern or {}), "tags": list(tags)}, "metadata")
    # Everything contains nothing.
    given = {"project_id": project_id, "source_id": source_id, "metadata": pattern or None}
    return {name: value for name, value in given.items() if value is not None}


def _allowed(session: Session, filters: Mapping[str, object]) -> list[str]:
    """Return the keys of the chunks that pass the filters."""
    names = frozenset(filters)
    statement = _ALLOWED.get(names)
    if statement is None:
        statement = _ALLOWED[names] = Statement(_allowed_of(names))
    return [key for (key,) in session.all(statement, filters)]


def _allowed_of(names: frozenset[str]) -> Any:
    plain = [_CONDITIONS[name] for name in sorted(names - {"metadata"})]

    def of(*conditions: Any) -> Any:
        query = select(CHUNKS.c.chunk_id)
        if names & {"project_id", "metadata"}:
            query = query.select_from(CHUNKS.join(SOURCES, SOURCES.c.source_id == CHUNKS.c.source_id))
        return query.where(*plain, *conditions)

    if "metadata" not in names:
        return of()
    # As two queries each is served by an index; with OR between them none would be.
    either = union(of(_IN_CHUNK), of(_IN_SOURCE)).subquery("either")
    return select(either.c.chunk_id)


# --- vectors

_keys = keys_in("keys")
_FETCH: Statement[Any] = Statement(
    select(
        *CHUNKS.c,
        *SOURCES.c,
        select(MODELS.c.revision)
        .where(MODELS.c.model_name == bindparam("model_name", type_=MODELS.c.model_name.type))
        .scalar_subquery()
        .label("model_revision"),
        EMBEDDINGS.c.revision.label("embedding_revision"),
    ).select_from(
        _keys.join(CHUNKS, searched(CHUNKS.c.chunk_id, _keys.c.value))
        .join(SOURCES, searched(SOURCES.c.source_id, CHUNKS.c.source_id))
        .outerjoin(
            EMBEDDINGS,
            (EMBEDDINGS.c.chunk_id == CHUNKS.c.chunk_id)
            & (EMBEDDINGS.c.model_name == bindparam("model_name", type_=MODELS.c.model_name.type)),
        )
    )
)


def _fetch(session: Session, keys: Sequence[str], model_name: str) -> tuple[dict[str, Sequence[Any]], str | None]:
    """Return the rows of chunks by key, and the model's revision at that moment; None where it was not asked."""
    rows = session.all(_FETCH, {"keys": keys, "model_name": model_name}) if keys else []
    return {row[0]: row for row in rows}, rows[0][-2] if rows else None
