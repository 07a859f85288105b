"""Reads on a replica see what the store wrote, and what must be of this moment is asked of the primary."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from agentos_store import AsyncStore, InvalidValueError, Settings, Store, ensure_migrations
from agentos_store.engine.postgresql import replica
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.operation import Blocking, F, Repository, reads, reads_together
from agentos_store.testing import PostgresServer
from tests.engine.gather import threads
from tests.postgresql.conftest import Proxy
from tests.postgresql.servers import Standby, both_hosts, primary, reload_with, standby

READS = int(os.environ.get("AGENTOS_STORE_REPLICA_READS", "500"))

Pair = tuple[PostgresServer, Standby]

_IS_STANDBY: Statement[Any] = Statement(select(func.pg_is_in_recovery()))


class Server(Repository[F]):
    """Tells who answers."""

    name = "server"

    @reads
    def is_standby(self, session: Session) -> bool:
        return bool(session.all(_IS_STANDBY)[0][0])

    @reads_together
    def is_standby_for_long(self, session: Session) -> bool:
        return bool(session.all(_IS_STANDBY)[0][0])


class Current(Server[F]):
    """Only what is so at this moment is of use."""

    may_lag = False


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with primary() as first:
        ensure_migrations(first.url)
        with standby(first) as second:
            yield first, second


@contextlib.contextmanager
def opened(first: PostgresServer, read_url: str, **settings: Any) -> Iterator[Store]:
    with Store.open(first.url, settings=Settings.load(read_url=read_url, **settings)) as store:
        yield store


@contextlib.contextmanager
def late(second: Standby, delay: str) -> Iterator[None]:
    """Let the replica replay commits later."""
    reload_with(second, recovery_min_apply_delay=delay)
    try:
        yield
    finally:
        reload_with(second, recovery_min_apply_delay="0")


def stale_reads(store: Store, count: int) -> int:
    return sum(not store.tasks.exists(store.tasks.create(title="t").task_id) for _ in range(count))


def test_no_read_behind_a_write_is_stale(pair: Pair) -> None:
    first, second = pair
    with opened(first, second.url, read_wait=5) as store:
        assert stale_reads(store, READS) == 0
        assert store.bind(Server[Blocking]).is_standby()
        assert store.bind(Server[Blocking]).is_standby_for_long()
        before = store.tasks.count()

        def work() -> int:
            return stale_reads(store, READS // 20)

        with threads([work] * 4) as outcomes:
            pass
        assert outcomes == [0] * 4
        assert store.tasks.count() == before + READS // 20 * 4
    with opened(first, second.url, read_wait=5) as store:
        # What was there before a store was opened is seen, too.
        assert store.tasks.count() == before + READS // 20 * 4


def test_without_waiting_reads_would_be_stale(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = pair
    with late(second, "20ms"), opened(first, second.url, read_wait=5) as store:
        assert stale_reads(store, 5) == 0
        assert store.bind(Server[Blocking]).is_standby()
        monkeypatch.setattr(replica.Replica, "_has_seen", lambda *_: True)
        assert stale_reads(store, 5) > 0


def test_a_transaction_of_this_store_is_seen_behind_its_commit(pair: Pair) -> None:
    first, second = pair
    with opened(first, second.url, read_wait=5) as store:
        for _ in range(20):
            with store.transaction() as tx:
                key = tx.tasks.create(title="t").task_id
                assert tx.tasks.exists(key)
                assert not tx.bind(Server[Blocking]).is_standby()
            assert store.tasks.exists(key)


def test_a_replica_that_lags_for_too_long_leaves_the_read_to_the_primary(pair: Pair) -> None:
    first, second = pair
    with late(second, "1h"), opened(first, second.url, read_wait=0.01) as store:
        assert stale_reads(store, 3) == 0
        assert not store.bind(Server[Blocking]).is_standby()


def test_what_must_be_of_this_moment_is_asked_of_the_primary(pair: Pair) -> None:
    first, second = pair
    ttl = dt.timedelta(minutes=1)
    with (
        late(second, "1h"),
        opened(first, second.url, read_wait=0.01) as store,
        Store.open(first.url) as other,
        store.events.subscribe() as live,
    ):
        assert not store.bind(Current[Blocking]).is_standby()
        other.leases.acquire("agent-1", ttl=ttl)
        assert store.leases.exists("agent-1")
        other.leases.release(other.leases.get("agent-1"))
        assert not store.leases.exists("agent-1")
        other.events.log("x", data=1)
        assert next(live).data == 1
        task = other.tasks.create(title="t", enqueue=True)
        claimed = store.tasks.claim(by="w", lease=ttl)
        assert claimed is not None
        assert claimed.task_id == task.task_id


def test_the_other_face_sees_its_own_writes_too(pair: Pair) -> None:
    first, second = pair

    async def work() -> None:
        settings = Settings.load(read_url=second.url, read_wait=5)
        async with AsyncStore.open(first.url, settings=settings) as store:
            for _ in range(20):
                task = await store.tasks.create(title="t")
                assert await store.tasks.exists(task.task_id)

    asyncio.run(work())


def test_a_replica_that_is_down_leaves_the_reads_to_the_primary_until_it_is_back(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    directory = Path(tempfile.mkdtemp(prefix="agentos-proxy-"))
    near = f"postgresql://postgres@/postgres?host={directory}"
    try:
        before = Proxy(f"{second.directory}/.s.PGSQL.5432", directory)
        with caplog.at_level(logging.WARNING, "agentos_store"), opened(first, near, read_wait=5) as store:
            server = store.bind(Server[Blocking])
            assert server.is_standby()
            before.close()
            (directory / ".s.PGSQL.5432").unlink()
            assert [server.is_standby() for _ in range(5)] == [False] * 5
            after = Proxy(f"{second.directory}/.s.PGSQL.5432", directory)
            # It is left alone for a while.
            assert not server.is_standby()
            monkeypatch.setattr(store._backend._replica, "_away_until", 0.001)  # type: ignore[attr-defined]
            assert server.is_standby()
            after.close()
        told = [record.message for record in caplog.records if record.name == "agentos_store.replica"]
        assert len(told) == 2
        assert "reads go to the primary" in told[0]
        assert "answers again" in told[1]
        (directory / ".s.PGSQL.5432").unlink()
        with opened(first, near) as store:
            assert not store.bind(Server[Blocking]).is_standby()
    finally:
        shutil.rmtree(directory)


def test_of_several_replicas_a_standby_goes_before_the_primary(pair: Pair) -> None:
    first, second = pair
    with opened(first, both_hosts(first, second), read_wait=5) as store:
        assert store.bind(Server[Blocking]).is_standby()


def test_another_database_is_no_replica(pair: Pair, url: str) -> None:
    with (
        pytest.raises(InvalidValueError, match="DATABASE_READ_URL: is no replica of this database"),
        opened(pair[0], url),
    ):
        pass


def test_the_replica_of_one_database_is_not_asked_about_another(
    pair: Pair, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, second = pair
    monkeypatch.setenv("DATABASE_URL", first.url)
    monkeypatch.setenv("DATABASE_READ_URL", second.url)
    with Store.open() as store:
        assert store.bind(Server[Blocking]).is_standby()
    with Store.open(url) as store:
        assert not store.bind(Server[Blocking]).is_standby()
    with Store.open(f"sqlite:///{tmp_path}/registry.sqlite") as store:
        assert store.tasks.count() == 0
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/registry.sqlite")
    with pytest.raises(InvalidValueError, match="an SQLite file has no replica"):
        Store.open()


def test_a_standby_is_told_from_a_server_that_takes_writes(pair: Pair) -> None:
    _, second = pair
    with Store.open(second.url) as store:
        found = store.health_check(20)
    assert (found.ok, found.connected, found.writable) == (False, True, False)
    assert found.problems == ("not writable: the server is a standby",)
