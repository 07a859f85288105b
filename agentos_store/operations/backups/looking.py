"""Looking at an SQLite file without changing it: what it holds, and whether it is whole."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from agentos_store.engine.sqlite.backend import find_open
from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.sqlite.functions import register_functions
from agentos_store.engine.version import TABLE, read_revision_sqlite
from agentos_store.errors import DamagedFileError, InvalidValueError, LockTimeoutError, NotFoundError

LISTED = 20
"""Faults that are listed; who has more than these has to act on them first."""

BUSY_TIMEOUT = 5.0

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a database that is in use."""

_IMMUTABLE = "mode=ro&immutable=1"

_LOCKS, _LOCKS_SIZE = 0x40000000, 512
"""Where SQLite locks a file. In WAL mode whoever has it open holds one of these locks."""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection that sees one moment of the file and leaves nothing beside it.

    Raises NotFoundError for a file that is not there, DamagedFileError for one that SQLite cannot read, and
    LockTimeoutError when somebody began to use it meanwhile and wrote, so that what was read may be of two moments.
    """
    way = _way(path)
    still = unchanged(path) if way == _IMMUTABLE else contextlib.nullcontext()
    with still, typed_errors(path), contextlib.closing(connect(path, way)) as raw:
        raw.execute("BEGIN")
        raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        yield raw


@contextlib.contextmanager
def unchanged(*paths: Path) -> Iterator[None]:
    """Raise LockTimeoutError when somebody wrote to one of the files in the block, which reads them without a lock."""
    before = [_state(path) for path in paths]
    try:
        yield
    finally:
        if [_state(path) for path in paths] != before:
            what = f"{paths[0]}, which was written to while it was read"
            raise LockTimeoutError(what, waited=0.0, holder="another process")


def connect(path: Path, way: str = "mode=rw") -> sqlite3.Connection:
    """Open the file as the parameters of an SQLite URI say."""
    raw = sqlite3.connect(
        f"file:{quote(os.fsencode(path.absolute()))}?{way}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT,
    )
    register_functions(raw)
    return raw


@contextlib.contextmanager
def typed_errors(path: Path) -> Iterator[None]:
    """Turn an error of SQLite into the store's; for pages that make no sense it is DamagedFileError."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in DAMAGED:
            why = "its pages are not what SQLite wrote; take another copy, or salvage what can be read"
            raise DamagedFileError(str(path), why) from None
        raise translate(error, waited=BUSY_TIMEOUT) from None


def _way(path: Path) -> str:
    if not is_file(path):
        raise NotFoundError("file", str(path))
    # A file that nobody has open has nothing beside it. A reader of one in WAL mode would make a log and not take it
    # away. The bytes of the file are not asked for its mode: whoever closes a file frees all locks that this process
    # has on it, and another process would then take the log away under those who have it open here.
    in_use = find_open(path) is not None or any(os.path.lexists(f"{path}{ending}") for ending in ("-wal", "-journal"))
    return "mode=ro" if in_use else _IMMUTABLE


def is_file(path: Path) -> bool:
    """Tell whether there is such a file; there is none of a name that no file can have."""
    with contextlib.suppress(OSError):
        return path.is_file()
    return False


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def is_held(path: Path) -> bool:
    """Tell whether another process has the database open. Only asked while this one has not."""
    try:
        import fcntl
    except ImportError:  # pragma: no cover  Windows: written for it, not tested on it
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        # Who may not write may not lock either.
        return False
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCKS_SIZE, _LOCKS)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def count_rows(raw: sqlite3.Connection) -> dict[str, int]:
    """Return the number of rows of each table, but for those in which SQLite keeps its own."""
    return {name: raw.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables(raw)}


def tables(raw: sqlite3.Connection) -> Sequence[str]:
    """Return the names of the tables in their order; those that virtual tables keep for themselves are left out."""
    found = raw.execute(
        "SELECT name FROM sqlite_master AS t WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " AND sql NOT LIKE 'CREATE VIRTUAL%' AND name <> ? AND NOT EXISTS"
        " (SELECT 1 FROM sqlite_master AS v WHERE v.sql LIKE 'CREATE VIRTUAL%' AND t.name GLOB v.name || '_*')"
        " ORDER BY name",
        (TABLE,),
    )
    return [name for (name,) in found.fetchall()]


def check_integrity(raw: sqlite3.Connection) -> Sequence[str]:
    """Return what is wrong with the file as such; nothing when it is whole."""
    try:
        found = [str(line) for (line,) in raw.execute(f"PRAGMA integrity_check({LISTED})")]
    except sqlite3.DatabaseError as error:
        return [str(translate(error))]
    return [] if found == ["ok"] else found


def check_foreign_keys(raw: sqlite3.Connection) -> Sequence[str]:
    """Return, by table, how many rows refer to rows that are not there."""
    missing: dict[tuple[str, str], int] = {}
    for table, _, parent, _ in raw.execute("PRAGMA foreign_key_check"):
        missing[table, parent] = missing.get((table, parent), 0) + 1
    return [
        f"{count:,} {'row' if count == 1 else 'rows'} of {table} without their {parent}"
        for (table, parent), count in sorted(missing.items())
    ]


def revision_of(raw: sqlite3.Connection, where: Path) -> str:
    """Return the revision; InvalidValueError for a database that is none of this store."""
    found = read_revision_sqlite(raw)
    if found is None:
        raise InvalidValueError("path", f"{where} is no database of this store")
    return found
