"""The two faces of an open database, and the only place where bodies meet it."""

from __future__ import annotations

from agentos_store.store.asynchronous import AsyncStore, AsyncTransaction
from agentos_store.store.blocking import Store, Transaction

__all__ = ["AsyncStore", "AsyncTransaction", "Store", "Transaction"]
