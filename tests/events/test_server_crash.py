"""After a crash a server gives the numbers of transactions again that wrote nothing; no subscriber misses an event."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any

import psycopg
import pytest

from agentos_store import Settings, Store, ensure_migrations
from agentos_store.testing import PostgresServer
from agentos_store.testing.postgres import URL_VARIABLE, connect
from tests.engine.gather import wait_for


def this_transaction(url: str) -> int:
    """Return the number of a new transaction, as soon as the server gives one."""
    found: list[int] = []

    def ask() -> bool:
        with contextlib.suppress(psycopg.Error), contextlib.closing(connect(url)) as raw:
            found.extend(raw.execute("SELECT txid_current()").fetchone() or ())
        return bool(found)

    wait_for(ask)
    return found[0]


@pytest.mark.skipif(URL_VARIABLE in os.environ, reason="a server that belongs to somebody else is not killed")
def test_numbers_that_are_given_again_hide_no_event() -> None:
    with PostgresServer() as server:
        ensure_migrations(server.url)
        with Store.open(server.url, settings=Settings.load(retries=20)) as store:
            got: list[Any] = []
            live = store.events.subscribe(agent_id="a")
            following = threading.Thread(target=lambda: got.extend(event.data for event in live))
            following.start()
            for n in range(3):
                store.events.log("x", agent_id="a", data=n)
                bookmark = store.events.subscribe(agent_id="a").bookmark
                wait_for(lambda n=n: got == [*range(n + 1)])  # type: ignore[misc]
                with contextlib.closing(connect(server.url)) as raw:
                    for _ in range(100):
                        raw.execute("SELECT txid_current()")
                    before = this_transaction(server.url)
                    os.kill(raw.info.backend_pid, signal.SIGKILL)
                # It may let somebody in before it knows of the crash.
                wait_for(lambda before=before: this_transaction(server.url) < before)  # type: ignore[misc]
            store.events.log("x", agent_id="a", data=3)
            wait_for(lambda: got == [0, 1, 2, 3])
            assert [event.data for event in store.events.subscribe(bookmark, agent_id="a", timeout=0)] == [3]
            live.close()
            following.join(20)
    assert not following.is_alive()
