"""An archive as what a move reads, and what is in one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agentos_store.engine.version import HEAD
from agentos_store.errors import DamagedFileError, InvalidValueError, SchemaMismatchError
from agentos_store.migrate.target import Target
from agentos_store.operations.backups.workshop import Progress
from agentos_store.operations.moving.archive_manifest import Manifest, TableEntry
from agentos_store.operations.moving.archive_reading import Archive, open_archive
from agentos_store.operations.moving.facts import Facts
from agentos_store.operations.moving.move import MoveReport, move
from agentos_store.operations.moving.rows import BATCH_BYTES, BATCH_ROWS, Batch, Row, TableHash, row_of
from agentos_store.operations.moving.tables import MovedTable, moved_tables


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """What is in an archive."""

    path: str
    size_bytes: int
    revision: str
    backend: str
    """The kind of database it was made of: ``"sqlite"`` or ``"postgresql"``."""
    created_at: dt.datetime
    """When the making began; it holds all that had been committed by then."""
    program: str
    """The version of agentos_store that made it."""
    rows: Mapping[str, int]
    """By table."""
    root_hash: str
    """One hash over all tables: equal for two databases, or archives, that hold the same."""
    sha256: str
    """Of the file. Kept elsewhere, it tells whether somebody has put another archive in its place."""

    @classmethod
    def of(cls, path: Path, size_bytes: int, manifest: Manifest, sha256: str) -> ArchiveReport:
        """Return what the manifest says."""
        return cls(
            path=str(path),
            size_bytes=size_bytes,
            revision=manifest.revision,
            backend=manifest.backend,
            created_at=manifest.created_at,
            program=manifest.program,
            rows={table.name: table.rows for table in manifest.tables},
            root_hash=manifest.root_hash,
            sha256=sha256,
        )


class ArchiveSource:
    """The rows of an archive; each is checked when it is read, and each table at its end."""

    def __init__(self, archive: Archive) -> None:
        manifest = archive.manifest
        self._archive = archive
        self._entries = {entry.name: entry for entry in manifest.tables}
        self.name = str(archive.path)
        # Not the order of its events: others may have followed in the database that it was made of, which bookmarks of
        # that order stand behind. A subscriber must not go on in those that follow here.
        self.facts = Facts(manifest.facts.numbers)
        self.counts: Mapping[str, int] = {name: entry.rows for name, entry in self._entries.items()}
        found = {entry.name: list(entry.columns) for entry in manifest.tables}
        if found != {table.name: list(table.names) for table in moved_tables()}:
            raise DamagedFileError(self.name, f"its tables or their columns are not those of revision {HEAD}")

    def batches(self, table: MovedTable) -> Iterator[Batch]:
        """Yield the rows of a table; DamagedFileError names the line that is none of its rows."""
        entry = self._entries[table.name]
        found = TableHash()
        for batch in self._batches(table, entry):
            found = found.plus(batch.lines)
            yield batch
        if found != entry.hash:
            why = f"the rows of {table.name} are not those that its manifest tells of"
            raise DamagedFileError(self.name, why, table=table.name)

    def _batches(self, table: MovedTable, entry: TableEntry) -> Iterator[Batch]:
        rows: list[Row] = []
        lines: list[bytes] = []
        size = 0
        for number, line in enumerate(self._archive.lines(entry), start=1):
            try:
                rows.append(row_of(table, line))
            except InvalidValueError as error:
                raise self._archive.damaged_row(f"is no row of it: {error}", entry, number) from None
            lines.append(line)
            size += len(line)
            if size >= BATCH_BYTES or len(rows) >= BATCH_ROWS:
                yield Batch(rows, lines)
                rows, lines, size = [], [], 0
        if rows:
            yield Batch(rows, lines)


def verify_archive(path: Path, *, progress: Progress | None = None) -> ArchiveReport:
    """Read an archive from its beginning to its end and check every byte, row, count and hash; return what is in it.

    Raises what ``open_archive`` does. Of one of an older revision the values in the rows are not looked at: this code
    does not know its columns.
    """
    with open_archive(path, progress) as archive:
        manifest = archive.manifest
        total, done = sum(entry.rows for entry in manifest.tables), 0
        if manifest.revision == HEAD:
            source = ArchiveSource(archive)
            for table in moved_tables():
                for batch in source.batches(table):
                    done += len(batch.rows)
                    _tell(progress, done, total)
        else:
            for entry in manifest.tables:
                if TableHash().plus(archive.lines(entry)) != entry.hash:
                    raise DamagedFileError(str(path), f"the rows of {entry.name} were changed", table=entry.name)
                done += entry.rows
                _tell(progress, done, total)
        return ArchiveReport.of(path, path.stat().st_size, manifest, archive.sha256)


def restore_archive(
    path: Path, target: Target, *, restart: bool = False, replace: bool = False, progress: Progress | None = None
) -> MoveReport:
    """Make a database of an archive; see ``move``, by which its rows are written, and which goes on after a kill.

    The file is compared with its digest before anything is written. Raises what ``open_archive`` and ``move`` do, and
    SchemaMismatchError for an archive of an older revision.
    """
    with open_archive(path, progress) as archive:
        manifest = archive.manifest
        if manifest.revision != HEAD:
            why = (
                f"{path} is of revision {manifest.revision}, and this code restores archives of {HEAD}; restore it with"
                f" an agentos-store of that revision (agentos-store {manifest.program} made it), and give the database"
                " 'agentos-store db upgrade' then"
            )
            raise SchemaMismatchError(found=manifest.revision, expected=HEAD, why=why)
        return move(ArchiveSource(archive), target, restart=restart, replace=replace, progress=progress)


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None:
        progress("checking rows", done, total)
