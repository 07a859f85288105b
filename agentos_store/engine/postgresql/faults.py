"""What PostgreSQL's SQLSTATE codes mean to a caller, and which faults are worth another try."""

from __future__ import annotations

import psycopg

from agentos_store.engine.version import HEAD
from agentos_store.engine.violations import IntegrityViolation, Kind
from agentos_store.errors import (
    InvalidValueError,
    LockTimeoutError,
    SchemaMismatchError,
    StoreError,
    TransientError,
    UnavailableError,
)

_CONSTRAINTS: dict[str, Kind] = {
    "23505": "unique",
    "23503": "foreign_key",
    "23001": "foreign_key",
    "23514": "check",
    "23502": "not_null",
    "23000": "append_only",
}

_REASONS = {
    "28P01": "the server refused the login: wrong user or password",
    "28000": "the server refused the login",
    "3D000": "there is no such database",
    "42501": "the role lacks the privilege",
    "53100": "the server's disk is full",
    "53200": "the server is out of memory",
    "25006": "the server only accepts reads",
    "57014": "the statement took longer than its time limit",
    "54000": "the statement is beyond a limit of the server",
}

DISCONNECTED = ("08", "57P01", "57P02", "57P03", "25P03")
"""The connection is gone, or will be: another one is needed."""

_FORGOTTEN = ("26000", "42P05")
"""The server's prepared statements are not those that the driver knows of: somebody else works on the connection."""

_RETRYABLE = (*DISCONNECTED, *_FORGOTTEN, "40001", "40P01", "53300", "55P03")

_ROLLED_BACK = (*_FORGOTTEN, "40001", "40P01", "53300", "55P03", "57P03", "25P03")
"""The server said so before it did anything that lasts."""


def translate(error: psycopg.Error, *, waited: float = 0.0) -> StoreError:
    """Return the store's error for one of the driver's; its text, which may hold values, stays behind."""
    state = error.sqlstate
    if state is None:
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return TransientError("the connection to the server was lost", outcome_unknown=True)
        if isinstance(error, psycopg.DataError):
            return InvalidValueError("value", "the driver cannot send it")
        return UnavailableError(f"the PostgreSQL driver refused the call ({type(error).__name__})")
    if state in _CONSTRAINTS:
        return IntegrityViolation(_CONSTRAINTS[state], error.diag.constraint_name)
    if _is_stale(error):
        return TransientError("a prepared statement no longer fits the schema", code=state)
    if state == "55P03":
        return LockTimeoutError("a row", waited=waited, code=state)
    if state.startswith(_RETRYABLE):
        unknown = not state.startswith(_ROLLED_BACK)
        return TransientError("the server could not finish the call", code=state, outcome_unknown=unknown)
    if state.startswith("22"):
        return InvalidValueError("value", f"the server refused it ({state})")
    if state in {"42P01", "3F000", "42703"}:
        # It is about the statement, which is ours and holds no value: "relation … does not exist".
        missing = error.diag.message_primary
        return SchemaMismatchError(found=None, expected=HEAD, why=f"{missing}; the schema is not the one of this code")
    return UnavailableError(_REASONS.get(state, f"the server reported {state}"), code=state)


def translate_connect(error: psycopg.Error, where: str, *, remedy: str | None = None) -> UnavailableError:
    """Return the store's error for a connection that could not be made; libpq's text holds no row and no password.

    ``remedy`` says what to do where it was for want of TLS.
    """
    text = " ".join(str(error).split())
    if remedy is not None and any(word in text for word in ("SSL", "certificate")):
        text = f"{text}; {remedy}"
    return UnavailableError(f"cannot connect to {where}: {text}", code=error.sqlstate)


def is_disconnect(error: psycopg.Error) -> bool:
    """Tell whether the connection that raised this is of no use any more, and those beside it neither.

    They are not when the schema was changed: each holds statements that were prepared for the old one.
    """
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return state.startswith((*DISCONNECTED, *_FORGOTTEN)) or _is_stale(error)


def _is_stale(error: psycopg.Error) -> bool:
    """Tell whether a migration gave the columns of a prepared statement other types (feature_not_supported)."""
    return error.sqlstate == "0A000" and error.diag.source_function == "RevalidateCachedQuery"
