"""No search and no list of memories reads a whole table, with 50,000 rows in each."""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import literal, select

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.memory.items import ITEMS, SOURCE
from agentos_store.memory.repository import MemoryRepository
from agentos_store.operation import Blocking
from agentos_store.search.sources import walk_indexed
from agentos_store.testing.postgres import connect
from tests.planned import Planner, Undone

ROWS = 50_000
EARLY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LATE = EARLY + dt.timedelta(days=1)


FILL = """
INSERT INTO projects (id, name, path, status, tags, settings, added_at, created_at, updated_at)
SELECT 'p' || n, 'p' || n, '', 'active', '[]', '{}', @, @, @ FROM numbers WHERE n <= 1000;
INSERT INTO memory_items (id, scope, scope_id, type, content, content_hash, tags, sources, confidence, project_id,
use_count, decayed_at, retention_type, expires_at, auto_cleanup, created_at, updated_at)
SELECT 'm' || n, CASE n % 3 WHEN 0 THEN 'global' WHEN 1 THEN 'task' ELSE 'project' END,
CASE WHEN n % 3 > 0 THEN 's' || (n % 100) END, 'type' || (n % 100), '"w' || (n % 1000) || ' common"', 'h' || n,
'["t' || (n % 1000) || '"]', '[]', 0.5 + (n % 50) * 0.01, 'p' || (n % 1000 + 1), 0, @,
CASE n % 20 WHEN 0 THEN 'temporary' WHEN 1 THEN 'permanent' ELSE 'project' END, CASE n % 100 WHEN 5 THEN @@ END,
n % 2 = 0, @, @ FROM numbers;
INSERT INTO search_documents (kind, key, part, parts, family, length, text_hash, tokens)
SELECT 'memory', 'm' || n, 0, 1, 'memory', 3, 'h', TOKENS FROM numbers;
INSERT INTO search_documents (kind, key, part, parts, family, length, text_hash, tokens)
SELECT 'message', 'x' || n, 0, 1, 'message', 3, 'h', TOKENS FROM numbers;
INSERT INTO search_documents (kind, key, part, parts, family, length, text_hash, tokens)
SELECT 'memory', 'long' || (n / 4), n % 4, 4, 'memoryparts', 12, 'h', TOKENS FROM numbers WHERE n < 2000;
"""
"""``numbers`` are 1 to 50,000, ``@`` is the first of January and as many seconds, ``@@`` a century later, and each
document holds a word of its own, one of a thousand, and ``common``."""


def fill(url: str) -> Callable[[], None]:
    """Write the rows past the library; return what gathers statistics on them."""
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        numbers = f"(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) SELECT n FROM c)"
        moment = "strftime('%Y-%m-%dT%H:%M:%S', '{}', n || ' seconds') || '.000000Z'"
        script = FILL.replace("FROM numbers", f"FROM {numbers} AS numbers").replace("@@", moment.format("2126-01-01"))
        script = script.replace("@", moment.format("2026-01-01"))
        script = script.replace("TOKENS", "'u' || n || ' w' || (n % 1000) || ' common'")

        def run(text: str) -> None:
            with closing(sqlite3.connect(path)) as raw:
                raw.executescript(text)

        run(f"BEGIN; {script} COMMIT;")
        return lambda: run("ANALYZE;")
    moment = "timestamptz '{}-01-01 00:00Z' + n * interval '1 second'"
    script = FILL.replace("FROM numbers", f"FROM generate_series(1, {ROWS}) AS n")
    script = script.replace("@@", moment.format(2126)).replace("@", moment.format(2026))
    script = script.replace("TOKENS", "CAST('''u' || n || ''':1 ''w' || (n % 1000) || ''':2 common:3' AS tsvector)")
    script = re.sub(r"('\"w.*?common\"')", r"CAST(\1 AS json)", script)
    script = re.sub(r"('\[\"t.*?\"\]')", r"CAST(\1 AS jsonb)", script)
    with connect(url) as server:
        for statement in script.split(";\n"):
            server.execute(statement.encode())

    def analyze() -> None:
        with connect(url) as server:
            server.execute(b"VACUUM ANALYZE")

    return analyze


Case = Callable[[Session], object]

memory: Any = MemoryRepository[Blocking]
none: Any = None


def listings() -> Iterator[tuple[str, Case]]:
    filters: dict[str, object] = {
        "scope": "task",
        "scope_id": "s7",
        "type": "type7",
        "project_id": "p7",
        "created_after": EARLY,
        "created_before": LATE,
    }
    names = list(filters)
    choices = [(), *((name,) for name in names), *((a, b) for a in names for b in names if a < b), tuple(names)]
    for chosen in choices:
        picked = {name: filters[name] for name in chosen}
        name = f"list {' '.join(chosen)}".strip()
        yield name, page_of(limit=2, **picked)
        yield f"{name} turned round", page_of(limit=2, order="-created_at", **picked)
        yield f"{name} behind a cursor", second_page_of(**picked)


def page_of(**options: Any) -> Case:
    return lambda session: memory.list(none, session, **options)


def second_page_of(**filters: Any) -> Case:
    def second(session: Session) -> object:
        first = memory.list(none, session, limit=1, **filters)
        return first.next and memory.list(none, session, limit=1, cursor=first.next, **filters)

    return second


QUERIES = ["w7", "u7 w7 common", '"w7 common"', "u199*", "w7 -u7", "气", "天气"]


def searches() -> Iterator[tuple[str, Case]]:
    def search(query: str, **options: Any) -> Case:
        return lambda session: memory.search(none, session, query, **options)

    for query in QUERIES:
        yield f"search {query}", search(query)
    options: dict[str, Any] = {
        "scope": "task",
        "scope_id": "s7",
        "type": "type7",
        "project_id": "p7",
        "tags": ["t7"],
        "min_confidence": 0.5,
    }
    for name, value in options.items():
        yield f"search {name}", search("w7 common", **{name: value})
    yield "search all", search("w7 common", **options)


def hot_statements() -> Iterator[tuple[str, Case]]:
    at = LATE + dt.timedelta(days=10)
    yield "context", lambda session: memory.context(none, session, task_id="s7", project_id="s8", token_budget=100)
    yield "remember", lambda session: memory.remember(none, session, "new", type="fact", tags=["x"])
    yield "remember again", again
    yield "update", lambda session: memory.update(none, session, "m7", content="new")
    yield "update a number", lambda session: memory.update(none, session, "m7", confidence=0.5)
    yield "delete", lambda session: memory.delete(none, session, "m7")
    yield "touch", lambda session: memory.touch(none, session, "m7")
    yield "promote", lambda session: memory.promote(none, session, "m1", "global")
    yield "merge", lambda session: memory.merge(none, session, "m1", "m2")
    yield "decay", lambda session: memory.decay(none, session, limit=10)
    yield "decay at", lambda session: memory.decay(none, session, at=at, limit=10)
    yield "cleanup", lambda session: memory.cleanup(none, session, limit=10)
    yield "walk", lambda session: SOURCE.batch(session, "m5", 10)
    yield "walk and lock", lambda session: SOURCE.batch(session, "m5", 10, lock=True)
    yield "walk what is indexed", lambda session: next(walk_indexed(session, "memory", 10))
    yield "orphans", lambda session: SOURCE.remove_orphans(session, "m5", "m51")


def again(session: Session) -> None:
    for tag in "ab":
        memory.remember(none, session, "new", type="fact", tags=[tag])


SCANNED = re.compile(r"(?:^SCAN|Seq Scan on) (?:memory_items|item|search_documents|d|d_\d+)\b", re.MULTILINE)
SORTED = re.compile(r"TEMP B-TREE|\bSort\b")
IN_ORDER = re.compile(r"^SCAN \w+ USING INDEX", re.MULTILINE)


def scans(plan: str) -> bool:
    return SCANNED.search(IN_ORDER.sub("", plan)) is not None


def faults(name: str, plan: str) -> bool:
    # A search sorts what it has found by its score.
    return scans(plan) or (name.startswith("list") and SORTED.search(plan) is not None)


def unindexed(session: Session) -> object:
    query = select(ITEMS.c.id).where(ITEMS.c.use_count == literal(7)).order_by(ITEMS.c.updated_at).limit(2)
    return session.all(Statement(query, lasting=False))


def test_no_search_and_no_list_reads_a_whole_table(store: Store, url: str, backend: str) -> None:
    analyze = fill(url)
    planner = store.bind(Planner)
    for with_statistics in (False, True):
        if with_statistics:
            analyze()
        for name, call in [*searches(), *hot_statements(), *listings()]:
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


def test_a_search_reads_nothing_of_other_kinds(store: Store, url: str, backend: str) -> None:
    fill(url)()
    with pytest.raises(Undone) as caught:
        store.bind(Planner).plans(lambda session: memory.search(none, session, "common u7"), generic=True)
    if backend == "postgresql":
        (plan,) = caught.value.plans
        assert "ix_search_documents_memory" in plan
        assert "ix_search_documents_message" not in plan
    assert [hit.item.id for hit in store.memory.search("common u7")] == ["m7"]
