from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos_store import AsyncStore, Settings, Store
from agentos_store.errors import (
    AlreadyExistsError,
    BudgetExceededError,
    InvalidValueError,
    NotFoundError,
    PayloadTooLargeError,
)
from agentos_store.types import dumps_exact

CALL = {"id": "call_1", "type": "function", "function": {"name": "search", "arguments": '{"q": "天气"}'}}


@pytest.fixture
def session_id(store: Store) -> str:
    return store.sessions.create().id


def test_a_message_comes_back_as_it_was_given(store: Store, session_id: str) -> None:
    blocks = [
        {"type": "text", "text": "今天天气怎么样？\0\ud83d"},
        {"type": "tool_use", "id": "1", "name": "weather", "input": {"z": 1e16, "a": -0.0, "n": None, "f": False}},
    ]
    added = store.messages.append(
        session_id,
        role="assistant",
        name="Ada",
        content=blocks,
        tool_calls=[CALL],
        model="gpt",
        input_tokens=7,
        output_tokens=5,
        cached_tokens=3,
        cost=Decimal("0.000000001"),
        metadata={"stop": "tool"},
    )
    found = store.messages.get(added.id)
    assert found.to_dict() == added.to_dict()
    assert dumps_exact(found.content, "content") == dumps_exact(blocks, "content")
    assert (found.seq, found.token_count, found.cost) == (0, 12, Decimal("0.000000001"))
    assert store.messages.history(session_id) == [
        {"role": "assistant", "content": blocks, "name": "Ada", "tool_calls": [CALL]}
    ]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab\0\ud800天\U0001f600é\n", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\0\ud800天", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=json_values)
def test_content_is_exact_on_both_databases(both: list[Store], value: Any) -> None:
    content = [{"type": "tool_use", "id": "1", "name": "x", "input": value}]
    texts = []
    for store in both:
        session_id = store.sessions.create().id
        store.messages.append(session_id, role="assistant", content=content, tool_calls=[{"value": value}])
        store.messages.append_many(session_id, [{"role": "assistant", "content": content}])
        one, other = store.messages.history(session_id)
        texts.append([dumps_exact(each, "x") for each in (one["content"], one["tool_calls"], other["content"])])
    given_text = dumps_exact(content, "content")
    assert texts == [[given_text, dumps_exact([{"value": value}], "x"), given_text]] * 2


def test_counters_move_with_what_they_count(store: Store, session_id: str) -> None:
    before = store.sessions.get(session_id)
    store.messages.append(session_id, role="user", content="a", token_count=10, cost=Decimal("0.1"))
    store.messages.append_many(
        session_id,
        [
            {"role": "assistant", "content": "b", "input_tokens": 1, "output_tokens": 2},
            {"role": "user", "content": "c", "token_count": 4, "cost": Decimal("0.2")},
        ],
    )
    after = store.sessions.get(session_id)
    assert (after.message_count, after.next_seq, after.generation) == (3, 3, 0)
    assert (after.total_tokens, after.total_cost) == (17, Decimal("0.3"))
    assert after.updated_at > before.updated_at


def test_messages_that_were_added_equal_a_list_of_them(store: Store, session_id: str) -> None:
    assert store.messages.append_many(session_id, []) == []
    added = store.messages.append_many(session_id, [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    assert added == list(added) == added[:]
    assert added != list(added)[::-1]


def test_a_repeat_under_one_key_gives_the_first_row(store: Store, session_id: str) -> None:
    first = store.messages.append(session_id, role="user", content="a", idempotency_key="turn-1")
    again = store.messages.append(session_id, role="assistant", content="other", idempotency_key="turn-1")
    many = store.messages.append_many(
        session_id,
        [
            {"role": "user", "content": "b", "idempotency_key": "turn-2"},
            {"role": "user", "content": "x", "idempotency_key": "turn-1"},
            {"role": "user", "content": "c"},
            {"role": "user", "content": "y", "idempotency_key": "turn-2"},
        ],
    )
    assert again.to_dict() == first.to_dict()
    assert [each.content for each in many] == ["b", "a", "c", "b"]
    assert many[0].id == many[3].id
    assert [each["content"] for each in store.messages.history(session_id)] == ["a", "b", "c"]
    assert store.sessions.get(session_id).message_count == 3
    # The key belongs to its session alone.
    other = store.sessions.create().id
    assert store.messages.append(other, role="user", content="z", idempotency_key="turn-1").content == "z"


def test_a_repeat_within_a_transaction_gives_the_first_row(store: Store, session_id: str) -> None:
    first = store.messages.append(session_id, role="user", content="a", idempotency_key="k")
    with store.transaction() as tx:
        assert tx.messages.append(session_id, role="user", content="b", idempotency_key="k").id == first.id
        (again,) = tx.messages.append_many(session_id, [{"role": "user", "content": "b", "idempotency_key": "k"}])
        assert again.id == first.id
        tx.messages.append(session_id, role="user", content="b")
    assert [each["content"] for each in store.messages.history(session_id)] == ["a", "b"]


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"role": "robot", "content": ""}, "role"),
        ({"role": None, "content": ""}, "role"),
        ({"role": "user", "content": {"text": "a"}}, "content"),
        ({"role": "user", "content": 1}, "content"),
        ({"role": "user", "content": ["a"]}, "content[0]"),
        ({"role": "user", "content": [{"type": "text"}, {"text": "a"}]}, "content[1]"),
        ({"role": "user", "content": [{"type": "x", "value": float("nan")}]}, "content[0].value"),
        ({"role": "assistant", "content": None, "tool_calls": {}}, "tool_calls"),
        ({"role": "assistant", "content": None, "tool_calls": ["x"]}, "tool_calls[0]"),
        ({"role": "user", "content": "", "token_count": 2**63}, "token_count"),
        ({"role": "user", "content": "", "token_count": 1.5}, "token_count"),
        ({"role": "user", "content": "", "token_count": True}, "token_count"),
        ({"role": "user", "content": "", "cost": 0.1}, "cost"),
        ({"role": "user", "content": "", "metadata": ["x"]}, "metadata"),
        ({"role": "user", "content": "", "metadata": {"a": "\0"}}, "metadata.a"),
        ({"role": "user", "content": "", "idempotency_key": "k" * 256}, "idempotency_key"),
        ({"role": "user", "content": "", "created_at": dt.datetime(2026, 1, 1)}, "created_at"),  # noqa: DTZ001
        ({"role": "user", "content": "", "id": ""}, "id"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_its_name(
    store: Store, session_id: str, values: dict[str, Any], name: str, many: bool
) -> None:
    before = store.sessions.get(session_id)

    def write() -> None:
        if many:
            store.messages.append_many(session_id, [{"role": "user", "content": "fine"}, values])
        else:
            store.messages.append(session_id, **values)

    with pytest.raises(InvalidValueError) as caught:
        write()
    assert caught.value.name.removeprefix("messages[1].") == name
    assert store.sessions.get(session_id).to_dict() == before.to_dict()
    assert store.messages.history(session_id) == []


@pytest.mark.parametrize("count", [{"token_count": -1}, {"input_tokens": -1, "token_count": 0}, {"cost": Decimal(-1)}])
def test_counts_below_nothing_are_refused(store: Store, session_id: str, count: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        store.messages.append(session_id, role="user", content="", **count)
    with pytest.raises(InvalidValueError):
        store.messages.append_many(session_id, [{"role": "user", "content": "", **count}])
    assert store.sessions.get(session_id).next_seq == 0


def test_nesting_without_end_is_refused(store: Store, session_id: str) -> None:
    deep: Any = "bottom"
    for _ in range(20_000):
        deep = [deep]
    for write in (
        lambda: store.messages.append(session_id, role="user", content=[{"type": "x", "value": deep}]),
        lambda: store.messages.save(session_id, [{"role": "user", "content": [{"type": "x", "value": deep}]}]),
    ):
        with pytest.raises(InvalidValueError) as caught:
            write()
        assert "nested deeper than 500" in caught.value.why
    assert store.messages.history(session_id) == []


def test_a_payload_over_the_limit_is_refused_with_its_size(store: Store, session_id: str) -> None:
    limit = 16 * 1024 * 1024
    fits = "x" * (limit - 2)
    store.messages.append(session_id, role="user", content=fits)
    for write in (
        lambda: store.messages.append(session_id, role="user", content=fits + "x"),
        lambda: store.messages.append_many(session_id, [{"role": "user", "content": "气" * (limit // 3)}]),
        lambda: store.messages.save(session_id, [{"role": "user", "content": fits + "x"}]),
        lambda: store.messages.append(session_id, role="user", content="", metadata={"a": fits}),
        lambda: store.sessions.update(session_id, title=fits + "xxx"),
    ):
        with pytest.raises(PayloadTooLargeError) as caught:
            write()
        assert caught.value.size > caught.value.limit == limit
    assert store.sessions.get(session_id).message_count == 1


def test_the_limit_is_a_setting(url: str) -> None:
    with Store.open(url, settings=Settings.load(max_payload=1024)) as store:
        session_id = store.sessions.create().id
        with pytest.raises(PayloadTooLargeError) as caught:
            store.messages.append(session_id, role="user", content="x" * 1023)
        assert (caught.value.name, caught.value.size, caught.value.limit) == ("content", 1025, 1024)


def test_a_session_that_is_gone_takes_no_message(store: Store, session_id: str) -> None:
    store.messages.append(session_id, role="user", content="a")
    store.sessions.delete(session_id)
    new = [{"role": "user", "content": "b"}]
    calls: list[Callable[[str], Any]] = [
        lambda gone: store.messages.append(gone, role="user", content="b"),
        lambda gone: store.messages.append(gone, role="user", content="b", idempotency_key="k"),
        lambda gone: store.messages.append_many(gone, new),
        lambda gone: store.messages.append_many(gone, []),
        lambda gone: store.messages.save(gone, new),
        store.messages.history,
        lambda gone: store.messages.history(gone, last=3),
        store.messages.list,
    ]
    for gone in (session_id, "nowhere"):
        for call in calls:
            with pytest.raises(NotFoundError) as caught:
                call(gone)
            assert (caught.value.entity, caught.value.key) == ("session", gone)
    store.sessions.restore(session_id)
    assert [each["content"] for each in store.messages.history(session_id)] == ["a"]


def test_an_unknown_agent_is_named(store: Store, session_id: str) -> None:
    for call in (
        lambda: store.messages.append(session_id, role="user", content="a", agent_id="nobody"),
        lambda: store.messages.append_many(
            session_id, [{"role": "user", "content": "a"}, {"role": "user", "content": "b", "agent_id": "nobody"}]
        ),
        lambda: store.messages.save(session_id, [{"role": "user", "content": "a", "agent_id": "nobody"}]),
    ):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert (caught.value.entity, caught.value.key) == ("agent", "nobody")
        with store.transaction() as tx, pytest.raises(NotFoundError):
            tx.messages.append_many(session_id, [{"role": "user", "content": "b", "agent_id": "nobody"}])
    assert store.sessions.get(session_id).next_seq == 0


def test_the_message_that_is_refused_is_named(store: Store, session_id: str) -> None:
    store.messages.append(session_id, role="user", content="a", id="m1")
    fresh = {"role": "user", "content": "b"}
    for write in (store.messages.append_many, store.messages.save):
        with pytest.raises(AlreadyExistsError) as caught:
            write(session_id, [fresh, {**fresh, "content": "c", "id": "m1"}])
        assert (caught.value.key, caught.value.field) == ("m1", None)
    assert [each["content"] for each in store.messages.history(session_id)] == ["a"]


def test_a_key_in_a_session_that_is_gone_brings_nothing_back(store: Store, session_id: str) -> None:
    values: dict[str, Any] = {"role": "user", "content": "a", "idempotency_key": "k"}
    store.messages.append(session_id, **values)
    store.sessions.delete(session_id)
    with pytest.raises(NotFoundError):
        store.messages.append(session_id, **values)
    with pytest.raises(NotFoundError):
        store.messages.append_many(session_id, [values])


def test_values_come_back_from_a_write_as_they_are_stored(store: Store, session_id: str) -> None:
    abroad = dt.datetime(2026, 1, 1, 8, tzinfo=dt.timezone(dt.timedelta(hours=8)))
    added = store.messages.append(session_id, role="user", content="a", cost=Decimal("1.50"), created_at=abroad)
    found = store.messages.get(added.id)
    assert (str(added.cost), added.created_at.isoformat()) == (str(found.cost), found.created_at.isoformat())
    for nothing in ("", 0, False):
        with pytest.raises(InvalidValueError):
            store.messages.append(session_id, role="user", content="a", created_at=nothing)  # type: ignore[arg-type]


def test_metadata_counts_against_the_limit_in_every_way_to_write(url: str) -> None:
    large = {"role": "user", "content": "a", "metadata": {"a": "x" * 5000}}
    with Store.open(url, settings=Settings.load(max_payload=2048)) as store:
        session_id = store.sessions.create().id
        for write in (store.messages.append_many, store.messages.save):
            with pytest.raises(PayloadTooLargeError) as caught:
                write(session_id, [large])
            assert caught.value.name.endswith("metadata")
        assert store.messages.history(session_id) == []


def test_an_identifier_is_given_once(store: Store, session_id: str) -> None:
    store.messages.append(session_id, role="user", content="a", id="m1")
    for call in (
        lambda: store.messages.append(session_id, role="user", content="b", id="m1"),
        lambda: store.messages.append_many(session_id, [{"role": "user", "content": "b", "id": "m1"}]),
        lambda: store.messages.append_many(session_id, [{"role": "user", "content": "b", "id": "m2"}] * 2),
        lambda: store.messages.save(session_id, [{"role": "user", "content": "b", "id": "m1"}]),
    ):
        with pytest.raises(AlreadyExistsError) as caught:
            call()
        assert caught.value.entity == "message"
    assert [each["content"] for each in store.messages.history(session_id)] == ["a"]


def test_a_budget_that_is_used_up_refuses_further_cost(store: Store) -> None:
    session_id = store.sessions.create(budget=Decimal("1.00")).id
    store.messages.append(session_id, role="user", content="a", cost=Decimal("0.60"))
    # What passes the budget has been spent already, so it is told.
    store.messages.append_many(session_id, [{"role": "user", "content": "b", "cost": Decimal("0.60")}])
    for call in (
        lambda: store.messages.append(session_id, role="user", content="c", cost=Decimal("0.000000001")),
        lambda: store.messages.append_many(session_id, [{"role": "user", "content": "c", "cost": Decimal(1)}]),
        lambda: store.messages.save(session_id, [{"role": "user", "content": "c", "cost": Decimal(1)}]),
    ):
        with pytest.raises(BudgetExceededError) as caught:
            call()
        assert caught.value.session_id == session_id
    store.messages.append(session_id, role="user", content="free")
    store.sessions.update(session_id, budget=Decimal(2))
    store.messages.append(session_id, role="user", content="d", cost=Decimal(1))
    assert store.sessions.get(session_id).total_cost == Decimal("2.2")
    assert [each["content"] for each in store.messages.history(session_id)] == ["a", "b", "free", "d"]


def test_history_gives_the_last_messages_the_oldest_first(store: Store, session_id: str) -> None:
    store.messages.append_many(session_id, [{"role": "user", "content": str(n)} for n in range(120)])
    assert [each["content"] for each in store.messages.history(session_id, last=50)] == [str(n) for n in range(70, 120)]
    assert len(store.messages.history(session_id, last=200)) == 120
    assert store.messages.history(session_id, last=1) == [{"role": "user", "content": "119"}]
    for last in (0, -1, True, "5", 1.0):
        with pytest.raises(InvalidValueError):
            store.messages.history(session_id, last=last)  # type: ignore[arg-type]


def test_history_leaves_no_result_without_its_call(store: Store, session_id: str) -> None:
    calls = [{"id": str(n), "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)]
    conversation: list[dict[str, Any]] = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "1", "tool_call_id": "1"},
        {"role": "tool", "content": "2", "tool_call_id": "2"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "3", "name": "g", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "3", "content": "x"}]},
        {"role": "assistant", "content": "done"},
    ]
    store.messages.append_many(session_id, conversation)
    assert store.messages.history(session_id) == conversation
    assert store.messages.history(session_id, last=7) == conversation
    assert store.messages.history(session_id, last=6) == conversation[1:]
    assert store.messages.history(session_id, last=5) == conversation[4:]
    assert store.messages.history(session_id, last=2) == conversation[6:]
    assert store.messages.history(session_id, last=5, whole_exchanges=False) == conversation[2:]
    # A result that comes late is left out too.
    store.messages.append_many(session_id, [conversation[1], conversation[0], conversation[2]])
    assert store.messages.history(session_id, last=2) == [conversation[0]]
    assert store.messages.history(session_id, last=3) == [conversation[1], conversation[0], conversation[2]]


def test_rewriting_closes_and_deleting_the_agent_leaves_the_message(store: Store, session_id: str) -> None:
    message = store.messages.append(session_id, role="user", content="a")
    store.messages.save(session_id, [])
    assert store.messages.get(message.id).to_generation == 1
    assert store.messages.find("nowhere") is None
    assert store.messages.exists(message.id)
    assert not store.messages.exists("nowhere")
    with pytest.raises(NotFoundError):
        store.messages.get("nowhere")


def test_the_asynchronous_face_says_the_same(url: str) -> None:
    async def talk() -> None:
        async with AsyncStore.open(url) as store:
            session = await store.sessions.create()
            await asyncio.gather(
                *(store.messages.append(session.id, role="user", content=str(n)) for n in range(8)),
            )
            history = await store.messages.history(session.id)
            assert sorted(each["content"] for each in history) == [str(n) for n in range(8)]
            saved = await store.messages.save(session.id, history[:4])
            assert (saved.kept, saved.closed) == (4, 4)
            assert [each.seq async for each in store.messages.iterate(session.id, limit=2)] == [0, 1, 2, 3]

    asyncio.run(talk())


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"token_count": 10**12 + 1}, "token_count"),
        ({"input_tokens": 10**12, "output_tokens": 1}, "token_count"),
        ({"input_tokens": 2**62, "token_count": 1}, "input_tokens"),
        ({"cached_tokens": -1}, "cached_tokens"),
        ({"cost": Decimal("1000.000000001")}, "cost"),
    ],
)
def test_counts_that_no_message_reaches_are_refused(
    store: Store, session_id: str, values: dict[str, Any], name: str
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.messages.append(session_id, role="user", content="", **values)
    assert caught.value.name == name
    assert store.sessions.get(session_id).next_seq == 0
