"""A backup of an SQLite file while everybody goes on writing.

The pages are copied in steps inside one reading transaction, so that they are of one moment; a backup that lets go of
it between two steps begins anew whenever another process writes, and never ends while many do. After each 4 MiB the
copy is synced: one sync of a whole large file at the end holds up the writers' own for tenths of a second.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentos_store.engine.sqlite.backend import find_open
from agentos_store.errors import AlreadyExistsError, DamagedFileError, InvalidValueError, UnavailableError
from agentos_store.operations.backups import looking
from agentos_store.operations.backups.workshop import Progress, check_place, new_file, publish, workshop

STEP = 256
"""Pages that are copied at a time."""

SYNCED = 4 * 1024**2
"""Bytes after which the copy is synced."""


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What is in a backup that was made, and checked, just now."""

    path: str
    size_bytes: int
    revision: str
    rows: Mapping[str, int]
    """By table."""
    faults: Sequence[str]
    """Rows whose parents are missing, in the database as in the copy; none is how it should be."""
    duration: dt.timedelta


def backup_sqlite(
    backend: Any, path: Path | str, *, replace: bool = False, progress: Progress | None = None
) -> BackupReport:
    """Copy an open SQLite database into one file, of one moment, while others write; return what is in it.

    All that was committed before the call is in the copy. It is checked before it gets its name: the integrity of its
    pages, its revision, the rows of each table against those of the same moment in the source, and foreign keys, whose
    faults are the source's own and only reported. The file is readable by its owner only, and nothing lies beside it.

    The log of the database cannot begin anew while the copying goes on, so it grows by what is written meanwhile.
    Raises AlreadyExistsError when the file is there, unless it may be replaced; DamagedFileError when the database is
    damaged; UnavailableError for a full disk; InvalidValueError for a network file system. Nothing is left behind then.
    """
    if backend.capabilities.backend != "sqlite":
        raise UnavailableError("only SQLite is one file that can be copied; PostgreSQL is backed up as an archive")
    started = time.monotonic()
    target = Path(path).absolute()
    _check_target(target, backend, replace=replace)
    with workshop(target) as folder:
        copy = new_file(folder, "copy")
        with _one_moment(backend) as source:
            rows = looking.count_rows(source)
            _copy(source, copy, progress)
        revision, faults = check_copy(copy, rows, progress, of=backend.path)
        publish(copy, target, replace=replace)
        size = target.stat().st_size
    return BackupReport(str(target), size, revision, rows, faults, dt.timedelta(seconds=time.monotonic() - started))


def check_copy(
    copy: Path, rows: Mapping[str, int] | None = None, progress: Progress | None = None, *, of: Path
) -> tuple[str, Sequence[str]]:
    """Check a copy; return its revision, and the faults of its foreign keys.

    Raises DamagedFileError, which names what it is a copy of, when it is not whole.
    """
    tell = progress or _silent
    with looking.reading(copy) as raw:
        tell("check", 0, 3)
        broken = looking.check_integrity(raw)
        if broken:
            raise DamagedFileError(str(of), f"{broken[0]}; take another copy, or salvage what can be read")
        tell("check", 1, 3)
        faults = looking.check_foreign_keys(raw)
        tell("check", 2, 3)
        copied = looking.count_rows(raw)
        if rows is not None and copied != rows:
            wrong = sorted(name for name in rows.keys() | copied.keys() if rows.get(name) != copied.get(name))
            raise DamagedFileError(str(of), f"a copy of it has not all rows of {', '.join(wrong)}")
        tell("check", 3, 3)
        return looking.revision_of(raw, of), faults


def copy_pages(source: sqlite3.Connection, copy: Path, progress: Progress | None = None) -> None:
    """Copy what a connection sees into an empty file, a step at a time, and leave it synced, in WAL mode or not."""
    tell = progress or _silent
    descriptor = os.open(copy, os.O_RDWR | os.O_CLOEXEC)
    try:
        # Nobody else knows the file, and half a copy is thrown away: it needs neither a journal nor SQLite's syncs.
        with contextlib.closing(looking.connect(copy)) as destination:
            destination.execute("PRAGMA journal_mode=OFF")
            destination.execute("PRAGMA synchronous=OFF")
            page_size = source.execute("PRAGMA page_size").fetchone()[0]
            source.backup(destination, pages=STEP, progress=_synced(descriptor, page_size, tell), sleep=0.01)
        os.fsync(descriptor)
    finally:
        # Only now: closing it frees the locks that SQLite has on the file in this process.
        os.close(descriptor)


def _copy(source: sqlite3.Connection, copy: Path, progress: Progress | None) -> None:
    copy_pages(source, copy, progress)
    with contextlib.closing(looking.connect(copy)) as raw:
        # One file that can be read where nothing can be written; a database is set to WAL again when it is restored.
        raw.execute("PRAGMA journal_mode=DELETE")


def _synced(descriptor: int, page_size: int, tell: Progress) -> Callable[[int, int, int], None]:
    # os.fdatasync is not on every system.
    sync = getattr(os, "fdatasync", os.fsync)
    synced = 0

    def step(_: int, remaining: int, total: int) -> None:
        nonlocal synced
        done = (total - remaining) * page_size
        if done - synced >= SYNCED:
            sync(descriptor)
            synced = done
        tell("copy", total - remaining, total)

    return step


@contextlib.contextmanager
def _one_moment(backend: Any) -> Iterator[sqlite3.Connection]:
    """Lend a reader whose transaction is open: it sees the same moment until the block ends."""
    with looking.typed_errors(backend.path), backend.raw_connection() as raw:
        raw.execute("BEGIN")
        try:
            raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            yield raw
        finally:
            # After an error of the disk SQLite has ended it already.
            if raw.in_transaction:
                raw.execute("ROLLBACK")


def _check_target(target: Path, backend: Any, *, replace: bool) -> None:
    check_place(target)
    ours = backend.path.resolve()
    if target.resolve() in {ours, *(Path(f"{ours}{ending}") for ending in (*looking.BESIDE, "-next", "-turn"))}:
        raise InvalidValueError("path", f"{target} belongs to the database itself")
    if os.path.lexists(target) and not replace:
        raise AlreadyExistsError("file", str(target))
    # What is left beside a name counts as a part of whatever file gets it: SQLite would play it into the backup.
    beside = [f"{target}{ending}" for ending in looking.BESIDE if os.path.lexists(f"{target}{ending}")]
    if find_open(target) is not None or beside:
        why = f"{target} is a database that may be in use, and no backup"
        raise InvalidValueError("path", f"{why}; {beside[0]} lies beside it" if beside else why)


def _silent(what: str, done: int, total: int) -> None:
    del what, done, total
