"""Archives: what is in one comes back whole, on either database, and nothing that was changed passes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from agentos_store import (
    AlreadyExistsError,
    AsyncStore,
    ConflictError,
    InvalidValueError,
    SchemaMismatchError,
    StaleBookmarkError,
    Store,
    UnavailableError,
    restore_backup,
    verify_backup,
)
from agentos_store.engine.version import HEAD
from agentos_store.operations.moving.archive_source import ArchiveReport
from agentos_store.operations.moving.move import MoveReport
from agentos_store.testing import reset_schema
from tests.operations.moving import compared, counts_of, fill_store
from tests.standing import owners_work

pytestmark = [pytest.mark.usefixtures("own_transactions_only"), owners_work]


@pytest.fixture(scope="module")
def filled(
    sqlite_template: Path, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[Store, Path]]]:
    """By database a store with rows in every table, and its archive: that on PostgreSQL came out of the other's."""
    folder = tmp_path_factory.mktemp("archives")
    schema = f"agentos_restored_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    reset_schema(postgres_url, schema)
    file = shutil.copy(sqlite_template, folder / "filled.sqlite")
    with Store.open(f"sqlite:///{file}") as sqlite:
        fill_store(sqlite)
        sqlite.backup(folder / "sqlite.zip")
        restore_backup(folder / "sqlite.zip", postgres_url, schema=schema)
        with Store.open(postgres_url, schema=schema) as postgresql:
            postgresql.backup(folder / "postgresql.zip")
            yield {"sqlite": (sqlite, folder / "sqlite.zip"), "postgresql": (postgresql, folder / "postgresql.zip")}
    reset_schema(postgres_url, schema)


def restored(path: Path, url: str, **options: Any) -> MoveReport:
    report = restore_backup(path, url, **options)
    assert isinstance(report, MoveReport)
    return report


def test_what_goes_from_sqlite_to_postgresql_and_back_is_the_same(
    filled: dict[str, tuple[Store, Path]], empty: str
) -> None:
    sqlite, first = filled["sqlite"]
    postgresql, second = filled["postgresql"]
    report = restored(second, empty)
    with Store.open(empty) as there:
        assert compared(sqlite, there).ok
        assert compared(postgresql, there).ok
        assert all(each.ok for each in there.search.check().values())
        assert there.audits.verify() == sqlite.audits.verify()
        assert there.check_consistency() == sqlite.check_consistency()
    assert {report.root_hash, _verified(first).root_hash, _verified(second).root_hash} == {report.root_hash}


def _verified(path: Path) -> ArchiveReport:
    report = verify_backup(path)
    assert isinstance(report, ArchiveReport)
    return report


def test_an_archive_tells_what_is_in_it(filled: dict[str, tuple[Store, Path]]) -> None:
    for name, (store, path) in filled.items():
        found = _verified(path)
        counts = counts_of(store)
        assert found.rows == {table: counts[table] for table in found.rows}
        assert (found.backend, found.revision, found.size_bytes) == (name, HEAD, path.stat().st_size)
        assert path.read_bytes().endswith(found.sha256.encode())


def test_an_archive_can_be_read_by_any_program_that_reads_zip_files(archive: Path) -> None:
    with zipfile.ZipFile(archive) as found:
        assert found.testzip() is None
        manifest = json.loads(found.read("manifest.json"))
        for table in manifest["tables"]:
            lines = found.read(f"tables/{table['name']}.jsonl").splitlines()
            assert len(lines) == table["rows"]
            assert all(len(json.loads(line)) == len(table["columns"]) for line in lines)
            digits = sum(int(sha256(line).hexdigest(), 16) for line in lines) % 2**256
            assert f"{digits:064x}" == table["hash"]


def test_an_archive_is_for_its_owner_only_and_takes_no_name_that_is_taken(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    first = store.backup(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    with pytest.raises(AlreadyExistsError):
        store.backup(path)
    assert path.read_bytes() == before
    store.tasks.create(title="later")
    second = store.backup(path, replace=True)
    assert (first.rows["tasks"], second.rows["tasks"]) == (0, 1)
    assert [each.name for each in tmp_path.iterdir() if "a.zip" in each.name] == ["a.zip"]


def test_only_a_backup_is_replaced(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "thesis.zip"
    path.write_bytes(b"PK\x03\x04 of somebody else")
    with pytest.raises(InvalidValueError, match="would be lost"):
        store.backup(path, replace=True)
    assert path.read_bytes() == b"PK\x03\x04 of somebody else"
    for wrong in (tmp_path, tmp_path / "no" / "folder.zip"):
        with pytest.raises(InvalidValueError):
            store.backup(wrong)


def test_the_name_or_the_format_says_what_a_backup_becomes(store: Store, tmp_path: Path) -> None:
    assert isinstance(store.backup(tmp_path / "a"), ArchiveReport)
    assert isinstance(store.backup(tmp_path / "b.db", format="archive"), ArchiveReport)
    with pytest.raises(InvalidValueError, match="format"):
        store.backup(tmp_path / "c", format="tar")  # type: ignore[arg-type]
    if store.capabilities.backend == "sqlite":
        assert not isinstance(store.backup(tmp_path / "d.sqlite"), ArchiveReport)
        assert not isinstance(store.backup(tmp_path / "e", format="sqlite"), ArchiveReport)
    else:
        with pytest.raises(UnavailableError, match="archive"):
            store.backup(tmp_path / "d.sqlite")


def test_a_copy_of_an_sqlite_file_is_restored_and_verified_by_the_same_verbs(
    sqlite_url: str, postgres_url: str, tmp_path: Path
) -> None:
    with Store.open(sqlite_url) as store:
        store.tasks.create(title="t")
        store.backup(tmp_path / "copy.sqlite")
    assert verify_backup(tmp_path / "copy.sqlite").rows["tasks"] == 1
    other = f"sqlite:///{tmp_path}/other.sqlite"
    restore_backup(tmp_path / "copy.sqlite", other)
    with Store.open(other) as store:
        assert store.tasks.count() == 1
    with pytest.raises(InvalidValueError, match="agentos-store copy"):
        restore_backup(tmp_path / "copy.sqlite", postgres_url, schema="nowhere")


def test_the_asynchronous_store_makes_archives(url: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with AsyncStore.open(url) as store:
            await store.tasks.create(title="t")
            told: list[str] = []
            report = await store.backup(tmp_path / "a.zip", progress=lambda stage, done, total: told.append(stage))
            assert report.rows["tasks"] == 1
            assert told

    asyncio.run(run())
    assert verify_backup(tmp_path / "a.zip").rows["tasks"] == 1


def test_a_database_with_rows_is_restored_only_when_it_may_be_replaced(archive: Path, url: str) -> None:
    with Store.open(url) as there:
        there.tasks.create(title="mine")
    with pytest.raises(ConflictError, match="not empty"):
        restored(archive, url)
    with Store.open(url) as there:
        assert [task.title for task in there.tasks.iterate()] == ["mine"]
    restored(archive, url, replace=True)
    with Store.open(url) as there:
        assert "mine" not in [task.title for task in there.tasks.iterate()]
        assert there.tasks.count() == _verified(archive).rows["tasks"]


def test_a_bookmark_is_refused_by_what_was_restored_and_numbers_go_on(
    store: Store, url: str, empty: str, tmp_path: Path
) -> None:
    for number in range(3):
        store.events.log(event_type=f"e{number}", channel="monitor", data={})
    with store.events.subscribe(from_start=True, timeout=20) as found:
        bookmark = next(iter(found)).bookmark
    store.backup(tmp_path / "a.zip")
    store.events.log(event_type="later", channel="monitor", data={})
    restored(tmp_path / "a.zip", empty)
    with Store.open(empty) as there:
        with pytest.raises(StaleBookmarkError), there.events.subscribe(bookmark, timeout=0) as subscription:
            next(iter(subscription), None)
        there.events.log(event_type="another", channel="monitor", data={})
        positions = [event.position for event in there.events.iterate()]
        assert len(set(positions)) == len(positions) == 4


class StoppedError(Exception):
    pass


def stop(stage: str, done: int, total: int) -> None:
    if stage == "writing" and done > 30:
        raise StoppedError


def test_another_archive_does_not_go_on_with_what_one_has_begun(
    archive: Path, sqlite_template: Path, empty: str, tmp_path: Path
) -> None:
    with Store.open(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'other.sqlite')}") as other:
        other.tasks.create(title="other")
        other.backup(tmp_path / "other.zip")
    with pytest.raises(StoppedError):
        restored(archive, empty, progress=stop)
    with pytest.raises(ConflictError, match="restart"):
        restored(tmp_path / "other.zip", empty)
    assert restored(archive, empty).resumed
    with pytest.raises(ConflictError, match="not empty"):
        restored(archive, empty)


def test_a_restore_begins_anew_when_it_is_told_to(archive: Path, empty: str) -> None:
    with pytest.raises(StoppedError):
        restored(archive, empty, progress=stop)
    with pytest.raises(SchemaMismatchError, match="--restart"):
        Store.open(empty)
    report = restored(archive, empty, restart=True)
    assert (report.resumed, report.root_hash) == (False, _verified(archive).root_hash)
