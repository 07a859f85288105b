"""After a crash: what has not ended is sealed, and what the conversation calls has a result or a record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import AsyncStore, Store
from agentos_store.base import Base
from agentos_store.conversations.tool_call_dangling import INTERRUPTED, NOTE, UNNAMED
from agentos_store.conversations.tool_call_states import ENDED, OPEN, STATES
from agentos_store.conversations.tool_calls import ToolCallRepository
from agentos_store.engine.session import Call, Session
from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.operation import Awaiting, Blocking, Repository, writes
from agentos_store.types import to_text
from tests.conversations.tool_call_seeds import Calls, minutes, seeded, states
from tests.engine.gather import threads


@pytest.fixture
def calls(store: Store) -> Calls:
    return seeded(store)


def use(name: str, **values: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": name, "name": "bash", "input": {"cmd": name}, **values}


def result(name: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": name, "content": "ok"}


def openai(name: str, /, **function: Any) -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "search", "arguments": '{"q": 1}', **function}}


def say(store: Store, content: Any, role: str = "assistant", session_id: str = "s1", **values: Any) -> Any:
    return store.messages.append(session_id, role=role, content=content, **values)


def names(found: Any) -> list[str]:
    return sorted(call.tool_call_id for call in found)


def test_every_call_that_has_not_ended_is_sealed_and_says_so(calls: Calls) -> None:
    for number, state in enumerate(STATES):
        calls.record(tool_name="t", tool_call_id=state, agent_id="a1", state=state, created_at=minutes(number))
        calls.record(tool_name="t", tool_call_id=state, agent_id="a2", state=state)
    ended = {state: calls.get(state, agent_id="a1").to_dict() for state in ENDED}
    found = calls.settle_dangling("a1", by="resume")
    assert [call.tool_call_id for call in found] == list(OPEN)
    for call in found:
        assert (call.state, call.is_error, call.error_message, call.has_output) == ("sealed", True, INTERRUPTED, False)
        assert states(call) == [call.tool_call_id, "sealed"]
        assert call.completed_at is not None
        at = to_text(call.completed_at)
        assert call.audit_trail[-1] == {"state": "sealed", "at": at, "by": "resume", "note": NOTE}
        assert call.duration_ms is None
        assert calls.get(call.id).to_dict() == call.to_dict()
    assert {state: calls.get(state, agent_id="a1").to_dict() for state in ENDED} == ended
    assert {calls.get(state, agent_id="a2").state for state in STATES} == set(STATES)
    assert not calls.settle_dangling("a1")


def test_an_error_message_that_is_there_stays(calls: Calls) -> None:
    call = calls.record(tool_name="t", agent_id="a1", state="executing", error_message="half way")
    (sealed,) = calls.settle_dangling("a1", note="restart")
    assert (sealed.id, sealed.error_message, sealed.audit_trail[-1]["note"]) == (call.id, "half way", "restart")


def test_a_session_or_both_narrow_what_is_sealed(calls: Calls) -> None:
    for agent_id, session_id in (("a1", None), ("a1", "s1"), ("a1", "s2"), ("a2", "s1"), (None, "s1")):
        name = f"{agent_id} {session_id}"
        calls.record(tool_name="t", tool_call_id=name, agent_id=agent_id, session_id=session_id)
    assert names(calls.settle_dangling("a1", session_id="s2")) == ["a1 s2"]
    assert names(calls.settle_dangling(session_id="s1")) == ["None s1", "a1 s1", "a2 s1"]
    assert names(calls.settle_dangling("a1")) == ["a1 None"]


def test_a_call_in_the_conversation_without_result_and_record_gets_a_sealed_record(store: Store, calls: Calls) -> None:
    say(store, [use("answered"), use("recorded"), use("running")])
    say(store, [result("answered")], role="user")
    calls.record(tool_name="bash", tool_call_id="recorded", agent_id="a1", state="completed")
    calls.record(tool_name="bash", tool_call_id="running", agent_id="a1", state="executing")
    message = say(store, [{"type": "text", "text": "…"}, use("lost one"), use("lost two", input=None)])
    found = {call.tool_call_id: call for call in calls.settle_dangling("a1")}
    assert sorted(found) == ["lost one", "lost two", "running"]
    lost = found["lost two"]
    assert (lost.agent_id, lost.session_id, lost.message_id, lost.ordinal) == ("a1", "s1", message.id, 1)
    assert (lost.tool_name, lost.input, lost.has_output) == ("bash", None, False)
    assert (lost.state, lost.is_error, lost.error_message) == ("sealed", True, INTERRUPTED)
    assert states(lost) == ["sealed"]
    assert lost.created_at == message.created_at
    assert found["lost one"].input == {"cmd": "lost one"}
    assert calls.get("recorded", agent_id="a1").state == "completed"
    assert not calls.settle_dangling("a1")
    assert not calls.settle_dangling(session_id="s1")
    assert calls.count(agent_id="a1") == 4


def test_calls_in_the_format_of_openai_are_settled_too(store: Store, calls: Calls) -> None:
    say(store, None, tool_calls=[openai("done"), openai("lost", arguments="{broken"), {"id": "beside", "name": "read"}])
    say(store, "ok", role="tool", tool_call_id="done")
    found = calls.settle_dangling(session_id="s1")
    assert [(c.tool_call_id, c.tool_name, c.input, c.ordinal) for c in sorted(found, key=lambda c: c.ordinal)] == [
        ("lost", "search", "{broken", 1),
        ("beside", "read", {}, 2),
    ]
    assert {(call.agent_id, call.session_id) for call in found} == {(None, "s1")}


def test_what_names_no_call_is_passed_over_and_a_call_without_a_name_is_kept(store: Store, calls: Calls) -> None:
    nameless = {"type": "tool_use", "id": "nameless", "input": {}}
    odd = [use("x", id=5), {"type": "tool_use", "name": "b"}, use(""), use("x" * 256), use("\0"), nameless]
    say(store, odd, tool_calls=[openai("long", name="n" * 256), {}])
    say(store, [use("said by a user"), result("\0")], role="user")
    say(store, "tool_use", role="user")
    found = calls.settle_dangling(session_id="s1")
    assert [(call.tool_call_id, call.tool_name) for call in found] in (
        [("nameless", UNNAMED), ("long", UNNAMED)],
        [("long", UNNAMED), ("nameless", UNNAMED)],
    )


def test_a_name_that_was_answered_and_is_used_again_waits_again(store: Store, calls: Calls) -> None:
    say(store, [use("call_0")])
    say(store, [result("call_0")], role="user")
    last = say(store, [use("call_0")])
    (found,) = calls.settle_dangling("a1")
    assert found.message_id == last.id


def test_only_the_current_conversation_counts(store: Store, calls: Calls) -> None:
    say(store, [use("rewritten")])
    say(store, [use("elsewhere")], session_id="s2")
    store.messages.save("s1", [{"role": "user", "content": "anew"}])
    say(store, [use("now")])
    assert names(calls.settle_dangling("a1")) == ["now"]
    assert names(calls.settle_dangling(session_id="s2")) == ["elsewhere"]
    assert not calls.settle_dangling("a2"), "it has no conversation"


def test_a_call_belongs_to_the_agent_of_its_message(store: Store, calls: Calls) -> None:
    say(store, [use("one")], agent_id="a1")
    say(store, [use("two")], agent_id="a2")
    say(store, [use("nobody's")])
    assert names(calls.settle_dangling("a1")) == ["nobody's", "one"]
    (found,) = calls.settle_dangling(session_id="s1")
    assert (found.tool_call_id, found.agent_id) == ("two", "a2")


def test_one_name_under_another_agent_is_no_record_of_this_call(store: Store, calls: Calls) -> None:
    calls.record(tool_name="t", tool_call_id="c", agent_id="a2", session_id="s1", state="completed")
    say(store, [use("c")], agent_id="a1")
    (found,) = calls.settle_dangling(session_id="s1")
    assert found.agent_id == "a1"
    calls.record(tool_name="t", tool_call_id="d", agent_id="a1", state="completed")
    say(store, [use("d")])
    assert not calls.settle_dangling(session_id="s1"), "the conversation is that agent's"


def test_a_long_conversation_is_read_to_its_end(store: Store, calls: Calls) -> None:
    messages: list[dict[str, Any]] = []
    for number in range(600):
        messages.append({"role": "assistant", "content": [use(f"c{number}")]})
        if number not in {3, 599}:
            messages.append({"role": "user", "content": [result(f"c{number}")]})
    store.messages.append_many("s1", messages)
    assert names(calls.settle_dangling("a1")) == ["c3", "c599"]


def test_an_unknown_owner_or_none_is_refused(calls: Calls) -> None:
    for owner in ({"agent_id": "x"}, {"session_id": "x"}, {"agent_id": "a1", "session_id": "x"}):
        with pytest.raises(NotFoundError):
            calls.settle_dangling(**owner)
    for name, values in (("agent_id", {}), ("note", {"agent_id": "a1", "note": "\0"})):
        with pytest.raises(InvalidValueError) as caught:
            calls.settle_dangling(**values)
        assert caught.value.name == name


def test_two_that_settle_at_once_make_one_record_of_each_call(store: Store, calls: Calls) -> None:
    say(store, [use(f"c{number}") for number in range(20)])
    for number in range(10):
        calls.record(tool_name="bash", tool_call_id=f"c{number}", agent_id="a1")
    with threads([lambda: calls.settle_dangling("a1") for _ in range(6)]) as outcomes:
        pass
    assert sorted(name for found in outcomes for name in names(found)) == sorted(f"c{n}" for n in range(20))
    assert all(call.audit_trail[-1]["state"] == "sealed" for call in calls.iterate(agent_id="a1"))
    assert calls.count(agent_id="a1") == 20


class Doubter(Repository[Blocking]):
    name = "doubter"

    @writes
    def twice(self, session: Session, call: Callable[[Session], Any]) -> tuple[Any, Any]:
        same = Call()
        first = call(Session(session._connection, same))
        same.in_doubt = True
        return first, call(Session(session._connection, same))


bodies: Any = ToolCallRepository
none: Any = None
IN_DOUBT: dict[str, Callable[[Session], Any]] = {
    "record": lambda session: bodies.record(none, session, tool_name="t", agent_id="a1"),
    "record a name": lambda session: bodies.record(none, session, tool_name="t", agent_id="a1", tool_call_id="n"),
    "update_state": lambda session: bodies.update_state(
        none, session, "there", "executing", agent_id="a1", expected="pending"
    ),
    "require_approval": lambda session: bodies.require_approval(none, session, "there", agent_id="a1"),
    "decide": lambda session: bodies.decide(none, session, "there", True, by="ada", agent_id="a1"),
    "settle_dangling": lambda session: bodies.settle_dangling(none, session, "a1"),
}


def plain(found: Any) -> Any:
    return found.to_dict() if isinstance(found, Base) else [plain(each) for each in found]


@pytest.mark.parametrize("name", IN_DOUBT)
def test_a_call_repeated_in_doubt_changes_nothing_more_and_answers_the_same(
    store: Store, calls: Calls, name: str
) -> None:
    say(store, [use("lost")])
    calls.record(tool_name="t", tool_call_id="there", agent_id="a1")
    first, second = store.bind(Doubter).twice(IN_DOUBT[name])
    assert plain(first) == plain(second)
    assert first


def test_a_step_in_doubt_that_others_went_beyond_was_taken(store: Store, calls: Calls) -> None:
    calls.record(tool_name="t", tool_call_id="there", agent_id="a1")

    def take(session: Session) -> Any:
        if session.repeated:
            other = Session(session._connection, Call())
            bodies.update_state(none, other, "there", "completed", agent_id="a1")
        return bodies.update_state(none, session, "there", "executing", agent_id="a1", expected="pending")

    _, second = store.bind(Doubter).twice(take)
    assert states(second) == ["pending", "executing", "completed"]


def test_the_asynchronous_face_settles(url: str, store: Store, calls: Calls) -> None:
    say(store, [use("lost")])
    calls.record(tool_name="t", tool_call_id="open", agent_id="a1")

    async def work() -> list[str]:
        async with AsyncStore.open(url) as opened:
            return names(await opened.bind(ToolCallRepository[Awaiting]).settle_dangling("a1"))

    assert asyncio.run(work()) == ["lost", "open"]
