"""A full disk: a typed error, nothing half written, and the store works again when there is room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agentos_store import Store
from agentos_store.errors import (
    UnavailableError,
)
from agentos_store.tasks.models import Task
from tests.engine.gather import one_group, open_file, titles
from tests.engine.probe import probe


def limit_pages(store: Store, spare: int) -> None:
    """Let the file grow by so many pages and no further."""
    probe(store).do(lambda _: None)
    raw = store._backend.queue.writer.raw  # type: ignore[attr-defined]
    raw.execute(f"PRAGMA max_page_count = {raw.execute('PRAGMA page_count').fetchone()[0] + spare}")


def test_a_full_disk_is_a_typed_error_and_leaves_nothing_half_written(sqlite: Store) -> None:
    limit_pages(sqlite, 3)
    stored: list[Task] = []

    def fill() -> None:
        while len(stored) < 1000:
            stored.append(sqlite.tasks.create(title="x", payload="y" * 1000))

    with pytest.raises(UnavailableError) as caught:
        fill()
    assert caught.value.code == "SQLITE_FULL"
    assert sqlite.tasks.count() == len(stored)
    limit_pages(sqlite, 1000)
    assert sqlite.tasks.create(title="after").title == "after"
    with sqlite._backend.raw_connection() as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_disk_that_is_full_for_one_job_of_a_group_has_room_for_the_others(sqlite: Store) -> None:
    task = sqlite.tasks.create(title="t")
    limit_pages(sqlite, 5)
    works = [
        lambda: sqlite.audits.record(task.task_id, event_type="a"),
        lambda: sqlite.audits.record(task.task_id, event_type="big", payload="x" * 1_000_000),
        lambda: sqlite.audits.record(task.task_id, event_type="b"),
    ]
    with one_group(sqlite, works) as outcomes:
        assert isinstance(outcomes[1], UnavailableError)
        assert [outcomes[0].event_type, outcomes[2].event_type] == ["a", "b"]
    assert [each.event_type for each in sqlite.audits.iterate()] == ["a", "b"]
    assert sqlite.audits.verify().ok


def test_a_transaction_that_the_database_ended_stores_nothing_of_what_follows(sqlite: Store) -> None:
    def work() -> None:
        with sqlite.transaction() as tx:
            tx.tasks.create(title="before")
            # What SQLite does by itself after some faults of the disk.
            sqlite._backend.queue.writer.raw.execute("ROLLBACK")  # type: ignore[attr-defined]
            with pytest.raises(UnavailableError):
                tx.tasks.create(title="after")

    with pytest.raises(UnavailableError):
        work()
    assert titles(sqlite) == []
    assert sqlite.tasks.create(title="x").title == "x"


def test_a_file_system_without_room_is_a_typed_error(path: Path) -> None:
    program = (
        "import resource, signal, sys; from agentos_store import Store\n"
        "from agentos_store.errors import UnavailableError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"with Store.open('sqlite:///{path}') as store:\n"
        "    store.tasks.create(title='x')\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\n"
        "    stored = 1\n"
        "    try:\n"
        "        while True:\n"
        "            store.tasks.create(title='x', payload='y' * 3000); stored += 1\n"
        "    except UnavailableError as error:\n"
        "        print(stored, error.code)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "    store.tasks.create(title='after')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    stored, code = done.stdout.split()
    assert code.startswith(("SQLITE_FULL", "SQLITE_IOERR"))
    with open_file(path) as store:
        assert store.tasks.count() == int(stored) + 1
