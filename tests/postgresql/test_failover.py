"""A primary that is gone, and a standby that takes its place: who repeats sees no error, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agentos_store import AsyncStore, Settings, Store, StoreError, UnavailableError, ensure_migrations
from agentos_store.engine.postgresql.reconnecting import Outage
from agentos_store.testing import PostgresServer
from tests.engine.gather import threads, wait_for
from tests.postgresql.servers import Standby, administration, at, both_hosts, kill, primary, promote, standby

LOAD = float(os.environ.get("AGENTOS_STORE_FAILOVER", "0.2"))
"""Seconds of load before the primary goes, and again when the standby has taken its place."""

WRITERS = 4

log = logging.getLogger("tests.failover")

Pair = tuple[PostgresServer, Standby]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """A primary that acknowledges what the standby has, too, and the standby."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(primary({"synchronous_standby_names": "*", "synchronous_commit": "local"}))
        ensure_migrations(first.url)
        # Not 5 s between two looks for the primary, after the first of which a promotion is noticed.
        second = stack.enter_context(standby(first, {"wal_retrieve_retry_interval": "100ms"}))
        with administration(first) as admin:
            # The standby was not there before; from now on commits wait for it.
            admin.execute("ALTER DATABASE postgres SET synchronous_commit = 'on'")
            wait_for(lambda: admin.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone())  # type: ignore[arg-type,return-value]
        yield first, second


def test_a_write_that_is_refused_because_the_server_only_reads_is_tried_elsewhere(pair: Pair) -> None:
    first, second = pair
    told: list[str | None] = []

    def permit(error: StoreError, attempt: int, wait: float) -> None:
        del attempt, wait
        told.append(getattr(error, "code", None))
        with administration(first) as admin:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute("ALTER DATABASE postgres RESET default_transaction_read_only")

    with (
        Store.open(both_hosts(first, second), settings=Settings.load(retry_base=0.01), on_retry=permit) as store,
        Store.open(first.url) as of_one_host,
        administration(first) as admin,
    ):
        for each in (store, of_one_host):
            each.tasks.create(title="t")
        # What a cluster manager does to a primary that it takes out of service.
        admin.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
        for each in (store, of_one_host):
            with each._backend.raw_connection() as cursor:
                cursor.execute("SET default_transaction_read_only = on")
        with pytest.raises(UnavailableError, match="only accepts reads") as caught:
            of_one_host.tasks.create(title="t")
        assert caught.value.code == "25006"
        store.tasks.create(title="t")
        assert told == ["25006"]
        assert store.tasks.count() == 3


def test_of_several_hosts_the_one_that_takes_writes_is_used(pair: Pair) -> None:
    first, second = pair
    with Store.open(both_hosts(second, first)) as store:
        store.tasks.create(title="t")
    any_host = f"{both_hosts(second, first)}?target_session_attrs=any"
    with Store.open(any_host) as store, pytest.raises(UnavailableError):
        store.tasks.create(title="t")
    with pytest.raises(UnavailableError, match="read-only"):
        Store.open(both_hosts(second, second))
    with pytest.raises(UnavailableError), Store.open(at(second)) as store:
        store.tasks.create(title="t")


# The last of those that need the primary.
def test_a_promotion_under_load_costs_no_error_and_no_acknowledged_write(pair: Pair) -> None:
    first, second = pair
    stop = threading.Event()
    acknowledged: list[str] = []
    pauses: list[float] = []

    def write(store: Store, name: str) -> None:
        number, last = 0, time.monotonic()
        while not stop.is_set():
            key = f"{name}-{number}"
            store.tasks.create(title="t", task_id=key)
            acknowledged.append(key)
            assert store.tasks.update(key, priority=1).version == 2
            number += 1
            now = time.monotonic()
            pauses.append(now - last)
            last = now

    async def write_awaiting() -> None:
        async with AsyncStore.open(both_hosts(first, second)) as store:
            number = 0
            while not stop.is_set():
                await store.tasks.create(title="t", task_id=f"async-{number}")
                acknowledged.append(f"async-{number}")
                number += 1

    with Store.open(both_hosts(first, second)) as store:
        works: list[Any] = [lambda name=f"w{n}": write(store, name) for n in range(WRITERS)]
        with threads([*works, lambda: asyncio.run(write_awaiting())]) as outcomes:
            try:
                time.sleep(LOAD)
                kill(first)
                gone = len(acknowledged)
                promote(second)
                wait_for(lambda: len(acknowledged) > gone + WRITERS)
                time.sleep(LOAD)
            finally:
                stop.set()
        log.info("longest wait of a writer %.2f s", max(pauses))
        assert outcomes == [None] * (WRITERS + 1)
        found = {task.task_id for task in store.tasks.iterate()}
        assert set(acknowledged) <= found
        assert len(acknowledged) == len(set(acknowledged))


def test_an_outage_is_waited_for_once_by_all_together() -> None:
    error = UnavailableError("down")
    outage = Outage(0.05)
    assert outage.wait(0, error)
    assert outage._since is not None
    outage._since -= 0.05
    # Whoever comes now does not wait anew.
    assert not outage.wait(0, error)
    outage.end()
    assert outage.wait(0, error)
    assert not Outage(0.0).wait(0, error)
