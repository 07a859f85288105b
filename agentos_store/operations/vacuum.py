"""Vacuum: what deleted rows took up goes back, to the file system or to new rows."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agentos_store.engine.backend import Backend
from agentos_store.engine.version import quote_name
from agentos_store.models import metadata

SKIPS_LOCKED = 120_000
"""The server's version since which a vacuum can pass over a table that somebody uses."""

LOCKED = "55P03"

BRIEF = 100
"""Milliseconds."""


@dataclass(frozen=True, slots=True)
class VacuumReport:
    """What a vacuum gave back."""

    bytes_before: int
    bytes_after: int
    full: bool
    """Whether everything was written anew, as it always is on SQLite."""
    is_held_up: bool
    """Whether a reader of SQLite kept the file from becoming shorter, which it does when a later one finds none."""
    skipped: Mapping[str, str]
    """Tables that were passed over, and why."""
    duration: dt.timedelta


def vacuum(backend: Backend, *, full: bool = False) -> VacuumReport:
    """Give back what deleted rows took up; return the bytes on disk before and after.

    On SQLite the file is written anew in the queue of writers, who wait for as long as it takes, about a second for
    100 MB, and longer than the limit is a LockTimeoutError for them; readers go on. Meanwhile it needs twice its size
    beside it. On PostgreSQL it is ``VACUUM (ANALYZE)`` of each table, beside everybody: the space is used for new
    rows. With ``full`` the tables are written anew there too, each locked against everybody meanwhile. A table that
    somebody has locked, or that the role may not vacuum, is passed over and named in the report.

    Raises LockTimeoutError when other writers do not give way, UnavailableError when the disk is full.
    """
    started = time.monotonic()
    before = backend.size()
    skipped: dict[str, str] = {}
    is_held_up = False
    if backend.schema is None:
        is_held_up = _vacuum_file(backend)
    else:
        skipped = _vacuum_tables(backend, backend.schema, full=full)
    return VacuumReport(
        bytes_before=before,
        bytes_after=backend.size(),
        full=full or backend.schema is None,
        is_held_up=is_held_up,
        skipped=skipped,
        duration=dt.timedelta(seconds=time.monotonic() - started),
    )


def _vacuum_file(backend: Any) -> bool:
    with backend.alone("vacuum") as raw:
        raw.execute("VACUUM")
        usual = raw.execute("PRAGMA busy_timeout").fetchone()[0]
        # All writers wait for this; a reader of an older state is not waited for.
        raw.execute(f"PRAGMA busy_timeout={BRIEF}")
        try:
            # The new pages are in the log; now they go into the file, which is cut to its new length.
            return bool(raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        finally:
            raw.execute(f"PRAGMA busy_timeout={usual}")


def _vacuum_tables(backend: Backend, schema: str, *, full: bool) -> dict[str, str]:
    skipped: dict[str, str] = {}
    with backend.raw_connection() as cursor:
        options = ["ANALYZE"] + ["FULL"] * full
        if cursor.connection.info.server_version >= SKIPS_LOCKED:
            options.append("SKIP_LOCKED")
        told: list[str | None] = []

        def note(notice: Any) -> None:
            # What it says is gone when this returns.
            told.append(notice.sqlstate)

        cursor.connection.add_notice_handler(note)
        try:
            for table in metadata.sorted_tables:
                told.clear()
                name = f"{quote_name(schema)}.{quote_name(table.name)}"
                cursor.execute(f"VACUUM ({', '.join(options)}) {name}".encode(), prepare=False)
                if told:
                    skipped[table.name] = "somebody has locked it" if LOCKED in told else "the role may not vacuum it"
        finally:
            cursor.connection.remove_notice_handler(note)
    return skipped
