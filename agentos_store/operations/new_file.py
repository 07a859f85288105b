"""Files that are written from their beginning to their end, and are there whole or not at all: archives, exports."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from agentos_store.engine.sqlite.filelock import lock, try_lock
from agentos_store.errors import AlreadyExistsError, InvalidValueError
from agentos_store.operations.backups.workshop import publish, typed_errors

BUFFER = 1024 * 1024
_ENDING = ".partial"


class NewFile:
    """A file that is being made. What the system refuses is an UnavailableError that names the file."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path

    def write(self, data: bytes) -> int:
        """Append the bytes."""
        with typed_errors(self._path):
            return self._file.write(data)

    def flush(self) -> None:
        """Give what was written to the system."""
        with typed_errors(self._path):
            self._file.flush()

    def amend_end(self, data: bytes) -> None:
        """Write the bytes over the last ones."""
        with typed_errors(self._path):
            self._file.seek(-len(data), os.SEEK_END)
            self._file.write(data)


@contextlib.contextmanager
def new_file(path: Path, *, replace: bool = False) -> Iterator[NewFile]:
    """Give a file that only its owner may read, and that gets its name when it is complete and on its disk.

    AlreadyExistsError when there is such a file, before or by then, unless it may be replaced. After an error nothing
    is left; what a killed process leaves has another name, and goes when a file of this name is made again.
    """
    if path.is_dir() and not path.is_symlink():
        raise InvalidValueError("path", f"{path} is a directory")
    if not path.parent.is_dir():
        raise InvalidValueError("path", f"there is no folder {path.parent}")
    if not replace and os.path.lexists(path):
        raise AlreadyExistsError("file", str(path))
    with typed_errors(path):
        _remove_leftovers(path)
        part, made = _begin(path)
    try:
        file = os.fdopen(made, "w+b", buffering=BUFFER)
        try:
            new = NewFile(file, path)
            yield new
            new.flush()
            with typed_errors(path):
                publish(part, path, replace=replace)
        finally:
            # After an error what was not written yet is of no use.
            with contextlib.suppress(OSError):
                file.close()
    finally:
        part.unlink(missing_ok=True)


def _begin(path: Path) -> tuple[Path, int]:
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_ENDING}")
        made = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):
            # Some file systems have no locks; there nobody can tell that it was left behind either.
            lock(made)
        if os.fstat(made).st_nlink:
            return part, made
        # Whoever makes a file of the same name took it for left behind, before it had its lock.
        os.close(made)


def _remove_leftovers(path: Path) -> None:
    prefix = f".{path.name}."
    for found in path.parent.iterdir():
        if found.name.startswith(prefix) and found.name.endswith(_ENDING) and found.is_file():
            with contextlib.suppress(OSError), found.open("r+b") as file:
                if try_lock(file.fileno()):
                    found.unlink()
