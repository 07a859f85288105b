"""Writers that are killed: what a call acknowledged is there afterwards, and nothing is in the way of the next."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from tests.engine.gather import PROCESSES, threads

KILLS = int(os.environ.get("AGENTOS_STORE_KILLS", "30"))
WRITERS = 3

Writer = Callable[[str, str, str, Any], None]


def write_until_killed(url: str, task_id: str, name: str, acknowledged: Any) -> None:
    """Record audits, and tell each number after the call has returned."""
    store = Store.open(url)
    number = 0
    while True:
        if number % 5 == 4:
            with store.transaction() as tx:
                tx.audits.record(task_id, event_type=name, payload=number)
                tx.tasks.merge_metadata(task_id, {name: number})
        else:
            store.audits.record(task_id, event_type=name, payload=number)
        acknowledged.send(number)
        number += 1


def acknowledge_too_early(url: str, task_id: str, name: str, acknowledged: Any) -> None:
    """Tell a number before it is committed, as nobody may, and be killed before that."""
    with Store.open(url).transaction() as tx:
        tx.audits.record(task_id, event_type=name, payload=0)
        acknowledged.send(0)
        time.sleep(60)


def kill_writers(url: str, task_id: str, kills: int, write: Writer = write_until_killed) -> dict[str, int]:
    """Keep three writers at work, kill them at random moments; return the last number that each acknowledged."""
    last: dict[str, int] = {}
    running: dict[str, tuple[Any, Any, float]] = {}
    started = 0
    while started < kills or running:
        while started < kills and len(running) < WRITERS:
            name = f"writer-{started}"
            started += 1
            receiver, sender = PROCESSES.Pipe(duplex=False)
            process = PROCESSES.Process(target=write, args=(url, task_id, name, sender), daemon=True)
            process.start()
            sender.close()
            # The clock of its short life runs from its first word.
            running[name] = (process, receiver, 0.0)
        for name, (process, receiver, dies) in list(running.items()):
            while receiver.poll():
                last[name] = receiver.recv()
                if not dies:
                    running[name] = (process, receiver, time.monotonic() + random.uniform(0.0, 0.1))
                    break
            if dies and time.monotonic() > dies:
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                last[name] = max([last[name], *rest(receiver)])
                del running[name]
        time.sleep(0.001)
    return last


def rest(receiver: Any) -> list[int]:
    """Return what was sent before the end; the last message may be cut."""
    numbers = []
    try:
        while receiver.poll():
            numbers.append(receiver.recv())
    except (EOFError, OSError):
        pass
    return numbers


def test_nothing_acknowledged_is_lost_when_writers_are_killed(url: str) -> None:
    with Store.open(url) as store:
        task_id = store.tasks.create(title="t").task_id
    last = kill_writers(url, task_id, KILLS)
    assert len(last) == KILLS
    with Store.open(url) as store:
        # The next writer proceeds, whatever the dead have left.
        store.audits.record(task_id, event_type="after")
        found = stored(store, task_id)
        metadata = store.tasks.get(task_id).metadata_
        verification = store.audits.verify()
    assert not lost(last, found)
    for name, number in last.items():
        # At most one more was stored than acknowledged, and none twice.
        assert found[name] in (list(range(number + 1)), list(range(number + 2)))
        # The two writes of a transaction are both there, or none is.
        assert metadata.get(name, -1) == max((n for n in found[name] if n % 5 == 4), default=-1)
    assert verification.ok
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as raw:
            assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def stored(store: Store, task_id: str) -> dict[str, list[int]]:
    """Return the numbers that are there of each writer."""
    found: dict[str, list[int]] = {}
    for audit in store.audits.iterate(task_id=task_id):
        found.setdefault(audit.event_type, []).append(audit.payload)
    return found


def lost(last: dict[str, int], found: dict[str, list[int]]) -> list[tuple[str, int]]:
    """Return what was acknowledged and is not there."""
    return [(name, n) for name, number in last.items() for n in set(range(number + 1)) - set(found.get(name, []))]


def test_writers_that_acknowledge_before_their_commit_are_found_out(url: str) -> None:
    with Store.open(url) as store:
        task_id = store.tasks.create(title="t").task_id
        last = kill_writers(url, task_id, 3, acknowledge_too_early)
        assert lost(last, stored(store, task_id)) == [(name, 0) for name in last]


# --- read, change, write: the checker and what it has to catch


class Counter:
    """A counter that workers raise by reading it and writing it back."""

    def __init__(self) -> None:
        self.acknowledged = 0

    def add(self, increment: Callable[[], object]) -> None:
        increment()
        self.acknowledged += 1

    def lost(self, final: int) -> int:
        """Return how many acknowledged increments the final value does not show."""
        return self.acknowledged - final


def test_increments_inside_transactions_are_never_lost(store: Store) -> None:
    task_id = store.tasks.create(title="t", metadata={"n": 0}).task_id
    counters = [Counter() for _ in range(8)]

    def increment() -> None:
        def work(tx: Any) -> None:
            # The first statement writes, so the row is locked before it is read.
            task = tx.tasks.merge_metadata(task_id, {})
            tx.tasks.merge_metadata(task_id, {"n": task.metadata_["n"] + 1})

        store.run(work)

    def work(counter: Counter) -> None:
        for _ in range(15):
            counter.add(increment)

    with threads([lambda counter=counter: work(counter) for counter in counters]) as outcomes:  # type: ignore[misc]
        pass
    assert outcomes == [None] * 8
    final = store.tasks.get(task_id).metadata_["n"]
    assert sum(counter.acknowledged for counter in counters) == 120
    assert final == 120


def drivers_own(path: Path) -> tuple[sqlite3.Connection, sqlite3.Connection]:
    first, second = (sqlite3.connect(path, timeout=0) for _ in range(2))
    first.execute("CREATE TABLE counter (n INTEGER)")
    first.execute("INSERT INTO counter VALUES (0)")
    first.commit()
    return first, second


def test_the_checker_catches_the_driver_that_reads_before_its_transaction_begins(tmp_path: Path) -> None:
    """The sqlite3 module begins at the first change, so what was read before is read outside of the transaction."""
    first, second = drivers_own(tmp_path / "x")
    counter = Counter()
    values = [raw.execute("SELECT n FROM counter").fetchone()[0] for raw in (first, second)]
    for raw, value in zip((first, second), values, strict=True):
        raw.execute("UPDATE counter SET n = ?", (value + 1,))
        counter.add(raw.commit)
    assert counter.lost(first.execute("SELECT n FROM counter").fetchone()[0]) == 1
    first.close()
    second.close()


def test_a_deferred_transaction_fails_where_the_queue_waits(tmp_path: Path) -> None:
    first, second = drivers_own(tmp_path / "x")
    first.execute("PRAGMA journal_mode=WAL")
    for raw in (first, second):
        raw.execute("BEGIN")
        raw.execute("SELECT n FROM counter").fetchone()
    first.execute("UPDATE counter SET n = 1")
    first.commit()
    with pytest.raises(sqlite3.OperationalError) as caught:
        second.execute("UPDATE counter SET n = 1")
    # No busy timeout helps: what it has read is out of date.
    assert caught.value.sqlite_errorname == "SQLITE_BUSY_SNAPSHOT"
    first.close()
    second.close()
