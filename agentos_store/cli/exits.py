"""The exit codes: what a script can tell from them is part of the interface."""

from __future__ import annotations

FOUND_WRONG = 1
"""The command did its work and found something wrong: a broken audit chain, a schema that has drifted."""

WRONG_USAGE = 2
"""An option or a command that does not exist, or an argument that is missing."""

UNAVAILABLE = 7
"""The database, or a file, is not to be had now: it is down, full, or closed to this user."""

INTERRUPTED = 130
"""Ctrl-C. What was committed stays; the command can be repeated."""

FOUND_WEAK = 8
"""The doctor found nothing wrong, but something that may become so."""

READER_GONE = 141
"""Whoever read the output did not want the rest; a shell shows the same for a program that SIGPIPE ended."""

_CODES = (
    ("NotFoundError", 3),
    ("InvalidValueError", 4),
    ("AlreadyExistsError", 5),
    ("ConflictError", 5),
    ("CycleError", 5),
    ("SchemaMismatchError", 6),
    ("UnavailableError", UNAVAILABLE),
    ("StoreError", FOUND_WRONG),
)
"""By the names of the errors, the first that fits; they are imported when there is one."""


def exit_code(error: Exception) -> int | None:
    """Return the exit code of an error of the store; None for any other, which is a fault of ours."""
    from agentos_store import errors

    return next((code for name, code in _CODES if isinstance(error, getattr(errors, name))), None)
