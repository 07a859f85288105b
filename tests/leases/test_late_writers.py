"""Holders that are paused and killed: nothing that they write too late is stored.

Workers hold leases in turn and write the token into a log, whose order the database gives. A worker that was stopped
for longer than its lease lasted goes on where it was: between its last look at the lease and the write, inside the
transaction, or before its commit. In the log no token may stand behind a greater one.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import time
from itertools import pairwise
from typing import Any

import pytest

from agentos_store import LeaseLostError, LockTimeoutError, Store
from tests.engine.gather import PROCESSES, wait_for

PAUSES = int(os.environ.get("AGENTOS_STORE_PAUSES", "3"))
WORKERS = 3
NAMES = ("agent-1", "agent-2")[: 1 + (PAUSES > 20)]
"""In the long form two leases change hands at once."""
TTL = dt.timedelta(seconds=0.15)
WAIT = dt.timedelta(seconds=0.1)
"""Short, so that it begins again with short pauses."""
STOPPED = 0.25
"""Seconds; longer than a lease lasts."""


def work(url: str, name: str, *, guarded: bool) -> None:
    """Hold the lease again and again, and log its token while it is held."""
    with Store.open(url) as store:
        while True:
            with contextlib.suppress(LeaseLostError, LockTimeoutError):
                hold_once(store, name, guarded=guarded)
            # Else whoever gives a lease back would be the first to ask for it.
            time.sleep(0.05)


def hold_once(store: Store, name: str, *, guarded: bool) -> None:
    with store.leases.hold(name, owner=str(os.getpid()), ttl=TTL, wait=WAIT) as lease:
        for _ in range(10):
            if lease.is_lost:
                return
            time.sleep(0.01)
            with store.transaction() as tx:
                if guarded:
                    tx.leases.guard(lease)
                    time.sleep(0.002)
                tx.audits.record(name, event_type="wrote", payload=lease.token)


def late_writes(store: Store) -> int:
    """Return how many tokens stand in the log right behind a greater one."""
    late = 0
    for name in NAMES:
        entries = sorted(store.audits.iterate(task_id=name), key=lambda entry: entry.audit_id)
        tokens = [entry.payload for entry in entries]
        late += sum(before > after for before, after in pairwise(tokens))
    return late


class Workers:
    """Processes that compete for the leases."""

    def __init__(self, url: str, *, guarded: bool) -> None:
        self._url = url
        self._guarded = guarded
        self._running: dict[int, tuple[str, Any]] = {}
        for name in NAMES:
            for _ in range(WORKERS):
                self.start(name)

    def start(self, name: str) -> None:
        process = PROCESSES.Process(target=work, args=(self._url, name), kwargs={"guarded": self._guarded}, daemon=True)
        process.start()
        assert process.pid is not None
        self._running[process.pid] = name, process

    def holder(self, store: Store, name: str) -> int:
        """Return the process that holds the lease."""
        found: list[int] = []

        def look() -> bool:
            lease = store.leases.find(name)
            if lease is not None and int(str(lease.owner)) in self._running:
                found.append(int(str(lease.owner)))
            return bool(found)

        wait_for(look)
        return found[0]

    def pause(self, store: Store) -> None:
        """Stop the holders for longer than a lease lasts."""
        stopped = [self.holder(store, name) for name in NAMES]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(STOPPED)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)

    def kill(self, pid: int) -> None:
        """End it at once, and let another one start in its place."""
        name, process = self._running.pop(pid)
        os.kill(pid, signal.SIGKILL)
        process.join()
        self.start(name)

    def end(self) -> None:
        for _, process in self._running.values():
            process.kill()
            process.join()


@contextlib.contextmanager
def workers(store: Store, url: str, *, guarded: bool) -> Any:
    for name in NAMES:
        store.tasks.create(task_id=name, title=name)
    running = Workers(url, guarded=guarded)
    try:
        yield running
    finally:
        running.end()


def test_no_holder_that_was_paused_or_killed_writes_too_late(store: Store, url: str) -> None:
    with workers(store, url, guarded=True) as running:
        for number in range(PAUSES):
            if number % 3 < 2:
                running.pause(store)
            else:
                for name in NAMES:
                    running.kill(running.holder(store, name))
        # Each lease goes on from hand to hand.
        for name in NAMES:
            pid = running.holder(store, name)
            wait_for(lambda name=name, pid=pid: running.holder(store, name) != pid)  # type: ignore[misc]
        wait_for(lambda: store.audits.count() > PAUSES)
    assert late_writes(store) == 0
    assert store.audits.verify().ok


def test_without_the_guard_the_same_holders_write_too_late(store: Store, url: str) -> None:
    with workers(store, url, guarded=False) as running:
        for _ in range(100):
            running.pause(store)
            if late_writes(store):
                break
    assert late_writes(store) > 0


def stopped_holder(url: str, at: str, guarded: bool, told: Any) -> None:
    """Stop itself at one place, and tell how the write ended."""
    with Store.open(url) as store:
        lease = store.leases.acquire(NAMES[0], ttl=TTL)

        def stop(here: str) -> None:
            if here == at:
                told.send(lease.token)
                os.kill(os.getpid(), signal.SIGSTOP)

        try:
            stop("before the transaction")
            with store.transaction() as tx:
                if guarded:
                    tx.leases.guard(lease)
                stop("in the transaction")
                tx.audits.record(NAMES[0], event_type="wrote", payload=lease.token)
                stop("before the commit")
        except LeaseLostError:
            told.send("lost")
        else:
            told.send("written")


@pytest.mark.parametrize("at", ["before the transaction", "in the transaction", "before the commit"])
def test_a_holder_that_was_stopped_is_refused_or_is_through_before_the_next(store: Store, url: str, at: str) -> None:
    store.tasks.create(task_id=NAMES[0], title="t")
    receiver, sender = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=stopped_holder, args=(url, at, True, sender), daemon=True)
    process.start()
    sender.close()
    assert receiver.recv() == 1
    wait_for(lambda: store.leases.find(NAMES[0]) is None)
    if at == "before the transaction":
        with store.leases.hold(NAMES[0], ttl=TTL, wait=dt.timedelta(seconds=5)) as lease, store.transaction() as tx:
            tx.leases.guard(lease)
            tx.audits.record(NAMES[0], event_type="wrote", payload=lease.token)
        os.kill(process.pid or 0, signal.SIGCONT)
        assert receiver.recv() == "lost"
    elif store.capabilities.row_locks:
        assert store.leases.try_acquire(NAMES[0], ttl=TTL) is None
        os.kill(process.pid or 0, signal.SIGCONT)
        assert receiver.recv() == "written"
    else:
        os.kill(process.pid or 0, signal.SIGCONT)
        assert receiver.recv() == "written"
    process.join()
    assert store.leases.acquire(NAMES[0], ttl=TTL, wait=dt.timedelta(seconds=5)).token > 1
    assert late_writes(store) == 0
