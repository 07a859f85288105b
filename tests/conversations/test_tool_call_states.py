"""The life of a tool call: legal steps, illegal ones, decisions, and parallel ones."""

from __future__ import annotations

import asyncio
import itertools
import random
from functools import partial
from typing import Any

import pytest

from agentos_store import AsyncStore, Store
from agentos_store.conversations.tool_call_states import ENDED, OPEN, STATES, TRANSITIONS, means_error, sources
from agentos_store.conversations.tool_calls import ToolCallRepository
from agentos_store.engine.session import Session
from agentos_store.errors import ConflictError, InvalidTransitionError, InvalidValueError, NotFoundError
from agentos_store.operation import Awaiting
from agentos_store.types import from_text, to_text
from tests.conversations.tool_call_seeds import Calls, calls_of, minutes, seeded, states
from tests.engine.gather import threads

WORKERS = 32


@pytest.fixture
def calls(store: Store) -> Calls:
    return seeded(store)


def record(calls: Calls, **values: Any) -> Any:
    return calls.record(**{"tool_name": "bash", "agent_id": "a1", "tool_call_id": "t", **values})


def test_every_state_is_reached_and_four_of_them_are_final() -> None:
    assert set(ENDED) == {"completed", "failed", "denied", "sealed"}
    assert (*OPEN, *ENDED) == STATES
    assert all(sources(state) for state in STATES if state != "pending")
    assert [means_error(state) for state in ("executing", "completed", "sealed")] == [None, False, True]


@pytest.mark.parametrize(("origin", "target"), [*itertools.product(STATES, STATES)])
def test_a_step_is_taken_exactly_where_the_state_machine_has_it(both: list[Store], origin: str, target: str) -> None:
    for store in both:
        calls = seeded(store)
        name = f"{origin} {target}"
        before = record(calls, tool_call_id=name, state=origin)
        if target == origin:
            after = calls.update_state(name, target, agent_id="a1", output=1, note="again")
            assert after.to_dict() == before.to_dict()
        elif target in TRANSITIONS[origin]:
            after = calls.update_state(name, target, agent_id="a1")
            assert states(after) == [origin, target]
            assert after.state == target
            assert (after.completed_at is not None) == (target in ENDED)
            assert after.is_error is means_error(target)
        else:
            with pytest.raises(InvalidTransitionError) as caught:
                calls.update_state(name, target, agent_id="a1", output=1)
            assert (caught.value.current, caught.value.requested) == (origin, target)
            assert caught.value.allowed == TRANSITIONS[origin]
            after = before
        assert calls.get(name, agent_id="a1").to_dict() == after.to_dict()


def test_a_whole_life_leaves_every_state_with_its_time_its_author_and_its_note(calls: Calls) -> None:
    record(calls, by="model")
    calls.require_approval("t", agent_id="a1", meta={"reason": "policy", "left": None}, note="awaiting approval")
    calls.decide("t", True, by="ada", note="looks safe", agent_id="a1")
    calls.update_state("t", "executing", agent_id="a1", note="execution start")
    ended = calls.update_state("t", "completed", agent_id="a1", output={"ok": True})
    assert calls.get("t", agent_id="a1").to_dict() == ended.to_dict()
    assert states(ended) == ["pending", "approval_required", "approved", "executing", "completed"]
    times = [from_text(entry["at"]) for entry in ended.audit_trail]
    assert times == sorted(times)
    assert (times[0], times[3], times[4]) == (ended.created_at, ended.started_at, ended.completed_at)
    assert ended.updated_at == ended.completed_at
    assert [entry.get("by") for entry in ended.audit_trail] == ["model", None, "ada", None, None]
    assert [entry.get("note") for entry in ended.audit_trail] == [
        None,
        "awaiting approval",
        "looks safe",
        "execution start",
        None,
    ]
    assert ended.approval == {
        "required": True,
        "meta": {"reason": "policy", "left": None},
        "decision": "approved",
        "by": "ada",
        "at": to_text(times[2]),
        "note": "looks safe",
    }
    assert ended.duration_ms == round((times[4] - times[3]).total_seconds() * 1e6) / 1000
    assert (ended.has_output, ended.output, ended.is_error) == (True, {"ok": True}, False)


@pytest.mark.parametrize(
    "life",
    [
        "pending executing completed",
        "pending approval_required sealed",
        "pending approval_required approved executing completed",
        "pending approval_required denied denied",
        "pending executing failed",
    ],
)
def test_the_lives_that_kode_stores_show_can_be_led(calls: Calls, life: str) -> None:
    first, *following = life.split()
    record(calls, state=first)
    for state in following:
        found = calls.update_state("t", state, agent_id="a1")
    # What KODE notes twice, when two of its parts notice it, is one state.
    assert states(found) == list(dict.fromkeys(life.split()))


def test_the_usual_way_is_one_statement_where_the_database_can(
    store: Store, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not store.capabilities.data_modifying_cte:
        pytest.skip("this database takes several statements")
    count = 0
    execute = Session._execute

    def counting(self: Session, *args: Any) -> Any:
        nonlocal count
        count += 1
        return execute(self, *args)

    monkeypatch.setattr(Session, "_execute", counting)
    record(calls)
    calls.require_approval("t", agent_id="a1")
    assert len(calls.pending_approvals()) == 1
    calls.decide("t", True, by="ada", agent_id="a1")
    calls.update_state("t", "executing", agent_id="a1")
    calls.update_state("t", "completed", agent_id="a1", output={})
    assert calls.exists("t", agent_id="a1")
    assert len(calls.list(agent_id="a1")) == len(calls.stats()) == 1
    assert count == 9


def test_the_duration_is_measured_from_the_start_alike_on_both_databases(both: list[Store]) -> None:
    for store in both:
        calls = seeded(store)
        started = minutes(0)
        record(calls, tool_call_id="measured", state="executing", started_at=started)
        ended = calls.update_state("measured", "failed", agent_id="a1", error_message="no\0pe")
        assert ended.completed_at is not None
        assert ended.duration_ms == round((ended.completed_at - started).total_seconds() * 1e6) / 1000
        assert ended.error_message == "no\ufffdpe"
        record(calls, tool_call_id="given", state="executing", started_at=started)
        assert calls.update_state("given", "completed", agent_id="a1", duration_ms=1.25).duration_ms == 1.25
        record(calls, tool_call_id="ahead", state="executing", started_at=minutes(60 * 24 * 365 * 100))
        assert calls.update_state("ahead", "completed", agent_id="a1").duration_ms == 0.0
        for name, state in (("never begun", "completed"), ("sealed", "sealed")):
            record(calls, tool_call_id=name)
            if state == "sealed":
                calls.update_state(name, "executing", agent_id="a1")
            assert calls.update_state(name, state, agent_id="a1").duration_ms is None


def test_what_is_left_out_stays_and_none_is_a_value(calls: Calls) -> None:
    record(calls, error_message="e", is_error=True, output=[1], approval={"x": 1}, duration_ms=5)
    kept = calls.update_state("t", "approved", agent_id="a1")
    assert (kept.error_message, kept.is_error, kept.output, kept.approval) == ("e", True, [1], {"x": 1})
    assert kept.duration_ms == 5.0
    emptied = calls.update_state(
        "t", "executing", agent_id="a1", error_message=None, is_error=None, output=None, approval=None, duration_ms=None
    )
    assert (emptied.error_message, emptied.is_error, emptied.output, emptied.approval) == (None, None, None, None)
    assert (emptied.has_output, emptied.duration_ms) == (True, None)
    said = calls.update_state("t", "completed", agent_id="a1", is_error=True, approval={"required": False})
    assert (said.is_error, said.approval) == (True, {"required": False})


@pytest.mark.parametrize("output", [0, False, "", None, [], {}, -0.0, 1e16, "\0\ud83d"])
def test_every_output_is_kept_apart_from_the_others_and_from_none_yet(both: list[Store], output: Any) -> None:
    for store in both:
        calls = seeded(store)
        call = calls.record(tool_name="t", agent_id="a1")
        assert (call.has_output, call.output) == (False, None)
        calls.update_state(call.id, "executing")
        assert calls.get(call.id).has_output is False
        calls.update_state(call.id, "completed", output=output)
        found = calls.get(call.id)
        assert found.has_output is True
        assert (repr(found.output), type(found.output)) == (repr(output), type(output))


def test_a_state_that_is_expected_decides(calls: Calls) -> None:
    record(calls)
    with pytest.raises(ConflictError) as caught:
        calls.update_state("t", "executing", agent_id="a1", expected="approved")
    assert not isinstance(caught.value, InvalidTransitionError)
    calls.update_state("t", "executing", agent_id="a1", expected="pending")
    with pytest.raises(ConflictError):
        calls.update_state("t", "executing", agent_id="a1", expected="pending")
    assert states(calls.update_state("t", "executing", agent_id="a1", expected="executing")) == ["pending", "executing"]
    with pytest.raises(InvalidTransitionError):
        calls.update_state("t", "pending", agent_id="a1", expected="executing")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("state", {"state": "done"}),
        ("expected", {"expected": "done"}),
        ("note", {"note": "a\0"}),
        ("by", {"by": "\ud800"}),
        ("duration_ms", {"duration_ms": -1}),
        ("duration_ms", {"duration_ms": float("nan")}),
        ("is_error", {"is_error": 1}),
        ("error_message", {"error_message": 5}),
        ("output", {"output": (1,)}),
        ("output.a[1]", {"output": {"a": [1, float("inf")]}}),
        ("approval", {"approval": ["x"]}),
        ("approval.note", {"approval": {"note": "\0"}}),
    ],
)
def test_what_cannot_be_stored_is_named_and_changes_nothing(calls: Calls, name: str, values: dict[str, Any]) -> None:
    before = record(calls)
    with pytest.raises(InvalidValueError) as caught:
        calls.update_state("t", agent_id="a1", **{"state": "executing", **values})
    assert caught.value.name == name
    assert calls.get("t", agent_id="a1").to_dict() == before.to_dict()


def test_an_unknown_call_is_not_found_and_the_owner_is_part_of_the_name(calls: Calls) -> None:
    call = record(calls)
    record(calls, tool_call_id="of session", agent_id=None, session_id="s1")
    for name, owner in (("x", "a1"), ("t", "a2"), ("t", None), ("of session", "a1")):
        with pytest.raises(NotFoundError):
            calls.update_state(name, "executing", agent_id=owner)
    with pytest.raises(NotFoundError):
        calls.update_state("of session", "executing", session_id="s2")
    assert calls.update_state("of session", "executing", session_id="s1").state == "executing"
    assert calls.update_state(call.id, "executing").tool_call_id == "t"


def test_a_decision_stands(calls: Calls) -> None:
    record(calls)
    calls.require_approval("t", agent_id="a1")
    assert calls.get("t", agent_id="a1").approval == {"required": True}
    denied = calls.decide("t", False, by="ada", agent_id="a1")
    assert denied.approval is not None
    assert (denied.state, denied.is_error, denied.approval["decision"]) == ("denied", True, "denied")
    assert denied.completed_at is not None
    assert calls.decide("t", False, by="bob", agent_id="a1").to_dict() == denied.to_dict()
    with pytest.raises(InvalidTransitionError):
        calls.decide("t", True, by="bob", agent_id="a1")
    with pytest.raises(InvalidTransitionError):
        calls.require_approval("t", agent_id="a1")
    assert calls.get("t", agent_id="a1").to_dict() == denied.to_dict()
    record(calls, tool_call_id="unasked")
    assert calls.decide("unasked", True, by="ada", agent_id="a1").state == "approved"
    with pytest.raises(InvalidTransitionError):
        calls.decide("unasked", False, by="bob", agent_id="a1")
    for name, options in (("approved", {"approved": 1}), ("by", {"by": ""}), ("note", {"note": "\0"})):
        with pytest.raises(InvalidValueError) as caught:
            calls.decide("unasked", agent_id="a1", **{"approved": True, "by": "ada", **options})  # type: ignore[arg-type]
        assert caught.value.name == name


def test_one_of_many_workers_wins_each_step_and_the_trail_has_each_winner(calls: Calls) -> None:
    record(calls)
    path = ["pending", "approval_required", "approved", "executing", "completed"]
    winners = []
    for origin, target in itertools.pairwise(path):
        move = partial(calls.update_state, "t", target, agent_id="a1", expected=origin)
        with threads([partial(move, by=f"w{n}") for n in range(WORKERS)]) as outcomes:
            pass
        won = [n for n, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
        assert len(won) == 1
        assert all(isinstance(outcome, ConflictError) for n, outcome in enumerate(outcomes) if n not in won)
        winners.append(f"w{won[0]}")
    found = calls.get("t", agent_id="a1")
    assert states(found) == path
    assert [entry.get("by") for entry in found.audit_trail[1:]] == winners


def test_parallel_steps_of_every_kind_leave_a_legal_trail_without_a_gap(calls: Calls) -> None:
    names = [f"t{n}" for n in range(4)]
    for name in names:
        record(calls, tool_call_id=name)
    chance = random.Random(7)
    works = [
        partial(calls.update_state, name, state, agent_id="a1", by=f"{name} {state} {n}")
        for n, name in enumerate(names)
        for state in STATES[1:]
        for _ in range(2)
    ]
    chance.shuffle(works)
    with threads(list(works)) as outcomes:
        pass
    assert not [each for each in outcomes if isinstance(each, BaseException) and not isinstance(each, ConflictError)]
    for name in names:
        found = calls.get(name, agent_id="a1")
        path = states(found)
        assert path[-1] == found.state
        assert all(after in TRANSITIONS[before] for before, after in itertools.pairwise(path))


def test_of_two_who_decide_at_once_one_is_heard(calls: Calls) -> None:
    for turn in range(10):
        record(calls, tool_call_id=f"t{turn}", state="approval_required")
        with threads(
            [partial(calls.decide, f"t{turn}", n % 2 == 0, by=f"w{n}", agent_id="a1") for n in range(6)]
        ) as outcomes:
            pass
        found = calls.get(f"t{turn}", agent_id="a1")
        assert len(found.audit_trail) == 2
        assert found.approval is not None
        assert (found.approval["decision"], found.approval["by"]) == (found.state, found.audit_trail[1]["by"])
        heard = [each for each in outcomes if not isinstance(each, BaseException)]
        assert {each.state for each in heard} == {found.state}
        assert len(heard) == 3


def test_steps_in_one_transaction_are_taken_together_or_not_at_all(store: Store, calls: Calls) -> None:
    record(calls)
    with store.transaction() as tx:
        inside = calls_of(tx)
        inside.update_state("t", "executing", agent_id="a1")
        inside.update_state("t", "completed", agent_id="a1", output=1)
    assert states(calls.get("t", agent_id="a1")) == ["pending", "executing", "completed"]
    record(calls, tool_call_id="u")
    with pytest.raises(InvalidTransitionError), store.transaction() as tx:  # noqa: PT012  the point is the block
        inside = calls_of(tx)
        inside.update_state("u", "executing", agent_id="a1")
        inside.update_state("u", "denied", agent_id="a1")
    assert calls.get("u", agent_id="a1").state == "pending"


def test_the_asynchronous_face_takes_the_same_steps(url: str, calls: Calls) -> None:
    async def life() -> Any:
        async with AsyncStore.open(url) as store:
            own = store.bind(ToolCallRepository[Awaiting])
            call = await own.record(tool_name="t", session_id="s1")
            await own.require_approval(call.id)
            moved = await asyncio.gather(*(own.decide(call.id, True, by=f"w{n}") for n in range(8)))
            assert len({each.approval["by"] for each in moved if each.approval}) == 1
            with pytest.raises(InvalidTransitionError):
                await own.update_state(call.id, "denied")
            return await own.update_state(call.id, "sealed", note="stopped")

    assert states(asyncio.run(life())) == ["pending", "approval_required", "approved", "sealed"]
