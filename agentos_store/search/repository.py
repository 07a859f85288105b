"""Looking after the index: making it again, and seeing whether it is what it should be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

from sqlalchemy import Column, Integer, MetaData, Table, insert
from sqlalchemy import Text as PlainText

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidValueError, UnavailableError
from agentos_store.operation import Awaiting, Blocking, F, Repository, Runner, reads_together, writes, writes_once
from agentos_store.search.index import put
from agentos_store.search.parts import indexed, text_hash
from agentos_store.search.sources import Source, walk_indexed

BATCH = 200
"""Documents that are indexed again in one transaction."""

COMPARED = 1000
EXAMPLES = 20


@dataclass(frozen=True, slots=True)
class IndexBatch:
    """What one step of a rebuilding did."""

    documents: int
    removed: int
    """Parts of documents that are gone."""
    next: str | None
    """The key after which the next step begins; None at the end."""


@dataclass(frozen=True, slots=True)
class IndexRebuilt:
    """What a rebuilding did."""

    documents: Mapping[str, int]
    """By kind how many were indexed."""
    removed: int
    """Parts of documents that were gone."""


@dataclass(frozen=True, slots=True)
class IndexOfKind:
    """How the index of a kind stands."""

    documents: int
    """Rows that should be found."""
    missing: int
    """Rows that are not indexed."""
    stale: int
    """Rows that were changed behind the index's back, or of which a part is missing."""
    orphaned: int
    """What is indexed though its row is gone. It is not found."""
    examples: Sequence[str]
    """Keys of the first 20 of these."""
    lags: bool
    """Whether a search indexes what is missing before it answers."""
    overdue: int = 0
    """Of the missing rows, those that no search would index."""

    @property
    def ok(self) -> bool:
        """Whether a search finds what it should; what is orphaned only takes room."""
        return not self.stale and not self.overdue


class _Rebuild:
    """``rebuild``: steps until there are no more, each a transaction of its own."""

    @overload
    def __get__(self, instance: None, owner: type) -> _Rebuild: ...
    @overload
    def __get__(self, instance: SearchRepository[Blocking], owner: type) -> Callable[..., IndexRebuilt]: ...
    @overload
    def __get__(
        self, instance: SearchRepository[Awaiting], owner: type
    ) -> Callable[..., Coroutine[Any, Any, IndexRebuilt]]: ...
    def __get__(self, instance: SearchRepository[Any] | None, owner: type) -> Any:
        if instance is None:
            return self
        return _rebuild_async(instance) if instance._asynchronous else _rebuild(instance)  # noqa: SLF001  one mechanism


def _rebuild(repository: Any) -> Callable[..., IndexRebuilt]:
    def rebuild(kind: str | None = None) -> IndexRebuilt:
        """Make the index of a kind, or of all, anew, while it is in use; each step is one short transaction."""
        documents: dict[str, int] = {}
        removed = 0
        # A row that the table does not have could not be taken out of it.
        repository.refill()
        for each in repository.kinds(kind):
            documents[each] = 0
            after: str | None = ""
            while after is not None:
                batch = repository.rebuild_batch(each, after=after)
                documents[each] += batch.documents
                removed += batch.removed
                after = batch.next
        return IndexRebuilt(documents, removed)

    return rebuild


def _rebuild_async(repository: Any) -> Callable[..., Coroutine[Any, Any, IndexRebuilt]]:
    async def rebuild(kind: str | None = None) -> IndexRebuilt:
        """Make the index of a kind, or of all, anew, while it is in use; each step is one short transaction."""
        documents: dict[str, int] = {}
        removed = 0
        await repository.refill()
        for each in repository.kinds(kind):
            documents[each] = 0
            after: str | None = ""
            while after is not None:
                batch = await repository.rebuild_batch(each, after=after)
                documents[each] += batch.documents
                removed += batch.removed
                after = batch.next
        return IndexRebuilt(documents, removed)

    return rebuild


class SearchRepository(Repository[F]):
    """The index behind every search."""

    name = "search"

    def __init__(self, runner: Runner, *, asynchronous: bool = False, sources: Sequence[Source[Any]] = ()) -> None:
        super().__init__(runner, asynchronous=asynchronous)
        self._sources = {source.kind: source for source in sources}

    def kinds(self, kind: str | None = None) -> Sequence[str]:
        """Return what is searched, or the kind that is given; InvalidValueError for one that there is not."""
        if kind is not None and kind not in self._sources:
            raise InvalidValueError("kind", f"must be one of {', '.join(self._sources)}")
        return list(self._sources) if kind is None else [kind]

    rebuild = _Rebuild()

    @writes
    def rebuild_batch(self, session: Session, kind: str, *, after: str = "", limit: int = BATCH) -> IndexBatch:
        """Index the documents of a kind again whose keys come after one, and take out what is gone between them."""
        source = self._sources[self.kinds(kind)[0]]
        batch = source.batch(session, after, limit, lock=session.capabilities.row_locks)
        put(session, kind, [indexed(key, texts) for key, texts in batch])
        last = batch[-1][0] if len(batch) == limit else None
        removed = source.remove_orphans(session, after, last)
        return IndexBatch(len(batch), removed, last)

    @writes_once
    def refill(self, session: Session) -> None:
        """Fill the full-text table from the documents, where the database has one beside them: in one transaction."""
        if session.capabilities.full_text_table:
            session.execute(_REFILL)

    @reads_together
    def check(self, session: Session, kind: str | None = None) -> Mapping[str, IndexOfKind]:
        """Compare what is indexed with the rows that it is made of, at one moment; return by kind how it stands."""
        return {each: _check(session, self._sources[each]) for each in self.kinds(kind)}

    @writes_once
    def probe(self, session: Session) -> bool:
        """Tell whether the full-text table holds what the documents say; ``rebuild`` mends it where not.

        Nothing is changed, but on SQLite it is asked in the queue of writers.
        """
        if not session.capabilities.full_text_table:
            return True
        try:
            session.execute(_PROBE)
        except UnavailableError as error:
            if error.code != "SQLITE_CORRUPT_VTAB":
                raise
            return False
        return True


# A table of its own metadata: the models know nothing of it, and its name is the column that takes its commands.
_FULL_TEXT = Table(
    "search_index", MetaData(), Column("search_index", PlainText()), Column("rank", Integer(), key="strictly")
)
_REFILL: Statement[Any] = Statement(insert(_FULL_TEXT).values(search_index="rebuild"))
_PROBE: Statement[Any] = Statement(insert(_FULL_TEXT).values(search_index="integrity-check", strictly=1))


def _check(session: Session, source: Source[Any]) -> IndexOfKind:
    count = 0
    faults: Counter[str] = Counter()
    examples: list[str] = []
    for key, texts, found in _side_by_side(
        source.walk(session, COMPARED), walk_indexed(session, source.kind, COMPARED)
    ):
        count += texts is not None
        fault = "orphaned" if texts is None else "missing" if found is None else "stale"
        if texts is None or found is None or text_hash(texts) != found:
            faults[fault] += 1
            if len(examples) < EXAMPLES:
                examples.append(key)
    missing = faults["missing"]
    overdue = source.count_overdue(session) if missing and source.lags else missing
    return IndexOfKind(count, missing, faults["stale"], faults["orphaned"], tuple(examples), source.lags, overdue)


def _side_by_side(
    rows: Iterator[tuple[str, Sequence[str]]], documents: Iterator[tuple[str, str]]
) -> Iterator[tuple[str, Sequence[str] | None, str | None]]:
    """Yield each key once with what either has of it, both being in the order of their keys."""
    row, document = next(rows, None), next(documents, None)
    while row is not None or document is not None:
        key = min(each[0] for each in (row, document) if each is not None)
        texts = row[1] if row is not None and row[0] == key else None
        found = document[1] if document is not None and document[0] == key else None
        yield key, texts, found
        if texts is not None:
            row = next(rows, None)
        if found is not None:
            document = next(documents, None)
