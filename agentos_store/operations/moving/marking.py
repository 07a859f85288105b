"""The mark on a database that a move has begun to fill: it cannot be opened until the move is through.

The version table holds a revision that no code knows, so that every version of the library refuses the database. The
mark, the table of the progress, and what they mean for each other are changed in one transaction under the lock of the
migrations.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Connection, func, literal, select, text

from agentos_store.engine.network_fs import network_filesystem
from agentos_store.engine.sqlite.filelock import try_lock
from agentos_store.engine.version import HEAD, TABLE, UNFINISHED, quote_name
from agentos_store.errors import ConflictError, InvalidValueError, SchemaMismatchError, UnavailableError
from agentos_store.migrate.locked import locked_connection, looking_connection
from agentos_store.migrate.revisions import check_revision
from agentos_store.migrate.target import Target
from agentos_store.models import metadata
from agentos_store.operations.moving.rows import TableHash
from agentos_store.operations.moving.tables import moved_tables
from agentos_store.operations.moving.writing import PROGRESS, REVISION

OWN_ROWS = ("event_orders",)
"""Tables in which a database that holds no data may have rows all the same."""

ASKED, PAUSE = 5, 0.1
"""How often a server is asked for the lock, and the seconds between."""


def begin(target: Target, *, restart: bool, replace: bool) -> bool:
    """Mark a database for a move, initialised before if need be; return whether the move goes on with an earlier one.

    ``restart`` removes what an unfinished move has left, ``replace`` whatever is there. Raises ConflictError for a
    database that holds anything else, SchemaMismatchError for one of another revision.
    """
    found = target.revision()
    if found is None:
        _refuse_strangers(target)
        from agentos_store.migrate.upgrade import upgrade

        upgrade(target, HEAD)
    elif found != UNFINISHED:
        check_revision(found, where=target.describe())
    with locked_connection(target) as locked:
        connection = locked.execution_options(schema_translate_map={None: target.schema})
        unfinished = _revision(connection, target) == UNFINISHED
        if unfinished:
            _refuse_other_version(connection, target)
        if unfinished and not (restart or replace):
            if target.schema is not None:
                # The server may still be at work on the last batch of a process that was killed.
                connection.execute(text(f"LOCK TABLE {_prefix(target)}{PROGRESS} IN ACCESS EXCLUSIVE MODE"))
            return True
        filled = _filled(connection)
        if filled and not (replace or unfinished):
            listed = ", ".join(filled[:5]) + (", …" if len(filled) > 5 else "")
            raise ConflictError("database", target.describe(), f"is not empty: there are rows in {listed}")
        if filled:
            _clear(connection)
        place = _prefix(target)
        connection.execute(text(f"DROP TABLE IF EXISTS {place}{PROGRESS}"))
        connection.execute(
            text(f"CREATE TABLE {place}{PROGRESS} (name TEXT PRIMARY KEY, moved BIGINT NOT NULL, digits TEXT NOT NULL)")
        )
        nothing = TableHash()
        connection.execute(
            text(f"INSERT INTO {place}{PROGRESS} (name, moved, digits) VALUES (:name, :moved, :digits)"),
            [
                {"name": REVISION, "moved": 0, "digits": HEAD},
                *({"name": table.name, "moved": nothing.rows, "digits": nothing.hex} for table in moved_tables()),
            ],
        )
        _set_revision(connection, target, UNFINISHED)
    return False


@contextlib.contextmanager
def ending(target: Target) -> Iterator[None]:
    """Let nobody write there, and take the mark off at the end of the block: from then on the database can be opened.

    Who had it open before it was marked writes there all the same; what is read in the block is what will be there.
    """
    with locked_connection(target) as connection:
        place = _prefix(target)
        if target.schema is not None:
            # Of an SQLite file the connection is the only one that may write.
            listed = ", ".join(f"{place}{quote_name(table.name)}" for table in moved_tables())
            connection.execute(text(f"LOCK TABLE {listed} IN SHARE MODE"))
        yield
        connection.execute(text(f"DROP TABLE {place}{PROGRESS}"))
        if target.schema is not None:
            # The planner knows nothing of the rows yet, and its own helper comes only in minutes.
            for table in moved_tables():
                connection.execute(text(f"ANALYZE {place}{quote_name(table.name)}"))
        _set_revision(connection, target, HEAD)


@contextlib.contextmanager
def alone(target: Target) -> Iterator[None]:
    """Let no other move at the database; raise ConflictError when one is at work. What dies lets go."""
    refusal = ConflictError("database", target.describe(), "another copy or restore is at work there")
    with _file_lock(target.path, refusal) if target.path is not None else _server_lock(target, refusal):
        yield


@contextlib.contextmanager
def _file_lock(path: Path, refusal: ConflictError) -> Iterator[None]:
    kind = network_filesystem(path)
    if kind is not None:
        raise InvalidValueError(
            "target", f"the file lies on a network file system ({kind}), where SQLite's locks do not hold"
        )
    beside = Path(f"{path}-move")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UnavailableError(f"{beside} cannot be created: {error.strerror}") from None
    try:
        # Who had it before may have removed it: then it locks nobody out any more.
        if not try_lock(descriptor) or not beside.exists() or not os.path.samestat(os.fstat(descriptor), beside.stat()):
            raise refusal
        try:
            yield
        finally:
            beside.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _server_lock(target: Target, refusal: ConflictError) -> Iterator[None]:
    key = int.from_bytes(
        hashlib.sha256(f"agentos_store move {target.schema}".encode()).digest()[:8], "big", signed=True
    )
    stack = contextlib.ExitStack()
    # The transaction stays open, so it is the lock of one connection through a pooler too.
    connection = stack.enter_context(looking_connection(target))
    try:
        asked = 0
        while not connection.execute(select(func.pg_try_advisory_xact_lock(literal(key)))).scalar():
            asked += 1
            if asked == ASKED:
                raise refusal
            # The server may not have noticed yet that a process was killed.
            time.sleep(PAUSE)
        yield
    finally:
        # It may have been cut meanwhile. Who took the place then has been met at the writing.
        with contextlib.suppress(UnavailableError):
            stack.close()


def _prefix(target: Target) -> str:
    # A colon would be taken for a value's name.
    return "" if target.schema is None else f"{quote_name(target.schema)}.".replace(":", "\\:")


def _revision(connection: Connection, target: Target) -> str | None:
    found = connection.execute(text(f"SELECT revision FROM {_prefix(target)}{TABLE}")).scalar()
    return None if found is None else str(found)


def _set_revision(connection: Connection, target: Target, revision: str) -> None:
    connection.execute(text(f"UPDATE {_prefix(target)}{TABLE} SET revision = :revision"), {"revision": revision})


def _refuse_other_version(connection: Connection, target: Target) -> None:
    row = {"name": REVISION}
    found = connection.execute(text(f"SELECT digits FROM {_prefix(target)}{PROGRESS} WHERE name = :name"), row).scalar()
    if found != HEAD:
        why = (
            f"{target.describe()} holds an unfinished copy or restore that another version of agentos-store began"
            f" (revision {found}); finish it with that, or begin anew in an empty database"
        )
        raise SchemaMismatchError(found=None if found is None else str(found), expected=HEAD, why=why)


def _filled(connection: Connection) -> list[str]:
    return [
        table.name
        for table in metadata.sorted_tables
        if table.name not in OWN_ROWS and connection.execute(select(literal(1)).select_from(table).limit(1)).first()
    ]


def _clear(connection: Connection) -> None:
    """Remove every row. With its task an audit trail may go, and its own table lets nothing else pass."""
    for moved in moved_tables():
        if moved.late:
            connection.execute(moved.table.update().values({moved.columns[i]: None for i in moved.late}))
    tasks = metadata.tables["tasks"]
    for table in (tasks, *(each for each in reversed(metadata.sorted_tables) if each is not tasks)):
        connection.execute(table.delete())


def _refuse_strangers(target: Target) -> None:
    """Refuse an SQLite file that holds somebody else's tables."""
    if target.path is None or not target.path.exists() or not target.path.stat().st_size:
        return
    from agentos_store.engine.sqlite.connect import connect_reader, roll_back_journal

    roll_back_journal(target.path, busy_timeout=target.settings.busy_timeout)
    with contextlib.closing(connect_reader(target.path, busy_timeout=target.settings.busy_timeout)) as raw:
        if raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None:
            why = f"{target.describe()} holds the tables of another program"
            raise SchemaMismatchError(found=None, expected=HEAD, why=why)
