"""No search, no list and no change of knowledge reads a whole table, with 50,000 rows in each."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import combinations
from typing import Any

import pytest
from sqlalchemy import select

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.knowledge.replacing import CHUNKS, SOURCE
from agentos_store.knowledge.repository import KnowledgeRepository
from agentos_store.operation import Blocking
from agentos_store.search.vectors import KEPT
from agentos_store.testing.postgres import connect
from tests.planned import Planner, Undone

ROWS = 50_000

FILL = """
INSERT INTO projects (id, name, path, status, tags, settings, added_at, created_at, updated_at)
SELECT 'p' || n, 'p' || n, '', 'active', '[]', '{}', @, @, @ FROM numbers WHERE n <= 1000;
INSERT INTO kb_sources (source_id, project_id, source_type, source_path, content_hash, indexed_at, metadata)
SELECT 'f' || n, CASE WHEN n % 2 = 0 THEN 'p' || (n % 1000 + 1) END, CASE n % 100 WHEN 4 THEN 'url' ELSE 'file' END,
'/dir' || (n % 100) || '/file' || n, 'h', @, '{"tags": ["t' || (n % 1000) || '"]}' FROM numbers;
INSERT INTO kb_chunks (chunk_id, source_id, content, chunk_index, heading, content_hash, metadata, created_at)
SELECT 'c' || n, 'f' || ((n - 1) / 4 * 4 + 4), 'u' || n || ' w' || (n % 1000) || ' common', n % 4, NULL, 'h' || n,
'{"tags": ["k' || (n % 1000) || '"]}', @ FROM numbers;
INSERT INTO kb_models (model_name, dimensions, revision, created_at)
SELECT 'm' || n, 2, 'r', @ FROM numbers WHERE n < 9;
INSERT INTO kb_embeddings (chunk_id, model_name, dimensions, embedding, content_hash, revision, created_at)
SELECT 'c' || n, 'm' || (n % 2), 2, BYTES, 'h' || n, 'r', @ FROM numbers WHERE n % 2 = 1;
INSERT INTO search_documents (kind, key, part, parts, family, length, text_hash, tokens)
SELECT 'chunk', 'c' || n, 0, 1, 'chunk', 3, 'h', TOKENS FROM numbers;
INSERT INTO search_documents (kind, key, part, parts, family, length, text_hash, tokens)
SELECT 'memory', 'x' || n, 0, 1, 'memory', 3, 'h', TOKENS FROM numbers;
"""
"""``numbers`` are 1 to 50,000, ``@`` is the first of January and as many seconds, and each document holds a word of its
own, one of a thousand, and ``common``."""


def fill(url: str) -> Callable[[], None]:
    """Write the rows past the library; return what gathers statistics on them."""
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        numbers = f"(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) SELECT n FROM c)"
        script = FILL.replace("FROM numbers", f"FROM {numbers} AS numbers")
        script = script.replace("@", "strftime('%Y-%m-%dT%H:%M:%S', '2026-01-01', n || ' seconds') || '.000000Z'")
        script = script.replace("TOKENS", "'u' || n || ' w' || (n % 1000) || ' common'")
        script = script.replace("BYTES", "x'0000803F00000040'")

        def run(text: str) -> None:
            with closing(sqlite3.connect(path)) as raw:
                raw.executescript(text)

        run(f"BEGIN; {script} COMMIT;")
        return lambda: run("ANALYZE;")
    script = FILL.replace("FROM numbers", f"FROM generate_series(1, {ROWS}) AS n")
    script = script.replace("@", "timestamptz '2026-01-01 00:00Z' + n * interval '1 second'")
    script = script.replace("TOKENS", "CAST('''u' || n || ''':1 ''w' || (n % 1000) || ''':2 common:3' AS tsvector)")
    script = script.replace("BYTES", "CAST('\\x0000803F00000040' AS bytea)")
    script = re.sub(r"('\{\"tags.*?\]\}')", r"CAST(\1 AS jsonb)", script)
    with connect(url) as server:
        for statement in script.split(";\n"):
            server.execute(statement.encode())

    def analyze() -> None:
        with connect(url) as server:
            server.execute(b"VACUUM ANALYZE")

    return analyze


Case = Callable[[Session], object]

kb: Any = KnowledgeRepository[Blocking]
none: Any = None


def listings() -> Iterator[tuple[str, Case]]:
    filters: dict[str, object] = {"project_id": "p5", "source_type": "url", "prefix": "/dir4/"}
    for size in range(len(filters) + 1):
        for chosen in combinations(filters, size):
            picked = {name: filters[name] for name in chosen}
            yield from _pages(kb.list_sources, f"list sources {' '.join(chosen)}", picked, "-source_path")
    by_source: dict[str, Any] = {"source_id": "f8"}
    for picked in ({}, by_source):
        yield from _pages(kb.list_chunks, f"list chunks {' '.join(picked)}", picked, "-place")


def _pages(operation: Any, name: str, picked: dict[str, Any], reverse: str) -> Iterator[tuple[str, Case]]:
    def second(session: Session) -> object:
        first = operation(none, session, limit=1, **picked)
        return first.next and operation(none, session, limit=1, cursor=first.next, **picked)

    yield name, lambda session: operation(none, session, limit=2, **picked)
    yield f"{name} turned round", lambda session: operation(none, session, limit=2, order=reverse, **picked)
    yield f"{name} behind a cursor", second


def searches(store: Store, backend: str) -> Iterator[tuple[str, Case]]:
    def search(*query: str, **options: Any) -> Case:
        return lambda session: kb.search(store.kb, session, *query, **options)

    for query in ["w7", "u7 w7 common", '"w7 common"', "u199*", "w7 -u7", "气", "天气"]:
        yield f"search {query}", search(query)
    options: dict[str, Any] = {"project_id": "p5", "source_id": "f8", "tags": ["t7"], "metadata": {"tags": ["k7"]}}
    near: dict[str, Any] = {"vector": [1, 2], "model_name": "m1", "limit": 5}
    yield "search near", search(**near)
    yield "search near to words", search("w7 common", **near)
    for name, value in options.items():
        yield f"search {name}", search("w7 common", **{name: value})
        yield (
            f"search near to words {name}",
            search("w7 common", **near, **{name: value})
            if (backend == "postgresql" or name in {"project_id", "source_id"})
            else search("w7 common", **near, **{name: value}, source_id="f8"),
        )
    yield "search all", search("w7 common", project_id="p5", source_id="f8", tags=["t7"])
    yield "search near all", search(**near, project_id="p5", source_id="f8", tags=["t7"])


def hot_statements(store: Store) -> Iterator[tuple[str, Case]]:
    two = [NewChunk("one"), NewChunk("two")]

    def refresh(path: str, content_hash: str) -> Case:
        return lambda session: kb.refresh(none, session, source_path=path, content_hash=content_hash, chunks=two)

    yield "add", lambda session: kb.add_source(none, session, source_path="/new", project_id="p5", metadata={"a": 1})
    yield "add again", lambda session: kb.add_source(none, session, source_path="/dir8/file8", project_id="p9")
    yield "refresh", refresh("/new", "h")
    yield "refresh what is known", refresh("/dir7/file7", "h")
    yield "refresh again", refresh("/dir7/file7", "new")
    yield "replace", lambda session: kb.replace_chunks(none, session, "f8", [NewChunk("u7 w7 common"), *two])
    yield "add chunks", lambda session: kb.add_chunks(none, session, "f8", two)
    yield "update", lambda session: kb.update_chunk(none, session, "c7", content="new")
    yield "delete", lambda session: kb.delete_source(none, session, "f8")
    yield "embed", lambda session: kb.add_embeddings(none, session, "m1", {"c7": [1, 2], "c8": [1, 2]})
    yield (
        "embed with hashes",
        lambda session: kb.add_embeddings(none, session, "m1", {"c8": [1, 2]}, made_of={"c8": "h8"}),
    )
    yield (
        "embed the unknown",
        lambda session: kb.add_embeddings(none, session, "m1", {"none": [1, 2]}, made_of={"none": "h"}),
    )
    yield "unembedded", lambda session: kb.list_unembedded(none, session, "m1", after="c7")
    yield "unembedded of a source", lambda session: kb.list_unembedded(none, session, "m1", source_id="f8")
    yield "missing of a source", lambda session: kb.missing(none, session, "m1", source_id="f8")
    yield "find an embedding", lambda session: kb.find_embedding(none, session, "c7", "m1")
    yield "forget a model", lambda session: kb.delete_model(none, session, "m3")
    yield "walk", lambda session: SOURCE.batch(session, "c5", 10)
    yield "walk and lock", lambda session: SOURCE.batch(session, "c5", 10, lock=True)
    yield "orphans", lambda session: SOURCE.remove_orphans(session, "c5", "c51")
    yield "new vectors", lambda session: new_vectors(store, session)


def new_vectors(store: Store, session: Session) -> None:
    kb.search(store.kb, session, vector=[1, 2], model_name="m1")
    kb.add_embeddings(none, session, "m1", {"c8": [1, 2]})
    kb.search(store.kb, session, vector=[1, 2], model_name="m1")


LARGE = "kb_sources|kb_chunks|kb_embeddings|chunk|source|search_documents|d|d_\\d+"
SCANNED = re.compile(rf"(?:^SCAN|Seq Scan on) (?:{LARGE})\b", re.MULTILINE)
SORTED = re.compile(r"TEMP B-TREE|\bSort\b")
IN_ORDER = re.compile(r"^SCAN \w+ USING INDEX", re.MULTILINE)


def scans(plan: str) -> bool:
    return SCANNED.search(IN_ORDER.sub("", plan)) is not None


def faults(name: str, plan: str) -> bool:
    # A search sorts what it has found by its score.
    return scans(plan) or (name.startswith("list") and SORTED.search(plan) is not None)


def unindexed(session: Session) -> object:
    query = select(CHUNKS.c.chunk_id).where(CHUNKS.c.token_count == 7).order_by(CHUNKS.c.created_at).limit(2)
    return session.all(Statement(query, lasting=False))


def test_nothing_of_the_knowledge_reads_a_whole_table(store: Store, url: str, backend: str) -> None:
    analyze = fill(url)
    planner = store.bind(Planner)
    for with_statistics in (False, True):
        if with_statistics:
            analyze()
        # Nothing is in memory, so that reading it is looked at too.
        KEPT.after_fork()
        for name, call in [*searches(store, backend), *hot_statements(store), *listings()]:
            with pytest.raises(Undone) as caught:
                planner.plans(call, listing=name.startswith("list"), generic=True)
            found = [
                plan
                for plan in caught.value.plans
                if (faults(name, plan) if with_statistics or backend == "sqlite" else scans(plan))
            ]
            assert found == [], f"{name}\n{found[0] if found else ''}"
        with pytest.raises(Undone) as caught:
            planner.plans(unindexed, generic=True)
        assert scans(caught.value.plans[0])
    assert len(store.kb.search(vector=[1, 2], model_name="m1", limit=1000)) == 1000
