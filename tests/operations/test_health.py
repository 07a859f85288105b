"""Whatever the database does, a look at it ends in time, raises nothing, and says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentos_store import AsyncStore, Settings, Store
from agentos_store.engine.version import HEAD
from agentos_store.errors import InvalidValueError
from tests.engine.gather import threads, wait_for
from tests.engine.test_fork import in_child
from tests.operations.looks import SOON, asides, assert_told


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A migrated SQLite file without rows."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'registry.sqlite')}"


@contextlib.contextmanager
def locked(url: str) -> Iterator[None]:
    """Let a stranger hold the file's lock for writers."""
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        yield


def test_a_database_that_works_is_well(store: Store) -> None:
    found = store.health_check()
    assert (found.ok, found.connected, found.writable, found.problems) == (True, True, True, ())
    assert found.revision == found.head == HEAD
    assert found.schema_ok
    assert found.latency is not None
    assert 0 < found.latency < 2
    assert found.pool is not None
    assert found.pool.in_use == 0
    assert found.location == store._backend.describe()
    # A look is no operation of the program's.
    assert store.metrics().overall.count == 1
    # No thread is left behind.
    wait_for(lambda: asides() == 0)


def test_a_look_changes_nothing(sqlite_url: str) -> None:
    with Store.open(sqlite_url) as store, contextlib.closing(sqlite3.connect(sqlite_url[10:])) as raw:
        raw.execute("PRAGMA user_version = 7")
        assert store.health_check().writable
        assert raw.execute("PRAGMA user_version").fetchall() == [(7,)]


def test_the_asynchronous_store_tells_the_same(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            assert (await store.health_check()).ok
        assert_told(await store.health_check(), "closed")

    asyncio.run(main())


def test_a_closed_store_is_told(url: str) -> None:
    with Store.open(url) as store, Store.open(url) as other:
        store.close()
        found = store.health_check()
        assert_told(found, "closed")
        assert not found.connected
        assert other.health_check().ok


def test_a_timeout_that_is_none_is_refused(sqlite_url: str) -> None:
    with Store.open(sqlite_url) as store:
        for timeout in (0, -1, float("nan"), float("inf"), True, "2", None):
            with pytest.raises(InvalidValueError):
                store.health_check(timeout)  # type: ignore[arg-type]


def test_another_revision_is_told(store: Store, raw: Callable[..., Any]) -> None:
    raw("UPDATE agentos_store_version SET revision = '9999_later'")
    found = store.health_check()
    assert_told(found, "9999_later", "newer")
    assert (found.connected, found.revision, found.schema_ok) == (True, "9999_later", False)
    raw("DROP TABLE agentos_store_version")
    found = store.health_check()
    assert_told(found, "no schema")
    assert (found.revision, found.schema_ok) == (None, False)


def test_a_file_that_is_gone_or_another_is_told(sqlite_url: str, tmp_path: Path) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    with Store.open(sqlite_url) as store:
        store.tasks.create(title="x")
        path.rename(tmp_path / "elsewhere")
        found = store.health_check()
        assert_told(found, "No such file")
        assert not found.connected
        path.touch()
        assert_told(store.health_check(), "another file")
        path.unlink()
        (tmp_path / "elsewhere").rename(path)
        assert store.health_check().ok


def test_a_file_that_a_stranger_locks_is_told_in_time_by_one_thread(sqlite_url: str) -> None:
    with Store.open(sqlite_url, settings=Settings.load(busy_timeout=30, lock_timeout=30)) as store:
        store.tasks.create(title="x")
        with locked(sqlite_url):
            for _ in range(3):
                found = store.health_check(SOON)
                assert_told(found, "no answer within 0.1 s", "writing")
                assert (found.connected, found.writable, found.revision) == (True, None, HEAD)
                assert asides() == 1
        wait_for(lambda: asides() == 0)
        assert store.health_check(10).ok


def test_a_lock_that_outlasts_the_limit_is_told(sqlite_url: str) -> None:
    with Store.open(sqlite_url, settings=Settings.load(busy_timeout=0.05, lock_timeout=0.05, retries=0)) as store:
        store.tasks.create(title="x")
        with locked(sqlite_url):
            found = store.health_check(20)
            assert_told(found, "not writable", "another program")
            assert (found.connected, found.writable) == (True, False)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_full_disk_is_told(sqlite_url: str) -> None:
    with Store.open(sqlite_url) as store:
        for _ in range(3):
            store.tasks.create(title="x", payload="y" * 50_000)

        def work() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            store.tasks.create(title="x")
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
            # What the log has room for is written there.
            for _ in range(100):
                found = store.health_check()
                if not found.ok:
                    break
            assert found.connected
            assert found.writable is False
            assert "not writable" in found.problems[0]

        in_child(work)()
        assert store.health_check().ok


def test_a_thread_that_cannot_start_is_told(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Store.open(sqlite_url) as store:
        store.tasks.create(title="x")
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            assert_told(store.health_check(), "no thread could be started")
            found = store.metrics()
            assert (found.saves, found.storage) == (1, None)
        assert store.health_check().ok


def test_looks_at_the_same_time_share_one_thread(sqlite_url: str) -> None:
    with Store.open(sqlite_url, settings=Settings.load(busy_timeout=30, lock_timeout=30)) as store:
        store.tasks.create(title="x")
        with contextlib.ExitStack() as lock:
            lock.enter_context(locked(sqlite_url))
            with threads([lambda: store.health_check(20)] * 8) as outcomes:
                wait_for(lambda: store.health_check(0.01).connected)
                assert asides() == 1
                lock.close()
        assert [found.ok for found in outcomes] == [True] * 8


def test_a_transaction_that_holds_the_queue_is_named(sqlite_url: str) -> None:
    with Store.open(sqlite_url, settings=Settings.load(lock_timeout=0.1)) as store, store.transaction() as tx:
        tx.tasks.create(title="x")
        assert_told(store.health_check(20), "not writable", "a transaction of thread")


def test_an_event_loop_goes_on_while_a_look_hangs(sqlite_url: str) -> None:
    async def main() -> None:
        settings = Settings.load(busy_timeout=30, lock_timeout=30)
        async with AsyncStore.open(sqlite_url, settings=settings) as store:
            await store.tasks.create(title="x")
            with locked(sqlite_url):
                looking = asyncio.create_task(store.health_check(SOON))
                turns = 0
                while not looking.done():
                    await asyncio.sleep(0)
                    turns += 1
                assert_told(await looking, "no answer")
                assert turns > 10
                # A cancelled look takes nothing with it, and every thread of the store may be busy.
                writing = [asyncio.create_task(store.tasks.create(title="y")) for _ in range(60)]
                await asyncio.sleep(0)
                cancelled = asyncio.create_task(store.health_check(20))
                await asyncio.sleep(0)
                cancelled.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await cancelled
                assert_told(await store.health_check(SOON), "no answer")
                assert asides() == 1
            await asyncio.gather(*writing)
            assert (await store.health_check(20)).ok

    asyncio.run(main())
    wait_for(lambda: asides() == 0)


def test_a_loop_that_ends_before_the_look_is_told_nothing(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with Store.open(sqlite_url, settings=Settings.load(busy_timeout=30, lock_timeout=30)) as store:
        store.tasks.create(title="x")
        with locked(sqlite_url):
            found = asyncio.run(store._checkup.check_async(SOON))
            assert_told(found, "no answer")
        wait_for(lambda: asides() == 0)
    assert caplog.records == []
