"""Events are logged as they are given, and found again by whatever they name."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import math
from collections.abc import Iterator
from typing import Any

import pytest

from agentos_store import AsyncStore, InvalidValueError, NotFoundError, PayloadTooLargeError, Store, Transaction
from agentos_store.events.models import Event

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def at(second: int) -> dt.datetime:
    return START + dt.timedelta(seconds=second)


def test_an_event_comes_back_as_it_was_logged(store: Store) -> None:
    data = {"b": 1e16, "a": [-0.0, 0, False, "", None], "text": "天气 \0 \ud83d"}
    logged = store.events.log(
        "tool_executed",
        agent_id="parent/fork-1795240070871",
        session_id="s",
        task_id="t",
        channel="monitor",
        severity="critical",
        data=data,
        seq=7,
        created_at=START,
    )
    found = store.events.get(logged.event_id)
    assert found.to_dict() == logged.to_dict()
    assert (found.agent_id, found.channel, found.seq, found.created_at) == (
        "parent/fork-1795240070871",
        "monitor",
        7,
        START,
    )
    assert repr(found.data) == repr(data)
    assert found.bookmark is None


def test_an_event_needs_nothing_but_its_type(store: Store) -> None:
    before = dt.datetime.now(dt.UTC)
    logged = store.events.log("started")
    assert (logged.severity, logged.channel, logged.data, logged.seq, logged.agent_id) == (
        "info",
        None,
        None,
        None,
        None,
    )
    assert logged.created_at >= before
    assert store.events.exists(logged.event_id)


def test_falsy_data_is_data(store: Store) -> None:
    falsy: tuple[Any, ...] = (0, False, "", [], {})
    for data in falsy:
        found = store.events.get(store.events.log("x", data=data).event_id)
        assert repr(found.data) == repr(data)


def test_an_event_outlives_what_it_tells_of(store: Store) -> None:
    task = store.tasks.create(title="t")
    store.events.log("done", task_id=task.task_id)
    store.tasks.delete(task.task_id)
    assert store.events.count(task_id=task.task_id) == 1


def test_one_identifier_is_one_event(store: Store) -> None:
    first = store.events.log("a", event_id="e", data=1)
    assert store.events.log("b", event_id="e", data=2).to_dict() == first.to_dict()
    assert store.events.log_many([{"event_type": "c", "event_id": "e"}, {"event_type": "d", "event_id": "f"}]) == 1
    assert [event.event_type for event in store.events.list()] == ["a", "d"]


def test_a_resumed_agent_that_uses_its_numbers_again_loses_nothing(store: Store) -> None:
    for text in ("before", "after"):
        for seq in range(3):
            store.events.log("text_chunk", agent_id="a", channel="progress", seq=seq, data=text)
    found = store.events.list(agent_id="a", channel="progress").items
    assert [(event.seq, event.data) for event in found] == [(s, t) for t in ("before", "after") for s in range(3)]


def test_many_events_are_logged_in_their_order(store: Store) -> None:
    assert store.events.log_many([]) == 0
    assert store.events.log_many({"event_type": "x", "data": n, "seq": n} for n in range(1000)) == 1000
    found = list(store.events.iterate())
    assert [event.data for event in found] == list(range(1000))
    assert [event.position for event in found] == sorted(event.position for event in found)
    assert len({event.event_id for event in found}) == 1000


def test_a_generator_of_events_may_use_the_store_and_take_its_time(store: Store) -> None:
    def generate() -> Iterator[dict[str, Any]]:
        for n in range(3):
            store.events.log("beside", data=n)
            yield {"event_type": "x", "data": store.events.count()}

    assert store.events.log_many(events=generate()) == 3
    assert [event.data for event in store.events.list(event_type="x")] == [1, 2, 3]


HOSTILE = [
    "\\",
    "\\.",
    "\\N",
    "a\\",
    "\\\n.",
    "a\tb",
    "\\.\n",
    "\r",
    "\0",
    "\ud83d",
    "\udc00",
    "\x85",
    "\x1a",
    "\u2028",
    "天",
    "NULL",
]


def test_hostile_text_is_stored_as_it_is_or_refused_however_many_are_logged(store: Store) -> None:
    rows: list[dict[str, Any]] = [{"event_type": "x", "data": [text, {text: text}]} for text in HOSTILE * 2]
    assert store.events.log_many(rows) == len(rows)
    assert [event.data for event in store.events.list(event_type="x")] == [row["data"] for row in rows]
    expected: list[str] = []
    for text in HOSTILE:
        fits = text.isprintable() or text == "\u2028"
        with contextlib.nullcontext() if fits else pytest.raises(InvalidValueError, match=r"^agent_id"):
            store.events.log_many([*([{"event_type": "filler"}] * 30), {"event_type": "y", "agent_id": text}])
        expected += [text] * fits
    assert [event.agent_id for event in store.events.list(event_type="y")] == expected


def test_of_many_events_all_are_logged_or_none(store: Store) -> None:
    good: list[dict[str, Any]] = [{"event_type": "x"} for _ in range(100)]
    for wrong in ({"event_type": "x", "severity": "fatal"}, {"event_type": "x", "data": math.nan}, {"data": 1}):
        with pytest.raises(InvalidValueError):
            store.events.log_many([*good, wrong])
    assert store.events.count() == 0


def test_an_event_in_a_transaction_is_there_when_that_is_committed(store: Store) -> None:
    with store.transaction() as tx:
        tx.events.log("a")
        assert tx.events.log_many([{"event_type": "b"}, {"event_type": "c"}]) == 2
        assert tx.events.count() == 3
    assert store.events.count() == 3

    def fails(tx: Transaction) -> None:
        tx.events.log("d")
        tx.events.log("e", severity="fatal")

    with pytest.raises(InvalidValueError):
        store.run(fails)
    assert store.events.count() == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("severity", "fatal"),
        ("severity", None),
        ("channel", "Progress"),
        ("event_type", ""),
        ("event_type", "x" * 256),
        ("event_type", "a\nb"),
        ("agent_id", ""),
        ("agent_id", "a\0b"),
        ("session_id", 7),
        ("task_id", "\ud83d"),
        ("event_id", "x" * 256),
        ("seq", 2**63),
        ("seq", "1"),
        ("seq", True),
        ("data", math.nan),
        ("data", {"a": [math.inf]}),
        ("data", {1: 2}),
        ("data", object()),
        ("created_at", dt.datetime(2026, 1, 1)),  # noqa: DTZ001  that is what is wrong with it
    ],
)
def test_what_no_event_can_hold_is_refused_by_its_name(both: list[Store], name: str, value: Any) -> None:
    errors = []
    for store in both:
        with pytest.raises(InvalidValueError) as one:
            store.events.log(**{"event_type": "x", name: value})
        assert one.value.name.startswith(name)
        if value is not None:
            with pytest.raises(InvalidValueError) as many:
                store.events.log_many([{"event_type": "ok"}, {"event_type": "x", name: value}])
            assert str(many.value) == str(one.value)
        assert store.events.count() == 0
        errors.append(str(one.value))
    assert errors[0] == errors[1]


@pytest.mark.parametrize("wrong", ["x", {"event_type": "x"}, 7, [7], [{"event_type": "x", "kind": 1}]])
def test_what_is_no_list_of_events_is_refused(both: list[Store], wrong: Any) -> None:
    for store in both:
        with pytest.raises(InvalidValueError, match=r"^events"):
            store.events.log_many(wrong)


def test_data_beyond_the_limit_is_refused(both: list[Store]) -> None:
    large = "x" * (16 * 1024 * 1024)
    for store in both:
        with pytest.raises(PayloadTooLargeError, match="data"):
            store.events.log("x", data=large)
        with pytest.raises(PayloadTooLargeError, match="data"):
            store.events.log_many([{"event_type": "x", "data": large}])


def test_an_unknown_event_is_not_found(store: Store) -> None:
    with pytest.raises(NotFoundError, match="no event 'x'"):
        store.events.get("x")
    assert store.events.find("x") is None
    assert not store.events.exists("x")


@pytest.fixture
def logged(store: Store) -> Store:
    store.events.log_many(
        {
            "event_type": f"type{n % 3}",
            "agent_id": f"a{n % 2}",
            "session_id": f"s{n % 5}" if n % 2 else None,
            "task_id": f"t{n % 7}",
            "channel": (None, "progress", "control", "monitor")[n % 4],
            "severity": ("info", "info", "warning", "error", "critical")[n % 5],
            "data": n,
            "created_at": at(n),
        }
        for n in range(100)
    )
    return store


FILTERS: list[dict[str, Any]] = [
    {},
    {"agent_id": "a1"},
    {"session_id": "s3"},
    {"task_id": "t4"},
    {"event_type": "type1"},
    {"channel": "control"},
    {"severity": "info"},
    {"severity": "error"},
    {"created_after": at(40)},
    {"created_before": at(40)},
    {"agent_id": "a1", "event_type": "type2", "created_after": at(10), "created_before": at(90)},
    {"agent_id": "a0", "channel": "control", "severity": "warning"},
    {"task_id": "t1", "severity": "critical"},
    {"agent_id": "nobody"},
]


def found_by(logged: Store, filters: dict[str, Any]) -> None:
    """Let every list give what passes the filters, and nothing else."""

    def passes(event: Event) -> bool:
        return all(
            event.created_at >= value
            if name == "created_after"
            else event.created_at < value
            if name == "created_before"
            else getattr(event, name) == value
            for name, value in filters.items()
        )

    expected = [event.data for event in logged.events.list(limit=1000) if passes(event)]
    assert [event.data for event in logged.events.iterate(limit=7, **filters)] == expected, filters
    assert [event.data for event in logged.events.query(order="-created_at", **filters)] == expected[::-1]
    assert logged.events.count(**filters) == len(expected)
    if not {"created_after", "created_before"} & filters.keys():
        assert [event.data for event in logged.events.tail(n=5, **filters)] == expected[-5:]


def test_events_are_found_by_whatever_they_name(logged: Store) -> None:
    for filters in FILTERS:
        found_by(logged, filters)


@pytest.mark.parametrize(
    "wrong",
    [{"severity": "fatal"}, {"channel": "x"}, {"agent_id": ""}, {"order": "data"}, {"limit": 0}, {"cursor": "x"}],
)
def test_what_cannot_be_asked_is_refused(both: list[Store], wrong: dict[str, Any]) -> None:
    for store in both:
        with pytest.raises(InvalidValueError) as caught:
            store.events.query(**wrong)
        assert caught.value.name in wrong


@pytest.mark.parametrize("n", [0, -1, True, "1", 10_001])
def test_a_tail_has_a_length(both: list[Store], n: Any) -> None:
    for store in both:
        with pytest.raises(InvalidValueError, match=r"^n: "):
            store.events.tail(n=n)


def test_the_asynchronous_store_logs_and_finds(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            logged = await store.events.log("x", data=1)
            assert await store.events.log_many([{"event_type": "y", "data": n} for n in range(3)]) == 3
            assert (await store.events.get(logged.event_id)).to_dict() == logged.to_dict()
            assert [event.data async for event in store.events.iterate(limit=2)] == [1, 0, 1, 2]

    asyncio.run(main())
