"""Records of calls follow a fork, however they are tied to the conversation."""

from __future__ import annotations

from typing import Any

from agentos_store import Store


def use(call_id: str) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "f", "input": {}}


def calls(store: Store, agent_id: str) -> dict[str, int]:
    """Return the numbers of the messages that the agent's calls belong to."""
    found = list(store.tool_calls.iterate(agent_id=agent_id))
    assert all(call.message_id is not None for call in found)
    return {call.tool_call_id: store.messages.get(str(call.message_id)).seq for call in found}


def test_a_record_that_names_no_message_goes_with_the_call(store: Store) -> None:
    session = store.sessions.create()
    store.agents.save("a", session_id=session.id)
    store.messages.append(session.id, role="user", content="x")
    store.messages.append(session.id, role="assistant", content=[use("c1"), use("c2")], agent_id="a")
    store.tool_calls.record(agent_id="a", tool_call_id="c1", tool_name="f", state="completed", output=1)
    store.tool_calls.record(agent_id="a", tool_call_id="c2", tool_name="f", state="completed", output=2)
    store.tool_calls.record(agent_id="a", tool_call_id="elsewhere", tool_name="f", state="completed")
    forks = store.agents.batch_fork("a", 3)
    for fork in forks:
        assert calls(store, fork.agent_id) == {"c1": 1, "c2": 1}
        assert store.tool_calls.get("c2", agent_id=fork.agent_id).output == 2
    assert store.check_consistency().ok


def test_a_record_whose_message_was_edited_goes_with_the_new_one(store: Store) -> None:
    session = store.sessions.create()
    store.agents.save("a", session_id=session.id)
    said = store.messages.append(session.id, role="assistant", content=[use("c1")], agent_id="a")
    store.tool_calls.record(
        agent_id="a", tool_call_id="c1", tool_name="f", message_id=said.id, state="completed", output=1
    )
    store.snapshots.save("a", "before")
    edited = [{"type": "text", "text": "now"}, use("c1")]
    store.messages.save(session.id, [{"role": "assistant", "content": edited, "agent_id": "a"}])
    store.agents.fork("a", "after")
    store.agents.fork("a", "then", snapshot_id="before")
    assert calls(store, "after") == calls(store, "then") == {"c1": 0}


def test_a_fork_of_a_short_snapshot_has_its_safe_point_within(store: Store) -> None:
    session = store.sessions.create()
    store.agents.save("a", session_id=session.id, last_sfp_index=5)
    store.messages.append_many(session.id, [{"role": "user", "content": str(n)} for n in range(6)])
    store.snapshots.save("a", "short", up_to_seq=1)
    assert store.agents.fork("a", "f", snapshot_id="short").last_sfp_index == 1
    assert store.check_consistency().ok
