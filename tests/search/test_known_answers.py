"""What is known of a registry's memories and knowledge is what a search finds after its import."""

from __future__ import annotations

import datetime as dt
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.importers.agentos.load import import_registry
from agentos_store.testing.registries import make_registry

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "agentos-registry"


def rows(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def chunks_found(store: Store, query: str) -> set[str]:
    hits = store.kb.search(query, limit=1000)
    assert len(hits) == len({hit.chunk.chunk_id for hit in hits})
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    return {hit.chunk.chunk_id for hit in hits}


def chunks_that_hold(path: Path, text: str) -> set[str]:
    """By a plain look at the texts; the words asked for are no part of longer ones in them."""
    known = rows(path, "SELECT chunk_id, content FROM kb_chunks JOIN kb_sources USING (source_id)")
    return {key for key, content in known if text.casefold() in (content or "").casefold()}


def memories_that_hold(path: Path, text: str) -> set[str]:
    """Those in whose content or tags the text stands, but for what has expired."""
    found = set()
    for key, content, tags, expires_at in rows(path, "SELECT id, content, tags, expires_at FROM memory_items"):
        if expires_at is not None and dt.datetime.fromisoformat(expires_at) <= dt.datetime.now(dt.UTC):
            continue
        if text in json.dumps([json.loads(content), json.loads(tags)], ensure_ascii=False):
            found.add(key)
    return found


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample is not at hand")
def test_the_known_answers_of_the_sample_are_found(store: Store) -> None:
    path = SAMPLE / "registry-v25.sqlite"
    manifest = json.loads((SAMPLE / "manifest.json").read_text())
    known, flaws = manifest["golden"], manifest["anomalies"]
    report = import_registry(store, path)
    assert len(chunks_found(store, "全文检索")) == known["kb_chunks_containing_全文检索"]
    assert len(chunks_found(store, "PostgreSQL")) == known["kb_chunks_containing_PostgreSQL"]
    assert len(chunks_found(store, "ｐｏｓｔｇｒｅｓｑｌ")) == known["kb_chunks_containing_PostgreSQL"]
    for query in ("全文检索", "PostgreSQL", "数据库", "中文分词", "任务", "SQLite", "busy_timeout"):
        assert chunks_found(store, query) == chunks_that_hold(path, query), query
    both = chunks_that_hold(path, "PostgreSQL") & chunks_that_hold(path, "全文检索")
    assert chunks_found(store, "全文检索 PostgreSQL") == both
    assert chunks_found(store, "PostgreSQL -全文检索") == chunks_that_hold(path, "PostgreSQL") - both

    tagged = known["memory_summaries_containing_数据库_in_tags_after_json_decode"]
    assert store.memory.count(tags=["数据库"]) == tagged
    assert len(list(store.memory.iterate(tags=["数据库"]))) == tagged
    for query in ("数据库", "改写", "PostgreSQL", "缓存", "ULID"):
        found = {hit.item.id for hit in store.memory.search(query, limit=1000)}
        assert found == memories_that_hold(path, query), query
    expiring = [item for item in store.memory.iterate() if item.expires_at is not None]
    soon = dt.datetime(2026, 1, 20, tzinfo=dt.UTC)
    assert (
        sum(item.expires_at < soon for item in expiring if item.expires_at) == known["memory_expires_before_2026-01-20"]
    )

    # What AgentOS's own index had forgotten or kept too long is right here: it was made anew.
    ghosts = flaws["memory_fts_ghosts"]
    assert not store.memory.exists(ghosts["deleted_but_still_indexed"])
    for key in ghosts["updated_without_index_cleanup"]:
        assert key in {hit.item.id for hit in store.memory.search(f"改写后的内容 {key}")}
    assert len(store.kb.stale()) == flaws["embeddings_with_stale_content_hash"]
    assert report.counts["embeddings"].repaired == flaws["embeddings_with_stale_content_hash"]
    assert report.counts["chunks"].set_aside == flaws["orphan_kb_chunks"]
    assert report.counts["embeddings"].set_aside == flaws["orphan_chunk_embeddings"]
    # Each chunk is the nearest to its own embedding, stale or not.
    pytest.importorskip("numpy")
    for key, vector in rows(
        path, "SELECT chunk_id, vector FROM kb_embeddings WHERE chunk_id <> 'chunk_gone_0' LIMIT 5"
    ):
        hits = store.kb.search(vector=vector, model_name="all-MiniLM-L6-v2", limit=1)
        assert [hit.chunk.chunk_id for hit in hits] == [key]


@pytest.mark.parametrize("shape", ["agentos", "document"])
def test_what_a_made_registry_says_is_found(store: Store, tmp_path: Path, shape: Any) -> None:
    path = tmp_path / "made.sqlite"
    make_registry(path, shape=shape, tasks=3, flaws=False)
    import_registry(store, path)
    # Two sources of three chunks, each of two of three sentences; the first source's headings are Chinese.
    known = {
        "全文检索": 4,
        "PostgreSQL": 4,
        "数据库": 3,
        "生产环境使用": 4,
        "database": 3,
        "WAL": 4,
        "图书馆": 0,
        "据": 3,
    }
    for query, count in known.items():
        found = chunks_found(store, query)
        assert found == chunks_that_hold(path, query), query
        assert len(found) == count, query
    assert store.memory.count(tags=["数据库"]) == 2
    assert len(store.memory.search("数据库")) == 2
    assert [hit.item.content for hit in store.memory.search("迁移")] == [{"summary": "数据库迁移指南"}]
