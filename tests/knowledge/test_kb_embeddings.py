from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from agentos_store import AsyncStore, InvalidValueError, NotFoundError, Store, UnavailableError, UsageError
from agentos_store.knowledge import embeddings
from agentos_store.knowledge.embeddings import Embedded
from tests.knowledge.shelf import Run, keys, lengths, shelve


def test_an_embedding_is_the_bytes_that_were_given(store: Store) -> None:
    shelve(store, "/a", "a", "b", "c")
    found = keys(store)
    done = store.kb.embed(
        "m", {found["a"]: [1, 2.5], found["b"]: np.array([0.1, -1]), found["c"]: struct.pack("<2f", 3, 4)}
    )
    assert done == Embedded(written=3, skipped=0)
    vectors = [store.kb.find_embedding(found[name], "m") for name in "abc"]
    assert [each and each.embedding for each in vectors] == [
        struct.pack("<2f", *numbers) for numbers in ((1, 2.5), (0.1, -1), (3, 4))
    ]
    assert vectors[0] is not None
    assert vectors[0].dimensions == 2
    assert vectors[0].content_hash == store.kb.get_chunk(found["a"]).content_hash
    assert store.kb.find_embedding(found["a"], "n") is None
    assert [(model.model_name, model.dimensions) for model in store.kb.list_models()] == [("m", 2)]
    assert store.kb.embed("m", {}) == Embedded(0, 0)


def test_embeddings_are_stored_all_or_none(store: Store) -> None:
    shelve(store, "/a", "a", "b")
    found = keys(store)
    good, other = found["a"], found["b"]
    store.kb.embed("m", {good: [1, 2]})
    bad: list[tuple[Any, str]] = [
        ({good: [3, 4], other: [1, 2, 3]}, f"vectors[{other!r}]"),
        ({good: [1, 2, 3]}, f"vectors[{good!r}]"),
        ({good: [3, 4], other: [1, float("nan")]}, f"vectors[{other!r}][1]"),
        ({good: [3, 4], other: [0, 0]}, f"vectors[{other!r}]"),
        ({good: [3, 4], other: []}, f"vectors[{other!r}]"),
        ({good: [3, 4], other: "12"}, f"vectors[{other!r}]"),
        ({good: [3, 4], other: b"12345"}, f"vectors[{other!r}]"),
        ({good: [3, 4], 7: [1, 2]}, "vectors"),
        ([[1, 2]], "vectors"),
    ]
    for vectors, name in bad:
        with pytest.raises(InvalidValueError) as caught:
            store.kb.embed("m", vectors)
        assert caught.value.name == name
    with pytest.raises(NotFoundError) as missing:
        store.kb.embed("m", {good: [3, 4], "nobody": [1, 2], other: [3, 4]})
    assert (missing.value.entity, missing.value.key) == ("chunk", "nobody")
    with pytest.raises(NotFoundError):
        store.kb.embed("new", {"nobody": [1, 2]})
    embedding = store.kb.find_embedding(good, "m")
    assert embedding is not None
    assert embedding.embedding == struct.pack("<2f", 1, 2)
    assert store.kb.missing("m") == 1
    assert [model.model_name for model in store.kb.list_models()] == ["m"]
    # Another model may have other dimensions.
    assert store.kb.embed("n", {good: [1, 2, 3]}).written == 1


def test_an_embedder_is_asked_for_what_is_missing_or_stale(store: Store) -> None:
    shelve(store, "/a", *(f"a{number}" for number in range(7)))
    source = shelve(store, "/b", "b1", "b2").source
    asked: list[list[str]] = []

    def embedder(texts: Sequence[str]) -> Any:
        asked.append(list(texts))
        return np.array(lengths(texts))

    assert store.kb.embed("m", embedder=embedder, source_id=source.source_id).written == 2
    assert store.kb.missing("m") == 7
    assert store.kb.missing("m", source_id=source.source_id) == 0
    assert store.kb.embed("m", embedder=embedder, batch=3).written == 7
    assert asked == [["b1", "b2"], ["a0", "a1", "a2"], ["a3", "a4", "a5"], ["a6"]]
    asked.clear()
    assert store.kb.embed("m", embedder=embedder) == Embedded(0, 0)
    assert asked == []
    store.kb.update_chunk(keys(store)["a3"], heading="Head")
    assert store.kb.embed("m", embedder=embedder).written == 1
    # What is embedded has its headings above it.
    assert asked == [["Head\n\na3"]]


def test_what_was_stored_before_an_embedder_fails_stays(store: Store) -> None:
    shelve(store, "/a", "a", "b", "c")

    def embedder(texts: Sequence[str]) -> Any:
        if texts == ["b"]:
            raise OSError("no more")
        return lengths(texts)

    with pytest.raises(OSError, match="no more"):
        store.kb.embed("m", embedder=embedder, batch=1)
    assert store.kb.missing("m") == 2
    assert store.kb.embed("m", embedder=lengths).written == 2


def test_a_wrong_embedder_is_refused(store: Store) -> None:
    shelve(store, "/a", "a", "b")
    for embedder, name in (
        (lambda texts: lengths(texts)[1:], "embedder"),
        (lambda texts: 7, "embedder"),
        (7, "embedder"),
        (None, "vectors"),
    ):
        with pytest.raises(InvalidValueError) as caught:
            store.kb.embed("m", embedder=embedder)  # type: ignore[arg-type]
        assert caught.value.name == name
    for options, name in (
        ({"vectors": {}, "embedder": lengths}, "vectors"),
        ({"vectors": {}, "source_id": "x"}, "source_id"),
        ({"embedder": lengths, "batch": 0}, "batch"),
    ):
        with pytest.raises(InvalidValueError) as caught:
            store.kb.embed("m", **options)
        assert caught.value.name == name
    with pytest.raises(InvalidValueError, match=r"vectors\['.*'\]: is of type int"):
        store.kb.embed("m", embedder=lambda texts: [1 for _ in texts])
    assert store.kb.list_models() == []


def test_hashes_of_other_chunks_are_refused(store: Store) -> None:
    shelve(store, "/a", "a", "b")
    (key, other) = keys(store).values()
    made_of: Any
    for made_of in ({}, {other: "h"}, [key], {key: 7}):
        with pytest.raises(InvalidValueError):
            store.kb.add_embeddings("m", {key: [1, 2]}, made_of=made_of)
    assert store.kb.list_models() == []


def test_what_stood_in_the_way_of_embeddings_and_is_gone_is_no_error(
    store: Store, raw: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelve(store, "/a", "a")
    (key,) = keys(store).values()
    store.kb.embed("m", {key: [1, 2, 3]})
    refuse = embeddings._refuse

    def late(session: Any, *args: Any, **options: Any) -> None:
        monkeypatch.undo()
        if session.capabilities.data_modifying_cte:
            # Elsewhere nobody else writes meanwhile.
            raw("DELETE FROM kb_models")
        refuse(session, *args, **options)

    monkeypatch.setattr(embeddings, "_refuse", late)
    try:
        written = store.kb.embed("m", {key: [1, 2]}).written
    except InvalidValueError:
        written = 0
    assert (written, [model.dimensions for model in store.kb.list_models()]) in [(1, [2]), (0, [3])]


def test_no_transaction_is_open_while_an_embedder_works(store: Store) -> None:
    shelve(store, "/a", "a", "b")

    def embedder(texts: Sequence[str]) -> Any:
        # Would wait for ever, were a transaction open.
        writer = threading.Thread(target=shelve, args=(store, f"/{texts[0]}/new", "x"))
        writer.start()
        writer.join(20)
        assert not writer.is_alive()
        return lengths(texts)

    store.kb.embed("m", embedder=embedder, batch=2)
    assert store.kb.count_sources() >= 2


def test_an_embedder_is_refused_inside_a_transaction(store: Store) -> None:
    shelve(store, "/a", "a")
    with store.transaction() as tx:
        with pytest.raises(UsageError, match="outside"):
            tx.kb.embed("m", embedder=lengths)
        assert tx.kb.embed("m", {key: [1, 2] for key in keys(store).values()}) == Embedded(1, 0)
    assert store.kb.missing("m") == 0


def test_what_changes_while_an_embedder_works_is_seen(store: Store) -> None:
    source = shelve(store, "/a", "gone", "changed", "stays").source
    found = keys(store)

    def embedder(texts: Sequence[str]) -> Any:
        store.kb.update_chunk(found["changed"], content="changed since")
        with store.transaction() as tx:
            tx.kb.replace_chunks(
                source.source_id,
                [chunk for chunk in map(_again, tx.kb.iterate_chunks()) if chunk.content != "gone"],
            )
        return lengths(texts)

    assert store.kb.embed("m", embedder=embedder) == Embedded(written=2, skipped=1)
    assert [each.chunk_id for each in store.kb.stale()] == [found["changed"]]
    assert store.kb.embed("m", embedder=lengths) == Embedded(written=1, skipped=0)

    def too_late(texts: Sequence[str]) -> Any:
        store.kb.delete_source(source.source_id)
        return lengths(texts)

    assert store.kb.embed("late", embedder=too_late) == Embedded(written=0, skipped=2)
    assert [model.model_name for model in store.kb.list_models()] == ["m"]


def _again(chunk: Any) -> Any:
    from agentos_store.knowledge.chunks import NewChunk

    return NewChunk(chunk.content, chunk.heading, chunk.start_line, chunk.end_line)


def test_a_forgotten_model_may_come_again_with_other_dimensions(store: Store, raw: Run) -> None:
    shelve(store, "/a", "a")
    (key,) = keys(store).values()
    store.kb.embed("m", {key: [1, 2]})
    assert len(store.kb.search(vector=[1, 2], model_name="m")) == 1
    store.kb.delete_model("m")
    with pytest.raises(NotFoundError):
        store.kb.delete_model("m")
    with pytest.raises(NotFoundError):
        store.kb.search(vector=[1, 2], model_name="m")
    assert raw("SELECT count(*) FROM kb_embeddings") == [(0,)]
    store.kb.embed("m", {key: [1, 2, 3]})
    assert store.kb.search(vector=[1, 2, 3], model_name="m")[0].score == 1.0


def test_a_number_out_of_range_is_refused(store: Store) -> None:
    for limit in (0, True, 10**6, "1"):
        wrong: Any = limit
        with pytest.raises(InvalidValueError, match="limit"):
            store.kb.stale(limit=wrong)
        with pytest.raises(InvalidValueError, match="limit"):
            store.kb.list_unembedded("m", limit=wrong)


def test_an_index_of_vectors_says_what_it_needs(store: Store) -> None:
    assert not store.capabilities.vector_index
    with pytest.raises(UnavailableError, match="pgvector"):
        store.kb.build_index("m")


class Elsewhere:
    """An object that is called, and gives a coroutine."""

    def __init__(self, embedder: Any) -> None:
        self.embedder = embedder

    def __call__(self, texts: list[str]) -> Any:
        return self.embedder(texts)


async def _embed(url: str) -> None:
    async with AsyncStore.open(url) as store:
        from agentos_store.knowledge.chunks import NewChunk

        await store.kb.refresh(source_path="/a", content_hash="h", chunks=[NewChunk(text) for text in "abc"])
        loop = threading.get_ident()
        threads: list[int] = []

        async def in_the_loop(texts: list[str]) -> Any:
            threads.append(threading.get_ident())
            await asyncio.sleep(0)
            return lengths(texts)

        def beside_it(texts: list[str]) -> Any:
            threads.append(threading.get_ident())
            return lengths(texts)

        assert await store.kb.embed("m", embedder=in_the_loop, batch=2) == Embedded(3, 0)
        assert threads == [loop, loop]
        assert await store.kb.embed("n", embedder=beside_it) == Embedded(3, 0)
        assert threads[2] != loop
        assert await store.kb.embed("o", embedder=Elsewhere(in_the_loop)) == Embedded(3, 0)
        keys = [hit.chunk.chunk_id for hit in await store.kb.search("a", vector=[1, 2, 1], model_name="m")]
        assert await store.kb.embed("m", {keys[0]: [1, 1, 1]}) == Embedded(1, 0)
        with pytest.raises(InvalidValueError):
            await store.kb.embed("m")


def test_the_asynchronous_store_takes_embedders_of_both_kinds(url: str) -> None:
    asyncio.run(_embed(url))
