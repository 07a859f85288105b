"""Nothing is missed, nothing comes twice and nothing out of order, whenever writers commit and subscribers restart."""

from __future__ import annotations

import os

import pytest

from agentos_store import Store
from tests.events.races import faults, follow, positions, race

RUNS = int(os.environ.get("AGENTOS_STORE_SUBSCRIPTIONS", "2"))
"""Races on each database; 100 is the long form."""


def test_a_subscriber_that_restarts_at_random_gets_every_event_once_and_in_order(store: Store) -> None:
    for seed in range(RUNS):
        got, written = race(store, seed, lambda done, seed=seed: follow(store, seed, done))  # type: ignore[misc]
        assert faults(store, got, written) == [], f"seed {seed}"
        clear(store)


def test_who_goes_by_positions_alone_misses_events(store: Store) -> None:
    if store.capabilities.ordered_commits:
        pytest.skip("where writers stand in line the position is the order")
    for seed in range(50):
        got, written = race(store, seed, lambda done: positions(store, done))
        if any(fault.startswith("missed") for fault in faults(store, got, written)):
            return
        clear(store)
    pytest.fail("the races do not show what they are for")


def clear(store: Store) -> None:
    """Let the next race use the names again."""
    backend = store._backend
    from sqlalchemy import delete

    from agentos_store.engine.statement import Statement
    from agentos_store.events.models import Event
    from agentos_store.operation import Access

    statement: Statement[object] = Statement(delete(Event.table()), lasting=False)
    backend.run(Access.WRITE, "clear", lambda session: session.execute(statement), repeatable=False)
