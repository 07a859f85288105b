"""The data layer for agent platforms: AgentOS's registry of tasks and audits, on SQLite and PostgreSQL.

::

    from agentos_store import Store, ensure_migrations

    ensure_migrations()
    with Store.open() as store:
        task = store.tasks.create(title="Refactor the parser")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from agentos_store.errors import (
    AlreadyExistsError,
    BudgetExceededError,
    ConflictError,
    CycleError,
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

if TYPE_CHECKING:
    from agentos_store.engine.retry import RetryPolicy
    from agentos_store.migrate import ensure_migrations
    from agentos_store.page import Page
    from agentos_store.settings import Settings
    from agentos_store.store.asynchronous import AsyncStore, AsyncTransaction
    from agentos_store.store.blocking import Store, Transaction

__all__ = [
    "AlreadyExistsError",
    "AsyncStore",
    "AsyncTransaction",
    "BudgetExceededError",
    "ConflictError",
    "CycleError",
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
    "ensure_migrations",
]

_LAZY = {
    "AsyncStore": "agentos_store.store.asynchronous",
    "AsyncTransaction": "agentos_store.store.asynchronous",
    "Page": "agentos_store.page",
    "RetryPolicy": "agentos_store.engine.retry",
    "Settings": "agentos_store.settings",
    "Store": "agentos_store.store.blocking",
    "Transaction": "agentos_store.store.blocking",
    "ensure_migrations": "agentos_store.migrate",
}
"""Loaded when they are first used: pydantic, for instance, takes as long as a third of SQLAlchemy."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
