"""Through PgBouncer in transaction mode, where no session belongs to a client, all of it holds too."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import psycopg
import pytest

from agentos_store import Settings, Store
from agentos_store.engine.postgresql import listening
from tests.engine.gather import wait_for
from tests.events.bouncer import bouncer
from tests.events.races import faults, follow, race
from tests.events.test_subscription_races import clear
from tests.standing import own_session

RUNS = int(os.environ.get("AGENTOS_STORE_SUBSCRIPTIONS", "2"))


@pytest.fixture
def backend() -> str:
    return "postgresql"


@pytest.fixture
def bounced(url: str) -> Iterator[Store]:
    """A store whose connections all go through PgBouncer, of a version that does not know of prepared statements."""
    with bouncer(url) as through, Store.open(through, settings=Settings.load(prepare_statements=False)) as store:
        yield store


def test_the_sessions_of_a_client_are_not_its_own(url: str) -> None:
    with bouncer(url) as through, psycopg.connect(through, autocommit=True, prepare_threshold=None) as client:
        found = client.execute("SELECT pg_backend_pid()").fetchone()
        assert found is not None
        assert found[0] != client.info.backend_pid


def test_every_event_comes_once_and_in_order_through_pgbouncer(bounced: Store) -> None:
    for seed in range(RUNS):
        got, written = race(bounced, seed, lambda done, seed=seed: follow(bounced, seed, done))  # type: ignore[misc]
        assert faults(bounced, got, written) == [], f"seed {seed}"
        clear(bounced)


def test_what_cannot_listen_looks_more_often(bounced: Store) -> None:
    live = bounced.events.subscribe()
    got: list[object] = []
    thread = threading.Thread(target=lambda: got.extend(event.data for event in live))
    thread.start()
    bounced.events.log("x", data=1)
    wait_for(lambda: got == [1])
    assert bounced._backend.bell.interval == listening.UNLISTENED
    live.close()
    thread.join()


@own_session
def test_who_listens_himself_hears_of_what_comes_through_pgbouncer(bounced: Store, url: str) -> None:
    with Store.open(url) as direct, direct.events.subscribe() as live:
        wait_for(lambda: direct._backend.bell.interval == listening.LISTENED)
        bounced.events.log("x", data=1)
        assert next(live).data == 1
