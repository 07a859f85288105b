"""SQLite, from outside: the file, what lies beside it, the disk below it, and who reads it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agentos_store.engine.network_fs import network_filesystem
from agentos_store.engine.sqlite.vitals import look_at_file
from agentos_store.operations.doctor.kinds import finding
from agentos_store.operations.doctor.patient import SQLitePatient
from agentos_store.operations.doctor.report import Finding, amount, some

MIB = 1024**2

FIRST_FAULTY, LAST_FAULTY = (3, 7, 0), (3, 51, 2)
"""The versions with the bug that damages files when two connections checkpoint at once."""

WAL_LARGE = 256 * MIB
"""Bytes; the log begins anew at 64 MiB when nobody keeps it from that."""

DISK_LOW = 1024 * MIB
"""Bytes that should be free, or a tenth of the file where that is more."""

FILE_LARGE = 50 * 1024 * MIB
"""Bytes above which the sources would move to a server."""

FRAMES_BEHIND = 4000
"""Pages that were written to the log since a reader began, above which it is a long one: four checkpoints."""

STALE = 3600.0
"""Seconds since a file was written that somebody writes and then renames or removes."""

LOCKS = Path("/proc/locks")

SUFFIXES = ("", "-wal", "-shm", "-journal", "-next", "-turn")


def identity(patient: SQLitePatient) -> Iterator[Finding]:
    """Look whether the file is still the one that the store has open; it would go on with one that is no more."""
    if patient.in_use:
        backend: Any = patient.backend
        look_at_file(backend)
    yield from ()


def version(patient: SQLitePatient) -> Iterator[Finding]:
    """Look whether this SQLite can damage a file."""
    del patient
    if FIRST_FAULTY <= sqlite3.sqlite_version_info <= LAST_FAULTY:
        yield finding("sqlite-version", f"SQLite {sqlite3.sqlite_version}")


def file_system(patient: SQLitePatient) -> Iterator[Finding]:
    """Look whether other machines see the file too."""
    kind = network_filesystem(patient.path)
    if kind is not None:
        yield finding("network-file-system", f"the file lies on {kind}")


def rights(patient: SQLitePatient) -> Iterator[Finding]:
    """Look who else can read or replace the files, and whether they have one owner."""
    files = _files(patient.path)
    exposed = [
        f"{path.name} ({stat.S_IMODE(found.st_mode):o})" for path, found in files.items() if found.st_mode & 0o007
    ]
    if exposed:
        yield finding("file-readable", some(exposed))
    directory = patient.path.parent
    mode = directory.stat().st_mode
    # With the sticky bit only its owner can replace a file.
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        yield finding("directory-writable", f"{directory} ({stat.S_IMODE(mode):o})")
    owner = files[patient.path].st_uid
    strange = [f"{path.name} (user {found.st_uid})" for path, found in files.items() if found.st_uid != owner]
    if strange:
        yield finding("file-owner", f"the database belongs to user {owner}; {some(strange)}")


def room(patient: SQLitePatient) -> Iterator[Finding]:
    """Look how large the files are, and how much room the disk has."""
    sizes = {path.name.removeprefix(patient.path.name): found.st_size for path, found in _files(patient.path).items()}
    size = sizes[""]
    if size > FILE_LARGE:
        yield finding("file-large", f"{amount(size)}; {amount(FILE_LARGE)} are the limit")
    if (log := sizes.get("-wal", 0)) > WAL_LARGE:
        yield finding("wal-large", f"the log has {amount(log)}, the file {amount(size)}")
    free = shutil.disk_usage(patient.path.parent).free
    if free < max(DISK_LOW, size // 10):
        yield finding("disk-low", f"{amount(free)} are free, and the file has {amount(size)}")


def leftovers(patient: SQLitePatient) -> Iterator[Finding]:
    """Look what lies beside the file and nobody uses."""
    path = patient.path
    if (journal := path.with_name(f"{path.name}-journal")).exists() and journal.stat().st_size:
        yield finding("journal-left", f"{journal.name} has {amount(journal.stat().st_size)}")
    now = time.time()
    left = [each for each in sorted(path.parent.iterdir()) if _is_left(each, path.name, now)]
    if left:
        size = amount(sum(each.stat().st_size for each in left))
        yield finding("leftovers", f"{size} in {some([each.name for each in left])}")


def readers(patient: SQLitePatient) -> Iterator[Finding]:
    """Look for connections that read a state of the file which is long past. Only Linux tells."""
    path = patient.path
    shared = path.with_name(f"{path.name}-shm")
    if not LOCKS.exists() or not shared.exists():
        return
    head = _head(shared)
    if head is None:
        return
    newest = struct.unpack_from("=I", head, _FRAMES)[0]
    marks = struct.unpack_from("=5I", head, _MARKS)
    behind = [
        f"process {process} reads a state {newest - marks[number]:,} pages back"
        for number, process in sorted(_held(shared))
        # The first mark is of those who read no log at all.
        if number and newest - marks[number] > FRAMES_BEHIND
    ]
    if behind:
        yield finding("long-reader", some(behind))


CHECKS = (identity, version, file_system, rights, room, leftovers, readers)

# The layout of the index of the write-ahead log, as SQLite's file format has it: the number of frames in its header,
# the marks up to which readers read, and behind them one byte for each lock.
_FRAMES, _MARKS, _HEAD = 16, 100, 136
_FIRST_MARK = 123


def _files(path: Path) -> Mapping[Path, os.stat_result]:
    found = {}
    for suffix in SUFFIXES:
        each = path.with_name(f"{path.name}{suffix}")
        # Those beside the file come and go.
        with contextlib.suppress(FileNotFoundError):
            found[each] = each.stat()
    return found


def _is_left(path: Path, database: str, now: float) -> bool:
    name = path.name
    if name.startswith(f"{database}.at-"):
        return True
    # Whoever writes one of these may still be at work.
    partial = name.startswith(f".{database}.") and name.endswith(".partial")
    if not partial and name != f"{database}-move":
        return False
    with contextlib.suppress(FileNotFoundError):
        return now - path.stat().st_mtime > STALE
    return False


def _head(shared: Path) -> bytes | None:
    # Read by a process of its own: closing the file here would free every lock that SQLite has on it in this process.
    program = shutil.which("head")
    if program is None:
        return None
    answer = subprocess.run(  # noqa: S603  a program of the system, and a path of ours
        [program, "-c", str(_HEAD), str(shared)], capture_output=True, timeout=5, check=False
    )
    return answer.stdout if answer.returncode == 0 and len(answer.stdout) == _HEAD else None


def _held(shared: Path) -> Iterator[tuple[int, str]]:
    """Yield which marks are locked, and by which processes."""
    number = shared.stat().st_ino
    for line in LOCKS.read_text(encoding="utf-8").splitlines():
        # 1: POSIX  ADVISORY  READ 4711 08:01:131 124 124
        words = line.split()
        if len(words) == 8 and words[1] == "POSIX" and words[5].rpartition(":")[2] == str(number):
            first, last = int(words[6]), _FIRST_MARK + 4 if words[7] == "EOF" else int(words[7])
            for byte in range(max(first, _FIRST_MARK), min(last, _FIRST_MARK + 4) + 1):
                yield byte - _FIRST_MARK, words[4]
