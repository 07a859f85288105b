from __future__ import annotations

import random
from typing import Any

import pytest

from agentos_store import InvalidValueError, NotFoundError, Store
from agentos_store.knowledge.chunks import NewChunk
from tests.knowledge.shelf import Run, contents, is_whole, keys, lengths, pieces, shelve


def test_a_chunk_has_all_that_was_given_of_it(store: Store) -> None:
    given = NewChunk("内容", "Guide > Install", 3, 9, 7, {"tags": ["x"]})
    source = store.kb.refresh(source_path="/a", content_hash="h", chunks=[given]).source
    (chunk,) = store.kb.list_chunks(source_id=source.source_id)
    assert (chunk.content, chunk.heading, chunk.start_line, chunk.end_line) == ("内容", "Guide > Install", 3, 9)
    assert (chunk.token_count, chunk.metadata_, chunk.chunk_index) == (7, {"tags": ["x"]}, 0)
    assert store.kb.get_chunk(chunk.chunk_id).to_dict() == chunk.to_dict()
    assert store.kb.find_chunk("nobody") is None
    with pytest.raises(NotFoundError):
        store.kb.get_chunk("nobody")


def test_a_chunk_that_stayed_keeps_its_key_its_time_and_its_embeddings(store: Store, raw: Run) -> None:
    source = shelve(store, "/a", "a", "b", "b", "c").source
    store.kb.embed("m", embedder=lengths)
    before = {chunk.chunk_id: chunk for chunk in store.kb.iterate_chunks()}
    documents = raw("SELECT doc_id, key FROM search_documents ORDER BY key")
    done = store.kb.replace_chunks(source.source_id, pieces("b", "c", "b", "a"))
    assert (done.added, done.kept, done.removed) == (0, 4, 0)
    after = list(store.kb.iterate_chunks())
    assert [chunk.content for chunk in after] == ["b", "c", "b", "a"]
    assert {chunk.chunk_id: chunk.created_at for chunk in after} == {
        key: chunk.created_at for key, chunk in before.items()
    }
    # Of two alike the first stays the first.
    alike = [chunk.chunk_id for chunk in after if chunk.content == "b"]
    assert alike == [key for key, chunk in before.items() if chunk.content == "b"]
    assert store.kb.missing("m") == 0
    assert raw("SELECT doc_id, key FROM search_documents ORDER BY key") == documents


def test_another_heading_makes_another_chunk(store: Store) -> None:
    source = store.kb.refresh(source_path="/a", content_hash=None, chunks=[NewChunk("x", "One")]).source
    done = store.kb.replace_chunks(source.source_id, [NewChunk("x", "Two")])
    assert (done.added, done.kept, done.removed) == (1, 0, 1)
    assert store.kb.search("One") == []
    assert store.kb.search("Two")[0].snippet == "«Two»"


def test_replacing_with_the_same_writes_nothing(store: Store, raw: Run) -> None:
    source = shelve(store, "/a", "a", "b").source
    tables = ("kb_sources", "kb_chunks", "search_documents")
    before = [raw(f"SELECT * FROM {table} ORDER BY 1") for table in tables]
    version = "PRAGMA data_version" if store.capabilities.backend == "sqlite" else "SELECT txid_current_if_assigned()"
    seen = raw(version)
    done = store.kb.replace_chunks(source.source_id, pieces("a", "b"))
    assert (done.added, done.kept, done.removed) == (0, 2, 0)
    assert raw(version) == seen
    assert [raw(f"SELECT * FROM {table} ORDER BY 1") for table in tables] == before
    done = store.kb.replace_chunks(source.source_id, pieces("a", "b"), content_hash="h")
    assert store.kb.get_source(source.source_id).content_hash == "h"
    with pytest.raises(NotFoundError):
        store.kb.replace_chunks("nobody", [])


def test_chunks_are_added_behind_those_that_are_there(store: Store) -> None:
    source = store.kb.add_source(source_path="/a")
    first = store.kb.add_chunks(source.source_id, pieces("a", "b"))
    (last,) = store.kb.add_chunks(source.source_id, pieces("c"))
    assert [chunk.chunk_index for chunk in (*first, last)] == [0, 1, 2]
    assert store.kb.get_chunk(last.chunk_id).to_dict() == last.to_dict()
    assert contents(store) == ["a", "b", "c"]
    assert store.kb.add_chunks(source.source_id, []) == []
    with pytest.raises(NotFoundError):
        store.kb.add_chunks("nobody", pieces("a"))
    assert is_whole(store)


def test_a_changed_chunk_is_found_by_its_new_text_and_its_embedding_is_stale(store: Store) -> None:
    shelve(store, "/a", "old words", "other")
    key = keys(store)["old words"]
    store.kb.embed("m", embedder=lengths)
    store.kb.embed("n", embedder=lengths)
    assert store.kb.stale() == []
    changed = store.kb.update_chunk(key, content="新的 text", heading="H", metadata={"a": 1})
    assert (changed.content, changed.heading, changed.metadata_) == ("新的 text", "H", {"a": 1})
    assert store.kb.search("old") == []
    assert [hit.chunk.chunk_id for hit in store.kb.search("新的 H")] == [key]
    assert [(each.chunk_id, each.model_name) for each in store.kb.stale()] == [(key, "m"), (key, "n")]
    assert [each.model_name for each in store.kb.stale("n")] == ["n"]
    assert len(store.kb.stale(limit=1)) == 1
    assert store.kb.missing("m") == 0
    assert store.kb.embed("m", embedder=lengths).written == 1
    assert [each.model_name for each in store.kb.stale()] == ["n"]
    store.kb.update_chunk(key, content="old words", heading=None)
    assert [each.model_name for each in store.kb.stale()] == ["m"]
    with pytest.raises(NotFoundError):
        store.kb.update_chunk("nobody", content="x")
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"content": ""}, "content"),
        ({"heading": 7}, "heading"),
        ({"metadata": []}, "metadata"),
        ({"metadata": None}, "metadata"),
    ]
    for values, name in wrong:
        with pytest.raises(InvalidValueError) as caught:
            store.kb.update_chunk(key, **values)
        assert caught.value.name == name
    assert is_whole(store)


def test_a_text_of_five_megabytes_is_found_by_its_end(store: Store) -> None:
    text = " ".join(f"{number % 997:x>40}" for number in range(125_000)) + " end 数据库迁移"
    assert len(text.encode()) > 5_000_000
    store.kb.refresh(source_path="/a", content_hash="h", chunks=[NewChunk(text), NewChunk("small")])
    (hit,) = store.kb.search('"end 数据库"')
    assert hit.snippet.endswith("«end 数据库»迁移")
    assert is_whole(store)


def test_many_random_replacements_leave_what_was_given_last(both: list[Store]) -> None:
    random_ = random.Random(7)
    for _ in range(25):
        texts = [random_.choice("abcdefgh") for _ in range(random_.randrange(9))]
        for store in both:
            source = store.kb.add_source(source_path="/random")
            before = [chunk.content for chunk in store.kb.iterate_chunks(source_id=source.source_id)]
            done = store.kb.replace_chunks(source.source_id, pieces(*texts))
            stays = sum(min(before.count(text), texts.count(text)) for text in set(texts))
            assert (done.added, done.kept, done.removed) == (len(texts) - stays, stays, len(before) - stays)
            assert contents(store, source.source_id) == texts
    assert all(is_whole(store) for store in both)
