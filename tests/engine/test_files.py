"""The files of an SQLite store: their modes, their log, opening and closing."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest

from agentos_store.errors import (
    LockTimeoutError,
    UsageError,
)
from tests.engine.gather import open_file, threads, titles


def mode(path: str) -> int:
    return stat.S_IMODE(Path(path).stat().st_mode)


def test_every_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "registry.sqlite"
    old = os.umask(0)
    try:
        with open_file(path) as store:
            store.tasks.create(title="x")
            found = {each.name.removeprefix("registry.sqlite"): mode(str(each)) for each in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert found == dict.fromkeys(["", "-wal", "-shm", "-next", "-turn"], 0o600)


def test_the_lock_files_are_open_to_whom_the_database_is_open(path: Path) -> None:
    path.chmod(0o660)
    with open_file(path):
        assert {mode(f"{path}-next"), mode(f"{path}-turn")} == {0o660}


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("process_crash", 1)])
def test_the_durability_decides_how_the_log_is_synced(path: Path, durability: str, level: int) -> None:
    with open_file(path, durability=durability) as store:
        store.tasks.create(title="x")
        raw = store._backend.queue.writer.raw  # type: ignore[attr-defined]
        pragmas = {
            name: raw.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("synchronous", "journal_mode", "foreign_keys", "recursive_triggers")
        }
    assert pragmas == {"synchronous": level, "journal_mode": "wal", "foreign_keys": 1, "recursive_triggers": 1}


def test_one_file_has_one_durability_in_a_process(path: Path) -> None:
    with open_file(path), pytest.raises(UsageError):
        open_file(path, durability="process_crash")


def test_stores_of_one_file_share_one_queue_by_whatever_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = path.with_name("link.sqlite")
    link.symlink_to(path)
    monkeypatch.chdir(path.parent)
    with open_file(path) as first, open_file(Path("registry.sqlite")) as second, open_file(link) as third:
        assert first._backend is second._backend is third._backend
        second.close()
        assert first.tasks.create(title="x").task_id == third.tasks.list().items[0].task_id


def test_readers_cannot_write_and_leave_the_log_alone(path: Path) -> None:
    with open_file(path) as store:
        store.tasks.create(title="x")
        with store._backend.raw_connection() as raw, pytest.raises(sqlite3.OperationalError):
            raw.execute("DELETE FROM tasks")
        log = Path(f"{path}-wal")
        size = log.stat().st_size
        assert size > 0
        # The writer goes without a checkpoint, so that a reader is the last one to close.
        writer = store._backend.queue.writer  # type: ignore[attr-defined]
        forget_without_checkpoint(path, writer.raw)
        store._backend.queue.writer = None  # type: ignore[attr-defined]
        store._backend._readers.dispose()  # type: ignore[attr-defined]
        assert log.stat().st_size == size
        assert store.tasks.count() == 1


def forget_without_checkpoint(path: Path, raw: sqlite3.Connection) -> None:
    """Close the connection while another reader has the file open, so that it is not the last."""
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as other:
        other.execute("SELECT count(*) FROM tasks").fetchone()
        raw.close()
    other.close()


def test_closing_the_last_store_empties_the_log(path: Path) -> None:
    with open_file(path) as store:
        store.tasks.create(title="x")
    assert not Path(f"{path}-wal").exists()


# --- closing


def test_closing_waits_for_a_transaction(path: Path) -> None:
    store = open_file(path, lock_timeout=10)
    entered, leave_now = threading.Event(), threading.Event()

    def work() -> None:
        with store.transaction() as tx:
            entered.set()
            leave_now.wait(10)
            tx.tasks.create(title="x")

    with threads([work]) as outcomes:
        entered.wait(10)
        closing = threading.Thread(target=store.close)
        closing.start()
        time.sleep(0.05)
        assert closing.is_alive()
        leave_now.set()
        closing.join(10)
    assert outcomes == [None]
    with open_file(path) as again:
        assert titles(again) == ["x"]


def test_a_store_with_an_open_transaction_stays_open_when_closing_takes_too_long(path: Path) -> None:
    store = open_file(path, lock_timeout=0.2)
    with store.transaction() as tx:
        with pytest.raises(LockTimeoutError) as caught:
            store.close()
        assert "a transaction of thread" in str(caught.value.holder)
        tx.tasks.create(title="x")
    assert titles(store) == ["x"]
    store.close()
    with pytest.raises(UsageError):
        store.tasks.count()


def test_opening_and_closing_from_many_threads_never_meets_a_closed_store(path: Path) -> None:
    def work() -> int:
        for _ in range(10):
            with open_file(path, lock_timeout=5.0) as store:
                store.tasks.create(title="x")
        return 10

    with threads([work] * 6) as outcomes:
        pass
    assert outcomes == [10] * 6
    with open_file(path) as store:
        assert store.tasks.count() == 60
