from __future__ import annotations

import datetime as dt
import math
import random

import pytest

from agentos_store import InvalidValueError, NotFoundError, Store
from agentos_store.engine.session import Session
from agentos_store.operation import Blocking, Repository, writes
from agentos_store.tasks.trail import Entry, append_many

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


class Supervisor(Repository[Blocking]):
    """Records decisions with times of its own."""

    name = "supervisor"

    @writes
    def decide(self, session: Session, task_id: str, lags: list[float | None]) -> None:
        """One decision a second; None is an entry that is no decision."""
        entries = []
        for number, lag in enumerate(lags):
            time = START + dt.timedelta(seconds=number)
            entries.append(
                Entry(
                    task_id=task_id,
                    event_type="supervisor.decision" if lag is not None else "note",
                    created_at=time,
                    decision_id=None if lag is None else f"{task_id}-{number}",
                    source_event_ts=None if lag is None else time - dt.timedelta(seconds=lag),
                    supervisor_processed_at=None if lag is None else time,
                )
            )
        append_many(session, entries)


def percentile(lags: list[float], share: float) -> float:
    """The nearest rank: the smallest value that at least this share does not exceed."""
    ordered = sorted(lags)
    return next(value for n, value in enumerate(ordered, 1) if n >= share * len(ordered) - 1e-9)


def test_a_trace_holds_the_decisions_in_their_order_with_their_lag(store: Store) -> None:
    store.tasks.create(title="t", task_id="t")
    event = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=5)
    store.audits.record("t", event_type="note")
    one = store.audits.record(
        "t", event_type="supervisor.pause", decision_id="d1", source_event_ts=event, level="warning", payload={"a": 1}
    )
    store.audits.record("t", event_type="supervisor.go", decision_id="d2", verdict_id="v")
    assert one is not None
    first, second = store.audits.decision_trace("t")
    assert (first.decision_id, first.audit_id, first.event_type) == ("d1", one.audit_id, "supervisor.pause")
    assert (first.level, first.payload, first.verdict_id) == ("warning", {"a": 1}, None)
    assert (first.source_event_ts, first.supervisor_processed_at) == (event, one.created_at)
    assert first.lag == (one.created_at - event).total_seconds()
    assert first.lag >= 5
    assert (second.decision_id, second.verdict_id, second.lag) == ("d2", "v", None)


def test_a_task_without_decisions_has_an_empty_trace_and_no_task_has_none(store: Store) -> None:
    store.tasks.create(title="t", task_id="t")
    assert store.audits.decision_trace("t") == []
    with pytest.raises(NotFoundError):
        store.audits.decision_trace("nobody")


def test_without_decisions_there_is_no_lag(store: Store) -> None:
    found = store.audits.decision_lag()
    assert (found.count, found.p50, found.p95, found.longest) == (0, None, None, None)


@pytest.mark.parametrize("count", [1, 2, 3, 19, 20, 21, 2500])
def test_percentiles_of_lags_are_those_of_the_nearest_rank(store: Store, count: int) -> None:
    store.tasks.create(title="t", task_id="t")
    chance = random.Random(count)
    lags = [chance.choice([None, round(chance.expovariate(0.1), 6)]) for _ in range(count - 1)] + [0.5]
    store.bind(Supervisor).decide("t", lags)
    decided = [lag for lag in lags if lag is not None]
    found = store.audits.decision_lag()
    assert found.count == len(decided)
    for value, share in ((found.p50, 0.5), (found.p95, 0.95), (found.longest, 1.0)):
        assert value is not None
        assert math.isclose(value, percentile(decided, share), abs_tol=2e-6)


def test_a_time_range_includes_its_start_and_not_its_end(store: Store) -> None:
    store.tasks.create(title="t", task_id="t")
    store.bind(Supervisor).decide("t", [float(number) for number in range(10)])

    def longest(start: int | None, end: int | None) -> tuple[int, float | None]:
        after, before = (None if n is None else START + dt.timedelta(seconds=n) for n in (start, end))
        found = store.audits.decision_lag(created_after=after, created_before=before)
        return found.count, found.longest

    assert longest(None, None) == (10, 9.0)
    assert longest(3, 7) == (4, 6.0)
    assert longest(None, 1) == (1, 0.0)
    assert longest(9, None) == (1, 9.0)
    assert longest(5, 5) == longest(10, None) == longest(7, 3) == (0, None)


def test_entries_of_one_instant_are_counted_once_across_batches(store: Store) -> None:
    for number in range(3):
        store.tasks.create(title="t", task_id=f"t{number}")
        store.bind(Supervisor).decide(f"t{number}", [1.0] * 700)
    assert store.audits.decision_lag().count == 2100


def test_a_naive_time_is_refused_by_the_caller_s_name(store: Store) -> None:
    for name in ("created_after", "created_before"):
        with pytest.raises(InvalidValueError) as caught:
            store.audits.decision_lag(**{name: dt.datetime(2026, 3, 1)})  # noqa: DTZ001  that is what is refused
        assert caught.value.name == name
