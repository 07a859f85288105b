"""Making an archive: what a database holds at one moment, in one file that both databases can be restored from."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

from agentos_store.engine.backend import Backend
from agentos_store.engine.version import HEAD
from agentos_store.errors import InvalidValueError
from agentos_store.operations.backups.workshop import Progress
from agentos_store.operations.moving.archive_manifest import (
    ABOUT,
    ABOUT_FILE,
    LONGEST_LINE,
    MANIFEST,
    Manifest,
    TableEntry,
    member,
)
from agentos_store.operations.moving.archive_reading import UNSET, is_archive
from agentos_store.operations.moving.archive_source import ArchiveReport
from agentos_store.operations.moving.places import connect, place
from agentos_store.operations.moving.rows import TableHash
from agentos_store.operations.moving.sources import DatabaseSource, snapshot
from agentos_store.operations.moving.tables import MovedTable, moved_tables
from agentos_store.operations.new_file import NewFile, new_file
from agentos_store.types import now

LEVEL = 1
"""Of the compression: the higher ones take two to three times as long, for files that are a tenth smaller."""


def write_archive(
    backend: Backend, path: Path, *, replace: bool = False, progress: Progress | None = None
) -> ArchiveReport:
    """Write what the database holds at this moment into a new file, a batch of rows at a time; return what is in it.

    Whoever works with the database is not kept waiting. The file is readable by its owner only, and gets its name when
    it is whole. Raises AlreadyExistsError when there is such a file; ``replace`` lets an archive be replaced, and
    nothing else. UnavailableError for a full disk; nothing is left behind then.
    """
    if replace and os.path.lexists(path) and not is_archive(path):
        raise InvalidValueError("path", f"{path} is no archive of agentos_store, and would be lost")
    created_at = now()
    with new_file(path, replace=replace) as file, unhurried(backend) as database, snapshot(database) as source:
        written = _Digested(file)
        # It has no way to seek, so that the ZIP file is written from its beginning to its end.
        archive: Any = ZipFile(written, "w", ZIP_DEFLATED, compresslevel=LEVEL)  # type: ignore[call-overload]
        try:
            manifest = _write(archive, source, database.capabilities.backend, created_at, progress)
            archive.comment = UNSET
            archive.close()
        except BaseException:
            # Else it would end the file when it is collected.
            archive.fp = None
            raise
        sha256 = written.digest.hexdigest()
        file.amend_end(sha256.encode())
    return ArchiveReport.of(path, path.stat().st_size, manifest, sha256)


@contextlib.contextmanager
def unhurried(backend: Backend) -> Iterator[Backend]:
    """Yield the database, over connections of its own where a statement that takes its time would be cut off."""
    if backend.schema is None or backend.settings.statement_timeout is None:
        yield backend
        return
    with connect(place(backend.url, backend.schema, backend.settings, "url")) as other:
        yield other


def _write(
    archive: ZipFile, source: DatabaseSource, backend: str, created_at: dt.datetime, progress: Progress | None
) -> Manifest:
    archive.writestr(ABOUT_FILE, ABOUT)
    total, done = sum(source.counts.values()), 0
    entries = []
    for table in moved_tables():
        found, longest = TableHash(), 0
        with archive.open(member(table.name), "w", force_zip64=True) as stream:
            for batch in source.batches(table):
                found = found.plus(batch.lines)
                longest = max(longest, _longest(table, batch.lines))
                stream.write(b"\n".join(batch.lines) + b"\n")
                done += len(batch.lines)
                if progress is not None:
                    progress("archiving", done, total)
        entries.append(TableEntry(table.name, tuple(table.names), found.rows, found.hex, longest))
    manifest = Manifest(
        program=version("agentos-store"),
        revision=HEAD,
        backend=backend,
        created_at=created_at,
        tables=tuple(entries),
        facts=source.facts,
    )
    archive.writestr(MANIFEST, manifest.to_json())
    return manifest


def _longest(table: MovedTable, lines: Any) -> int:
    longest = max(map(len, lines)) + 1
    if longest > LONGEST_LINE:
        raise InvalidValueError(table.name, f"holds a row of more than {LONGEST_LINE:,} bytes")
    return longest


class _Digested:
    """What the ZIP file is written to: the bytes go into the new file and into its digest."""

    def __init__(self, file: NewFile) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()
