"""What is searched, over and over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

from agentos_store import Store
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.knowledge.finding import DEPTH
from agentos_store.search.vectors import KEPT
from benchmarks.measure import Contest, Contestant, NotHonestError
from benchmarks.places import Place
from benchmarks.search import content
from benchmarks.search.raw import RawMatrix, RawPostgreSQL, RawSQLite, fuse
from benchmarks.works import OURS, RAW

RAW_OF: dict[str, type[RawSQLite | RawPostgreSQL]] = {"sqlite": RawSQLite, "postgresql": RawPostgreSQL}
"""By the backend."""

BATCH = 500
"""Items of one transaction."""

IN_MEMORY = "NumPy over a matrix in memory"
READ_ANEW = "NumPy over stored bytes read anew"
BOTH = "both by hand"


@contextlib.contextmanager
def words(place: Place) -> Iterator[Contest]:
    """Find two words, in texts whose words are separated by spaces."""
    work = f"the {content.LIMIT} best of {content.ENGLISH:,} texts for two words"
    with _searching(place, content.english(), content.WORDS, content.WORDS.split(), str) as contestants:
        yield Contest(work, place.name, contestants)


@contextlib.contextmanager
def weather(place: Place) -> Iterator[Contest]:
    """Find a Chinese word."""
    work = f"the {content.LIMIT} best of {content.CHINESE:,} Chinese texts for {content.WEATHER}"
    asked = [content.WEATHER]
    with _searching(place, content.chinese(), content.WEATHER, asked, content.bigrams) as contestants:
        yield Contest(work, place.name, contestants)


@contextlib.contextmanager
def _searching(
    place: Place, texts: Iterable[str], query: str, asked: Sequence[str], tokens: Callable[[str], str]
) -> Iterator[list[Contestant]]:
    url = place.database()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(Store.open(url))
        remembered = _remember(store, texts)
        raw = stack.enter_context(contextlib.closing(RAW_OF[place.name].open(url)))
        raw.index([(key, tokens(text)) for key, text in remembered])
        place.settle(url)
        ours = len(store.memory.search(query, limit=1000))
        if ours != min(raw.count(asked), 1000) or ours < content.LIMIT:
            raise NotHonestError(f"we find {ours}, the engine alone {raw.count(asked)}")
        if len(raw.search(asked)) != len(store.memory.search(query, limit=content.LIMIT)):
            raise NotHonestError("the pages differ")
        yield [
            Contestant(OURS, lambda: store.memory.search(query, limit=content.LIMIT)),
            Contestant(RAW, lambda: raw.search(asked)),
        ]


def _remember(store: Store, texts: Iterable[str]) -> list[tuple[str, str]]:
    remembered: list[tuple[str, str]] = []
    walk = iter(texts)
    while batch := list(islice(walk, BATCH)):
        with store.transaction() as tx:
            remembered += [(tx.memory.remember(text, type="note").id, text) for text in batch]
    return remembered


class _Shelf:
    """Texts with vectors, and those who look for the nearest of them."""

    def __init__(self, store: Store, raw: RawSQLite | RawPostgreSQL, source_id: str) -> None:
        self.store = store
        self.raw = raw
        self.source_id = source_id
        self.wanted = content.vectors()[-1]
        self.matrix = RawMatrix(raw.vectors())

    def ours(self, query: str | None = None, **options: Any) -> list[str]:
        """Search with the library."""
        hits = self.store.kb.search(query, vector=self.wanted, model_name=content.MODEL, limit=content.LIMIT, **options)
        return [hit.chunk.chunk_id for hit in hits]

    def ours_cold(self) -> list[str]:
        """Search when nothing is in memory."""
        KEPT.after_fork()
        return self.ours()

    def by_hand(self, matrix: RawMatrix, among: Sequence[str] | None = None) -> list[str]:
        """Search with NumPy, and fetch what was found."""
        keys = matrix.nearest(self.wanted, content.LIMIT, among)
        self.raw.chunks(keys)
        return keys

    def by_hand_hybrid(self) -> list[str]:
        """Search both ways, and fetch the best of both."""
        near = self.matrix.nearest(self.wanted, DEPTH)
        keys = fuse([self.raw.rank(content.WORDS.split(), DEPTH), near])[: content.LIMIT]
        self.raw.chunks(keys)
        return keys


def _vectors(
    work: str,
    ours: Callable[[_Shelf], list[str]],
    by_hand: Callable[[_Shelf], list[str]],
    *,
    name: str = IN_MEMORY,
    ranked_alike: bool = True,
    warm_up: int = 30,
    least: int = 10,
) -> Callable[[Place], AbstractContextManager[Contest]]:
    @contextlib.contextmanager
    def hold(place: Place) -> Iterator[Contest]:
        url = place.database()
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(Store.open(url))
            source_id, texts = _shelve(store)
            raw = stack.enter_context(contextlib.closing(RAW_OF[place.name].open(url)))
            raw.index(texts)
            place.settle(url)
            shelf = _Shelf(store, raw, source_id)
            mine, theirs = ours(shelf), by_hand(shelf)
            if len(mine) != len(theirs) or (ranked_alike and mine != theirs):
                raise NotHonestError(f"we find {mine}, by hand it is {theirs}")
            contestants = [Contestant(OURS, lambda: ours(shelf)), Contestant(name, lambda: by_hand(shelf))]
            yield Contest(work, place.name, contestants, name, warm_up=warm_up, least=least)

    return hold


def _shelve(store: Store) -> tuple[str, list[tuple[str, str]]]:
    """Store texts with their vectors; return a source, and the texts by their keys."""
    walk = islice(content.english(), content.VECTORS)
    size = content.VECTORS // content.SOURCES
    for number in range(content.SOURCES):
        chunks = [NewChunk(text) for text in islice(walk, size)]
        source = store.kb.refresh(source_path=f"/{number}.md", content_hash="hash", chunks=chunks).source
    texts = [(chunk.chunk_id, chunk.content) for chunk in store.kb.iterate_chunks(limit=1000)]
    vectors = content.vectors()
    for start in range(0, content.VECTORS, BATCH):
        some = texts[start : start + BATCH]
        store.kb.embed(content.MODEL, {key: vectors[place] for place, (key, _) in enumerate(some, start)})
    return source.source_id, texts


_NEAREST = f"the {content.LIMIT} nearest of {content.VECTORS:,} vectors of {content.DIMENSIONS} numbers"

WORKS = {
    "search-words": words,
    "search-chinese": weather,
    "search-vectors": _vectors(_NEAREST, _Shelf.ours, lambda shelf: shelf.by_hand(shelf.matrix)),
    "search-vectors-cold": _vectors(
        f"{_NEAREST}, which are read first",
        _Shelf.ours_cold,
        lambda shelf: shelf.by_hand(RawMatrix(shelf.raw.vectors())),
        name=READ_ANEW,
        warm_up=2,
        least=3,
    ),
    "search-vectors-of-source": _vectors(
        f"{_NEAREST}, of one of {content.SOURCES} sources",
        lambda shelf: shelf.ours(source_id=shelf.source_id),
        lambda shelf: shelf.by_hand(shelf.matrix, shelf.raw.keys_of(shelf.source_id)),
    ),
    "search-hybrid": _vectors(
        f"{_NEAREST}, and their texts for two words",
        lambda shelf: shelf.ours(content.WORDS),
        _Shelf.by_hand_hybrid,
        name=BOTH,
        # The engines rank words by rules of their own.
        ranked_alike=False,
    ),
}
"""By the name that the command line takes."""
