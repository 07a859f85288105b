"""A small file system, which can be filled up and emptied again."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A file system of few megabytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def free(self) -> int:
        """Return the bytes that are free."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, spare: int) -> None:
        """Leave no more than so many bytes."""
        with self._ballast.open("ab") as file:
            while (rest := self.free() - spare) > 0:
                file.write(bytes(min(rest, 1_000_000)))
                file.flush()

    def empty(self) -> None:
        """Make room again."""
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a file system of this size, or skip the test where that is not allowed."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"there is no mount to be had: {error.strerror}")
    if done.returncode:
        pytest.skip(f"a small file system may not be mounted here: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: whatever still has a file open there closes it later.
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        path.rmdir()
