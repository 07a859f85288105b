"""Two who write at once: what remains is the work of one of them, whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from agentos_store import NotFoundError, Store
from agentos_store.knowledge.chunks import NewChunk
from tests.engine.gather import PROCESSES, threads
from tests.knowledge.shelf import contents, is_whole, keys, lengths, pieces, shelve

WRITERS = 6
TURNS = 6


def at_once(works: Sequence[Callable[[], Any]]) -> list[Any]:
    """Run the functions in threads that start together; raise what any of them raised."""
    start = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Callable[[], Any]:
        def wait_and_run() -> Any:
            start.wait()
            return work()

        return wait_and_run

    with threads([run(work) for work in works]) as outcomes:
        pass
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def texts_of(writer: int, turn: int) -> list[str]:
    """Return what a writer makes of the source: some of it is everybody's."""
    return ["head", *(f"{writer}-{turn}-{number}" for number in range(writer + 1)), "tail", "tail"]


def test_of_two_refreshes_at_once_the_chunks_of_one_remain_whole(store: Store) -> None:
    def writer(number: int) -> Callable[[], Any]:
        def run() -> list[tuple[bool, str]]:
            done = []
            for turn in range(TURNS):
                chunks = pieces(*texts_of(number, turn))
                made = store.kb.refresh(source_path="/a", content_hash=f"{number}-{turn}", chunks=chunks)
                done.append((made.is_new, made.source.source_id))
            return done

        return run

    outcomes = [each for outcome in at_once([writer(number) for number in range(WRITERS)]) for each in outcome]
    assert sum(is_new for is_new, _ in outcomes) == 1
    (source_id,) = {key for _, key in outcomes}
    source = store.kb.get_source(source_id)
    assert source.content_hash is not None
    number, turn = map(int, source.content_hash.split("-"))
    assert contents(store) == texts_of(number, turn)
    assert is_whole(store)


def _refresh_in_a_process(url: str, number: int, start: Any) -> None:
    with Store.open(url) as store:
        start.wait()
        for turn in range(TURNS):
            store.kb.refresh(source_path="/a", content_hash=f"{number}-{turn}", chunks=pieces(*texts_of(number, turn)))


def test_refreshes_of_processes_leave_one_whole_too(store: Store, url: str) -> None:
    start = PROCESSES.Event()
    running = [PROCESSES.Process(target=_refresh_in_a_process, args=(url, number, start)) for number in range(2)]
    for each in running:
        each.start()
    start.set()
    for each in running:
        each.join()
    assert [each.exitcode for each in running] == [0, 0]
    (source,) = store.kb.list_sources()
    number, turn = map(int, str(source.content_hash).split("-"))
    assert contents(store) == texts_of(number, turn)
    assert is_whole(store)


def test_embedding_beside_refreshes_and_deletions_leaves_no_ghost(store: Store) -> None:
    paths = [f"/{number}" for number in range(3)]
    stop = threading.Event()

    def refresher() -> None:
        try:
            for turn in range(20):
                for path in paths:
                    shelve(store, path, *(f"a{(turn + number) % 7}" for number in range(5)))
                if turn % 5 == 4:
                    source = store.kb.find_source(None, paths[turn % 3])
                    assert source is not None
                    store.kb.delete_source(source.source_id)
        finally:
            stop.set()

    def embedder(model: str) -> Callable[[], None]:
        def run() -> None:
            while not stop.is_set():
                store.kb.embed(model, embedder=lengths, batch=4)

        return run

    def giver() -> None:
        while not stop.is_set():
            there = keys(store)
            try:
                store.kb.embed("m", {key: lengths([text])[0] for text, key in reversed(there.items())})
            except NotFoundError as missing:
                assert missing.entity == "chunk"  # noqa: PT017  it may be raised, and need not

    def searcher() -> None:
        while not stop.is_set():
            try:
                hits = store.kb.search("a*", vector=[2, 2, 1], model_name="m", limit=5)
            except NotFoundError as missing:
                assert missing.entity == "embedding model"  # noqa: PT017  nothing was embedded yet
                continue
            order = [(-hit.score, hit.chunk.chunk_id) for hit in hits]
            assert order == sorted(order)

    at_once([refresher, embedder("m"), embedder("n"), giver, searcher])
    for model in "mn":
        store.kb.embed(model, embedder=lengths)
        assert store.kb.missing(model) == 0
    assert store.kb.stale() == []
    assert len(store.kb.search(vector=[2, 2, 1], model_name="m", limit=100)) == store.kb.count_chunks()
    assert is_whole(store)


def test_of_two_dimensions_at_once_one_becomes_the_models(store: Store) -> None:
    shelve(store, "/a", *(f"{number}" for number in range(WRITERS)))
    chunks = list(keys(store).values())

    def writer(number: int) -> Callable[[], int]:
        def run() -> int:
            try:
                return store.kb.embed("m", {chunks[number]: np.ones(number % 2 + 1)}).written
            except ValueError:
                return 0

        return run

    written = at_once([writer(number) for number in range(WRITERS)])
    (model,) = store.kb.list_models()
    assert written == [int(number % 2 + 1 == model.dimensions) for number in range(WRITERS)]


def test_chunks_that_are_added_at_once_get_places_of_their_own(store: Store) -> None:
    source = store.kb.add_source(source_path="/a")

    def writer(number: int) -> Callable[[], None]:
        def run() -> None:
            for turn in range(TURNS):
                store.kb.add_chunks(source.source_id, [NewChunk(f"{number}-{turn}"), NewChunk(f"{number}-{turn}")])

        return run

    at_once([writer(number) for number in range(WRITERS)])
    chunks = list(store.kb.iterate_chunks())
    assert [chunk.chunk_index for chunk in chunks] == list(range(WRITERS * TURNS * 2))
    assert all(first.content == second.content for first, second in zip(chunks[::2], chunks[1::2], strict=True))
    assert is_whole(store)
