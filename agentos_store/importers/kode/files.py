"""Files and folders below one folder: only read, never left, and whatever they are called.

Names are kept as the system gives them; in what is shown, bytes that are no UTF-8 and control characters are escaped.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentos_store.errors import InvalidValueError, NotFoundError, UnavailableError
from agentos_store.importers.lines import CHUNK, LineReader, is_same

LARGEST: Final = 512 * 1024 * 1024
"""Bytes of a file that is read whole; a larger one is refused."""

_LEADS_OUT: Final = "it is a link that leads out of the directory"
_HIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Refused(Exception):
    """A file or a folder that cannot be read, and why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Gone(Refused):
    """It was there a moment ago, or never."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a folder holds under one name."""

    name: str
    path: str
    """Below the top, with ``/`` between the names."""
    is_folder: bool
    refused: str | None = None
    """Why it may not be read."""


class Tree:
    """A folder, and what is below it.

    A link is followed only to a file, and only to one below the same top: a linked folder is either outside, or has a
    place of its own inside where it is read anyway, so that no circle of links is ever walked.
    """

    def __init__(self, top: Path) -> None:
        try:
            mode = top.stat().st_mode
            self._top = top.resolve(strict=True)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError("folder", str(top)) from None
        except OSError as error:
            raise UnavailableError(f"cannot read the folder {str(top)!r}: {error.strerror}") from None
        except ValueError:
            raise InvalidValueError("path", "no folder can have this name") from None
        if not stat.S_ISDIR(mode):
            raise InvalidValueError("path", "it is not a folder")

    def entries(self, folder: str) -> list[Entry]:
        """Return what the folder holds, by name; raise Refused when it cannot be read."""
        try:
            with os.scandir(self._real(folder)) as found:
                entries = [self._entry(folder, each) for each in found]
        except (OSError, ValueError) as error:
            raise _refused(error) from None
        return sorted(entries, key=lambda entry: entry.name)

    def identity(self, folder: str) -> tuple[int, int]:
        """Return what tells the folder from every other, also when it is mounted in two places."""
        try:
            about = self._real(folder).stat()
        except (OSError, ValueError) as error:
            raise _refused(error) from None
        return about.st_dev, about.st_ino

    def read(self, path: str) -> bytes:
        """Return the content of a file; one that is written to meanwhile is read once more, then refused."""
        for _ in range(2):
            content, settled = self._read_once(path)
            if settled:
                return content
        raise Refused("it was written to while it was read, twice")

    def lines(self, path: str, longest: int) -> LineReader:
        """Open a file to be read line by line."""
        return LineReader(self._open(path), longest)

    def oldest_change(self, paths: Iterator[str]) -> float | None:
        """Return the earliest time of change among the files, in seconds since 1970."""
        times: list[float] = []
        for path in paths:
            try:
                times.append(self._real(path).stat().st_mtime)
            except (OSError, ValueError):
                continue
        return min(times, default=None)

    def _real(self, path: str) -> Path:
        return self._top.joinpath(*path.split("/")) if path else self._top

    def _entry(self, folder: str, found: os.DirEntry[str]) -> Entry:
        path = f"{folder}/{found.name}" if folder else found.name
        try:
            if not found.is_symlink():
                if found.is_dir(follow_symlinks=False):
                    return Entry(found.name, path, is_folder=True)
                if found.is_file(follow_symlinks=False):
                    return Entry(found.name, path, is_folder=False)
                return Entry(found.name, path, is_folder=False, refused="it is neither a file nor a folder")
            real = Path(found.path).resolve(strict=True)
            if real.is_dir():
                why = "it is a link to a folder, and those are not followed"
                return Entry(found.name, path, is_folder=True, refused=why)
        except FileNotFoundError:
            return Entry(found.name, path, is_folder=False, refused="it is a link to nothing")
        except (OSError, RuntimeError) as error:
            # A link to itself, among others; before Python 3.13 that is a RuntimeError.
            return Entry(found.name, path, is_folder=False, refused=_refused(error).reason)
        if not self._is_below(real):
            return Entry(found.name, path, is_folder=False, refused=_LEADS_OUT)
        return Entry(found.name, path, is_folder=False)

    def _is_below(self, real: Path) -> bool:
        return real.is_relative_to(self._top)

    def _open(self, path: str) -> int:
        try:
            real = self._real(path).resolve(strict=True)
            # Without waiting: to open a pipe would wait for its writer.
            flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
            opened = os.open(real, flags) if self._is_below(real) else None
        except (OSError, ValueError, RuntimeError) as error:
            raise _refused(error) from None
        if opened is None:
            raise Refused(_LEADS_OUT)
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise Refused("it is neither a file nor a folder")
        return opened

    def _read_once(self, path: str) -> tuple[bytes, bool]:
        opened = self._open(path)
        try:
            before = os.fstat(opened)
            if before.st_size > LARGEST:
                raise Refused(f"its {before.st_size:,} bytes are more than the limit of {LARGEST:,}")
            content = read_all(opened)
            settled = is_same(before, os.fstat(opened)) and len(content) == before.st_size
        except (OSError, MemoryError) as error:
            raise _refused(error) from None
        finally:
            os.close(opened)
        return content, settled


def read_all(opened: int) -> bytes:
    """Read an open file to its end, or a little beyond the limit."""
    pieces: list[bytes] = []
    size = 0
    while size <= LARGEST and (piece := os.read(opened, CHUNK)):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def shown(path: str) -> str:
    """Return a path as text that can be printed: odd bytes and control characters are escaped."""
    return _HIDDEN.sub(lambda found: _escaped(found.group()), path)


def _escaped(letter: str) -> str:
    code = ord(letter)
    # A byte that is no UTF-8 came as a lone surrogate.
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code
    return f"\\x{byte:02x}" if byte < 256 else f"\\u{byte:04x}"


def _refused(error: OSError | ValueError | RuntimeError | MemoryError) -> Refused:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return Gone("it is gone")
    if isinstance(error, OSError):
        return Refused(f"it cannot be read: {error.strerror}")
    if isinstance(error, MemoryError):
        return Refused("it does not fit into memory")
    return Refused("it is a link to itself" if isinstance(error, RuntimeError) else "no file can have this name")
