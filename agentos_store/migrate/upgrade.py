"""Moving a database between revisions with Alembic, under the lock."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection

from agentos_store.engine.sqlite.connect import connect_reader
from agentos_store.engine.version import TABLE, read_revision_postgresql, read_revision_sqlite
from agentos_store.migrate.locked import locked_connection
from agentos_store.migrate.revisions import check_revision, known, scripts
from agentos_store.migrate.target import Target

log = logging.getLogger("agentos_store.migrate")


def upgrade(target: Target, wanted: str) -> int:
    """Climb to the revision and return how many revisions that took; 0 when another process was faster."""
    with locked_connection(target) as connection:
        # Read again under the lock: whoever held it before may have done the work.
        found = _revision(connection, target)
        if found is not None and found not in known():
            check_revision(found, where=target.describe())
        position = -1 if found is None else known().index(found)
        steps = known().index(wanted) - position
        if steps <= 0:
            return 0
        config = _config(connection, target)
        _back_up(target, config, _between(config, found, wanted))
        command.upgrade(config, wanted)
    log.info("%s: %d revisions applied, now at %s", target.describe(), steps, wanted)
    return steps


def downgrade(target: Target, wanted: str | None) -> int:
    """Descend to the revision, or to nothing with None, and return how many revisions that took."""
    with locked_connection(target) as connection:
        found = _revision(connection, target)
        if found is None:
            return 0
        if found not in known():
            check_revision(found, where=target.describe())
        steps = known().index(found) - (-1 if wanted is None else known().index(wanted))
        if steps <= 0:
            return 0
        config = _config(connection, target)
        _back_up(target, config, _between(config, wanted, found))
        command.downgrade(config, wanted or "base")
    log.info("%s: %d revisions taken back, now at %s", target.describe(), steps, wanted)
    return steps


def _revision(connection: Connection, target: Target) -> str | None:
    raw: Any = connection.connection.dbapi_connection
    if target.schema is None:
        return read_revision_sqlite(raw)
    # Asking a table that does not exist would end the transaction.
    with connection.begin_nested() as savepoint:
        found = read_revision_postgresql(raw.cursor(), target.schema)
        savepoint.rollback()
    return found


def _config(connection: Connection, target: Target) -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["schema"] = target.schema
    config.attributes["append_only"] = target.settings.append_only
    return config


def _between(config: Config, lower: str | None, upper: str) -> list[Script]:
    return list(ScriptDirectory.from_config(config).iterate_revisions(upper, lower or "base"))


def _back_up(target: Target, config: Config, steps: Iterable[Script]) -> None:
    """Copy an SQLite file with rows in it beside itself before a table of it is rewritten."""
    del config
    if target.path is None or not any(getattr(step.module, "REWRITES", False) for step in steps):
        return
    source = connect_reader(target.path, busy_timeout=target.settings.busy_timeout)
    try:
        if not _has_rows(source):
            return
        revision = read_revision_sqlite(source)
        copy = _free_name(Path(f"{target.path}.at-{revision}.backup"))
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        destination = sqlite3.connect(copy)
        try:
            source.backup(destination)
        finally:
            destination.close()
    finally:
        source.close()
    log.info("%s: copied to %s before a table is rewritten", target.describe(), copy)


def _has_rows(source: sqlite3.Connection) -> bool:
    tables = source.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name <> ?", (TABLE,)
    ).fetchall()
    return any(source.execute(f'SELECT 1 FROM "{name}" LIMIT 1').fetchone() for (name,) in tables)


def _free_name(path: Path) -> Path:
    number = 0
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free
