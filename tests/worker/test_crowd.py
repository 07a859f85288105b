"""Many workers on one queue, some of which die: by the audits each task is completed once and held by one at a time."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from agentos_store import Store
from agentos_store.models import Task
from agentos_store.tasks.backoff import Backoff
from agentos_store.worker import Retry, WorkContext, Worker
from tests.engine.gather import PROCESSES

TASKS = int(os.environ.get("AGENTOS_STORE_TEST_TASKS", "160"))
"""How many the crowd goes through; a long run takes 5,000."""


def handle_one(_: Task, context: WorkContext) -> str:
    context.check()
    return context.by


def work(url: str, name: str, lease: float, ready: Any) -> None:
    """Be a process of four working threads."""
    with Store.open(url) as store:
        ready.send(name)
        poll = dt.timedelta(milliseconds=50)
        Worker(store, handle_one, by=name, concurrency=4, lease=dt.timedelta(seconds=lease), poll=poll).run()


class Crowd:
    """Processes of four working threads each."""

    def __init__(self, url: str, lease: float) -> None:
        self._url = url
        self._lease = lease
        self._alive: dict[str, Any] = {}
        self._started = 0

    def start(self, count: int) -> None:
        answers = []
        for _ in range(count):
            name = f"p{self._started:02}"
            self._started += 1
            receiver, sender = PROCESSES.Pipe(duplex=False)
            process = PROCESSES.Process(target=work, args=(self._url, name, self._lease, sender), daemon=True)
            process.start()
            sender.close()
            self._alive[name] = process
            answers.append(receiver)
        for receiver in answers:
            assert receiver.poll(60)
            receiver.recv()
            receiver.close()

    def end(self, number: signal.Signals) -> str:
        """Send the one that lives longest a signal, and wait for its end."""
        name = min(self._alive)
        process = self._alive.pop(name)
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode == (-number if number is signal.SIGKILL else 0)
        return name

    def close(self) -> None:
        for process in self._alive.values():
            process.kill()
            process.join()


@contextlib.contextmanager
def crowd(url: str, count: int, lease: float) -> Iterator[Crowd]:
    made = Crowd(url, lease)
    try:
        made.start(count)
        yield made
    finally:
        made.close()


def fill(store: Store, count: int) -> None:
    for start in range(0, count, 500):
        with store.transaction() as tx:
            for number in range(start, min(start + 500, count)):
                tx.tasks.create(
                    title="t", task_id=f"t{number:05}", enqueue=True, priority=number % 3, max_attempts=1000
                )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60 + TASKS / 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def assert_each_done_once(store: Store, count: int) -> int:
    """Return how many claims did not come to their end, after looking at every step of every task."""
    assert store.tasks.count(status="completed") == store.tasks.count() == count
    assert store.tasks.count(status="running") == 0
    verification = store.audits.verify()
    assert verification.ok
    unfinished = 0
    entries = sorted(store.audits.iterate(event_type="task.transition"), key=lambda each: (each.task_id, each.audit_id))
    chains = {key: [entry.payload for entry in some] for key, some in groupby(entries, lambda each: each.task_id)}
    assert len(chains) == count
    for task_id, steps in chains.items():
        # In the order of the chain nobody claims what another one holds, and what ends a claim is its holder's.
        status, token = "pending", 0
        for step in steps:
            assert step["from"] == status, (task_id, steps)
            status = step["to"]
            if status == "running":
                assert step["token"] == token + 1, (task_id, steps)
                token = step["token"]
                by = step["by"]
            else:
                assert step["token"] == token, (task_id, steps)
                assert step.get("by", by) == by, (task_id, steps)
                unfinished += status == "pending"
        assert [step["to"] for step in steps].count("completed") == 1
        assert status == "completed"
        assert store.tasks.get(task_id).result == by
    return unfinished


def test_sixteen_workers_of_which_some_are_killed_complete_each_task_once(store: Store, url: str) -> None:
    fill(store, TASKS)
    with crowd(url, 4, lease=1) as workers:
        for share in (0.25, 0.5):
            wait_until(lambda share=share: store.tasks.count(status="completed") >= share * TASKS)  # type: ignore[misc]
            workers.end(signal.SIGKILL)
            workers.start(1)
        wait_until(lambda: store.tasks.count(status="completed") == TASKS)
        for _ in range(4):
            workers.end(signal.SIGTERM)
    assert_each_done_once(store, TASKS)


def test_a_worker_that_is_told_to_stop_under_load_leaves_nothing_claimed(store: Store, url: str) -> None:
    fill(store, TASKS)
    # Nobody could take what was left claimed: the lease is longer than the test.
    with crowd(url, 2, lease=600) as workers:
        for share in (0.2, 0.5):
            wait_until(lambda share=share: store.tasks.count(status="completed") >= share * TASKS)  # type: ignore[misc]
            name = workers.end(signal.SIGTERM)
            held = [task for task in store.tasks.iterate(status="running") if task.claimed_by == name]
            assert held == []
            workers.start(1)
        wait_until(lambda: store.tasks.count(status="completed") == TASKS)
        for _ in range(2):
            workers.end(signal.SIGTERM)
    assert_each_done_once(store, TASKS)


def test_sixteen_threads_whose_handlers_fail_now_and_then_complete_each_task_once(store: Store) -> None:
    fill(store, TASKS)
    chance = random.Random(7)

    def handle(task: Task, context: WorkContext) -> str:
        if chance.random() < 0.1:
            raise Retry(after=dt.timedelta(0))
        if chance.random() < 0.1:
            raise ValueError(task.task_id)
        return context.by

    worker = Worker(
        store,
        handle,
        by="w",
        concurrency=16,
        poll=dt.timedelta(milliseconds=20),
        backoff=Backoff(base=dt.timedelta(0)),
    )

    def watch() -> None:
        wait_until(lambda: store.tasks.count(status="completed") == TASKS)
        worker.stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    worker.run(signals=False)
    watcher.join()
    assert assert_each_done_once(store, TASKS) > 0
