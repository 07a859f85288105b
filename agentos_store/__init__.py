"""The data layer for agent platforms: AgentOS's registry of tasks and audits, on SQLite and PostgreSQL.

::

    from agentos_store import Store, ensure_migrations

    ensure_migrations()
    with Store.open() as store:
        task = store.tasks.create(title="Refactor the parser")
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentos_store.engine.retry import RetryPolicy
    from agentos_store.errors import (
        AlreadyExistsError,
        BudgetExceededError,
        ConflictError,
        CycleError,
        DamagedFileError,
        InvalidTransitionError,
        InvalidValueError,
        LeaseLostError,
        LockTimeoutError,
        NotFoundError,
        PayloadTooLargeError,
        QuotaExceededError,
        SchemaMismatchError,
        StaleBookmarkError,
        StoreError,
        TransientError,
        UnavailableError,
        UsageError,
    )
    from agentos_store.migrate import ensure_migrations
    from agentos_store.operations.moving.copying import copy_store
    from agentos_store.operations.salvage import salvage_sqlite
    from agentos_store.operations.saving import restore_backup, verify_backup
    from agentos_store.page import Page
    from agentos_store.settings import Settings
    from agentos_store.store.asynchronous import AsyncStore, AsyncTransaction
    from agentos_store.store.blocking import Store, Transaction
    from agentos_store.store.sharing import shared_engine

__all__ = [
    "AlreadyExistsError",
    "AsyncStore",
    "AsyncTransaction",
    "BudgetExceededError",
    "ConflictError",
    "CycleError",
    "DamagedFileError",
    "InvalidTransitionError",
    "InvalidValueError",
    "LeaseLostError",
    "LockTimeoutError",
    "NotFoundError",
    "Page",
    "PayloadTooLargeError",
    "QuotaExceededError",
    "RetryPolicy",
    "SchemaMismatchError",
    "Settings",
    "StaleBookmarkError",
    "Store",
    "StoreError",
    "Transaction",
    "TransientError",
    "UnavailableError",
    "UsageError",
    "copy_store",
    "ensure_migrations",
    "restore_backup",
    "salvage_sqlite",
    "shared_engine",
    "verify_backup",
]

_ERRORS = tuple(name for name in __all__ if name.endswith("Error"))

_LAZY = {
    **dict.fromkeys(_ERRORS, "agentos_store.errors"),
    "AsyncStore": "agentos_store.store.asynchronous",
    "AsyncTransaction": "agentos_store.store.asynchronous",
    "Page": "agentos_store.page",
    "RetryPolicy": "agentos_store.engine.retry",
    "Settings": "agentos_store.settings",
    "Store": "agentos_store.store.blocking",
    "Transaction": "agentos_store.store.blocking",
    "copy_store": "agentos_store.operations.moving.copying",
    "ensure_migrations": "agentos_store.migrate",
    "shared_engine": "agentos_store.store.sharing",
    "restore_backup": "agentos_store.operations.saving",
    "salvage_sqlite": "agentos_store.operations.salvage",
    "verify_backup": "agentos_store.operations.saving",
}
"""Loaded when they are first used: SQLAlchemy, of which the errors need a part, takes 0.15 s, and pydantic a third of
that; a shell that completes a command waits for none of it."""

# Whether and where anything is logged is the program's business.
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
