"""Backups, restores, salvages and vacuums that are killed: nothing half is left, and the next one succeeds."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.migrate.target import Target
from agentos_store.operations.backups import backup_sqlite, restore_sqlite, verify_sqlite
from agentos_store.operations.salvage import run, salvage_sqlite
from tests.engine.gather import PROCESSES, wait_for
from tests.operations.populated import names_in, populate, rows_of

KILLS = int(os.environ.get("AGENTOS_STORE_KILLS", "30")) // 30


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """A database with rows, a backup of it, and the same damaged."""
    folder = tmp_path_factory.mktemp("source")
    shutil.copy(sqlite_template, folder / "registry.sqlite")
    with Store.open(f"sqlite:///{folder}/registry.sqlite") as store:
        populate(store)
        backup_sqlite(store._backend, folder / "backup")
    data = bytearray((folder / "registry.sqlite").read_bytes())
    data[:4096] = bytes(4096)
    (folder / "damaged").write_bytes(data)
    shutil.copy(sqlite_template, folder / "schema")
    return folder


def back_up(folder: Path) -> None:
    with Store.open(f"sqlite:///{folder}/registry.sqlite") as store:
        backup_sqlite(store._backend, folder / "new", replace=True)


def restore(folder: Path) -> None:
    restore_sqlite(folder / "backup", folder / "new", replace=True)


def copy_schema(target: Target, wanted: str) -> int:
    """Copy the newest schema instead of making it: whoever makes it is killed in other tests."""
    del wanted
    assert target.path is not None
    shutil.copyfile(target.path.parent.parent / "schema", target.path)
    return 1


def salvage(folder: Path) -> None:
    (folder / "new").unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "upgrade", copy_schema)
        salvage_sqlite(folder / "damaged", folder / "new")


def empty(folder: Path) -> None:
    with Store.open(f"sqlite:///{folder}/registry.sqlite") as store:
        store.vacuum()
    shutil.copy(folder / "registry.sqlite", folder / "new")


def repeat(work: Callable[[Path], None], folder: Path, begun: Any) -> None:
    while True:
        begun.value += 1
        work(folder)


@pytest.mark.parametrize("work", [back_up, restore, salvage, empty])
def test_whoever_is_killed_leaves_nothing_half(work: Callable[[Path], None], source: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(source, tmp_path / "work"))
    for _ in range(KILLS):
        begun = PROCESSES.Value("q", 0, lock=False)
        process = PROCESSES.Process(target=repeat, args=(work, folder, begun), daemon=True)
        process.start()
        wait_for(lambda begun=begun: begun.value > 0)  # type: ignore[misc]
        time.sleep(random.uniform(0.0, 0.3))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        if (folder / "new").exists() and work is not empty:
            assert verify_sqlite(folder / "new").ok
        assert verify_sqlite(folder / "registry.sqlite").ok
    work(folder)
    # What the killed ones had begun is gone too.
    assert not [name for name in names_in(folder) if name.endswith(".partial")]
    assert rows_of(folder / "new") == rows_of(source / "registry.sqlite")
