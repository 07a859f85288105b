"""Vacuum: what deleted rows took up goes back."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from agentos_store import AsyncStore, Settings, Store
from agentos_store.errors import LockTimeoutError
from agentos_store.operations.retention import Policy
from tests.engine.gather import open_file, wait_for
from tests.operations.populated import populate
from tests.standing import owners_work

pytestmark = owners_work


def test_space_comes_back_and_nothing_else_changes(store: Store) -> None:
    populate(store)
    keys = [item.id for item in store.memory.iterate()]
    with store.transaction() as tx:
        for number in range(300):
            tx.events.log("big", event_id=f"e{number}", data=os.urandom(4000).hex())
    found = [hit.item.id for hit in store.memory.search("天气", limit=100)]
    store.prune([Policy(table="events", keep=0)], confirm=True)
    rows = store.status().rows
    report = store.vacuum(full=True)
    assert report.full
    assert report.bytes_before - report.bytes_after > 1_000_000
    assert report.bytes_after == store.status().size_bytes
    assert (report.skipped, report.is_held_up) == ({}, False)
    assert store.status().rows == rows
    assert [item.id for item in store.memory.iterate()] == keys
    assert [hit.item.id for hit in store.memory.search("天气", limit=100)] == found
    assert store.search.probe()
    assert store.check_consistency().ok


def test_the_usual_form_works_beside_everybody(store: Store) -> None:
    populate(store)
    with store.transaction(read_only=True) as tx:
        count = tx.tasks.count()
        if store.capabilities.backend == "postgresql":
            assert store.vacuum().skipped == {}
        else:
            # The file cannot become shorter while somebody reads an older state of it.
            assert store.vacuum().is_held_up
        assert tx.tasks.count() == count
    assert store.vacuum().skipped == {}


def test_a_table_that_is_locked_is_passed_over(store: Store) -> None:
    if store.capabilities.backend == "sqlite":
        pytest.skip("a file is vacuumed whole")
    with store._backend.raw_connection() as cursor, cursor.connection.transaction():
        cursor.execute(f'LOCK TABLE "{store._backend.schema}".tasks IN SHARE UPDATE EXCLUSIVE MODE')
        assert store.vacuum().skipped == {"tasks": "somebody has locked it"}
        assert store.vacuum(full=True).skipped == {"tasks": "somebody has locked it"}


def test_a_vacuum_stands_in_line_with_the_writers(tmp_path: Path, sqlite_template: Path) -> None:
    path = tmp_path / "registry.sqlite"
    path.write_bytes(sqlite_template.read_bytes())
    with open_file(path, lock_timeout=0.2) as store:
        with store.transaction() as tx:
            tx.tasks.create(title="t")
            refused: list[Any] = []

            def vacuum() -> None:
                with pytest.raises(LockTimeoutError) as caught:
                    store.vacuum()
                refused.append(caught.value)

            thread = threading.Thread(target=vacuum)
            thread.start()
            wait_for(lambda: bool(refused))
            thread.join()
        assert store.tasks.count() == 1
        store.vacuum()
        store.tasks.create(title="after")


def test_an_asynchronous_store_vacuums_too(url: str) -> None:
    async def work() -> None:
        async with AsyncStore.open(url, settings=Settings.load()) as store:
            await store.tasks.create(title="t")
            assert (await store.vacuum()).bytes_after > 0
            assert await store.tasks.count() == 1

    asyncio.run(work())
