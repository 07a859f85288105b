"""Every error that the library raises on purpose, each with its facts as attributes.

::

    StoreError
    ├── NotFoundError            no such row
    ├── AlreadyExistsError       the key is taken
    ├── ConflictError            another writer changed the row first, or the row is still needed
    │   └── InvalidTransitionError   the state machine has no such step
    ├── CycleError               the link would close a circle
    ├── InvalidValueError        a value that the store refuses, and why
    │   ├── PayloadTooLargeError     the value is longer than the limit
    │   └── StaleBookmarkError       the bookmark's order of events is not the one that this database has
    ├── QuotaExceededError       the user's quota does not hold that much
    ├── BudgetExceededError      the session's budget is spent
    ├── LeaseLostError           somebody else holds the lease by now
    ├── SchemaMismatchError      the schema is not the one that this code knows
    ├── DamagedFileError         the file is not what was written: part of it was changed or is missing
    ├── UsageError               the library was called in a way that cannot work
    └── UnavailableError         the database cannot do it now
        ├── LockTimeoutError         another writer held the lock for too long
        └── TransientError           worth another try as it is

No message carries a row's values or a driver's text; nobody has to parse a message.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.exc import DontWrapMixin


class StoreError(DontWrapMixin, Exception):
    """Any error of the store; catch this to catch them all."""


class NotFoundError(StoreError):
    """There is no such row; check the identifier, or create the row first."""

    def __init__(self, entity: str, key: object) -> None:
        self.entity = entity
        """What was looked for, in the singular: ``"task"``, ``"project"``."""
        self.key = key
        super().__init__(f"no {entity} {key!r}")


class AlreadyExistsError(StoreError):
    """The key is taken; read the row that has it, or choose another key."""

    def __init__(self, entity: str, key: object, *, field: str | None = None) -> None:
        self.entity = entity
        self.key = key
        self.field = field
        """The field whose value is taken; None when it is the primary key or not known."""
        super().__init__(f"{entity} {key!r} exists already" + (f" ({field})" if field else ""))


class ConflictError(StoreError):
    """Another writer changed the row first, or other rows still need it; reload it and decide again."""

    def __init__(self, entity: str, key: object, why: str) -> None:
        self.entity = entity
        self.key = key
        self.why = why
        super().__init__(f"{entity} {key!r}: {why}")


class InvalidTransitionError(ConflictError):
    """The state machine has no such step; nothing was changed."""

    def __init__(self, entity: str, key: object, *, current: str, requested: str, allowed: Sequence[str]) -> None:
        self.current = current
        self.requested = requested
        self.allowed = tuple(allowed)
        """The states that can be reached from the current one."""
        ways = ", ".join(self.allowed) or "nothing: it has ended"
        super().__init__(entity, key, f"cannot go from {current} to {requested} (allowed: {ways})")

    def __reduce__(self) -> tuple[object, ...]:
        facts = {"current": self.current, "requested": self.requested, "allowed": self.allowed}
        return _rebuild, (type(self), (self.entity, self.key), facts)


class CycleError(StoreError):
    """The link would close a circle; nothing was changed."""

    def __init__(self, path: Sequence[str]) -> None:
        self.path = tuple(path)
        """The identifiers along the circle, the first one repeated at the end."""
        super().__init__("the link would close a circle: " + " → ".join(self.path))


class InvalidValueError(StoreError, ValueError):
    """The store refuses the value on every database; change it and call again."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        """Which value, for instance ``"title"`` or ``"metadata.scores[3]"``."""
        self.why = why
        super().__init__(f"{name}: {why}")


class PayloadTooLargeError(InvalidValueError):
    """The value is larger than the limit; store it elsewhere and keep a reference here."""

    def __init__(self, name: str, *, size: int, limit: int) -> None:
        self.size = size
        """Bytes in UTF-8."""
        self.limit = limit
        super().__init__(name, f"{size:,} bytes are more than the limit of {limit:,}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), (self.name,), {"size": self.size, "limit": self.limit})


class StaleBookmarkError(InvalidValueError):
    """The bookmark is of another database, or of this one before it was restored; subscribe without one.

    What it stands for cannot be continued: the events that followed it there are not those that follow here. Read from
    the start with ``from_start=True``, or go on from now, and tell by ``event_id`` what is known already.
    """

    def __init__(self, why: str = "is of another order of events: another database, or one that was restored") -> None:
        super().__init__("bookmark", why)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.why,)


class QuotaExceededError(StoreError):
    """The user's quota does not hold that many tokens; nothing was consumed."""

    def __init__(self, user_id: str, *, requested: int, available: int) -> None:
        self.user_id = user_id
        self.requested = requested
        self.available = available
        super().__init__(f"user {user_id!r}: {requested:,} tokens requested, {available:,} available")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), (self.user_id,), {"requested": self.requested, "available": self.available})


class BudgetExceededError(StoreError):
    """The session's budget is spent; raise it or stop."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        super().__init__(f"session {session_id!r}: the budget is spent")


class LeaseLostError(StoreError):
    """Somebody else may hold the lease by now; stop the work that it protected."""

    def __init__(self, name: str, token: int) -> None:
        self.name = name
        self.token = token
        super().__init__(f"lease {name!r} with token {token} is no longer held")


class SchemaMismatchError(StoreError):
    """The database's schema is not the one that this code knows; run the upgrade, or newer code."""

    def __init__(self, *, found: str | None, expected: str, why: str) -> None:
        self.found = found
        """The revision in the database; None when it has none."""
        self.expected = expected
        super().__init__(why)
        self.why = why

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), (), {"found": self.found, "expected": self.expected, "why": self.why})


class DamagedFileError(StoreError):
    """The file is not what was written: part of it was changed or is missing; take another copy of it."""

    def __init__(self, path: str, why: str, *, table: str | None = None, line: int | None = None) -> None:
        self.path = path
        self.why = why
        self.table = table
        """The table whose rows are damaged, where that is known."""
        self.line = line
        """The line of the damaged row among those of its table, where that is known."""
        super().__init__(f"{path} is damaged: {why}")

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), (self.path, self.why), {"table": self.table, "line": self.line})


class UsageError(StoreError, RuntimeError):
    """The library was called in a way that cannot work; the message says which way can."""


class UnavailableError(StoreError):
    """The database cannot do it now: it is down, full, read-only, or refuses the login."""

    def __init__(self, why: str, *, code: str | None = None) -> None:
        self.why = why
        self.code = code
        """The SQLSTATE, or SQLite's name of the result code; None when there was no answer at all."""
        super().__init__(why)


class LockTimeoutError(UnavailableError):
    """Another writer held the lock for longer than the limit; try again later, or shorten its transaction."""

    def __init__(self, what: str, *, waited: float, holder: str | None = None, code: str | None = None) -> None:
        self.what = what
        self.waited = waited
        """Seconds."""
        self.holder = holder
        """Who held it, as far as it is known."""
        by = f", held by {holder}" if holder else ""
        super().__init__(f"waited {waited:.1f} s for {what}{by}", code=code)

    def __reduce__(self) -> tuple[object, ...]:
        facts = {"waited": self.waited, "holder": self.holder, "code": self.code}
        return _rebuild, (type(self), (self.what,), facts)


class TransientError(UnavailableError):
    """A passing fault that outlived the retries; the same call may succeed later.

    When ``outcome_unknown`` is true the connection was cut while the database was answering: the call may have been
    carried out. Repeat it under the same idempotency key, or look first.
    """

    def __init__(self, why: str, *, code: str | None = None, outcome_unknown: bool = False) -> None:
        self.outcome_unknown = outcome_unknown
        super().__init__(why, code=code)


def _rebuild(cls: type[StoreError], args: tuple[object, ...], facts: dict[str, object]) -> StoreError:
    """Unpickle an error whose facts are keyword arguments."""
    return cls(*args, **facts)
