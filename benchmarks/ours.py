"""The library, called as its users call it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from agentos_store import Page, Store
from agentos_store.models import Task
from benchmarks import rows


class Ours:
    """A store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a database."""
        return cls(Store.open(url))

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def record(self, task_id: str) -> None:
        """Record an audit."""
        self.store.audits.record(task_id, event_type=rows.EVENT, payload=rows.PAYLOAD)

    def move(self, task_id: str, origin: str, to: str) -> Task:
        """Take a step from whatever status the task is in."""
        del origin
        return self.store.tasks.transition(task_id, to)

    def create(self, task_id: str) -> Task:
        """Create a task."""
        return self.store.tasks.create(task_id=task_id, title=rows.TITLE, payload=rows.PAYLOAD, metadata=rows.METADATA)

    def get(self, task_id: str) -> Task:
        """Get a task."""
        return self.store.tasks.get(task_id)

    def page(self, cursor: str | None) -> Page[Task]:
        """List one page of tasks."""
        return self.store.tasks.list(status=rows.LISTED, limit=rows.PAGE, cursor=cursor)

    def seek(self, number: int) -> str | None:
        """Return the cursor of a page."""
        cursor = None
        for _ in range(number - 1):
            cursor = self.page(cursor).next
        return cursor

    @staticmethod
    def keys(page: Page[Task]) -> Sequence[str]:
        """Return the keys of a page's tasks."""
        return [task.task_id for task in page]


class OursTold(Ours):
    """A store whose caller says where a step begins."""

    def move(self, task_id: str, origin: str, to: str) -> Task:
        """Take a step from a status that the caller knows."""
        return self.store.tasks.transition(task_id, to, expected=origin)
