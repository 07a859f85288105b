"""Workers: they claim tasks, run them, and drain when they are told to stop."""

from __future__ import annotations

from agentos_store.worker.asynchronous import AsyncHandler, AsyncWorker
from agentos_store.worker.context import GiveUp, Retry, WorkContext
from agentos_store.worker.worker import Handler, Worker

__all__ = ["AsyncHandler", "AsyncWorker", "GiveUp", "Handler", "Retry", "WorkContext", "Worker"]
