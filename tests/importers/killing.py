"""Imports in processes of their own, which are killed on the way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentos_store import Store
from tests.engine.gather import PROCESSES

Load = Callable[..., Any]


def kill_at(load: Load, url: str, path: Path, kind: str | None = None, *, done: int | None = None) -> None:
    """Import into the database, in a process that kills itself once so many rows of this kind, or of any, are done."""
    child = PROCESSES.Process(target=_import_and_die, args=(load, url, path, kind, done), daemon=True)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL


def kill_after(load: Load, url: str, path: Path, steps: int, seconds: float) -> None:
    """Import into the database, in a process that is killed so many seconds after so many steps, done or not."""
    reader, writer = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=_import_and_tell, args=(load, url, path, writer), daemon=True)
    child.start()
    writer.close()
    with reader:
        for _ in range(steps):
            reader.recv()
        time.sleep(seconds)
        child.kill()
        child.join()
    assert child.exitcode in {0, -signal.SIGKILL}


def _import_and_die(load: Load, url: str, path: Path, kind: str | None, done: int | None) -> None:
    def progress(reached: str, there: int, _: int) -> None:
        if kind in {None, reached} and done in {None, there}:
            os.kill(os.getpid(), signal.SIGKILL)

    with Store.open(url) as store:
        load(store, path, progress=progress)


def _import_and_tell(load: Load, url: str, path: Path, writer: Any) -> None:
    with Store.open(url) as store:
        load(store, path, progress=lambda *step: writer.send(step))
