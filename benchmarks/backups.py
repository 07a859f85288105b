"""Four writers that log events, alone and beside backups of a file of 200 MB."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from agentos_store import Store
from agentos_store.operations.backups import backup_sqlite, verify_sqlite
from benchmarks.measure import NotHonestError
from benchmarks.places import Place
from benchmarks.retention import SECONDS, WRITERS, line_of, rate_of, writing
from benchmarks.writers import Crowd

ROWS = 25_000
"""Of 8 kB each."""

TIMES = 3

_FILL = f"""
    WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {ROWS})
    INSERT INTO events (event_id, agent_id, event_type, severity, data, created_at)
    SELECT 'old-' || n, 'agent-' || (n % 100), 'tool.finished', 'info', '"' || hex(randomblob(4000)) || '"',
        '2020-01-01T00:00:00.000000Z' FROM n"""


def backups(place: Place) -> Crowd:
    """Let the writers write alone, then beside each way to copy the file; what they wait is told."""
    url = place.database()
    with contextlib.closing(place.raw(url)) as raw:
        raw.connection.execute(_FILL)
    place.settle(url)
    with Store.open(url) as store:
        path = Path(store.status().location)
        ways: dict[str, Callable[[Path], object]] = {
            "beside backup_sqlite, its checks included": lambda copy: backup_sqlite(store._backend, copy),  # noqa: SLF001
            "beside the backup API in one step": lambda copy: _one_step(path, copy),
            "beside VACUUM INTO": lambda copy: _vacuum_into(path, copy),
        }
        with writing(store) as alone:
            threading.Event().wait(SECONDS)
        base = rate_of(alone, SECONDS)
        lines = [line_of("alone", alone, base, base)]
        for name, work in ways.items():
            copies = [path.with_name(f"copy-{number}") for number in range(TIMES)]
            started = perf_counter()
            with writing(store) as beside:
                for copy in copies:
                    work(copy)
                took = perf_counter() - started
            for copy in copies:
                if verify_sqlite(copy).rows["events"] < ROWS:
                    raise NotHonestError(f"{name}: rows are missing in the copy")
                copy.unlink()
            lines.append(line_of(f"{name}, {took / TIMES:.1f} s each", beside, rate_of(beside, took), base))
    return Crowd(f"{WRITERS} threads", "log events, beside backups,", "events", place.name, tuple(lines))


def _one_step(path: Path, copy: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source,
        contextlib.closing(sqlite3.connect(copy)) as destination,
    ):
        source.backup(destination)
    _sync(copy)


def _vacuum_into(path: Path, copy: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source:
        source.execute("VACUUM INTO ?", (str(copy),))
    _sync(copy)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
