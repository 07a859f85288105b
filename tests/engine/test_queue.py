"""One queue of writers for a file: what happens in a group, and how long anybody waits."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.errors import (
    ConflictError,
    LockTimeoutError,
    NotFoundError,
    UsageError,
)
from tests.engine.gather import PROCESSES, one_group, open_file, threads, titles
from tests.engine.probe import attempts, break_a_check, fail, probe


def test_jobs_that_meet_in_the_queue_are_committed_together(sqlite: Store, path: Path) -> None:
    work = probe(sqlite)
    changes: list[int] = []

    def look(_: Session) -> None:
        with contextlib.closing(sqlite3.connect(path)) as stranger:
            changes.append(stranger.execute("SELECT count(*) FROM tasks").fetchone()[0])

    with one_group(sqlite, [lambda n=n: work.create(f"{n}", look) for n in range(5)]):  # type: ignore[misc]
        pass
    assert changes == [0] * 5
    assert titles(sqlite) == ["0", "1", "2", "3", "4"]


def test_a_failure_before_any_change_costs_the_others_nothing(sqlite: Store) -> None:
    work = probe(sqlite)
    works = [lambda: work.create("a"), lambda: sqlite.tasks.update("unknown", title="x"), lambda: work.create("b")]
    with one_group(sqlite, works) as outcomes:
        assert isinstance(outcomes[1], NotFoundError)
    assert titles(sqlite) == ["a", "b"]
    assert work.runs == 2


def test_a_failure_after_a_change_leaves_the_others_committed_and_runs_them_again(sqlite: Store) -> None:
    work = probe(sqlite)
    works = [lambda: work.create("a"), lambda: work.create("lost", fail), lambda: work.create("b")]
    with one_group(sqlite, works) as outcomes:
        assert isinstance(outcomes[1], ZeroDivisionError)
        assert [outcomes[0].title, outcomes[2].title] == ["a", "b"]
    assert titles(sqlite) == ["a", "b"]
    # The first two ran, then all three.
    assert work.runs == 5


def test_a_body_that_ran_twice_has_one_effect_and_returns_the_key_that_is_stored(sqlite: Store) -> None:
    work = probe(sqlite)
    with one_group(sqlite, [lambda: work.create("a"), lambda: work.create("lost", fail)]) as outcomes:
        assert sqlite.tasks.get(outcomes[0].task_id).title == "a"
    assert sqlite.tasks.count() == 1


def test_a_constraint_that_refuses_one_job_leaves_the_others_committed(sqlite: Store) -> None:
    work = probe(sqlite)
    works = [lambda: work.create("a"), lambda: work.create("lost", break_a_check), lambda: work.create("b")]
    with one_group(sqlite, works) as outcomes:
        assert isinstance(outcomes[1], ConflictError)
    assert titles(sqlite) == ["a", "b"]


def test_half_of_a_statement_for_many_rows_is_not_committed_with_the_others(sqlite: Store) -> None:
    work = probe(sqlite)
    task = sqlite.tasks.create(title="a")
    works = [lambda: work.create("b"), lambda: work.do(attempts(7, -1)), lambda: work.create("c")]
    with one_group(sqlite, works) as outcomes:
        assert isinstance(outcomes[1], ConflictError)
    assert sqlite.tasks.get(task.task_id).attempts == 0
    assert titles(sqlite) == ["a", "b", "c"]


def test_every_job_of_a_group_may_fail(sqlite: Store) -> None:
    work = probe(sqlite)
    with one_group(sqlite, [lambda n=n: work.create(f"{n}", fail) for n in range(4)]) as outcomes:  # type: ignore[misc]
        assert all(isinstance(each, ZeroDivisionError) for each in outcomes)
        assert len({id(each) for each in outcomes}) == 4
    assert titles(sqlite) == []
    assert sqlite.tasks.create(title="after").title == "after"


def test_the_traceback_of_an_error_does_not_lead_to_the_jobs_of_others(sqlite: Store) -> None:
    work = probe(sqlite)
    with one_group(sqlite, [lambda: work.create("a"), lambda: work.create("lost", fail)]) as outcomes:
        trace, functions = outcomes[1].__traceback__, []
        while trace is not None:
            functions.append(trace.tb_frame.f_code.co_name)
            trace = trace.tb_next
    assert "fail" in functions
    assert not {"_lead", "_attempt", "_rerun"} & set(functions)


def test_an_explicit_transaction_is_no_part_of_a_group(sqlite: Store) -> None:
    work = probe(sqlite)

    def transaction() -> str:
        with sqlite.transaction() as tx:
            return f"saw {tx.tasks.count()}"

    works = [lambda: work.create("a"), transaction, lambda: work.create("b")]
    with one_group(sqlite, works) as outcomes:
        assert outcomes[1] == "saw 1"


# --- limits


def test_a_write_behind_a_transaction_ends_with_the_name_of_its_holder(sqlite: Store) -> None:
    with sqlite.transaction() as tx:
        tx.tasks.create(title="kept")
        with pytest.raises(LockTimeoutError) as caught:
            sqlite.tasks.create(title="refused")
        assert caught.value.holder is not None
        assert caught.value.holder.startswith("a transaction of thread MainThread for 1.")
    assert titles(sqlite) == ["kept"]


def test_a_transaction_behind_a_transaction_ends_with_the_name_of_its_holder(sqlite: Store) -> None:
    with sqlite.transaction(), pytest.raises(LockTimeoutError) as caught, sqlite.transaction():
        pass
    assert "a transaction of thread" in str(caught.value.holder)


def test_a_stranger_that_holds_the_file_ends_the_wait_with_a_lock_timeout(path: Path) -> None:
    with open_file(path, busy_timeout=0.2) as store:
        stranger = sqlite3.connect(path, isolation_level=None)
        stranger.execute("BEGIN IMMEDIATE")
        with pytest.raises(LockTimeoutError) as caught:
            store.tasks.create(title="x")
        assert caught.value.holder == "another program"
        assert caught.value.waited > 0.1
        stranger.execute("ROLLBACK")
        stranger.close()
        assert store.tasks.create(title="y").title == "y"


def test_a_write_that_waited_too_long_is_not_stored_afterwards(path: Path) -> None:
    with open_file(path, lock_timeout=0.002) as store:

        def work(thread: int) -> set[str]:
            acknowledged = set()
            for n in range(100):
                with contextlib.suppress(LockTimeoutError):
                    acknowledged.add(store.tasks.create(title=f"{thread}-{n}").title)
            return acknowledged

        with threads([lambda n=n: work(n) for n in range(12)]) as outcomes:  # type: ignore[misc]
            pass
        assert set(titles(store)) == set().union(*outcomes)
    # Closing may have met a writer, too; the next one is not in its way.
    with open_file(path) as store:
        assert store.tasks.create(title="after").title == "after"


def test_waiting_writers_go_on_when_a_transaction_ends(sqlite: Store) -> None:
    with one_group(sqlite, [lambda: sqlite.tasks.create(title="x") for _ in range(20)]) as outcomes:
        assert all(each.title == "x" for each in outcomes)
    assert sqlite.tasks.count() == 20


def test_an_operation_inside_another_one_is_refused_at_once(sqlite: Store) -> None:
    with pytest.raises(UsageError):
        probe(sqlite).do(lambda _: sqlite.tasks.create(title="x"))
    with pytest.raises(UsageError):
        probe(sqlite).do(lambda _: sqlite.tasks.count())
    assert sqlite.tasks.create(title="y").title == "y"


# --- many at once


def test_sixteen_threads_lose_nothing(sqlite: Store) -> None:
    tasks = [sqlite.tasks.create(title=f"{n}").task_id for n in range(4)]

    def work(number: int) -> int:
        for n in range(25):
            sqlite.audits.record(tasks[number % 4], event_type="x", payload={"thread": number, "n": n})
        return 25

    with threads([lambda n=n: work(n) for n in range(16)]) as outcomes:  # type: ignore[misc]
        pass
    assert outcomes == [25] * 16
    found = Counter(audit.payload["thread"] for audit in sqlite.audits.iterate())
    assert found == dict.fromkeys(range(16), 25)
    assert sqlite.audits.verify().ok


def record_forty(path: Path, task_id: str, name: str, start: Any) -> None:
    with open_file(path, lock_timeout=20.0) as store:
        start.wait()
        for n in range(40):
            store.audits.record(task_id, event_type=name, payload=n)


def test_eight_processes_lose_nothing(path: Path) -> None:
    with open_file(path) as store:
        task_id = store.tasks.create(title="t").task_id
    start = PROCESSES.Barrier(8)
    processes = [PROCESSES.Process(target=record_forty, args=(path, task_id, f"p{n}", start)) for n in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 8
    with open_file(path) as store:
        assert [store.audits.count(event_type=f"p{n}") for n in range(8)] == [40] * 8
        assert store.audits.verify().ok
