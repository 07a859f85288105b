"""Backups of SQLite files: made while others write, whole or not there at all."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.engine import network_fs
from agentos_store.engine.sqlite.filelock import lock
from agentos_store.errors import (
    AlreadyExistsError,
    DamagedFileError,
    InvalidValueError,
    LockTimeoutError,
    NotFoundError,
    UnavailableError,
    UsageError,
)
from agentos_store.operations import new_file as new_file_module
from agentos_store.operations.backups import backup_sqlite, looking, restore_sqlite, verify_sqlite
from agentos_store.operations.salvage import salvage_sqlite
from agentos_store.operations.saving import verify_backup
from tests.engine.gather import PROCESSES, threads, wait_for
from tests.operations.populated import names_in, populate, rows_of

BACKUPS = int(os.environ.get("AGENTOS_STORE_BACKUPS", "2"))


@pytest.fixture
def url(sqlite_url: str) -> str:
    """These backups are of SQLite files only."""
    return sqlite_url


@pytest.fixture
def path(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


# --- while others write


def write_until_told(url: str, task_id: str, name: str, acknowledged: Any, over: Any) -> None:
    """Record audits; the number of the last one that was acknowledged can be seen from outside."""
    with Store.open(url) as store:
        number = 0
        while not over.is_set():
            store.audits.record(task_id, event_type=name, payload=number)
            acknowledged.value = number = number + 1
            # The fewer they are, the sooner all of them are looked at in each backup.
            over.wait(0.005)


def test_each_backup_holds_all_that_was_acknowledged_before_it_began(store: Store, url: str, tmp_path: Path) -> None:
    task_id = store.tasks.create(title="t").task_id
    over = threading.Event()
    over_there = PROCESSES.Event()
    names = ("thread-1", "thread-2", "process-1", "process-2")
    counters = {name: PROCESSES.Value("q", 0, lock=False) for name in names}
    others = [
        PROCESSES.Process(target=write_until_told, args=(url, task_id, name, counters[name], over_there), daemon=True)
        for name in names[2:]
    ]
    for process in others:
        process.start()
    works: list[Callable[[], Any]] = [
        partial(write_until_told, url, task_id, name, counters[name], over) for name in names[:2]
    ]
    with threads(works) as outcomes:
        try:
            wait_for(lambda: all(counter.value for counter in counters.values()))
            for number in range(BACKUPS):
                before = {name: counter.value for name, counter in counters.items()}
                backup = tmp_path / f"backup-{number}"
                report = backup_sqlite(store._backend, backup)
                check_backup(backup, tmp_path / f"restored-{number}", before, report.rows["task_audits"])
                wait_for(lambda before=before: all(c.value > before[name] for name, c in counters.items()))  # type: ignore[misc]
        finally:
            over.set()
            over_there.set()
    for process in others:
        process.join()
    assert outcomes == [None, None]
    assert [process.exitcode for process in others] == [0, 0]
    assert not [each for each in names_in(tmp_path) if each.endswith(".partial")]


def test_a_file_that_is_copied_while_it_is_open_is_found_out(store: Store, path: Path, tmp_path: Path) -> None:
    task_id = store.tasks.create(title="t").task_id
    for number in range(3):
        store.audits.record(task_id, event_type="e", payload=number)
    shutil.copy(path, tmp_path / "copied")
    backup_sqlite(store._backend, tmp_path / "backup")
    check_backup(tmp_path / "backup", tmp_path / "restored", {"e": 3}, 3)
    # What was committed is still in the log, and not in the file.
    with pytest.raises(AssertionError):
        check_backup(tmp_path / "copied", tmp_path / "restored-copy", {"e": 3}, 3)


def check_backup(backup: Path, restored: Path, before: dict[str, int], audits: int) -> None:
    assert verify_sqlite(backup).ok
    assert restore_sqlite(backup, restored).rows["task_audits"] == audits
    with Store.open(f"sqlite:///{restored}") as store:
        found: dict[str, list[int]] = {}
        for audit in store.audits.iterate():
            found.setdefault(audit.event_type, []).append(audit.payload)
        assert store.audits.verify().ok
        assert store.check_consistency().ok
        assert sum(map(len, found.values())) == audits
        for name, count in before.items():
            # All that was acknowledged, and nothing with a gap before it.
            assert len(found[name]) >= count
            assert found[name] == list(range(len(found[name])))


def test_a_backup_is_of_one_moment_although_others_write_between_its_steps(filled: Store, tmp_path: Path) -> None:
    store = filled
    task_id = store.tasks.create(title="t").task_id
    counted = store.status().rows["task_audits"]

    def write(what: str, done: int, total: int) -> None:
        del done, total
        if what == "copy":
            store.audits.record(task_id, event_type="between", payload="x" * 5000)

    report = backup_sqlite(store._backend, tmp_path / "backup", progress=write)
    assert report.rows["task_audits"] == counted
    assert store.status().rows["task_audits"] > counted
    assert verify_sqlite(tmp_path / "backup").rows["task_audits"] == counted


# --- what it is


def test_a_backup_is_one_private_file_that_can_be_read_where_nothing_can_be_written(
    filled: Store, tmp_path: Path
) -> None:
    store = filled
    folder = tmp_path / "backups"
    folder.mkdir()
    told: list[tuple[str, int, int]] = []
    report = backup_sqlite(store._backend, folder / "b", progress=lambda *each: told.append(each))
    assert names_in(folder) == ["b"]
    assert stat.S_IMODE((folder / "b").stat().st_mode) == 0o600
    assert report.size_bytes == (folder / "b").stat().st_size
    assert report.rows == {name: count for name, count in store.status().rows.items() if name in report.rows}
    assert {what for what, _, _ in told} == {"copy", "check"}
    assert all(0 <= done <= total for _, done, total in told)
    folder.chmod(0o500)
    try:
        report_ = verify_sqlite(folder / "b")
        assert report_.ok
        assert names_in(folder) == ["b"]
    finally:
        folder.chmod(0o700)
    assert rows_of(folder / "b") == rows_of(store._backend.describe())
    restore_sqlite(folder / "b", tmp_path / "restored")
    assert rows_of(tmp_path / "restored") == rows_of(folder / "b")


def test_verifying_leaves_nothing_beside_a_file(store: Store, path: Path) -> None:
    store.close()
    beside = names_in(path.parent)
    assert verify_sqlite(path).ok
    assert names_in(path.parent) == beside


def test_verifying_looks_at_one_moment_of_a_database_that_is_in_use(store: Store, path: Path) -> None:
    store.tasks.create(title="in the log only")
    report = verify_sqlite(path)
    assert report.ok
    assert report.rows["tasks"] == 1


def whether_held(path: Path) -> None:
    """End with the code 1 when another process has the file open."""
    raise SystemExit(int(looking.is_held(path)))


def test_looking_at_a_file_that_is_open_here_leaves_its_locks(store: Store, path: Path, tmp_path: Path) -> None:
    store.tasks.create(title="t")
    backup_sqlite(store._backend, tmp_path / "b")
    assert verify_sqlite(path).ok
    verify_backup(path)
    with pytest.raises(AlreadyExistsError):
        restore_sqlite(tmp_path / "b", path)
    with pytest.raises(UsageError):
        restore_sqlite(tmp_path / "b", path, replace=True)
    restore_sqlite(path, path.with_name("r"))
    with pytest.raises(InvalidValueError):
        store.backup(path, format="archive", replace=True)
    # Without them another process that closes the file takes away its log, and all that is written to it later.
    process = PROCESSES.Process(target=whether_held, args=(path,), daemon=True)
    process.start()
    process.join()
    assert process.exitcode == 1


def test_a_file_that_somebody_writes_to_meanwhile_gets_no_verdict(store: Store, tmp_path: Path) -> None:
    backup_sqlite(store._backend, tmp_path / "b")
    with pytest.raises(LockTimeoutError), looking.reading(tmp_path / "b"):
        os.utime(tmp_path / "b")


def test_verifying_finds_what_is_wrong(store: Store, path: Path) -> None:
    task_id = store.tasks.create(title="t").task_id
    store.audits.record(task_id, event_type="a")
    session = store.sessions.create(channel="api")
    store.messages.append(session.id, role="user", content="x")
    store.close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("DROP TRIGGER tr_task_audits_no_update")
        raw.execute("UPDATE task_audits SET event_type = 'b'")
        raw.execute("UPDATE sessions SET message_count = 7")
        raw.execute("UPDATE tasks SET project_id = 'nobody'")
    report = verify_sqlite(path)
    assert not report.ok
    assert report.foreign_keys == ["1 row of tasks without their projects"]
    assert report.audits is not None
    assert [fault.kind for fault in report.audits.faults] == ["changed"]
    assert report.consistency is not None
    assert report.consistency.counts == {"counters": 1}
    # They are the database's own: a copy with them is better than none, and says so.
    with Store.open(f"sqlite:///{path}") as again:
        assert backup_sqlite(again._backend, path.with_name("b")).faults == report.foreign_keys


@pytest.mark.parametrize("content", [b"", b"no database at all" * 100])
def test_what_is_no_database_of_the_store_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises((DamagedFileError, InvalidValueError)):
        verify_sqlite(tmp_path / "x")
    with pytest.raises((DamagedFileError, InvalidValueError)):
        restore_sqlite(tmp_path / "x", tmp_path / "y")
    assert names_in(tmp_path) == ["x"]


# --- refusals, after which nothing is left behind


def test_an_existing_file_stays_unless_it_may_be_replaced(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "b"
    target.write_text("precious")
    with pytest.raises(AlreadyExistsError):
        backup_sqlite(store._backend, target)
    assert target.read_text() == "precious"
    backup_sqlite(store._backend, target, replace=True)
    assert verify_sqlite(target).ok


def test_one_of_two_backups_to_the_same_name_at_once_is_refused(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "b"

    def race(what: str, done: int, total: int) -> None:
        if what == "check" and done == total:
            target.write_text("faster")

    with pytest.raises(AlreadyExistsError):
        backup_sqlite(store._backend, target, progress=race)
    assert target.read_text() == "faster"
    assert not list(tmp_path.glob(".b.*"))


@pytest.mark.parametrize("ending", ["", "-wal", "-turn"])
def test_a_backup_never_goes_over_the_database_itself(store: Store, path: Path, ending: str) -> None:
    with pytest.raises(InvalidValueError):
        backup_sqlite(store._backend, f"{path}{ending}", replace=True)


def test_a_backup_never_goes_over_a_database_that_may_be_in_use(
    store: Store, tmp_path: Path, sqlite_template: Path
) -> None:
    other = Path(shutil.copy(sqlite_template, tmp_path / "other.sqlite"))
    with Store.open(f"sqlite:///{other}"), pytest.raises(InvalidValueError):
        backup_sqlite(store._backend, other, replace=True)


@pytest.mark.parametrize("ending", ["-wal", "-journal"])
def test_what_is_left_beside_the_name_is_never_played_into_a_backup(store: Store, tmp_path: Path, ending: str) -> None:
    left = tmp_path / f"b{ending}"
    left.write_text("precious")
    with pytest.raises(InvalidValueError, match=left.name):
        backup_sqlite(store._backend, tmp_path / "b")
    assert (left.read_text(), (tmp_path / "b").exists()) == ("precious", False)


def test_a_place_that_is_none_is_refused(store: Store, tmp_path: Path) -> None:
    backup_sqlite(store._backend, tmp_path / "b")
    for place in (tmp_path, tmp_path / "no" / "folder", tmp_path / "a\0b", tmp_path / ("long" * 70)):
        with pytest.raises((InvalidValueError, UnavailableError)):
            backup_sqlite(store._backend, place)
        with pytest.raises((InvalidValueError, UnavailableError)):
            restore_sqlite(tmp_path / "b", place)
        for look in (verify_sqlite, partial(restore_sqlite, target=tmp_path / "x")):
            with pytest.raises(NotFoundError):
                look(place)


def test_a_file_that_another_maker_took_for_left_behind_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [1]

    def overtaken(descriptor: int) -> None:
        if others:
            others.pop()
            new_file_module._remove_leftovers(tmp_path / "f")
        lock(descriptor)

    monkeypatch.setattr(new_file_module, "lock", overtaken)
    with new_file_module.new_file(tmp_path / "f") as file:
        file.write(b"whole")
    assert ((tmp_path / "f").read_bytes(), names_in(tmp_path), others) == (b"whole", ["f"], [])


def test_a_network_file_system_is_refused(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mountinfo"
    (tmp_path / "far").mkdir()
    mounts.write_text(f"22 1 0:1 / {tmp_path}/far rw shared:1 - nfs4 filer:/x rw\n")
    monkeypatch.setattr(network_fs, "MOUNTINFO", mounts)
    with pytest.raises(InvalidValueError, match="nfs4"):
        backup_sqlite(store._backend, tmp_path / "far" / "b")
    with pytest.raises(InvalidValueError, match="nfs4"):
        restore_sqlite(tmp_path / "b", tmp_path / "far" / "r")


def work_on_a_full_disk(path: Path) -> None:
    """Try all that makes a file where none can grow; whatever is not refused as it should be ends the process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Store.open(f"sqlite:///{path}") as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
        with pytest.raises(UnavailableError):
            backup_sqlite(store._backend, path.with_name("b"))
        with pytest.raises(UnavailableError):
            store.vacuum()
        with pytest.raises(UnavailableError):
            restore_sqlite(path.with_name("whole"), path.with_name("r"))
    with pytest.raises(UnavailableError):
        salvage_sqlite(path, path.with_name("s"))


def test_a_full_disk_is_a_typed_error_and_leaves_nothing_behind(filled: Store, path: Path) -> None:
    filled.tasks.create(title="so that there is a log, which the last one to write takes away")
    backup_sqlite(filled._backend, path.with_name("whole"))
    filled.close()
    before = names_in(path.parent)
    process = PROCESSES.Process(target=work_on_a_full_disk, args=(path,), daemon=True)
    process.start()
    process.join()
    assert process.exitcode == 0
    assert names_in(path.parent) == before
    assert verify_sqlite(path).ok


def test_a_damaged_database_is_not_copied(filled: Store, path: Path, tmp_path: Path) -> None:
    filled.close()
    with contextlib.closing(sqlite3.connect(path)) as raw:
        page = raw.execute("SELECT rootpage FROM sqlite_master WHERE name = 'messages'").fetchone()
    with path.open("r+b") as file:
        file.seek((page[0] - 1) * 4096)
        file.write(os.urandom(4096))
    with Store.open(f"sqlite:///{path}") as again, pytest.raises(DamagedFileError):
        backup_sqlite(again._backend, tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert not list(tmp_path.glob(".b.*"))
    report = verify_sqlite(path)
    assert report.integrity
    assert not report.ok


def test_only_sqlite_is_copied_as_a_file(both: list[Store], tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        backup_sqlite(both[1]._backend, tmp_path / "b")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """A file with rows in it; it is only copied."""
    path = Path(shutil.copy(sqlite_template, tmp_path_factory.mktemp("source") / "registry.sqlite"))
    with Store.open(f"sqlite:///{path}") as opened:
        populate(opened)
    return path


@pytest.fixture
def filled(url: str, path: Path, source: Path) -> Iterator[Store]:
    shutil.copy(source, path)
    with Store.open(url) as opened:
        yield opened


@pytest.fixture
def store(url: str, path: Path, sqlite_template: Path) -> Iterator[Store]:
    path.write_bytes(sqlite_template.read_bytes())
    with Store.open(url) as opened:
        yield opened
