from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import bindparam, select, update

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.operation import Blocking, F, Repository, writes
from agentos_store.tasks.models import Task

TASKS = Task.table()
TITLED = select(TASKS.c.task_id).where(TASKS.c.title == bindparam("title", type_=TASKS.c.title.type)).cte("titled")
RAISE: Statement[Any] = Statement(
    update(TASKS).where(TASKS.c.task_id == TITLED.c.task_id).values(priority=TASKS.c.priority + 1).add_cte(TITLED)
)


class Priorities(Repository[F]):
    """Raises priorities."""

    name = "priorities"

    @writes
    def raise_all(self, session: Session, title: str) -> int:
        """Return how many were raised."""
        return session.execute(RAISE, {"title": title})


@pytest.mark.parametrize(("title", "count"), [("a", 2), ("b", 1), ("none", 0)])
def test_a_change_that_begins_with_a_query_is_counted(store: Store, title: str, count: int) -> None:
    for each in ("a", "a", "b"):
        store.tasks.create(title=each)
    assert store.bind(Priorities[Blocking]).raise_all(title) == count
