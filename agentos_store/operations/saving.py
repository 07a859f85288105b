"""Backups of either kind: archives, which both databases read and write, and copies of SQLite files.

One verb for each thing: what a file is, its first bytes say; what a backup becomes, its name or the caller says.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agentos_store.engine.backend import Backend
from agentos_store.engine.sqlite.backend import find_open
from agentos_store.errors import InvalidValueError
from agentos_store.operations.backups import (
    BackupReport,
    Progress,
    RestoreReport,
    VerifyReport,
    backup_sqlite,
    restore_sqlite,
    verify_sqlite,
)
from agentos_store.operations.moving.archive_reading import is_archive, reading
from agentos_store.operations.moving.archive_source import ArchiveReport, restore_archive, verify_archive
from agentos_store.operations.moving.archive_writing import write_archive
from agentos_store.operations.moving.move import MoveReport
from agentos_store.operations.moving.places import place

if TYPE_CHECKING:
    from sqlalchemy import URL

    from agentos_store.settings import Settings

Format = Literal["archive", "sqlite"]
FORMATS = ("archive", "sqlite")

_SQLITE_ENDINGS = frozenset((".sqlite", ".sqlite3", ".db"))
_SQLITE_MAGIC = b"SQLite format 3\0"


def backup(
    backend: Backend,
    path: str | os.PathLike[str],
    *,
    format: Format | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> BackupReport | ArchiveReport:
    """Make a backup; see ``Store.backup``."""
    target = Path(path).absolute()
    if format is not None and format not in FORMATS:
        raise InvalidValueError("format", f"must be one of {', '.join(FORMATS)}")
    chosen = format or ("sqlite" if target.suffix.lower() in _SQLITE_ENDINGS else "archive")
    if chosen == "sqlite":
        return backup_sqlite(backend, target, replace=replace, progress=progress)
    return write_archive(backend, target, replace=replace, progress=progress)


def restore_backup(
    path: str | os.PathLike[str],
    url: str | URL | None = None,
    *,
    schema: str | None = None,
    settings: Settings | None = None,
    restart: bool = False,
    replace: bool = False,
    progress: Progress | None = None,
) -> RestoreReport | MoveReport:
    """Make a database of a backup, an archive or an SQLite file, where there is none yet, or an empty one.

    The backup is checked first, and the database can be used only when everything is in it. An archive goes into
    SQLite and PostgreSQL alike, and its restore goes on where it was killed when it is called again; with ``restart``
    it begins anew. An SQLite file becomes an SQLite database, at once. With ``replace`` whatever is in the database is
    removed first. ``progress`` is told the stage, how far it is, and how far it goes.

    Raises ConflictError or AlreadyExistsError when there are rows in the database, DamagedFileError or UnavailableError
    for a backup that is not whole, SchemaMismatchError for one of a revision that this code cannot read, and
    LockTimeoutError or UsageError while the database is in use.
    """
    source = Path(path).absolute()
    target = place(url, schema, settings, "target")
    if _is_archive(source):
        return restore_archive(source, target, restart=restart, replace=replace, progress=progress)
    if target.path is None:
        raise InvalidValueError(
            "path", f"{source} is an SQLite database; 'agentos-store copy' brings its rows to PostgreSQL"
        )
    return restore_sqlite(source, target.path, replace=replace, progress=progress)


def verify_backup(path: str | os.PathLike[str], *, progress: Progress | None = None) -> VerifyReport | ArchiveReport:
    """Read a backup from its beginning to its end, check everything that can be checked, and say what is in it.

    Of an archive: every byte, row, count and hash; DamagedFileError says what does not fit. Of an SQLite file: pages,
    foreign keys, audit chains, counters; the report says what does not fit. Raises NotFoundError when there is no such
    file, InvalidValueError when it is neither, SchemaMismatchError when a newer program wrote it.
    """
    source = Path(path).absolute()
    if _is_archive(source):
        return verify_archive(source, progress=progress)
    return verify_sqlite(source)


def _is_archive(path: Path) -> bool:
    """Tell whether it is an archive and no SQLite file; InvalidValueError when it is neither."""
    if is_archive(path):
        return True
    if find_open(path) is not None:
        # It is a database, and whoever opens and closes it frees the locks that SQLite has on it in this process.
        return False
    with reading(path) as file:
        if file.read(len(_SQLITE_MAGIC)) != _SQLITE_MAGIC:
            raise InvalidValueError("path", f"{path} is neither an archive of agentos_store nor an SQLite database")
    return False
