"""The index is made again, checked, and lives through what happens to databases."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import AsyncStore, InvalidValueError, Store

Run = Callable[..., list[tuple[Any, ...]]]


def fill(store: Store, count: int = 10) -> None:
    with store.transaction() as tx:
        for number in range(count):
            tx.memory.remember(f"天气 item{number}", type="decision", id=f"m{number:04}")


def found(store: Store, query: str) -> list[str]:
    return sorted(hit.item.id for hit in store.memory.search(query, limit=1000))


def test_a_whole_index_is_ok(store: Store) -> None:
    fill(store)
    report = store.search.check()["memory"]
    assert (report.documents, report.missing, report.stale, report.orphaned) == (10, 0, 0, 0)
    assert report.ok
    assert report.examples == ()
    assert store.search.probe()


def test_changes_behind_its_back_are_seen_and_mended(store: Store, raw: Run) -> None:
    fill(store)
    raw("UPDATE memory_items SET content = '\"changed\"' WHERE id = 'm0001'")
    raw("DELETE FROM memory_items WHERE id = 'm0002'")
    raw("DELETE FROM search_documents WHERE key = 'm0003'")
    raw("UPDATE memory_items SET tags = '[\"neu\"]' WHERE id = 'm0004'")
    raw("UPDATE memory_items SET use_count = 7 WHERE id = 'm0005'")
    report = store.search.check("memory")["memory"]
    assert (report.documents, report.missing, report.stale, report.orphaned) == (9, 1, 2, 1)
    assert report.examples == ("m0001", "m0002", "m0003", "m0004")
    assert not report.ok
    assert found(store, "item2") == []

    rebuilt = store.search.rebuild()
    assert (rebuilt.documents["memory"], rebuilt.documents["chunk"]) == (9, 0)
    assert rebuilt.removed == 1
    assert store.search.check()["memory"].ok
    assert store.search.check()["memory"].examples == ()
    assert (found(store, "changed"), found(store, "neu"), found(store, "item3")) == (["m0001"], ["m0004"], ["m0003"])
    assert found(store, "item1") == []
    assert len(found(store, "天气")) == 8


def test_a_document_of_which_a_part_is_missing_is_stale(store: Store, raw: Run) -> None:
    store.memory.remember("the " * 1000, type="x", id="long")
    assert store.search.check()["memory"].ok
    raw("DELETE FROM search_documents WHERE part = 1")
    assert store.search.check()["memory"].stale == 1
    store.search.rebuild("memory")
    assert store.search.check()["memory"].ok


def test_a_rebuilding_goes_in_steps(store: Store, raw: Run) -> None:
    fill(store, 25)
    raw("DELETE FROM search_documents")
    assert found(store, "天气") == []
    first = store.search.rebuild_batch("memory", limit=10)
    assert (first.documents, first.next) == (10, "m0009")
    assert len(found(store, "天气")) == 10
    second = store.search.rebuild_batch("memory", after="m0009", limit=10)
    third = store.search.rebuild_batch("memory", after="m0019", limit=10)
    assert (second.next, third.documents, third.next) == ("m0019", 5, None)
    assert store.search.check()["memory"].ok


def test_a_kind_that_there_is_not_is_refused(store: Store) -> None:
    for call in (store.search.rebuild, store.search.check):
        with pytest.raises(InvalidValueError):
            call("nothing")


def test_a_full_text_table_that_is_damaged_is_seen_and_filled_anew(sqlite_url: str) -> None:
    with Store.open(sqlite_url) as store:
        fill(store)
        with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as stranger:
            stranger.execute(
                "INSERT INTO search_index (search_index, rowid, family, tokens)"
                " SELECT 'delete', doc_id, family, tokens FROM search_documents WHERE key = 'm0001'"
            )
            stranger.commit()
        assert found(store, "item1") == []
        assert store.search.check()["memory"].ok
        assert not store.search.probe()
        store.search.rebuild()
        assert store.search.probe()
        assert found(store, "item1") == ["m0001"]


def reload(source: str, target: Path) -> None:
    """Write the tables as SQL and read them into a new file, as ``sqlite3 old .dump | sqlite3 new`` does."""
    with contextlib.closing(sqlite3.connect(source)) as raw:
        statements = list(raw.iterdump())
    first = [each for each in statements if "CREATE TRIGGER" not in each and 'INTO "search_index" ' not in each]
    triggers = [each for each in statements if "CREATE TRIGGER" in each]
    for some in (first, triggers):
        # The virtual table is put into the schema as a row, and known from the next connection on.
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as raw:
            for statement in some:
                raw.execute(statement)
            if raw.in_transaction:
                raw.execute("COMMIT")


def test_the_index_survives_vacuum_and_a_dump(sqlite_url: str, tmp_path: Path) -> None:
    path = sqlite_url.removeprefix("sqlite:///")
    with Store.open(sqlite_url) as store:
        fill(store, 20)
        for number in range(0, 20, 2):
            store.memory.delete(f"m{number:04}")
        before = found(store, "天气"), found(store, "item7")
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("VACUUM")
        raw.execute("VACUUM INTO ?", (f"{tmp_path}/copy.sqlite",))
    reload(path, tmp_path / "dumped.sqlite")
    for name in (path, f"{tmp_path}/copy.sqlite", f"{tmp_path}/dumped.sqlite"):
        with Store.open(f"sqlite:///{name}") as store:
            assert (found(store, "天气"), found(store, "item7")) == before
            assert store.search.probe()
            store.memory.remember("天气 again", type="x", id="new")
            assert found(store, "again") == ["new"]


def test_the_asynchronous_store_rebuilds_and_checks(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            for number in range(3):
                await store.memory.remember(f"天气 {number}", type="x")
            assert (await store.search.rebuild()).documents["memory"] == 3
            assert (await store.search.check("memory"))["memory"].ok
            assert await store.search.probe()
            async with store.transaction() as tx:
                await tx.search.rebuild("memory")
            assert len(await store.memory.search("天气")) == 3

    asyncio.run(main())


def test_a_rebuilding_beside_writers_loses_nothing(store: Store) -> None:
    fill(store, 60)
    stop = threading.Event()
    faults: list[BaseException] = []

    def write() -> None:
        turn = 0
        try:
            while not stop.is_set():
                turn += 1
                store.memory.update(f"m{turn % 60:04}", tags=[f"turn{turn}"])
                store.memory.remember(f"fresh {turn}", type="x")
        except BaseException as error:  # noqa: BLE001  the test raises it
            faults.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            store.search.rebuild()
    finally:
        stop.set()
        writer.join()
    assert not faults
    report = store.search.check()["memory"]
    assert report.examples == ()
    assert store.search.probe()
