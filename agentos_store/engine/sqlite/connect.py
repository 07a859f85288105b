"""Connections to an SQLite file, and why each is set up as it is."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path
from urllib.parse import quote

from agentos_store.engine.network_fs import network_filesystem
from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.sqlite.functions import register_functions
from agentos_store.engine.sqlite.turnstile import Turnstile
from agentos_store.errors import InvalidValueError, NotFoundError, UnavailableError

OLDEST = (3, 35, 0)
"""RETURNING and DROP COLUMN came with it."""

STATEMENTS = 512
"""Prepared statements that the driver keeps for one connection."""


class StoreConnection(sqlite3.Connection):
    """A connection that can be told apart from a stranger's."""


def prepare_file(path: Path, *, create: bool) -> None:
    """See that the file can be opened; make an empty one, readable by its owner only, when it may be created."""
    if sqlite3.sqlite_version_info < OLDEST:
        raise UnavailableError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer is needed")
    kind = network_filesystem(path)
    if kind is not None:
        raise InvalidValueError(
            "url", f"the file lies on a network file system ({kind}), where SQLite's locks do not hold; use PostgreSQL"
        )
    if path.is_dir():
        raise InvalidValueError("url", f"{path} is a directory")
    if path.exists():
        return
    if not create:
        raise NotFoundError("database file", str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Exclusively: closing a file that is there frees every lock that SQLite holds on it in this process.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # Somebody else has just made it.
        return
    except OSError as error:
        raise UnavailableError(f"{path} cannot be created: {error.strerror}") from error


def connect_writer(path: Path, *, durability: str, busy_timeout: float) -> sqlite3.Connection:
    """Open the connection that writes. The caller holds the turnstile when the file may still be empty."""
    raw = _connect(path, "rw", busy_timeout)
    try:
        if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            raw.execute("PRAGMA journal_mode=WAL")
        # FULL syncs the log at each commit, so what was acknowledged survives a power cut; NORMAL does not.
        raw.execute(f"PRAGMA synchronous={'NORMAL' if durability == 'process_crash' else 'FULL'}")
        raw.execute("PRAGMA foreign_keys=ON")
        # Without it INSERT OR REPLACE removes rows behind the back of the triggers that keep audits.
        raw.execute("PRAGMA recursive_triggers=ON")
        raw.execute("PRAGMA journal_size_limit=67108864")
        # Up to this many pages (100 MB) nothing of an open transaction is in the log, so that a forked child can close
        # its copy of the connection without touching the memory that it shares with its parent.
        raw.execute("PRAGMA cache_spill=25600")
        if sys.platform == "darwin":
            # fsync does not reach the disk there.
            raw.execute("PRAGMA fullfsync=ON")
            raw.execute("PRAGMA checkpoint_fullfsync=ON")
    except sqlite3.Error as error:
        raw.close()
        raise translate(error) from error
    return raw


def connect_reader(path: Path, *, busy_timeout: float) -> sqlite3.Connection:
    """Open a connection that cannot write, and so cannot checkpoint when it is closed either."""
    raw = _connect(path, "ro", busy_timeout)
    try:
        # With 2 MB, the default, a search that ranks a thousand texts spends half its time reading pages again.
        raw.execute("PRAGMA cache_size=-8192")
    except sqlite3.Error as error:
        raw.close()
        raise translate(error) from error
    return raw


def _connect(path: Path, mode: str, busy_timeout: float) -> sqlite3.Connection:
    try:
        raw = sqlite3.connect(
            f"file:{quote(str(path))}?mode={mode}",
            uri=True,
            # BEGIN is ours: the driver's own comes too late and in the wrong mode.
            isolation_level=None,
            # The queue and the pool see to it that a connection serves one thread at a time.
            check_same_thread=False,
            cached_statements=STATEMENTS,
            timeout=busy_timeout,
            factory=StoreConnection,
        )
        register_functions(raw)
    except sqlite3.Error as error:
        raise translate(error) from error
    return raw


def roll_back_journal(path: Path, *, busy_timeout: float) -> None:
    """Undo what a process left half done that died while it made the file; a reader may not, and would be refused."""
    if not Path(f"{path}-journal").exists():
        return
    raw = _connect(path, "rw", busy_timeout)
    try:
        # The first look at the file rolls the journal back, if nobody is still at work on it.
        raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except sqlite3.Error as error:
        raise translate(error) from None
    finally:
        raw.close()


def open_turnstile(path: Path) -> Turnstile:
    """Open the lock files beside the database."""
    try:
        return Turnstile(path)
    except OSError as error:
        raise UnavailableError(f"the lock files beside {path} cannot be opened: {error.strerror}") from error
