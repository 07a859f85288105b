"""How often a passing fault is tried again, after which wait, who is told, and what is never tried again."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentos_store import AsyncStore, LockTimeoutError, RetryPolicy, Settings, Store, StoreError, TransientError
from agentos_store.engine.retry import is_transient
from tests.engine.gather import open_file, titles

Told = tuple[str | None, int, float]


@pytest.fixture
def stranger(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program that holds the file."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


def listener(told: list[Told], then: Callable[[], object] | None = None) -> Callable[[StoreError, int, float], None]:
    def on_retry(error: StoreError, attempt: int, wait: float) -> None:
        told.append((getattr(error, "code", None), attempt, wait))
        if then is not None:
            then()

    return on_retry


def impatient(**settings: Any) -> Settings:
    return Settings.load(**{"busy_timeout": 0.01, "retry_base": 0.001, **settings})


def test_the_defaults_are_those_of_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    assert RetryPolicy.of(Settings.load()) == RetryPolicy(retries=3, base=0.1, cap=60.0, jitter=0.2)
    for name, value in {"RETRIES": "5", "RETRY_BASE": "0.5", "RETRY_CAP": "2", "RETRY_JITTER": "0"}.items():
        monkeypatch.setenv(f"DATABASE_{name}", value)
    assert RetryPolicy.of(Settings.load()) == RetryPolicy(retries=5, base=0.5, cap=2.0, jitter=0.0)


def test_each_wait_is_twice_the_one_before_up_to_the_cap_and_varies_by_the_jitter() -> None:
    exact = RetryPolicy(jitter=0.0)
    assert [exact.delay(attempt) for attempt in range(4)] == [0.1, 0.2, 0.4, 0.8]
    assert exact.delay(100) == 60.0
    waits = [RetryPolicy().delay(0) for _ in range(500)]
    assert 0.08 <= min(waits) < 0.09
    assert 0.11 < max(waits) <= 0.12


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TransientError("x", code="40001"), True),
        (TransientError("x", outcome_unknown=True), False),
        (LockTimeoutError("a row", waited=5.0, code="55P03"), True),
        (LockTimeoutError("the database file", waited=5.0, code="SQLITE_BUSY"), True),
        (LockTimeoutError("the database file", waited=5.0, code="SQLITE_BUSY_RECOVERY"), True),
        (LockTimeoutError("the database file", waited=5.0, code="SQLITE_LOCKED"), False),
        (LockTimeoutError("the queue of writers", waited=5.0), False),
        (LockTimeoutError("lease 'agent-1'", waited=5.0), False),
        (StoreError("x"), False),
    ],
)
def test_codes_decide_what_is_tried_again(error: StoreError, again: bool) -> None:
    assert is_transient(error, repeatable=False) is again
    assert is_transient(error, repeatable=True) is (again or isinstance(error, TransientError))


def test_a_busy_file_is_tried_again_and_whoever_wants_to_know_is_told(
    path: Path, stranger: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Told] = []
    caplog.set_level(logging.WARNING, "agentos_store.retry")
    on_retry = listener(told, lambda: len(told) == 2 and stranger.execute("ROLLBACK"))
    with Store.open(f"sqlite:///{path}", settings=impatient(), on_retry=on_retry) as store:
        store.tasks.create(title="x")
        assert titles(store) == ["x"]
    assert [each[:2] for each in told] == [("SQLITE_BUSY", 1), ("SQLITE_BUSY", 2)]
    assert [record.getMessage().partition(" follows")[0] for record in caplog.records] == [
        "tasks.create: SQLITE_BUSY; try 2",
        "tasks.create: SQLITE_BUSY; try 3",
    ]


@pytest.mark.parametrize("retries", [0, 2])
def test_a_file_that_stays_busy_is_a_lock_timeout_after_the_retries(
    path: Path, stranger: sqlite3.Connection, retries: int
) -> None:
    told: list[Told] = []
    with Store.open(f"sqlite:///{path}", settings=impatient(retries=retries), on_retry=listener(told)) as store:
        with pytest.raises(LockTimeoutError) as caught:
            store.tasks.create(title="x")
        assert (caught.value.code, caught.value.holder) == ("SQLITE_BUSY", "another program")
        assert len(told) == retries
        stranger.execute("ROLLBACK")
        assert titles(store) == []


def test_each_store_that_shares_a_file_is_told(path: Path, stranger: sqlite3.Connection) -> None:
    first: list[Told] = []
    second: list[Told] = []
    url = f"sqlite:///{path}"
    with Store.open(url, settings=impatient(retries=1), on_retry=listener(first)), Store.open(url) as silent:
        with Store.open(url, on_retry=listener(second)) as other, pytest.raises(LockTimeoutError):
            other.tasks.create(title="x")
        stranger.execute("ROLLBACK")
        silent.tasks.create(title="y")
    assert len(first) == len(second) == 1


def test_whoever_waited_in_the_queue_of_writers_is_not_sent_there_again(path: Path) -> None:
    told: list[Told] = []
    settings = impatient(lock_timeout=0.05)
    with Store.open(f"sqlite:///{path}", settings=settings, on_retry=listener(told)) as store:
        with store.transaction(), pytest.raises(LockTimeoutError):
            store.tasks.create(title="x")
        assert told == []


def test_a_transaction_is_not_tried_again_and_run_is(path: Path, stranger: sqlite3.Connection) -> None:
    told: list[Told] = []
    on_retry = listener(told, lambda: stranger.execute("ROLLBACK"))
    with Store.open(f"sqlite:///{path}", settings=impatient(), on_retry=on_retry) as store:
        with pytest.raises(LockTimeoutError), store.transaction():
            pass
        assert told == []
        assert store.run(lambda tx: tx.tasks.create(title="x")).title == "x"
    assert len(told) == 1


def test_run_takes_a_policy_of_its_own(path: Path, stranger: sqlite3.Connection) -> None:
    told: list[Told] = []
    own: list[Told] = []
    policy = RetryPolicy(retries=5, base=0.001, on_retry=listener(own))
    with Store.open(f"sqlite:///{path}", settings=impatient(retries=0), on_retry=listener(told)) as store:
        with pytest.raises(LockTimeoutError):
            store.run(lambda tx: tx.tasks.create(title="x"), retry=policy)
        stranger.execute("ROLLBACK")
    assert ([each[1] for each in own], told) == ([1, 2, 3, 4, 5], [])


def test_the_asynchronous_run_tells_and_logs_like_the_other(
    path: Path, stranger: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Told] = []
    caplog.set_level(logging.WARNING, "agentos_store.retry")

    async def release(tx: Any) -> None:
        await tx.tasks.create(title="x")

    async def go() -> None:
        on_retry = listener(told, lambda: stranger.execute("ROLLBACK"))
        url = f"sqlite:///{path}"
        async with AsyncStore.open(url, settings=impatient(), on_retry=on_retry) as store:
            await store.run(release)

    asyncio.run(go())
    assert [each[:2] for each in told] == [("SQLITE_BUSY", 1)]
    assert [record.getMessage().partition(" follows")[0] for record in caplog.records] == ["run: SQLITE_BUSY; try 2"]
    with open_file(path) as store:
        assert titles(store) == ["x"]
