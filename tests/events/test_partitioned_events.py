"""Where events are divided by position they are logged, found and followed by the same rules, past every boundary."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import pytest

from agentos_store import Store, ensure_migrations
from agentos_store.testing import Databases
from tests.events.test_event_repeats import (
    test_a_call_repeated_in_doubt_changes_nothing_more_and_answers_the_same,
    test_of_a_long_list_those_that_are_there_are_left_as_they_are,
    test_one_identifier_in_one_list_is_one_event,
)
from tests.events.test_events import (
    START,
    found_by,
    logged,
    test_many_events_are_logged_in_their_order,
    test_of_many_events_all_are_logged_or_none,
    test_one_identifier_is_one_event,
)
from tests.events.test_subscriptions import (
    test_a_place_is_never_that_of_a_transaction_without_an_event,
    test_a_pruned_event_does_not_stop_who_goes_on_behind_it,
    test_a_subscription_goes_on_behind_any_event_that_it_has_handed_out,
    test_an_older_transaction_is_waited_for_and_not_overtaken,
    test_it_may_begin_after_a_position,
    test_more_events_than_are_read_at_once_come_in_order_too,
)

__all__ = [
    "logged",
    "test_a_call_repeated_in_doubt_changes_nothing_more_and_answers_the_same",
    "test_a_place_is_never_that_of_a_transaction_without_an_event",
    "test_a_pruned_event_does_not_stop_who_goes_on_behind_it",
    "test_a_subscription_goes_on_behind_any_event_that_it_has_handed_out",
    "test_an_older_transaction_is_waited_for_and_not_overtaken",
    "test_it_may_begin_after_a_position",
    "test_many_events_are_logged_in_their_order",
    "test_more_events_than_are_read_at_once_come_in_order_too",
    "test_of_a_long_list_those_that_are_there_are_left_as_they_are",
    "test_of_many_events_all_are_logged_or_none",
    "test_one_identifier_in_one_list_is_one_event",
    "test_one_identifier_is_one_event",
]


@pytest.fixture(scope="module")
def divided(postgres_url: str) -> Iterator[str]:
    """A database whose events fill a partition three at a time, and which is only ever copied."""
    databases = Databases(postgres_url)
    if not databases.can_create():
        pytest.skip("it takes a database of its own")
    made = databases.create()
    try:
        ensure_migrations(made)
        with Store.open(made) as store:
            assert store.partition_events(rows=3, ahead=8).divided
        databases.seal(made)
        yield made
    finally:
        databases.drop(made)


@pytest.fixture
def url(divided: str, postgres_url: str) -> Iterator[str]:
    databases = Databases(postgres_url)
    made = databases.create(divided)
    try:
        yield made
    finally:
        databases.drop(made)


def test_lists_go_through_all_partitions_in_their_order(logged: Store) -> None:
    late = START + dt.timedelta(seconds=90)
    choices: list[dict[str, Any]] = [{}, {"agent_id": "a1", "event_type": "type2", "created_before": late}]
    for filters in [*choices, {"severity": "error"}]:
        found_by(logged, filters)
