"""A file of one value on each line, read line by line however large it is and however a crash has left it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

CHUNK: Final = 1024 * 1024
"""Bytes that are read at once."""


class LineReader:
    """A file's lines, one after the other, in bytes and without their ends.

    What is longer than ``longest`` comes in pieces. NUL bytes around a line, which a crash leaves in a file that was
    being extended, are taken off; a run of them is never kept in memory.
    """

    def __init__(self, opened: int, longest: int) -> None:
        self._file = os.fdopen(opened, "rb", buffering=CHUNK)
        self._before = os.fstat(opened)
        self._longest = longest
        self.has_nul = False
        """Whether NUL bytes were taken off."""
        self.is_torn = False
        """Whether what came last had no end of line."""
        self.too_long = 0
        """Lines that were longer and are left out."""
        self.number = 0
        """Which line of the file came last, from 1; empty ones count."""

    def __iter__(self) -> Iterator[bytes]:
        skipping = False
        ended = 0
        while piece := self._file.readline(self._longest):
            ends = piece.endswith(b"\n")
            self.number = ended + 1
            ended += ends
            bare = piece.strip(b"\0\r\n")
            self.has_nul = self.has_nul or len(bare) < len(piece.strip(b"\r\n"))
            if skipping:
                skipping = not ends
            elif not ends and len(piece) == self._longest and bare:
                self.too_long += 1
                skipping = True
            elif bare.strip():
                self.is_torn = not ends
                yield bare

    @property
    def settled(self) -> bool:
        """Whether the file is as it was when it was opened."""
        return is_same(self._before, os.fstat(self._file.fileno()))

    @property
    def has_grown(self) -> bool:
        """Whether the file became longer since it was opened."""
        return os.fstat(self._file.fileno()).st_size > self._before.st_size

    @property
    def share(self) -> float:
        """How much of the file is read, from 0 to 1."""
        return min(self._file.tell() / self._before.st_size, 1.0) if self._before.st_size else 1.0

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def is_same(before: os.stat_result, after: os.stat_result) -> bool:
    """Tell whether nobody wrote to a file between the two looks at it."""
    return (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
