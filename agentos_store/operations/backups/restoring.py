"""A backup becomes a database again: whole, at once, and never under somebody who is using the place."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentos_store.engine.sqlite.backend import find_open
from agentos_store.engine.sqlite.connect import open_turnstile
from agentos_store.errors import AlreadyExistsError, LockTimeoutError, UsageError
from agentos_store.migrate.revisions import check_known
from agentos_store.operations.backups import looking
from agentos_store.operations.backups.copying import check_copy, copy_pages
from agentos_store.operations.backups.workshop import Progress, check_place, new_file, publish, sync_directory, workshop

PATIENCE = 1.0
"""Seconds for which others may still be at work on the place."""

_UNREADABLE = looking.DAMAGED | {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was restored."""

    path: str
    target: str
    size_bytes: int
    revision: str
    """An older one than this code's needs ``db upgrade`` first."""
    rows: Mapping[str, int]
    """By table."""
    faults: Sequence[str]
    """Rows whose parents are missing, in the backup already; none is how it should be."""
    replaced: bool
    """Whether another database had the place."""
    kept: Sequence[str]
    """Files that were moved aside, because what had the place was damaged and may be all that there is."""


def restore_sqlite(
    path: Path | str, target: Path | str, *, replace: bool = False, progress: Progress | None = None
) -> RestoreReport:
    """Make a database of a backup, at a place where none is, or an empty one; return what is in it.

    The backup is copied beside the place and checked there; only then it gets the name, at once. Whoever follows
    events is told that the order began anew. With ``replace`` another database there goes, with its log; one that is
    too damaged to be closed in order is moved aside instead.

    Raises AlreadyExistsError when there are rows in the place, UsageError or LockTimeoutError while this or another
    process has it open, DamagedFileError for a backup that fails its checks, SchemaMismatchError for one of a newer
    schema, UnavailableError for a full disk. The place is as it was then.
    """
    source = Path(path).absolute()
    check_place(Path(target).absolute())
    place = Path(os.path.realpath(target))
    if place.exists() and looking.is_file(source) and source.samefile(place):
        raise AlreadyExistsError("file", str(place))
    if not replace and _has_rows(place):
        raise AlreadyExistsError("database", str(place))
    with workshop(place) as folder:
        copy = new_file(folder, "copy")
        with looking.reading(source) as raw:
            check_known(looking.revision_of(raw, source), where=str(source))
            rows = looking.count_rows(raw)
            copy_pages(raw, copy, progress)
        revision, faults = check_copy(copy, rows, progress, of=source)
        with looking.typed_errors(copy), contextlib.closing(looking.connect(copy)) as raw:
            if "event_orders" in rows:
                raw.execute("DELETE FROM event_orders")
                rows["event_orders"] = 0
            raw.execute("PRAGMA journal_mode=WAL")
        with alone_at(place) as found:
            if found.has_rows and not replace:
                raise AlreadyExistsError("database", str(place))
            kept = found.clear()
            publish(copy, place, replace=found.exists)
        size = place.stat().st_size
    return RestoreReport(str(source), str(place), size, revision, rows, faults, found.has_rows, kept)


class Found:
    """What is at a place that nobody else can use at the moment."""

    def __init__(self, place: Path, *, exists: bool, has_rows: bool, damaged: bool) -> None:
        self._place = place
        self.exists = exists
        self.has_rows = has_rows
        """Rows, or something that cannot be told."""
        self._damaged = damaged

    def clear(self) -> list[str]:
        """See that nothing of it is taken for a part of what comes; return what was moved aside.

        A sound database has been closed in order: all is in its file. Where one is damaged, or only its log is left,
        file and log are given other names, the log last, so that there is one name under which they are together.
        """
        beside = [ending for ending in looking.BESIDE if os.path.lexists(f"{self._place}{ending}")]
        if not self._damaged and not beside:
            return []
        aside = _free_name(self._place)
        kept = []
        for ending in ("", *beside):
            old = Path(f"{self._place}{ending}")
            if ending == "-shm":
                # Made from the log whenever it is needed.
                old.unlink(missing_ok=True)
            elif old.exists():
                kept.append(f"{aside}{ending}")
                os.link(old, kept[-1])
        sync_directory(self._place.parent)
        for ending in beside:
            Path(f"{self._place}{ending}").unlink(missing_ok=True)
        return kept


@contextlib.contextmanager
def alone_at(place: Path) -> Iterator[Found]:
    """Yield when nobody has the database open that is at a place, and let nobody open it until the block ends."""
    if find_open(place) is not None:
        raise UsageError(f"this process has {place} open; close the store first")
    if not place.exists():
        yield Found(place, exists=False, has_rows=False, damaged=False)
        return
    turnstile = open_turnstile(place)
    try:
        turnstile.acquire(PATIENCE)
        try:
            with _locked(place) as found:
                yield found
        finally:
            turnstile.release()
    finally:
        turnstile.close()


@contextlib.contextmanager
def _locked(place: Path) -> Iterator[Found]:
    # Closing it would free SQLite's locks on the file, so it is closed last.
    old = os.open(place, os.O_RDWR | os.O_CLOEXEC)
    try:
        with contextlib.closing(looking.connect(place)) as raw:
            yield _lock(raw, place)
            status = os.fstat(old)
            if status.st_nlink == 0 and status.st_size:
                # Somebody may have opened the old file by its name just before it went. He would go on with what
                # nobody sees any more; so he finds that it is no database.
                os.pwrite(old, bytes(100), 0)
    finally:
        os.close(old)


def _lock(raw: sqlite3.Connection, place: Path) -> Found:
    """Close the old database in order, and lock it against everybody."""
    raw.execute(f"PRAGMA busy_timeout={round(PATIENCE * 1000)}")
    try:
        if raw.execute("PRAGMA journal_mode=DELETE").fetchone()[0] != "delete":
            raise _in_use(place)
        raw.execute("BEGIN EXCLUSIVE")
        if raw.execute("PRAGMA journal_mode").fetchone()[0] != "delete":
            raise _in_use(place)
        return Found(place, exists=True, has_rows=any(_filled(raw)), damaged=False)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _UNREADABLE:
            raise _in_use(place) from None
    # SQLite's own connection to it has no lock, since it could make nothing of the file.
    raw.close()
    if looking.is_held(place):
        raise _in_use(place)
    return Found(place, exists=True, has_rows=True, damaged=True)


def _in_use(place: Path) -> LockTimeoutError:
    return LockTimeoutError(f"{place}, which must be closed everywhere", waited=PATIENCE, holder="another process")


def _has_rows(place: Path) -> bool:
    """Tell whether there is something at a place that would be lost."""
    if not place.exists() or not place.stat().st_size:
        return False
    try:
        with looking.reading(place) as raw:
            return any(_filled(raw))
    except Exception:  # noqa: BLE001  whatever cannot be read is not known to be empty
        return True


def _filled(raw: sqlite3.Connection) -> Iterator[bool]:
    for name in looking.tables(raw):
        yield raw.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() is not None


def _free_name(place: Path) -> Path:
    number = 1
    while any(os.path.lexists(f"{place}.damaged-{number}{ending}") for ending in ("", *looking.BESIDE)):
        number += 1
    return Path(f"{place}.damaged-{number}")
