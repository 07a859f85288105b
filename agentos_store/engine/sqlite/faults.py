"""What the result codes of SQLite mean to a caller."""

from __future__ import annotations

import sqlite3

from agentos_store.engine.violations import IntegrityViolation, Kind
from agentos_store.errors import InvalidValueError, LockTimeoutError, StoreError, UnavailableError

_CONSTRAINTS: dict[int, Kind] = {
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "unique",
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "unique",
    sqlite3.SQLITE_CONSTRAINT_ROWID: "unique",
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: "foreign_key",
    sqlite3.SQLITE_CONSTRAINT_CHECK: "check",
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: "not_null",
    sqlite3.SQLITE_CONSTRAINT_TRIGGER: "append_only",
}

_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk reported an error",
    sqlite3.SQLITE_READONLY: "the database file is read-only",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
    sqlite3.SQLITE_PERM: "the database file may not be accessed",
    sqlite3.SQLITE_AUTH: "the database file may not be accessed",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged; restore a backup, or salvage what can be read",
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
}


def translate(error: sqlite3.Error, *, waited: float = 0.0) -> StoreError:
    """Return the store's error for one of the driver's; its text, which may hold values, stays behind."""
    code = getattr(error, "sqlite_errorcode", None)
    name = getattr(error, "sqlite_errorname", None)
    if code is None:
        # The sqlite3 module itself refused: a closed connection, or a value that it cannot bind.
        return UnavailableError(f"the SQLite driver refused the call ({type(error).__name__})")
    primary = code & 0xFF
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return LockTimeoutError("the database file", waited=waited, holder="another program", code=name)
    if primary == sqlite3.SQLITE_CONSTRAINT:
        return IntegrityViolation(_CONSTRAINTS.get(code, "other"), None)
    if primary == sqlite3.SQLITE_TOOBIG:
        return InvalidValueError("value", "longer than SQLite can store")
    if primary == sqlite3.SQLITE_ERROR:
        # It is about the statement, which is ours and holds no value: "no such table: …".
        return UnavailableError(f"SQLite does not understand the statement: {error}", code=name)
    return UnavailableError(_REASONS.get(primary, f"SQLite reported {name}"), code=name)
