"""Restoring a backup of an SQLite file: whole, at once, and never under somebody who uses the place."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.errors import (
    AlreadyExistsError,
    DamagedFileError,
    LockTimeoutError,
    SchemaMismatchError,
    StaleBookmarkError,
    UsageError,
)
from agentos_store.operations.backups import backup_sqlite, restore_sqlite, restoring, verify_sqlite
from tests.engine.gather import PROCESSES
from tests.operations.populated import leave_a_log, names_in


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restoring, "PATIENCE", 0.1)


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """A backup with one task in it; nobody writes to it."""
    folder = tmp_path_factory.mktemp("backup")
    shutil.copy(sqlite_template, folder / "registry.sqlite")
    with Store.open(f"sqlite:///{folder}/registry.sqlite") as store:
        store.tasks.create(title="kept")
        backup_sqlite(store._backend, folder / "b")
    return folder / "b"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "registry.sqlite"


def opened(place: Path) -> Store:
    return Store.open(f"sqlite:///{place}")


def titles(place: Path) -> list[str]:
    with opened(place) as store:
        return sorted(task.title for task in store.tasks.iterate())


def test_a_restored_database_is_private_and_can_be_used_at_once(backup: Path, place: Path) -> None:
    report = restore_sqlite(backup, place)
    assert (report.replaced, report.kept, report.faults) == (False, [], [])
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert names_in(place.parent) == [place.name]
    with opened(place) as store:
        store.tasks.create(title="new")
        with contextlib.closing(sqlite3.connect(place)) as raw:
            assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert titles(place) == ["kept", "new"]
    assert not list(place.parent.glob(".*"))


@pytest.mark.parametrize("content", ["nothing", "an empty file", "an empty store"])
def test_an_empty_place_need_not_be_replaced(backup: Path, place: Path, content: str) -> None:
    if content == "an empty file":
        place.touch()
    elif content == "an empty store":
        opened(place).close()
    restore_sqlite(backup, place)
    assert titles(place) == ["kept"]


def test_rows_in_the_place_stay_unless_they_may_be_replaced(backup: Path, place: Path) -> None:
    with opened(place) as store:
        store.tasks.create(title="mine")
    with pytest.raises(AlreadyExistsError):
        restore_sqlite(backup, place)
    assert titles(place) == ["mine"]
    assert restore_sqlite(backup, place, replace=True).replaced
    assert titles(place) == ["kept"]


def test_what_is_no_database_stays_unless_it_may_be_replaced(backup: Path, place: Path) -> None:
    place.write_text("my notes")
    with pytest.raises(AlreadyExistsError):
        restore_sqlite(backup, place)
    report = restore_sqlite(backup, place, replace=True)
    assert titles(place) == ["kept"]
    assert [Path(each).read_text() for each in report.kept] == ["my notes"]


def test_a_link_to_the_place_leads_to_it(backup: Path, place: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(place)
    restore_sqlite(backup, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert titles(place) == ["kept"]


def test_the_log_of_the_old_database_is_not_played_into_the_new_one(backup: Path, place: Path) -> None:
    opened(place).close()
    leave_a_log(place)
    with pytest.raises(AlreadyExistsError):
        restore_sqlite(backup, place)
    restore_sqlite(backup, place, replace=True)
    assert titles(place) == ["kept"]
    assert verify_sqlite(place).ok


def test_a_log_without_its_database_is_moved_aside(backup: Path, place: Path) -> None:
    opened(place).close()
    leave_a_log(place)
    place.unlink()
    report = restore_sqlite(backup, place)
    assert titles(place) == ["kept"]
    assert [Path(each).stat().st_size > 0 for each in report.kept] == [True]
    assert report.kept[0].endswith(".damaged-1-wal")


def test_a_damaged_database_is_moved_aside(backup: Path, place: Path) -> None:
    with opened(place) as store:
        store.tasks.create(title="mine")
    content = bytearray(place.read_bytes())
    content[:4096] = os.urandom(4096)
    place.write_bytes(content)
    report = restore_sqlite(backup, place, replace=True)
    assert titles(place) == ["kept"]
    assert [Path(each).read_bytes() for each in report.kept] == [content]


def test_a_store_that_is_open_in_this_process_is_not_replaced(backup: Path, place: Path) -> None:
    with opened(place) as store, pytest.raises(UsageError):
        restore_sqlite(backup, place, replace=True)
    del store


def hold_open(url: str, ready: Any, over: Any) -> None:
    with Store.open(url) as store:
        store.tasks.create(title="mine")
        ready.set()
        over.wait()


def test_a_store_that_is_open_in_another_process_is_not_replaced(backup: Path, place: Path) -> None:
    ready, over = PROCESSES.Event(), PROCESSES.Event()
    process = PROCESSES.Process(target=hold_open, args=(f"sqlite:///{place}", ready, over), daemon=True)
    process.start()
    try:
        ready.wait()
        with pytest.raises(AlreadyExistsError):
            restore_sqlite(backup, place)
        with pytest.raises(LockTimeoutError):
            restore_sqlite(backup, place, replace=True)
    finally:
        over.set()
        process.join()
    assert titles(place) == ["mine"]
    assert not list(place.parent.glob(".*"))


def test_whoever_opened_the_old_file_just_before_it_went_does_not_go_on_with_it(backup: Path, place: Path) -> None:
    with opened(place) as store:
        store.tasks.create(title="old")
    descriptor = os.open(place, os.O_RDONLY)
    try:
        restore_sqlite(backup, place, replace=True)
        assert os.pread(descriptor, 16, 0) == bytes(16)
    finally:
        os.close(descriptor)


def test_a_second_name_of_the_old_file_keeps_it_whole(backup: Path, place: Path) -> None:
    with opened(place) as store:
        store.tasks.create(title="old")
    os.link(place, place.with_name("second"))
    restore_sqlite(backup, place, replace=True)
    assert titles(place.with_name("second")) == ["old"]


def test_a_truncated_backup_is_refused_and_the_place_stays_as_it_was(backup: Path, place: Path) -> None:
    with opened(place) as store:
        store.tasks.create(title="mine")
    cut = place.with_name("cut")
    for part in (0.5, 0.99):
        cut.write_bytes(backup.read_bytes()[: int(backup.stat().st_size * part)])
        with pytest.raises(DamagedFileError):
            restore_sqlite(cut, place, replace=True)
    assert titles(place) == ["mine"]
    assert not list(place.parent.glob(".*"))


def test_a_changed_backup_is_refused(backup: Path, place: Path) -> None:
    changed = bytearray(backup.read_bytes())
    changed[4096 * 30 : 4096 * 31] = os.urandom(4096)
    place.with_name("changed").write_bytes(changed)
    with pytest.raises(DamagedFileError):
        restore_sqlite(place.with_name("changed"), place)
    assert names_in(place.parent) == ["changed"]


def test_a_backup_of_a_newer_schema_is_refused(backup: Path, place: Path) -> None:
    newer = Path(shutil.copy(backup, place.with_name("newer")))
    with contextlib.closing(sqlite3.connect(newer, isolation_level=None)) as raw:
        raw.execute("UPDATE agentos_store_version SET revision = '9999_later'")
    with pytest.raises(SchemaMismatchError):
        restore_sqlite(newer, place)
    assert names_in(place.parent) == ["newer"]


def test_a_bookmark_of_before_is_refused_in_the_restored_database(place: Path, tmp_path: Path) -> None:
    with opened(place) as store:
        for number in range(3):
            store.events.log("x", data=number)
        events = store.events.subscribe(from_start=True, timeout=0.0)
        bookmark = list(events)[-1].bookmark
        backup_sqlite(store._backend, tmp_path / "b")
    restore_sqlite(tmp_path / "b", place, replace=True)
    with opened(place) as store, pytest.raises(StaleBookmarkError):
        next(iter(store.events.subscribe(bookmark, timeout=0.0)), None)


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    yield
    from agentos_store.engine.sqlite.backend import _open

    assert not _open
