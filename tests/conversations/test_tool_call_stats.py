"""How tools do, in figures that are the same on both databases."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos_store import AsyncStore, Store
from agentos_store.conversations.tool_call_stats import ToolStats
from agentos_store.conversations.tool_calls import ToolCallRepository
from agentos_store.errors import InvalidValueError
from agentos_store.operation import Awaiting
from agentos_store.types import new_ulid
from tests.conversations.tool_call_seeds import Calls, Seeds, minutes, seeded


@pytest.fixture
def calls(store: Store) -> Calls:
    return seeded(store)


def log(calls: Calls, tool_name: str, *durations: float | None, **values: Any) -> None:
    for duration in durations:
        calls.record(**{"tool_name": tool_name, "agent_id": "a1", "state": "completed", **values}, duration_ms=duration)


def test_without_calls_there_are_no_figures(calls: Calls) -> None:
    assert list(calls.stats()) == []


def test_each_tool_has_its_calls_failures_mean_and_percentile(calls: Calls) -> None:
    log(calls, "bash", *range(1, 101))
    log(calls, "grep", 5.5)
    log(calls, "idle", None, state="pending")
    log(calls, "天气", 1.0, None, state="failed")
    log(calls, "天气", 2.0)
    assert list(calls.stats()) == [
        ToolStats("bash", 100, 0, 50.5, 95.0),
        ToolStats("grep", 1, 0, 5.5, 5.5),
        ToolStats("idle", 1, 0, None, None),
        ToolStats("天气", 3, 2, 1.5, 2.0),
    ]


def test_a_failure_is_what_failed_or_gave_an_error(calls: Calls) -> None:
    for state in ("pending", "approval_required", "approved", "executing", "completed"):
        log(calls, "t", None, state=state)
    assert calls.stats()[0].failures == 0
    for state in ("failed", "denied", "sealed"):
        log(calls, "t", None, state=state)
    log(calls, "t", None, is_error=True)
    log(calls, "t", None, state="failed", is_error=False)
    log(calls, "t", None, state="denied", is_error=False)
    assert calls.stats() == [ToolStats("t", 11, 5, None, None)]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, {"bash": 4, "read": 2}),
        ({"include_deleted": True}, {"bash": 5, "read": 3}),
        ({"agent_id": "a1"}, {"bash": 2, "read": 1}),
        ({"session_id": "s1"}, {"bash": 2}),
        ({"tool_name": "read"}, {"read": 2}),
        ({"since": minutes(3)}, {"bash": 2, "read": 1}),
        ({"until": minutes(3)}, {"bash": 2, "read": 1}),
        ({"since": minutes(1), "until": minutes(4), "tool_name": "bash"}, {"bash": 2}),
        ({"agent_id": "dead"}, {}),
        ({"agent_id": "dead", "include_deleted": True}, {"bash": 1}),
    ],
)
def test_every_filter_keeps_what_it_says(both: list[Store], filters: dict[str, Any], expected: dict[str, int]) -> None:
    for store in both:
        calls = seeded(store)
        if not calls.count():
            store.bind(Seeds).session("gone", deleted=True)
            store.bind(Seeds).agent("dead", deleted=True)
            rows = [
                ("bash", "a1", None),
                ("bash", "a2", "s1"),
                ("read", "a1", None),
                ("bash", None, "s1"),
                ("bash", "a1", None),
                ("read", "a2", None),
                ("bash", "dead", None),
                ("read", "a1", "gone"),
            ]
            for number, (tool, agent_id, session_id) in enumerate(rows):
                calls.record(tool_name=tool, agent_id=agent_id, session_id=session_id, created_at=minutes(number))
        assert {each.tool_name: each.calls for each in calls.stats(**filters)} == expected


def test_a_time_that_is_none_is_refused_by_its_name(calls: Calls) -> None:
    for name in ("since", "until"):
        with pytest.raises(InvalidValueError) as caught:
            calls.stats(**{name: "yesterday"})  # type: ignore[arg-type]
        assert caught.value.name == name


durations = st.lists(
    st.one_of(st.none(), st.floats(0, 1e6), st.integers(0, 5).map(float), st.floats(0, 1e-3)), min_size=1, max_size=45
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(durations=durations)
def test_the_figures_are_those_of_the_definition_on_both_databases(
    both: list[Store], durations: list[float | None]
) -> None:
    found = []
    for store in both:
        calls = seeded(store)
        name = new_ulid()
        with store.transaction() as tx:
            log(tx.bind(ToolCallRepository), name, *durations)
        ((figures),) = calls.stats(tool_name=name)
        found.append((figures.calls, figures.failures, figures.mean_ms, figures.p95_ms))
    assert found[0] == found[1]
    known = sorted(duration for duration in durations if duration is not None)
    mean, p95 = found[0][2:]
    if not known:
        assert (mean, p95) == (None, None)
        return
    assert p95 == known[math.ceil(len(known) * 95 / 100) - 1]
    assert mean == pytest.approx(math.fsum(known) / len(known), abs=1e-6)


def test_the_asynchronous_face_counts_alike(url: str, calls: Calls) -> None:
    log(calls, "bash", 1, 2, 3)

    async def work() -> Any:
        async with AsyncStore.open(url) as store:
            return await store.bind(ToolCallRepository[Awaiting]).stats(agent_id="a1")

    assert asyncio.run(work()) == [ToolStats("bash", 3, 0, 2.0, 3.0)]
