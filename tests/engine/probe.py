"""Operations that fail where a test wants it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import bindparam, update

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.operation import Blocking, F, Repository, writes
from agentos_store.tasks.models import Task
from agentos_store.tasks.repository import TaskRepository

_SET: Statement[Any] = Statement(
    update(Task.table()).values(attempts=bindparam("number", type_=Task.table().c.attempts.type))
)
"""A number below 0 is refused by a CHECK, as soon as there is a task."""


class Probe(Repository[F]):
    """Writes, and fails on the way."""

    name = "probe"
    runs = 0
    """Bodies that were begun."""

    @writes
    def create(self, session: Session, title: str, then: Callable[[Session], Any] | None = None) -> Task:
        """Create a task, then do something else."""
        self.runs += 1
        task = TaskRepository.create(self, session, title=title)
        if then is not None:
            then(session)
        return task

    @writes
    def do(self, session: Session, what: Callable[[Session], Any]) -> Any:
        """Do anything."""
        self.runs += 1
        return what(session)


def probe(store: Store) -> Probe[Blocking]:
    """Return the operations, bound to the store."""
    return Probe(store.tasks._runner)


def fail(_: Session) -> None:
    raise ZeroDivisionError


def break_a_check(session: Session) -> None:
    session.execute(_SET, {"number": -1})


def attempts(*numbers: int) -> Callable[[Session], int]:
    """Return work that sets the attempts of all tasks to each of the numbers, with one call of ``execute_many``."""
    return lambda session: session.execute_many(_SET, [{"number": number} for number in numbers])
