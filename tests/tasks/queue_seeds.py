"""Tasks that wait, and short ways to claim them."""

from __future__ import annotations

import datetime as dt
from typing import Any

from agentos_store import Store
from agentos_store.tasks.models import Task

LEASE = dt.timedelta(minutes=5)
SECOND = dt.timedelta(seconds=1)
EARLY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


class Undo(Exception):
    """Rolls a transaction back."""


def add(store: Store, *keys: str, **options: Any) -> list[Task]:
    return [store.tasks.create(title="t", task_id=key, enqueue=True, **options) for key in keys]


def claim(store: Store, by: str = "w", **options: Any) -> Task:
    task = store.tasks.claim(by=by, **{"lease": LEASE, **options})
    assert task is not None
    return task


def claimed(store: Store, limit: int = 1000, **options: Any) -> list[str]:
    return [task.task_id for task in store.tasks.claim_many(by="w", lease=LEASE, limit=limit, **options)]


def steps(store: Store, task_id: str) -> list[tuple[str, str]]:
    return [(step.origin, step.to) for step in store.tasks.history(task_id)]
