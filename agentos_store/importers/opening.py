"""Opening another system's SQLite file so that nothing about it changes.

A file with nothing beside it is opened as immutable: SQLite then takes no lock and makes no ``-wal``, ``-shm`` or
``-journal``. With a write-ahead log or a rollback journal beside it that would miss rows or read half a transaction, so
file and log are copied to a private directory and SQLite recovers the copy.
"""

from __future__ import annotations

import shutil
import sqlite3
import stat
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from agentos_store.errors import InvalidValueError, NotFoundError, StoreError, UnavailableError
from agentos_store.importers.problems import Problem

DAMAGE: Final = (sqlite3.Error, UnicodeError, MemoryError)
"""What reading a damaged file may raise: a message of SQLite may itself hold bytes of the damage, which Python then
cannot decode, and a length may ask for more memory than there is."""

_MAGIC: Final = b"SQLite format 3\x00"


def open_file(path: Path, stack: ExitStack) -> tuple[sqlite3.Connection, list[Problem]]:
    """Return a connection that only reads, closed with the stack, and what is wrong with the file as a whole."""
    check_file(path)
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
        resolved = path.resolve(strict=True)
        beside = [log for log in _logs(resolved) if log.stat().st_size]
    except OSError as error:
        raise unreadable(path, error) from None
    if head != _MAGIC:
        raise InvalidValueError("path", "it is no SQLite database")
    if not beside:
        return _connected(f"{resolved.as_uri()}?mode=ro&immutable=1", stack)
    # Readable by its owner alone, as mkdtemp makes it.
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="agentos-store-import-"))
    copy = _copied(resolved, Path(folder) / "copy.sqlite")
    return _connected(f"{copy.as_uri()}?mode=rw", stack)


def state_of(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of change of the file and its logs; empty when the file is gone."""
    try:
        resolved = path.resolve(strict=True)
        found = [(file.name, file.stat()) for file in (resolved, *_logs(resolved))]
    except (OSError, ValueError):
        return ()
    return tuple((name, about.st_size, about.st_mtime_ns) for name, about in found)


def named(damage: BaseException) -> str:
    """Say what SQLite found, without its text, which may quote a row."""
    name = getattr(damage, "sqlite_errorname", None)
    return name if isinstance(name, str) else type(damage).__name__


def check_file(path: Path) -> None:
    """Raise NotFoundError, InvalidValueError or UnavailableError for what is no file that can be read."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError("file", str(path)) from None
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if stat.S_ISDIR(mode):
        raise InvalidValueError("path", "it is a directory")
    if not stat.S_ISREG(mode):
        # To open a pipe would wait for its writer.
        raise InvalidValueError("path", "it is not a regular file")


def _connected(uri: str, stack: ExitStack) -> tuple[sqlite3.Connection, list[Problem]]:
    problems: list[Problem] = []
    try:
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        stack.callback(connection.close)
        connection.text_factory = _decoded
        connection.execute("PRAGMA query_only=ON")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        # A file that is cut while it is mapped into memory would kill the process.
        connection.execute("PRAGMA mmap_size=0")
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except DAMAGE as damage:
            # SQLite refuses the whole file for one bad definition, or for a few pages cut off at its end. Under this
            # pragma it reads on; nothing can be written through this connection all the same.
            problems.append(Problem("*", "*", f"unreadable in part: {named(damage)}"))
            connection.execute("PRAGMA writable_schema=ON")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except DAMAGE as damage:
        raise InvalidValueError("path", f"SQLite cannot read it as a database ({named(damage)})") from None
    return connection, problems


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def unreadable(path: Path, error: OSError | ValueError) -> StoreError:
    """Return the error for a file that the system refuses."""
    if isinstance(error, OSError):
        return UnavailableError(f"cannot read the file {str(path)!r}: {error.strerror}")
    return InvalidValueError("path", "no file can have this name")


def _logs(path: Path) -> list[Path]:
    beside = (path.with_name(path.name + ending) for ending in ("-wal", "-journal"))
    return [log for log in beside if log.is_file()]


def _copied(path: Path, copy: Path, *, tries: int = 5) -> Path:
    """Copy the file with its log, as they were at one moment."""
    try:
        for _ in range(tries):
            before = state_of(path)
            for name, _, _ in before:
                shutil.copyfile(path.with_name(name), copy.with_name(copy.name + name.removeprefix(path.name)))
            if state_of(path) == before:
                return copy
            for stale in _logs(copy):
                stale.unlink()
            time.sleep(0.2)
    except OSError as error:
        raise unreadable(path, error) from None
    raise UnavailableError("the file is being written to; stop what writes to it, or import a backup of it")
