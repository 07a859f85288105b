"""The exit codes: what a script can tell from them is part of the interface."""

from __future__ import annotations

from agentos_store.errors import (
    AlreadyExistsError,
    ConflictError,
    CycleError,
    InvalidValueError,
    NotFoundError,
    SchemaMismatchError,
    StoreError,
    UnavailableError,
)

FOUND_WRONG = 1
"""The command did its work and found something wrong: a broken audit chain, a schema that has drifted."""

_CODES: tuple[tuple[type[StoreError], int], ...] = (
    (NotFoundError, 3),
    (InvalidValueError, 4),
    (AlreadyExistsError, 5),
    (ConflictError, 5),
    (CycleError, 5),
    (SchemaMismatchError, 6),
    (UnavailableError, 7),
)


def exit_code(error: StoreError) -> int:
    """Return the exit code of an error."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), FOUND_WRONG)
