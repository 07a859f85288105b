"""Recording tool calls, and finding them again."""

from __future__ import annotations

import asyncio
import datetime as dt
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos_store import AsyncStore, Store
from agentos_store.agents.models import Agent
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_calls import ToolCallRepository
from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.operation import Awaiting
from agentos_store.types import dumps_exact, to_text
from tests.conversations.tool_call_seeds import Calls, Seeds, calls_of, minutes, seeded, states
from tests.engine.gather import threads


@pytest.fixture
def calls(store: Store) -> Calls:
    return seeded(store)


def test_a_call_comes_back_as_it_was_recorded(store: Store, calls: Calls) -> None:
    message = store.messages.append("s1", role="assistant", content="…")
    made = calls.record(
        tool_name="天气",
        tool_call_id="toolu_1",
        agent_id="a1",
        session_id="s1",
        input={"z": 1e16, "a": -0.0, "n": None, "s": "\0\ud83d"},
        ordinal=2,
        message_id=message.id,
        by="model",
        note="asked",
    )
    found = calls.get("toolu_1", agent_id="a1")
    assert found.to_dict() == made.to_dict()
    assert dumps_exact(found.input, "input") == dumps_exact(made.input, "input")
    assert (found.state, found.ordinal, found.message_id, found.is_error) == ("pending", 2, message.id, None)
    assert (found.has_output, found.output, found.approval, found.duration_ms) == (False, None, None, None)
    assert (found.started_at, found.completed_at) == (None, None)
    at = to_text(found.created_at)
    assert found.audit_trail == [{"state": "pending", "at": at, "by": "model", "note": "asked"}]
    assert calls.get(made.id).to_dict() == made.to_dict()


def test_a_finished_call_is_logged_at_once(calls: Calls) -> None:
    made = calls.record(
        tool_name="search",
        session_id="s1",
        input={"q": "x"},
        state="completed",
        output=None,
        duration_ms=12,
        created_at=minutes(1).astimezone(dt.timezone(dt.timedelta(hours=8))),
    )
    found = calls.get(made.tool_call_id, session_id="s1")
    assert found.to_dict() == made.to_dict()
    assert (found.has_output, found.output, found.is_error, found.duration_ms) == (True, None, False, 12.0)
    assert (found.created_at, found.completed_at, found.started_at) == (minutes(1), minutes(1), None)
    assert found.audit_trail == [{"state": "completed", "at": to_text(minutes(1))}]
    failed = calls.record(
        tool_name="search",
        session_id="s1",
        state="failed",
        error_message="bad\0",
        started_at=minutes(2),
        completed_at=minutes(2) + dt.timedelta(microseconds=1234),
    )
    assert calls.get(failed.id).to_dict() == failed.to_dict()
    assert (failed.is_error, failed.duration_ms, failed.error_message) == (True, 1.234, "bad\ufffd")
    assert failed.audit_trail[0]["at"] == "2026-03-01T12:02:00.001234Z"
    running = calls.record(tool_name="search", session_id="s1", state="executing", created_at=minutes(3))
    assert (running.started_at, running.completed_at, running.is_error) == (minutes(3), None, None)
    waiting = calls.record(tool_name="search", session_id="s1", state="approval_required")
    assert waiting.approval == {"required": True}
    assert calls.record(tool_name="x", session_id="s1", state="completed", is_error=True).is_error is True


def test_an_input_that_is_left_out_is_an_empty_object_and_none_is_none(calls: Calls) -> None:
    assert calls.get(calls.record(tool_name="t", session_id="s1").id).input == {}
    assert calls.get(calls.record(tool_name="t", session_id="s1", input=None).id).input is None
    assert calls.get(calls.record(tool_name="t", session_id="s1", input=0).id).input == 0


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab\0\ud800天\U0001f600é\n", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\0\ud800天", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(asked=json_values, told=json_values)
def test_input_and_output_are_exact_on_both_databases(both: list[Store], asked: Any, told: Any) -> None:
    for store in both:
        calls = seeded(store)
        call = calls.record(tool_name="t", session_id="s1", input=asked)
        calls.update_state(call.id, "completed", output=told)
        found = calls.get(call.id)
        assert dumps_exact(found.input, "input") == dumps_exact(asked, "input")
        assert dumps_exact(found.output, "output") == dumps_exact(told, "output")
        assert found.has_output is True


def test_recording_one_name_again_gives_the_first_row_as_it_is_now(calls: Calls) -> None:
    owners: list[dict[str, Any]] = [{"agent_id": "a1"}, {"session_id": "s1"}, {"agent_id": "a2", "session_id": "s1"}]
    for owner in owners:
        first = calls.record(tool_name="t", tool_call_id="c", input=1, **owner)
        moved = calls.update_state(first.id, "executing")
        again = calls.record(tool_name="other", tool_call_id="c", input=2, state="completed", **owner)
        assert again.to_dict() == moved.to_dict()
    assert calls.count() == 3


def test_one_name_under_two_owners_is_two_calls(calls: Calls) -> None:
    one = calls.record(tool_name="t", tool_call_id="c", agent_id="a1")
    two = calls.record(tool_name="t", tool_call_id="c", agent_id="a2")
    three = calls.record(tool_name="t", tool_call_id="c", session_id="s1")
    four = calls.record(tool_name="t", tool_call_id="c", session_id="s2")
    assert len({each.id for each in (one, two, three, four)}) == 4
    calls.update_state("c", "executing", agent_id="a2")
    calls.update_state("c", "denied", session_id="s2")
    found = [calls.get(each.id).state for each in (one, two, three, four)]
    assert found == ["pending", "executing", "pending", "denied"]
    assert calls.get("c", agent_id="a2", session_id="s2").id == two.id


def test_parallel_recorders_of_one_name_get_one_row(calls: Calls) -> None:
    work = partial(calls.record, tool_name="t", tool_call_id="c", agent_id="a1")
    with threads([partial(work, input=n) for n in range(16)]) as outcomes:
        pass
    assert len({outcome.id for outcome in outcomes}) == 1
    assert calls.count(agent_id="a1") == 1
    assert len({dumps_exact(outcome.input, "input") for outcome in outcomes}) == 1


def test_a_call_without_an_owner_or_with_an_unknown_one_is_refused(calls: Calls) -> None:
    with pytest.raises(InvalidValueError) as refused:
        calls.record(tool_name="t")
    assert refused.value.name == "agent_id"
    unknown: list[tuple[str, dict[str, Any]]] = [
        ("agent", {"agent_id": "nobody"}),
        ("session", {"session_id": "nowhere"}),
        ("session", {"agent_id": "a1", "session_id": "nowhere"}),
        ("message", {"agent_id": "a1", "message_id": "nothing"}),
    ]
    for entity, values in unknown:
        with pytest.raises(NotFoundError) as caught:
            calls.record(tool_name="t", **values)
        assert caught.value.entity == entity
    assert calls.count() == 0


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tool_name", {"tool_name": ""}),
        ("tool_name", {"tool_name": "x" * 256}),
        ("tool_call_id", {"tool_call_id": ""}),
        ("tool_call_id", {"tool_call_id": "\0"}),
        ("state", {"state": "done"}),
        ("input", {"input": {1, 2}}),
        ("output.a", {"output": {"a": Decimal(1)}}),
        ("approval", {"approval": []}),
        ("note", {"note": "a\0"}),
        ("by", {"by": 5}),
        ("is_error", {"is_error": "no"}),
        ("duration_ms", {"duration_ms": -0.5}),
        ("ordinal", {"ordinal": None}),
        ("created_at", {"created_at": dt.datetime(2026, 1, 1)}),  # noqa: DTZ001  naive on purpose
        ("completed_at", {"completed_at": "today"}),
        ("error_message", {"error_message": b"x"}),
    ],
)
def test_what_cannot_be_stored_is_named(calls: Calls, name: str, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        calls.record(**{"tool_name": "t", "agent_id": "a1", **values})
    assert caught.value.name == name
    assert calls.count() == 0


def test_get_find_and_exists_agree(calls: Calls) -> None:
    call = calls.record(tool_name="t", tool_call_id="c", agent_id="a1", session_id="s1")
    found = calls.find("c", agent_id="a1")
    assert found is not None
    assert found.id == call.id
    assert calls.exists("c", agent_id="a1")
    for owner in ({"agent_id": "a2"}, {"session_id": "s1"}, {}):
        assert calls.find("c", **owner) is None
        assert not calls.exists("c", **owner)
        with pytest.raises(NotFoundError) as caught:
            calls.get("c", **owner)
        assert (caught.value.entity, caught.value.key) == ("tool call", "c")


def test_a_decision_takes_a_call_from_the_pending_approvals(calls: Calls) -> None:
    call = calls.record(tool_name="t", agent_id="a1")
    assert not calls.pending_approvals().items
    calls.require_approval(call.id)
    assert [each.id for each in calls.pending_approvals()] == [call.id]
    calls.decide(call.id, True, by="ada")
    assert not calls.pending_approvals().items


def test_a_call_goes_with_its_owner_and_outlives_its_message(store: Store, calls: Calls) -> None:
    seeds = store.bind(Seeds)
    message = store.messages.append("s2", role="assistant", content="…")
    made = calls.record(tool_name="t", session_id="s1", message_id=message.id)
    calls.record(tool_name="t", agent_id="a1", tool_call_id="c")
    seeds.remove(Message, message.id)
    assert calls.get(made.id).message_id is None
    seeds.remove(Agent, "a1")
    assert [call.id for call in calls.list()] == [made.id]
    seeds.remove(Conversation, "s1")
    assert calls.count() == 0


def test_a_call_is_recorded_with_its_transaction_or_not_at_all(store: Store, calls: Calls) -> None:
    with store.transaction() as tx:
        calls_of(tx).record(tool_name="t", tool_call_id="in", agent_id="a1")
        assert calls_of(tx).record(tool_name="t", tool_call_id="in", agent_id="a1").tool_call_id == "in"
    assert states(calls.get("in", agent_id="a1")) == ["pending"]
    with pytest.raises(ZeroDivisionError), store.transaction() as tx:  # noqa: PT012  the point is the block
        calls_of(tx).record(tool_name="t", tool_call_id="out", agent_id="a1")
        raise ZeroDivisionError
    assert not calls.exists("out", agent_id="a1")


def test_what_is_returned_shares_nothing_with_the_next_call(calls: Calls) -> None:
    first = calls.record(tool_name="t", agent_id="a1", state="approval_required")
    assert first.approval is not None
    first.approval["x"] = 1
    assert calls.record(tool_name="t", agent_id="a1", state="approval_required").approval == {"required": True}


def test_the_asynchronous_face_records_and_finds(url: str, calls: Calls) -> None:
    calls.record(tool_name="t", agent_id="a1", tool_call_id="c")

    async def work() -> list[str]:
        async with AsyncStore.open(url) as store:
            own = store.bind(ToolCallRepository[Awaiting])
            made = await asyncio.gather(
                *(own.record(tool_name="t", agent_id="a2", tool_call_id=f"c{n % 4}") for n in range(12))
            )
            assert len({call.id for call in made}) == 4
            assert await own.exists("c", agent_id="a1")
            return [call.tool_call_id async for call in own.iterate(agent_id="a2", limit=3)]

    assert sorted(asyncio.run(work())) == ["c0", "c1", "c2", "c3"]
