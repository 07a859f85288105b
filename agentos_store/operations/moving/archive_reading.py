"""Archives, read and checked: every byte, every row, every number that the manifest names."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from agentos_store.engine.sqlite.backend import find_open
from agentos_store.errors import (
    DamagedFileError,
    InvalidValueError,
    NotFoundError,
    SchemaMismatchError,
    UnavailableError,
)
from agentos_store.operations.backups.workshop import Progress
from agentos_store.operations.moving.archive_manifest import (
    ABOUT_FILE,
    LONGEST_MANIFEST,
    MANIFEST,
    TableEntry,
    member,
    parse_manifest,
)

BUFFER = 1024 * 1024

DIGITS = 64
"""Of the file's digest, at its very end."""
UNSET = b"0" * DIGITS
"""What stands in the place of the digest while it is computed."""

_FAULTS = (BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, RuntimeError, NotImplementedError)
"""What the ZIP reader raises for bytes that are not what they should be."""

_LOCAL_HEADER = b"PK\x03\x04"
_NAME_AT = 30


def is_archive(path: Path) -> bool:
    """Tell by its first bytes whether the file is, or was once, an archive of this store."""
    if find_open(path) is not None:
        # It is a database. Whoever opens and closes it frees the locks that SQLite has on it in this process, and
        # another process would then take its log away.
        return False
    with reading(path) as file:
        head = file.read(_NAME_AT + len(ABOUT_FILE))
    return head.startswith(_LOCAL_HEADER) and head[_NAME_AT:] == ABOUT_FILE.encode()


class Archive:
    """An open archive of which every byte is the one that was written."""

    def __init__(self, path: Path, file: BinaryIO, sha256: str) -> None:
        self.path = path
        self.sha256 = sha256
        """Of the file, as it stands at its end: what tells one archive from another."""
        try:
            self._zip = ZipFile(file)
            infos = self._zip.infolist()
            names = [info.filename for info in infos]
            if any(info.compress_type not in (ZIP_DEFLATED, ZIP_STORED) for info in infos) or names[-1:] != [MANIFEST]:
                raise self._damaged("its directory is not one that agentos_store writes")
            with self._zip.open(MANIFEST) as stream:
                text = stream.read(LONGEST_MANIFEST + 1)
        except _FAULTS:
            raise self._damaged("its directory or its manifest cannot be read") from None
        if len(text) > LONGEST_MANIFEST:
            raise self._damaged("its manifest is too long")
        self.manifest = parse_manifest(text, str(path))
        if names != self.manifest.members:
            raise self._damaged("it does not hold the files that its manifest names, each once and in that order")

    def lines(self, table: TableEntry) -> Iterator[bytes]:
        """Yield the rows of a table as they were written, without line ends; DamagedFileError names the line."""
        number = 0
        try:
            with io.BufferedReader(self._zip.open(member(table.name)), BUFFER) as stream:  # type: ignore[type-var]
                while line := stream.readline(table.longest + 1):
                    number += 1
                    if number > table.rows or len(line) > table.longest or not line.endswith(b"\n"):
                        raise self.damaged_row("is not one that agentos_store writes", table, number)
                    yield line[:-1]
        except _FAULTS:
            if number == table.rows:
                raise self.damaged_row("or one before it was changed", table, number) from None
            raise self.damaged_row("or one near it cannot be read", table, number + 1) from None
        if number < table.rows:
            raise self.damaged_row("is missing", table, number + 1)

    def damaged_row(self, why: str, table: TableEntry, line: int) -> DamagedFileError:
        """Return the error about a row."""
        why = f"line {line:,} of {member(table.name)} {why}"
        return DamagedFileError(str(self.path), why, table=table.name, line=line)

    def _damaged(self, why: str) -> DamagedFileError:
        return DamagedFileError(str(self.path), why)


@contextlib.contextmanager
def open_archive(path: Path, progress: Progress | None = None) -> Iterator[Archive]:
    """Open an archive once every byte of it was compared with the digest at its end.

    Raises NotFoundError when there is no such file, InvalidValueError when it is no archive of this store,
    DamagedFileError when it is not what was written, and SchemaMismatchError when a newer program wrote it.
    """
    if not is_archive(path):
        raise InvalidValueError("path", f"{path} is no archive of agentos_store")
    with reading(path) as file:
        found, computed = _digests(path, file, progress)
        if found != computed:
            raise _find_fault(path, file)
        yield Archive(path, file, found)


def _digests(path: Path, file: BinaryIO, progress: Progress | None) -> tuple[str, str]:
    """Return the digest that stands in the file, and the one that it has."""
    total = os.fstat(file.fileno()).st_size
    if total <= DIGITS:
        raise DamagedFileError(str(path), "it is cut off")
    digest, left = hashlib.sha256(), total - DIGITS
    with _unreadable(path):
        while left:
            piece = file.read(min(BUFFER, left))
            if not piece:
                raise DamagedFileError(str(path), "it is cut off")
            digest.update(piece)
            left -= len(piece)
            if progress is not None:
                progress("checking bytes", total - DIGITS - left, total - DIGITS)
        found = file.read(DIGITS)
    digest.update(UNSET)
    return found.decode("ascii", "replace"), digest.hexdigest()


def _find_fault(path: Path, file: BinaryIO) -> DamagedFileError:
    """Return the error for a file whose digest is another one, as near to the place as can be told."""
    try:
        archive = Archive(path, file, "")
        for table in archive.manifest.tables:
            for number, line in enumerate(archive.lines(table), start=1):
                if not _is_row(line, table):
                    return archive.damaged_row("is not one that agentos_store writes", table, number)
    except DamagedFileError as error:
        return error
    except SchemaMismatchError:
        # It is the damage that names another one.
        pass
    return DamagedFileError(str(path), "a byte of it was changed that is none of a row")


def _is_row(line: bytes, table: TableEntry) -> bool:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(row, list) and len(row) == len(table.columns)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """Open a file; NotFoundError when it is not there."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise NotFoundError("file", str(path)) from None
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}") from None
    with file:
        yield file


@contextlib.contextmanager
def _unreadable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnavailableError(f"{path} cannot be read: {error.strerror}") from None
