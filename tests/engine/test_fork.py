"""Forked children use the store of their parent at once, and neither disturbs the other."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.errors import UsageError
from tests.engine.gather import wait_for

# From 3.12 on Python warns of a fork while there are threads; that it works is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


def in_child(work: Callable[[], Any]) -> Callable[[], None]:
    """Do the work in a forked child; return a function that waits for its success."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)

    def wait() -> None:
        status: list[int] = []

        def ended() -> bool:
            pid, found = os.waitpid(child, os.WNOHANG)
            if pid:
                status.append(found)
            return bool(pid)

        wait_for(ended)
        assert os.waitstatus_to_exitcode(status[0]) == 0

    return wait


def write(store: Store, kind: str, count: int = 20) -> None:
    for _ in range(count):
        task = store.tasks.create(title="x", task_type=kind)
        assert store.tasks.get(task.task_id).title == "x"


def test_a_forked_child_uses_the_store_of_its_parent_at_once(store: Store) -> None:
    write(store, "parent", 1)
    children = [in_child(lambda n=n: write(store, f"child-{n}")) for n in range(3)]  # type: ignore[misc]
    write(store, "parent", 19)
    for wait in children:
        wait()
    found = [store.tasks.count(task_type=kind) for kind in ("parent", "child-0", "child-1", "child-2")]
    assert found == [20] * 4


def test_a_child_closes_the_store_without_harm_to_its_parent(store: Store) -> None:
    write(store, "parent", 1)

    def work() -> None:
        write(store, "child")
        store.close()

    in_child(work)()
    write(store, "parent", 19)
    assert store.tasks.count() == 40


def test_threads_that_write_during_the_fork_disturb_neither_side(store: Store) -> None:
    stop = threading.Event()
    written: list[int] = []

    def go_on() -> None:
        while not stop.is_set():
            write(store, "thread", 1)
            written.append(1)

    running = [threading.Thread(target=go_on) for _ in range(3)]
    for each in running:
        each.start()
    try:
        for _ in range(5):
            in_child(lambda: write(store, "child", 5))()
    finally:
        stop.set()
        for each in running:
            each.join()
    assert store.tasks.count(task_type="child") == 25
    assert store.tasks.count(task_type="thread") == len(written)


def test_a_transaction_that_is_open_during_the_fork_stays_the_parents(store: Store) -> None:
    def work() -> None:
        with pytest.raises(UsageError):
            tx.tasks.create(title="x")
        # What the parent has not committed is not there; its lock holds for the child as for anybody.
        assert store.tasks.count() == 0

    with store.transaction() as tx:
        tx.tasks.create(title="x", task_type="parent")
        in_child(work)()
        tx.tasks.create(title="x", task_type="parent")
    assert store.tasks.count() == 2


def test_a_child_writes_when_the_parents_transaction_has_ended(store: Store) -> None:
    with store.transaction() as tx:
        tx.tasks.create(title="x", task_type="parent")
        wait = in_child(lambda: write(store, "child"))
        tx.tasks.create(title="x", task_type="parent")
    wait()
    assert [store.tasks.count(task_type=kind) for kind in ("parent", "child")] == [2, 20]


def test_a_child_that_leaves_the_block_of_an_inherited_transaction_commits_nothing(store: Store) -> None:
    refused = False
    parent = os.getpid()
    try:
        with store.transaction() as tx:
            tx.tasks.create(title="x")
            child = os.fork()
    except UsageError:
        refused = True
    finally:
        if os.getpid() != parent:
            os._exit(0 if refused else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.tasks.count() == 1


def test_a_snapshot_that_is_open_during_the_fork_stays_the_parents(store: Store) -> None:
    write(store, "parent", 1)
    with store.transaction(read_only=True) as tx:
        assert tx.tasks.count() == 1
        in_child(lambda: write(store, "child", 1))()
        assert tx.tasks.count() == 1
    assert store.tasks.count() == 2
