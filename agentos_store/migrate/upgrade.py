"""Moving a database between revisions with Alembic, under the lock."""

from __future__ import annotations

import logging
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from agentos_store.engine.version import read_revision_postgresql, read_revision_sqlite
from agentos_store.migrate.locked import locked_connection
from agentos_store.migrate.revisions import check_known, known, scripts
from agentos_store.migrate.target import Target

log = logging.getLogger("agentos_store.migrate")


def upgrade(target: Target, wanted: str) -> int:
    """Climb to the revision and return how many revisions that took; 0 when another process was faster."""
    with locked_connection(target) as connection:
        # Read again under the lock: whoever held it before may have done the work.
        found = _revision(connection, target)
        check_known(found, where=target.describe())
        steps = _position(wanted) - _position(found)
        if steps <= 0:
            return 0
        command.upgrade(_config(connection, target), wanted)
    log.info("%s: %d revisions applied, now at %s", target.describe(), steps, wanted)
    return steps


def downgrade(target: Target, wanted: str | None) -> int:
    """Descend to the revision, or to nothing with None, and return how many revisions that took."""
    with locked_connection(target) as connection:
        found = _revision(connection, target)
        check_known(found, where=target.describe())
        check_known(wanted, where="the revision to descend to")
        steps = _position(found) - _position(wanted)
        if steps <= 0:
            return 0
        command.downgrade(_config(connection, target), wanted or "base")
    log.info("%s: %d revisions taken back, now at %s", target.describe(), steps, wanted)
    return steps


def _position(revision: str | None) -> int:
    return -1 if revision is None else known().index(revision)


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
    config.attributes["target"] = target
    return config
