from __future__ import annotations

import asyncio
from typing import Any

import pytest

from agentos_store import AsyncStore, InvalidValueError, NotFoundError, Settings, Store, ensure_migrations
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.migrate.target import Target
from agentos_store.migrate.upgrade import downgrade
from tests.knowledge.shelf import Run, contents, is_whole, keys, lengths, pieces, shelve
from tests.standing import owners_work


def test_a_source_is_one_for_each_path_in_a_project_and_without_one(store: Store) -> None:
    store.projects.create(path="/p", id="p")
    alone = store.kb.add_source(source_path="/a", metadata={"n": 1})
    ours = store.kb.add_source(source_path="/a", project_id="p")
    assert alone.source_id != ours.source_id
    assert store.kb.add_source(source_path="/a").to_dict() == alone.to_dict()
    assert store.kb.add_source(source_path="/a", project_id="p").source_id == ours.source_id
    assert store.kb.find_source("p", "/a") is not None
    assert store.kb.find_source("p", "/b") is None
    found = store.kb.find_source(None, "/a")
    assert found is not None
    assert (found.source_id, found.metadata_, found.indexed_at) == (alone.source_id, {"n": 1}, None)
    assert store.kb.count_sources() == 2


def test_a_source_that_is_added_again_takes_what_is_given(store: Store) -> None:
    store.kb.add_source(source_path="/a", content_hash="h", metadata={"n": 1})
    changed = store.kb.add_source(source_path="/a", source_type="url", metadata={"n": True})
    assert (changed.source_type, changed.content_hash, changed.metadata_) == ("url", "h", {"n": True})
    assert changed.metadata_["n"] is True
    done = store.kb.refresh(source_path="/a", source_type="url", content_hash="h", chunks=pieces("x"))
    assert not done.is_unchanged
    assert done.source.indexed_at is not None
    # With another hash its chunks are no longer what it holds.
    assert store.kb.add_source(source_path="/a", source_type="url", content_hash="i").indexed_at is None
    assert store.kb.refresh(source_path="/a", content_hash="i", chunks=pieces("x", "y")).added == 1


def test_sources_are_listed_by_their_paths(store: Store) -> None:
    store.projects.create(path="/p", id="p")
    for number, path in enumerate(["/b/2", "/a", "/b/1", "/bc", "/c/数据"]):
        store.kb.add_source(source_path=path, project_id="p" if number % 2 else None)
    store.kb.add_source(source_path="https://b", source_type="url")

    def paths(**filters: Any) -> list[str]:
        found = [source.source_path for source in store.kb.iterate_sources(**filters)]
        filters.pop("limit", None)
        assert store.kb.count_sources(**filters) == len(found)
        return found

    assert paths(limit=2) == ["/a", "/b/1", "/b/2", "/bc", "/c/数据", "https://b"]
    assert paths(project_id="p") == ["/a", "/bc"]
    assert paths(source_type="url") == ["https://b"]
    assert paths(prefix="/b/") == ["/b/1", "/b/2"]
    assert paths(prefix="/b", project_id="p") == ["/bc"]
    assert paths(prefix="/c/数") == ["/c/数据"]
    assert paths(prefix="%") == []
    store.kb.add_source(source_path="/d/\U0010ffff.md")
    assert paths(prefix="/d/") == ["/d/\U0010ffff.md"]
    assert store.kb.list_sources(order="-source_path", limit=1).items[0].source_path == "https://b"


def test_a_refresh_writes_what_is_new_and_takes_out_what_is_gone(store: Store) -> None:
    first = store.kb.refresh(source_path="/a", content_hash="1", chunks=pieces("a", "b", "c"))
    assert (first.is_new, first.is_unchanged, first.added, first.kept, first.removed) == (True, False, 3, 0, 0)
    before = keys(store)
    again = store.kb.refresh(source_path="/a", content_hash="1", chunks=pieces("anything"))
    assert (again.is_new, again.is_unchanged, again.added, again.kept, again.removed) == (False, True, 0, 3, 0)
    assert again.source.to_dict() == first.source.to_dict()
    moved = store.kb.refresh(source_path="/a", content_hash="2", chunks=pieces("new", "c", "a"))
    assert (moved.is_new, moved.is_unchanged, moved.added, moved.kept, moved.removed) == (False, False, 1, 2, 1)
    assert (moved.source.content_hash, moved.source.source_id) == ("2", first.source.source_id)
    assert contents(store) == ["new", "c", "a"]
    after = keys(store)
    assert (after["a"], after["c"]) == (before["a"], before["c"])
    assert [(chunk.start_line, chunk.chunk_index) for chunk in store.kb.iterate_chunks()] == [(1, 0), (2, 1), (3, 2)]
    same = store.kb.refresh(source_path="/a", content_hash=None, chunks=pieces("new", "c", "a"))
    assert same.is_unchanged
    assert same.kept == 3
    assert is_whole(store)


def test_a_refresh_is_all_or_nothing(store: Store) -> None:
    shelve(store, "/a", "a", "b")
    before = store.kb.find_source(None, "/a")
    assert before is not None
    for chunks, name in (
        ([NewChunk("x"), NewChunk("")], "chunks[1].content"),
        ([NewChunk("x\0")], "chunks[0].content"),
        ([NewChunk("x", heading="\ud800")], "chunks[0].heading"),
        ([NewChunk("x", start_line=0)], "chunks[0].start_line"),
        ([NewChunk("x", start_line=5, end_line=4)], "chunks[0].end_line"),
        ([NewChunk("x", token_count=-1)], "chunks[0].token_count"),
        ([NewChunk("x", metadata={"a": float("nan")})], "chunks[0].metadata.a"),
        (["x"], "chunks[0]"),
        ("x", "chunks[0]"),
        (7, "chunks"),
    ):
        given: Any = chunks
        with pytest.raises(InvalidValueError) as caught:
            store.kb.refresh(source_path="/a", content_hash="h", chunks=given)
        assert caught.value.name == name
        with pytest.raises(InvalidValueError):
            store.kb.refresh(source_path="/new", content_hash="h", chunks=given)
    bad: list[dict[str, Any]] = [
        {"source_path": ""},
        {"source_path": "x" * 1201},
        {"source_type": "x"},
        {"metadata": []},
    ]
    for options in bad:
        asked: dict[str, Any] = {"source_path": "/b", "content_hash": "h", "chunks": [], **options}
        with pytest.raises(InvalidValueError) as caught:
            store.kb.refresh(**asked)
        assert caught.value.name == next(iter(options))
    with pytest.raises(NotFoundError) as missing:
        store.kb.refresh(source_path="/b", content_hash="h", chunks=pieces("x"), project_id="nobody")
    assert (missing.value.entity, missing.value.key) == ("project", "nobody")
    after = store.kb.find_source(None, "/a")
    assert after is not None
    assert after.to_dict() == before.to_dict()
    assert contents(store) == ["a", "b"]
    assert store.kb.count_sources() == 1


def test_a_path_of_the_greatest_length_fits_the_index(store: Store) -> None:
    project = "\U0001f600" * 255
    store.projects.create(path="/p", id=project)
    path = "\U0001f600" * 300
    store.kb.add_source(source_path=path, project_id=project)
    assert store.kb.find_source(project, path) is not None
    assert store.kb.count_sources(project_id=project, prefix=path[:7]) == 1


def test_a_deleted_source_leaves_nothing_behind(store: Store, raw: Run) -> None:
    gone = shelve(store, "/a", "数据库", "b").source
    shelve(store, "/b", "数据库")
    store.kb.embed("m", embedder=lengths)
    store.kb.delete_source(gone.source_id)
    with pytest.raises(NotFoundError):
        store.kb.delete_source(gone.source_id)
    assert not store.kb.exists(gone.source_id)
    assert [hit.source_path for hit in store.kb.search("数据库", vector=[1, 1, 1], model_name="m")] == ["/b"]
    tables = ("kb_sources", "kb_chunks", "kb_embeddings", "search_documents")
    assert [raw(f"SELECT count(*) FROM {table}")[0][0] for table in tables] == [1, 1, 1, 1]


def test_what_a_project_takes_with_it_is_not_found(store: Store, raw: Run) -> None:
    store.projects.create(path="/p", id="p")
    shelve(store, "/a", "word one", project_id="p")
    shelve(store, "/b", "word two")
    store.kb.embed("m", embedder=lengths)
    assert len(store.kb.search(vector=[1, 1, 1], model_name="m", limit=1)) == 1
    raw("DELETE FROM projects WHERE id = 'p'")
    assert [hit.source_path for hit in store.kb.search("word")] == ["/b"]
    assert [hit.source_path for hit in store.kb.search(vector=[8, 1, 1], model_name="m")] == ["/b"]
    assert store.search.rebuild("chunk").removed == 1


@owners_work
def test_descending_takes_what_is_indexed_of_chunks_with_it(url: str, raw: Run) -> None:
    with Store.open(url) as store:
        shelve(store, "/a", "数据库迁移")
        store.memory.remember("数据库", type="fact")
    downgrade(Target.of(url, settings=Settings.load()), "0010_search")
    assert raw("SELECT kind FROM search_documents") == [("memory",)]
    ensure_migrations(url)
    with Store.open(url) as store:
        assert store.search.probe()
        assert is_whole(store)


async def _use(url: str) -> None:
    async with AsyncStore.open(url) as store:
        done = await store.kb.refresh(source_path="/a", content_hash="h", chunks=pieces("数据库迁移", "b"))
        assert [chunk.content async for chunk in store.kb.iterate_chunks(source_id=done.source.source_id)] == [
            "数据库迁移",
            "b",
        ]
        assert [source.source_path async for source in store.kb.iterate_sources()] == ["/a"]
        (hit,) = await store.kb.search("数据库")
        assert (hit.source_path, hit.snippet) == ("/a", "«数据库»迁移")
        async with store.transaction() as tx:
            await tx.kb.delete_source(done.source.source_id)
            assert await tx.kb.search("数据库") == []
        assert await store.kb.count_sources() == 0


def test_the_asynchronous_store_does_the_same(url: str) -> None:
    asyncio.run(_use(url))
