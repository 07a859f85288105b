"""A look at an SQLite file: is it there, does it answer, does it take a write."""

from __future__ import annotations

import sqlite3
from time import perf_counter
from typing import TYPE_CHECKING

from agentos_store.engine.session import Call
from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.sqlite.queue import Job
from agentos_store.engine.version import read_revision_sqlite
from agentos_store.engine.vitals import Vitals
from agentos_store.errors import StoreError, UnavailableError

if TYPE_CHECKING:
    from agentos_store.engine.sqlite.backend import SQLiteBackend

GONE = "SQLITE_CANTOPEN"
"""The code of a file that is not there any more."""


def examine(backend: SQLiteBackend, vitals: Vitals) -> None:
    """Find out, step by step; an error says that a step failed."""
    look_at_file(backend)
    with backend.raw_connection() as raw:
        try:
            started = perf_counter()
            revision = read_revision_sqlite(raw)
            vitals.latency = perf_counter() - started
        except sqlite3.Error as error:
            raise translate(error) from None
    vitals.connected = True
    if not vitals.read(revision):
        # It may be somebody else's file, which is left as it is.
        return
    vitals.doing = "writing"
    try:
        _write(backend)
    except StoreError as error:
        vitals.writable = False
        vitals.problems.append(f"not writable: {error}")
    else:
        vitals.writable = True


def look_at_file(backend: SQLiteBackend) -> None:
    """Connections that are open would not notice: they go on with the file that is no more."""
    try:
        found = backend.path.stat()
    except OSError as error:
        raise UnavailableError(f"{backend.path}: {error.strerror}", code=GONE) from None
    if (found.st_dev, found.st_ino) != backend.identity:
        raise UnavailableError(
            f"{backend.path} is another file than the one that was opened; open the store again", code=GONE
        )


def _write(backend: SQLiteBackend) -> None:
    """Commit a change that changes nothing; only that shows a full disk, a lock, or a file that may only be read."""
    job = Job("a health check", None, Call())
    with backend.entered():
        try:
            raw = backend.queue.begin(job).raw
            try:
                (version,) = raw.execute("PRAGMA user_version").fetchone()
                raw.execute(f"PRAGMA user_version = {int(version)}")
            except sqlite3.Error as error:
                raise translate(error) from None
            backend.queue.end(job, commit=True)
        finally:
            backend.queue.end(job, commit=False)
