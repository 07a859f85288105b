"""A copy that is killed at any point goes on where it stopped; AGENTOS_STORE_KILLS says how often."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from agentos_store import SchemaMismatchError, Store
from agentos_store.engine.version import HEAD
from agentos_store.migrate.target import Target
from agentos_store.operations.moving import rows
from agentos_store.operations.moving.copying import compare_stores, copy_store
from tests.engine.gather import PROCESSES
from tests.operations.moving import fill_store

KILLS = int(os.environ.get("AGENTOS_STORE_KILLS", "2"))


def copy_and_tell(source: str, target: str, told: Any) -> None:
    """Copy in small batches, and tell each step."""
    rows.BATCH_ROWS = 2
    copy_store(source, target, progress=lambda *step: told.send(step))


def kill_on_the_way(source: str, target: str, steps: int) -> bool:
    """Copy in a process that is killed soon after so many steps; tell whether it had finished before."""
    reader, writer = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=copy_and_tell, args=(source, target, writer), daemon=True)
    child.start()
    writer.close()
    with reader:
        try:
            for _ in range(steps):
                reader.recv()
            time.sleep(random.uniform(0, 0.005))
            child.kill()
        except EOFError:
            pass
        child.join()
    assert child.exitcode in {0, -signal.SIGKILL}
    return child.exitcode == 0


@pytest.mark.parametrize("backward", [False, True], ids=["from SQLite", "to SQLite"])
def test_a_copy_that_is_killed_again_and_again_ends_with_the_same_rows(
    backward: bool, sqlite_template: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    file = f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'file.sqlite')}"
    server: str = request.getfixturevalue("url")
    source, target = (server, file) if backward else (file, server)
    with Store.open(source) as store:
        fill_store(store)
        store.messages.append_many("s-empty", [{"role": "user", "content": f"word {n}"} for n in range(60)])
    kills = 0
    finished = False
    while kills < KILLS and not finished:
        # Further each time, and begun anew when the end was reached too soon.
        finished = kill_on_the_way(source, target, random.randint(1, 30) + 90 * kills // KILLS)
        kills += 1
        finished = finished or Target.of(target).revision() == HEAD
        if not finished:
            with pytest.raises(SchemaMismatchError, match="unfinished"):
                Store.open(target)
    if not finished:
        report = copy_store(source, target)
        assert report.resumed
    compared = compare_stores(source, target)
    assert compared.ok
    with Store.open(target) as store:
        assert store.audits.verify().ok
        assert all(index.ok for index in store.search.check().values())
        assert len(store.messages.search("word", limit=100)) == 60


@pytest.fixture
def backend() -> str:
    return "postgresql"
