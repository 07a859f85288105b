"""Looking at an SQLite file without changing it: what it holds, and whether it is whole."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.sqlite.functions import register_functions
from agentos_store.engine.version import TABLE, read_revision_sqlite
from agentos_store.errors import DamagedFileError, InvalidValueError, NotFoundError

LISTED = 20
"""Faults that are listed; who has more than these has to act on them first."""

BUSY_TIMEOUT = 5.0

DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

_WAL = b"\x02\x02"

_LOCKS, _LOCKS_SIZE = 0x40000000, 512
"""Where SQLite locks a file. In WAL mode whoever has it open holds one of these locks."""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection that sees one moment of the file and leaves nothing beside it.

    Raises NotFoundError for a file that is not there, DamagedFileError for one that SQLite cannot read.
    """
    with typed_errors(path), contextlib.closing(connect(path, _way(path))) as raw:
        raw.execute("BEGIN")
        raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
        yield raw


def connect(path: Path, way: str = "mode=rw") -> sqlite3.Connection:
    """Open the file as the parameters of an SQLite URI say."""
    raw = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?{way}",
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
    if not path.is_file():
        raise NotFoundError("file", str(path))
    # A file in WAL mode that nobody has open has no log beside it. A reader would make one and not take it away.
    with path.open("rb") as file:
        is_wal = file.read(20)[18:] == _WAL
    return "mode=ro&immutable=1" if is_wal and not os.path.lexists(f"{path}-wal") else "mode=ro"


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
