"""How many statements an operation needs on SQLite, and how many round trips on PostgreSQL: no more than these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.engine.postgresql.connection import PostgreSQLConnection
from agentos_store.engine.sqlite.connection import SQLiteConnection
from tests.catalogue import CALLS, NOT_CALLED, operations
from tests.store.budgets import BUDGETS


@contextmanager
def counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Count what is sent for each operation: the most for one call of it."""
    most: dict[str, int] = {}
    sent = 0

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal sent
            sent += 1
            return function(*args, **kwargs)

        return call

    run = store._backend.run

    def run_counted(access: Any, what: str, body: Any, **options: Any) -> Any:
        nonlocal sent
        sent = 0
        result = run(access, what, body, **options)
        most[what] = max(most.get(what, 0), sent)
        return result

    with monkeypatch.context() as patch:
        for kind in (SQLiteConnection, PostgreSQLConnection):
            for name in {"execute", "execute_many", "command"} & vars(kind).keys():
                patch.setattr(kind, name, counting(getattr(kind, name)))
        patch.setattr(store._backend, "run", run_counted)
        yield most


MADE_OF_OTHERS = {"audits.query": "audits.list", "messages.search": "messages._find", "kb.embed": "kb.add_embeddings"}
"""Operations that are run under the name of another one."""


def test_every_operation_is_called_and_has_a_budget() -> None:
    called = {name for name, _ in CALLS}
    assert called | NOT_CALLED.keys() == set(operations())
    assert {MADE_OF_OTHERS.get(name, name) for name in called} <= BUDGETS.keys()


def test_no_operation_sends_more_than_its_budget(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    place = 0 if store.capabilities.backend == "sqlite" else 1
    with counted(store, monkeypatch) as most:
        for _, call in CALLS:
            call(store)
    # Also those that need less by now, so that what was won is kept.
    assert {name: (count, BUDGETS[name][place]) for name, count in most.items() if count != BUDGETS[name][place]} == {}
