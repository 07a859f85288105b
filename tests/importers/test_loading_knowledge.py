"""Memories and knowledge of a registry: each arrives once, is found at once, and stays what people make of it."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentos_store import NotFoundError, Store
from agentos_store.importers.agentos.load import import_registry
from agentos_store.importers.report import ImportReport
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.testing.registries import make_registry
from agentos_store.testing.registry_knowledge import DIMENSIONS, MODEL

Made = tuple[Path, dict[str, Any]]
Small = Callable[..., Path]
Row = dict[str, Any]

KINDS = ("memory", "sources", "chunks", "embeddings")


def rows(path: Path, table: str) -> list[Row]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid")]


def why(report: ImportReport, table: str) -> dict[str, list[str]]:
    """The repairs of a table's rows by their keys."""
    found: dict[str, list[str]] = {}
    for note in report.repairs:
        if note.table == table:
            found.setdefault(note.key, []).append(note.why)
    return found


def test_everything_that_is_known_and_remembered_arrives_and_is_found(store: Store, made: Made) -> None:
    path, manifest = made
    report = import_registry(store, path)
    for kind in KINDS:
        counts, expected = report.counts[kind], manifest["expected"][kind]
        assert (counts.read, counts.imported, counts.repaired, counts.set_aside, counts.merged) == tuple(
            expected[name] for name in ("rows", "imported", "repaired", "set_aside", "merged")
        ), kind
    assert report.not_yet == {}
    assert store.memory.count() == report.counts["memory"].imported
    assert (store.kb.count_sources(), store.kb.count_chunks()) == (
        report.counts["sources"].imported,
        report.counts["chunks"].imported,
    )
    assert store.status().rows["kb_embeddings"] == report.counts["embeddings"].imported
    found = store.search.check()
    assert [(found[kind].ok, found[kind].examples) for kind in ("memory", "chunk")] == [(True, ())] * 2
    # A second run is told the same, and changes nothing.
    again = import_registry(store, path)
    assert again.imported == 0
    assert (again.repairs, again.set_aside) == (report.repairs, report.set_aside)


def test_a_memory_is_what_it_was(store: Store, made: Made) -> None:
    path, _ = made
    report = import_registry(store, path)
    repaired = why(report, "memory_items")
    there = [row for row in rows(path, "memory_items") if row["id"] and store.memory.exists(row["id"])]
    upright = [row for row in there if row["id"] not in repaired]
    assert len(upright) == 2
    for row in upright:
        item = store.memory.get(row["id"])
        assert (item.scope, item.scope_id, item.project_id) == ("project", "kb-service", "kb-service")
        assert (item.type, item.content) == (row["type"], json.loads(row["content"]))
        # What AgentOS writes as \uXXXX is text again.
        assert item.tags == json.loads(row["tags"])
        assert item.tags[0] == "数据库"
        assert item.sources == json.loads(row["sources"])
        assert (item.confidence, item.use_count, item.last_used_at) == (0.5, row["use_count"], None)
        assert (item.retention_type, item.auto_cleanup, item.expires_at) == ("project", True, None)
        changed = dt.datetime.fromisoformat(row["updated_at"]).replace(tzinfo=dt.UTC)
        assert (item.updated_at, item.decayed_at) == (changed, changed)
        assert item.created_at == dt.datetime.fromisoformat(row["created_at"])
        canonical = json.dumps(item.content, sort_keys=True, separators=(",", ":"))
        assert item.content_hash == hashlib.sha256(canonical.encode()).hexdigest()


def test_what_is_wrong_with_a_memory_is_repaired_and_nothing_of_it_lost(store: Store, made: Made) -> None:
    path, _ = made
    report = import_registry(store, path)
    notes = why(report, "memory_items")
    items = {item.content["summary"]: item for item in store.memory.iterate() if "summary" in item.content}

    def of(what: str) -> Any:
        return items[f"记住 {what}"]

    gone = of("a memory's project is gone")
    assert (gone.scope, gone.scope_id, gone.project_id) == ("project", "gone", None)
    gone = of("a memory of a repository, whose project is gone")
    assert (gone.scope_id, gone.project_id, gone.sources[-1]) == (None, None, {"agentos": {"project_id": "gone"}})
    assert of("a memory's tags are a Python literal").tags == ["数据库", "api"]
    assert of("a memory's sources are no list").sources == ["task:gone"]
    assert (of("a memory is surer than sure").confidence, of("a memory does not tell how sure it is").confidence) == (
        1.0,
        0.5,
    )
    assert of("a retention is unknown").retention_type == "project"
    assert of("a memory has no type").type == "(unknown)"
    assert of("a scope is in capitals").scope == "global"
    assert of("an expiry is no time").expires_at is None
    (unparsed,) = [item for item in store.memory.iterate() if "unparsed" in item.content]
    assert unparsed.content == {"unparsed": '{"summary": "截断'}
    assert [hit.item.id for hit in store.memory.search("截断")] == [unparsed.id]
    assert all(notes[item.id] for item in items.values() if item.content["summary"].startswith("记住"))
    refused = {note.why for note in report.set_aside if note.table == "memory_items"}
    assert refused == {"its scope 'universe' is not known", "it has no id", "it has no content"}


def test_memories_that_say_the_same_are_one_which_knows_all(store: Store, made: Made) -> None:
    path, _ = made
    report = import_registry(store, path)
    first, second = [row for row in rows(path, "memory_items") if "details" in (row["content"] or "")]
    item = store.memory.get(first["id"])
    assert not store.memory.exists(second["id"])
    assert (item.tags, item.use_count, item.confidence) == (["first", "second"], 5, 0.75)
    assert item.updated_at == dt.datetime.fromisoformat(second["updated_at"]).replace(tzinfo=dt.UTC)
    (said,) = [source for source in item.sources if isinstance(source, dict)]
    assert [each["id"] for each in said["agentos_merged"]] == [first["id"], second["id"]]
    assert why(report, "memory_items")[first["id"]] == [
        f"2 rows say the same, of which one was made; the others are {second['id']}"
    ]
    assert [hit.item.id for hit in store.memory.search("second")] == [item.id]


def test_an_item_of_the_store_that_says_the_same_learns_once(store: Store, small: Small) -> None:
    path = small()
    row = rows(path, "memory_items")[1]
    store.projects.create(id="kb-service", path="/mine")
    place: dict[str, Any] = {"type": "convention", "scope": "project", "project_id": "kb-service"}
    mine = store.memory.remember(json.loads(row["content"]), tags=["mine"], confidence=0.9, id="mine", **place)
    store.memory.touch("mine")
    report = import_registry(store, path)
    counts = report.counts["memory"]
    assert (counts.read, counts.imported, counts.merged, counts.repaired) == (2, 1, 1, 1)
    assert why(report, "memory_items")[row["id"]] == [
        "the store has an item that says the same, which has learnt from it: mine"
    ]
    learnt = store.memory.get("mine")
    assert (learnt.tags, learnt.use_count, learnt.confidence) == (["mine", "数据库", "t1"], 2, 0.9)
    assert learnt.sources == json.loads(row["sources"])
    assert learnt.updated_at > mine.updated_at
    assert [hit.item.id for hit in store.memory.search("t1")] == ["mine"]
    # What people make of it afterwards stays.
    store.memory.update("mine", tags=["other"])
    again = import_registry(store, path)
    assert (again.imported, again.counts["memory"].merged) == (0, 1)
    assert store.memory.get("mine").tags == ["other"]


def test_what_was_forgotten_or_merged_here_does_not_come_back(store: Store, small: Small) -> None:
    path = small()
    import_registry(store, path)
    first, second = [row["id"] for row in rows(path, "memory_items")]
    store.memory.delete(first)
    store.memory.update(second, content="neu")
    source = store.kb.list_sources().items[0]
    store.kb.delete_source(source.source_id)
    again = import_registry(store, path)
    assert again.imported == 0
    assert [(item.id, item.content) for item in store.memory.iterate()] == [(second, "neu")]
    assert store.kb.count_sources() == 1
    assert {note.why for note in again.set_aside} == {
        "its source was set aside, or was deleted in the store",
        "its chunk was set aside, or is gone in the store",
    }


def test_another_content_under_a_key_that_came_in_is_told_of(store: Store, small: Small) -> None:
    path = small()
    import_registry(store, path)
    first, second = [row["id"] for row in rows(path, "memory_items")]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE memory_items SET content = '\"anders\"' WHERE id = ?", (first,))
        connection.commit()
    report = import_registry(store, path)
    assert [(note.key, note.why) for note in report.set_aside] == [
        (first, "another content came in under this key; the store keeps that one")
    ]
    assert store.memory.exists(second)


def test_a_key_that_the_store_has_for_something_else_is_told_of(store: Store, small: Small) -> None:
    path = small()
    key = rows(path, "memory_items")[0]["id"]
    mine = store.memory.remember("mine", type="fact", id=key)
    report = import_registry(store, path)
    assert [(note.key, note.why) for note in report.set_aside] == [
        (key, "the store has another memory with this key, and keeps it")
    ]
    assert store.memory.get(key).to_dict() == mine.to_dict()
    assert store.search.check()["memory"].examples == ()


def test_the_task_that_a_memory_is_about_is_its_place(store: Store, small: Small) -> None:
    def remembered(key: str, sources: object, scope: str = "task") -> tuple[str, tuple[object, ...]]:
        statement = (
            "INSERT INTO memory_items (id, scope, type, content, sources, confidence, retention_type, auto_cleanup,"
            " created_at, updated_at) VALUES (?, ?, 'fact', '\"x\"', ?, 0.5, 'project', 1,"
            " '2026-01-10 08:00:00', '2026-01-10 08:00:00')"
        )
        return statement, (key, scope, json.dumps(sources))

    path = small()
    task = rows(path, "tasks")[0]["task_id"]
    other = rows(path, "tasks")[1]["task_id"]
    with closing(sqlite3.connect(path)) as connection:
        for statement, values in (
            remembered("one", [f"task:{task}", "doc:x"]),
            remembered("two", [f"task:{task}", f"task:{other}"]),
            remembered("gone", ["task:gone"]),
            remembered("agent", [f"task:{task}"], "agent"),
        ):
            connection.execute(statement, values)
        connection.commit()
    report = import_registry(store, path)
    assert store.memory.get("one").scope_id == task
    assert [item.id for item in store.memory.context(task_id=task).items] == ["one"]
    # Of two of the same place that say the same one is made; an agent's is another place.
    assert (store.memory.get("two").scope_id, store.memory.exists("gone")) == (None, False)
    assert store.memory.get("agent").scope_id is None
    assert report.counts["memory"].merged == 1


def test_a_source_is_what_it_was_and_its_chunks_are_in_order(store: Store, made: Made) -> None:
    path, _ = made
    import_registry(store, path)
    agentos = "path" in rows(path, "kb_sources")[0]
    for row in rows(path, "kb_sources")[:2]:
        source = store.kb.get_source(row["source_id"])
        assert source.metadata_["tags"] == ["架构", "api"]
        if agentos:
            assert (source.project_id, source.source_type, source.source_path) == (None, "file", row["path"])
            assert source.content_hash == row["file_hash"]
            assert source.indexed_at == dt.datetime.fromisoformat(row["updated_at"])
            assert source.metadata_["doc_type"] == "guide"
            assert source.metadata_["agentos"] == {name: row[name] for name in ("repo_id", "mtime", "created_at")}
        else:
            assert (source.project_id, source.source_path) == ("kb-service", row["source_path"])
            assert source.indexed_at == dt.datetime.fromisoformat(row["indexed_at"])
        wanted = [
            chunk for chunk in rows(path, "kb_chunks") if chunk["source_id"] == row["source_id"] and chunk["content"]
        ]
        chunks = list(store.kb.iterate_chunks(source_id=row["source_id"]))
        assert [chunk.chunk_id for chunk in chunks] == [chunk["chunk_id"] for chunk in wanted]
        assert [chunk.chunk_index for chunk in chunks] == list(range(len(wanted)))
        assert [chunk.content for chunk in chunks] == [chunk["content"] for chunk in wanted]
        if agentos:
            assert [(chunk.heading, chunk.start_line, chunk.token_count) for chunk in chunks] == [
                (chunk["heading"], chunk["start_line"], chunk["token_count"]) for chunk in wanted
            ]
    paths = sorted(source.source_path for source in store.kb.iterate_sources())
    both = ["docs/00.md", "docs/00.md"] if not agentos else ["0f1e2d3c4b5a/docs/00.md", "docs/00.md"]
    assert paths == sorted([*both, "docs/01.md", "docs/literal.md"])


def test_an_embedding_is_the_same_bytes_and_that_of_an_older_text_is_stale(store: Store, made: Made) -> None:
    path, _ = made
    report = import_registry(store, path)
    agentos = "vector" in rows(path, "kb_embeddings")[0]
    (model,) = store.kb.list_models()
    assert (model.model_name, model.dimensions) == (MODEL, DIMENSIONS)
    hashes = {row["chunk_id"]: row.get("content_hash") for row in rows(path, "kb_chunks")}
    stale = []
    for row in rows(path, "kb_embeddings"):
        found = store.kb.find_embedding(row["chunk_id"], MODEL)
        if found is None:
            assert row["chunk_id"] in {note.key for note in report.set_aside if note.table == "kb_embeddings"}
            continue
        assert found.embedding == row["vector" if agentos else "embedding"]
        if agentos:
            assert found.created_at == dt.datetime.fromtimestamp(row["built_at"], dt.UTC)
        else:
            assert found.created_at == dt.datetime.fromisoformat(row["created_at"])
        if row.get("content_hash") != hashes[row["chunk_id"]]:
            stale.append(row["chunk_id"])
    assert len(stale) == (1 if agentos else 0)
    assert [each.chunk_id for each in store.kb.stale()] == stale
    assert sorted(why(report, "kb_embeddings")) == stale
    reasons = {note.why for note in report.set_aside if note.table == "kb_embeddings"}
    assert {
        "its chunk is not in the registry",
        "its vector has 4 dimensions, where others of the model have 8",
    } < reasons
    assert ("its vector has 8 dimensions, where 384 are told" in reasons) == agentos
    # Found by its own vector, the chunk is the nearest.
    pytest.importorskip("numpy")
    row = rows(path, "kb_embeddings")[0]
    hits = store.kb.search(vector=row["vector" if agentos else "embedding"], model_name=MODEL, limit=1)
    assert [hit.chunk.chunk_id for hit in hits] == [row["chunk_id"]]


def test_a_model_that_has_other_dimensions_here_keeps_them(store: Store, small: Small) -> None:
    mine = store.kb.refresh(source_path="mine.md", content_hash="1", chunks=[NewChunk("mine")]).source
    (chunk,) = store.kb.list_chunks(source_id=mine.source_id).items
    store.kb.embed(MODEL, {chunk.chunk_id: [1.0, 2.0]})
    report = import_registry(store, small())
    counts = report.counts["embeddings"]
    assert (counts.imported, counts.set_aside) == (0, counts.read)
    assert {note.why for note in report.set_aside} == {
        "its vector has 8 dimensions, where the store's of the model have 2"
    }
    assert report.counts["chunks"].imported == 6


def test_a_source_that_was_indexed_anew_keeps_its_chunks(store: Store, small: Small) -> None:
    path = small()
    import_registry(store, path)
    store.kb.refresh(source_path="docs/00.md", content_hash="new", chunks=[NewChunk("neu geschrieben")])
    again = import_registry(store, path)
    assert again.imported == 0
    source = store.kb.find_source(None, "docs/00.md")
    assert source is not None
    assert [chunk.content for chunk in store.kb.list_chunks(source_id=source.source_id).items] == ["neu geschrieben"]
    assert "its source was indexed anew in the store" in {note.why for note in again.set_aside}


def test_a_path_that_the_store_has_already_stays_as_it_is(store: Store, small: Small) -> None:
    mine = store.kb.refresh(source_path="docs/00.md", content_hash="1", chunks=[NewChunk("mine")]).source
    report = import_registry(store, small())
    assert store.kb.get_source(mine.source_id).to_dict() == mine.to_dict()
    assert (report.counts["sources"].imported, report.counts["sources"].set_aside) == (1, 1)
    assert (report.counts["chunks"].imported, report.counts["chunks"].set_aside) == (3, 3)
    assert {note.why for note in report.set_aside if note.table == "kb_sources"} == {
        "the store has a source of this path already, and keeps that one"
    }


def test_sources_belong_to_the_project_that_is_found_or_given(store: Store, small: Small) -> None:
    digest = hashlib.sha256(b"/srv/code/infra").hexdigest()[:12]
    new = "INSERT INTO kb_sources (source_id, repo_id, path, updated_at) VALUES (?, ?, ?, '2026-01-10T08:00:00')"
    path = small(
        ("UPDATE kb_sources SET repo_id = ? WHERE path = 'docs/00.md'", (digest,)),
        (new, ("s1", "web-shop_docs", "a.md")),
        (new, ("s2", "web-shop", "b.md")),
    )
    with pytest.raises(NotFoundError):
        import_registry(store, path, knowledge_project="nowhere")
    assert store.projects.count() == 0
    import_registry(store, path, knowledge_project="kb-service")
    assert {source.source_path: source.project_id for source in store.kb.iterate_sources()} == {
        "docs/00.md": "infra",
        "docs/01.md": "kb-service",
        "a.md": "web-shop",
        "b.md": "web-shop",
    }
    assert import_registry(store, path, knowledge_project="web-shop").imported == 0


def test_a_value_that_is_too_long_costs_its_row_alone(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "source.sqlite"
    make_registry(path, tasks=1, flaws=False)
    long = "天" * 300
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE memory_items SET type = ? WHERE rowid = 1", (long,))
        connection.execute("UPDATE kb_chunks SET content = ? WHERE rowid = 1", ("数据库 " * 50_000,))
        connection.execute("UPDATE kb_sources SET path = ? WHERE rowid = 2", ("p" * 1201,))
        connection.execute("UPDATE kb_embeddings SET model = ? WHERE rowid = 2", (long,))
        connection.commit()
    report = import_registry(store, path)
    assert (report.counts["memory"].imported, report.counts["chunks"].imported) == (2, 3)
    cut = [item for item in store.memory.iterate() if item.type == long[:255]]
    assert [item.sources[-1] for item in cut] == [{"agentos": {"type": long}}]
    assert {(note.table, note.why) for note in report.set_aside} == {
        ("kb_sources", "its path is longer than 1,200 bytes"),
        ("kb_chunks", "its source is not in the registry"),
        ("kb_embeddings", "its chunk is not in the registry"),
        ("kb_embeddings", "its model is longer than 255 characters"),
    }
    assert len(store.kb.search("数据库", limit=100)) == 3
