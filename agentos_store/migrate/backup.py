"""The copy of an SQLite file that is made before a revision rewrites one of its tables."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alembic.runtime.migration import RevisionStep

from agentos_store.engine.sqlite.connect import connect_reader
from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.version import TABLE, read_revision_sqlite
from agentos_store.errors import UnavailableError
from agentos_store.migrate.target import Target

log = logging.getLogger("agentos_store.migrate")


def back_up_before(target: Target, steps: Iterable[Any]) -> Path | None:
    """Copy the file beside itself when a step rewrites a table and there are rows to lose; return the copy.

    A revision names the ways that rewrite: ``REWRITES = ("upgrade",)``, ``("downgrade",)`` or both. Nothing of the
    transaction has been written yet, and the copy is whole before anything is.
    """
    rewrites = any(
        isinstance(step, RevisionStep)
        and ("upgrade" if step.is_upgrade else "downgrade") in getattr(step.revision.module, "REWRITES", ())
        for step in steps
    )
    if target.path is None or not rewrites:
        return None
    source = connect_reader(target.path, busy_timeout=target.settings.busy_timeout)
    try:
        if not _has_rows(source):
            return None
        copy = _free_name(Path(f"{target.path}.at-{read_revision_sqlite(source)}.backup"))
        _copy(source, copy)
    except sqlite3.Error as error:
        raise translate(error) from None
    finally:
        source.close()
    log.info("%s: copied to %s before a table is rewritten", target.describe(), copy)
    return copy


def _copy(source: sqlite3.Connection, path: Path) -> None:
    try:
        # Made by us first: SQLite would let everybody read it.
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise UnavailableError(f"{path} cannot be created: {error.strerror}") from None
    try:
        destination = sqlite3.connect(path)
        try:
            source.backup(destination)
        finally:
            destination.close()
    except BaseException:
        # Half a copy would be taken for a whole one.
        path.unlink(missing_ok=True)
        raise


def _has_rows(source: sqlite3.Connection) -> bool:
    # What a virtual table keeps for itself is there without rows too.
    tables = source.execute(
        "SELECT name FROM sqlite_master AS t WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        " AND sql NOT LIKE 'CREATE VIRTUAL%' AND name <> ? AND NOT EXISTS"
        " (SELECT 1 FROM sqlite_master AS v WHERE v.sql LIKE 'CREATE VIRTUAL%' AND t.name GLOB v.name || '_*')",
        (TABLE,),
    ).fetchall()
    return any(source.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() for (name,) in tables)


def _free_name(path: Path) -> Path:
    number = 0
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free
