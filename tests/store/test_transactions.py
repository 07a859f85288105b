"""Explicit transactions, the same on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import Settings, Store
from agentos_store.errors import AlreadyExistsError, LockTimeoutError, NotFoundError, UsageError


def elsewhere(work: Callable[[], Any]) -> Any:
    """Do the work in a thread of its own and return what it returns."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join(20)
    return results[0]


def test_several_operations_are_stored_together(store: Store) -> None:
    with store.transaction() as tx:
        task = tx.tasks.create(title="x")
        tx.audits.record(task.task_id, event_type="a")
        assert store.tasks.count() == 0
        assert tx.tasks.count() == 1
    assert (store.tasks.count(), store.audits.count()) == (1, 1)


def create_and_raise(store: Store, error: type[BaseException]) -> None:
    with store.transaction() as tx:
        tx.tasks.create(title="x")
        raise error


def test_an_error_that_leaves_the_block_rolls_back(store: Store) -> None:
    with pytest.raises(ZeroDivisionError):
        create_and_raise(store, ZeroDivisionError)
    assert store.tasks.count() == 0
    assert store.tasks.create(title="y").title == "y"


@pytest.mark.parametrize("exit_", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interrupt_that_leaves_the_block_rolls_back(store: Store, exit_: type[BaseException]) -> None:
    with pytest.raises(exit_):
        create_and_raise(store, exit_)
    assert store.tasks.count() == 0
    assert store.tasks.create(title="y").title == "y"


def test_a_transaction_that_is_dropped_ends(store: Store) -> None:
    left = store.transaction()
    left.__enter__().tasks.create(title="x")
    del left
    assert store.tasks.create(title="y").title == "y"
    assert store.tasks.count() == 1


def test_a_transaction_belongs_to_no_thread(store: Store) -> None:
    block = store.transaction()
    tx = elsewhere(block.__enter__)
    task = elsewhere(lambda: tx.tasks.create(title="x"))
    elsewhere(lambda: tx.audits.record(task.task_id, event_type="a"))
    assert elsewhere(lambda: block.__exit__(None, None, None)) is False
    assert (store.tasks.count(), store.audits.count()) == (1, 1)


def test_operations_of_several_threads_in_one_transaction_come_one_after_another(store: Store) -> None:
    with store.transaction() as tx:
        task = tx.tasks.create(title="x")
        running = [
            threading.Thread(target=lambda: [tx.audits.record(task.task_id, event_type="a") for _ in range(10)])
            for _ in range(4)
        ]
        for each in running:
            each.start()
        for each in running:
            each.join()
    assert store.audits.count() == 40
    assert store.audits.verify().ok


def test_an_operation_that_fails_leaves_nothing_and_the_transaction_goes_on(store: Store) -> None:
    with store.transaction() as tx:
        first = tx.tasks.create(title="first")
        with pytest.raises(AlreadyExistsError):
            tx.tasks.create(title="again", task_id=first.task_id)
        with pytest.raises(NotFoundError):
            tx.tasks.create(title="orphan", project_id="nowhere")
        with pytest.raises(NotFoundError):
            tx.tasks.get("nowhere")
        tx.tasks.create(title="second")
    assert [task.title for task in store.tasks.iterate()] == ["first", "second"]


def test_a_transaction_that_has_ended_takes_no_more_operations(store: Store) -> None:
    with store.transaction() as tx:
        tx.tasks.create(title="x")
    with pytest.raises(UsageError):
        tx.tasks.create(title="y")
    with pytest.raises(UsageError):
        tx.tasks.count()
    assert store.tasks.count() == 1


def test_a_reading_transaction_refuses_every_writing_operation(store: Store) -> None:
    task = store.tasks.create(title="x")
    with store.transaction(read_only=True) as tx:
        writes: list[Callable[[], Any]] = [
            lambda: tx.tasks.create(title="y"),
            # Neither would change anything; they are refused for what they are.
            lambda: tx.tasks.merge_metadata("nowhere", {}),
            lambda: tx.tasks.transition(task.task_id, "created"),
        ]
        for write in writes:
            with pytest.raises(UsageError):
                write()
        assert tx.tasks.count() == 1


def test_a_reading_transaction_sees_one_moment_and_keeps_nobody_waiting(store: Store) -> None:
    with store.transaction(read_only=True) as tx:
        assert tx.tasks.count() == 0
        store.tasks.create(title="x")
        assert tx.tasks.count() == 0
    assert store.tasks.count() == 1


def test_a_function_that_is_run_is_committed_once_and_returns_its_result(store: Store) -> None:
    assert store.run(lambda tx: tx.tasks.create(title="x")).title == "x"
    assert store.tasks.count() == 1


def test_a_closed_store_refuses_operations(url: str) -> None:
    store = Store.open(url)
    store.close()
    store.close()
    with pytest.raises(UsageError):
        store.tasks.count()
    with pytest.raises(UsageError), store.transaction():
        pass


def test_a_row_that_another_transaction_holds_is_waited_for_no_longer_than_the_limit(url: str) -> None:
    settings = Settings.load(lock_timeout=0.3, retries=0)
    with Store.open(url, settings=settings) as store:
        task = store.tasks.create(title="x")
        with store.transaction() as tx:
            tx.tasks.update(task.task_id, title="y")
            with pytest.raises(LockTimeoutError):
                store.tasks.update(task.task_id, title="z")
        assert store.tasks.update(task.task_id, priority=1).title == "y"
