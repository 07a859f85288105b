"""The examples of the KODE SDK's guide to databases, against this store, with data that each filter must leave out."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from agentos_store import Store

DAY = dt.timedelta(days=1)
NOW = dt.datetime(2025, 6, 1, tzinfo=dt.UTC)
AGENTS = ("agt-abc123", "agt-other", "agt-old")


def use(name: str, call_id: str, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def result(call_id: str, content: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call_id, "content": content}


@pytest.fixture(autouse=True)
def platform(store: Store) -> None:
    """Make three agents with the same conversation: one of another template, one that is a year older."""
    for number, agent_id in enumerate(AGENTS):
        at = NOW - (365 * DAY if agent_id == "agt-old" else number * dt.timedelta(minutes=1))
        session = store.sessions.create()
        template = "other-template" if agent_id == "agt-other" else "chat-assistant"
        store.agents.save(
            agent_id, template_id=template, session_id=session.id, created_at=at, lineage=["agt-root"], metadata={}
        )
        store.messages.append_many(
            session.id,
            [
                {**message, "agent_id": agent_id, "created_at": at + n * dt.timedelta(seconds=1)}
                for n, message in enumerate(
                    [
                        {"role": "user", "content": [{"type": "text", "text": "Hello!"}]},
                        {"role": "assistant", "content": [use("bash_run", "c1", command="ls")]},
                        {"role": "user", "content": [result("c1", "README.md")]},
                        {"role": "assistant", "content": [use("fs_read", "c2", path="README.md")]},
                        {"role": "user", "content": [result("c2", "denied")]},
                        {"role": "assistant", "content": [{"type": "text", "text": "Done."}]},
                    ]
                )
            ],
        )
        store.tool_calls.record(
            agent_id=agent_id,
            tool_call_id="c1",
            tool_name="bash_run",
            input={"command": "ls"},
            output="README.md",
            state="completed",
            created_at=at,
        )
        store.tool_calls.record(
            agent_id=agent_id,
            tool_call_id="c2",
            tool_name="fs_read",
            input={"path": "README.md"},
            approval={"required": True, "decision": "denied"},
            state="denied",
            created_at=at,
        )
        store.tool_calls.record(
            agent_id=agent_id, tool_call_id="c3", tool_name="bash_run", state="failed", created_at=at
        )


def agents(page: Any) -> list[str]:
    return [agent.agent_id for agent in page]


def test_query_sessions(store: Store) -> None:
    since = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    found = store.agents.list(template_id="chat-assistant", created_after=since, limit=20, offset=0)
    assert agents(found) == ["agt-abc123"]
    assert found.items[0].lineage == ["agt-root"]
    assert store.sessions.get(str(found.items[0].session_id)).message_count == 6
    assert agents(store.agents.list(template_id="chat-assistant")) == ["agt-old", "agt-abc123"]
    assert agents(store.agents.list(template_id="chat-assistant", created_before=since)) == ["agt-old"]
    assert agents(store.agents.list(template_id="chat-assistant", limit=1, offset=1)) == ["agt-abc123"]
    assert agents(store.agents.list(template_id="nobody's")) == []
    # The conversations by the same filters.
    own = {agent.session_id for agent in store.agents.list(template_id="chat-assistant")}
    assert {session.id for session in store.sessions.query(template_id="chat-assistant")} == own
    assert len(store.sessions.query(template_id="chat-assistant", limit=1, offset=1)) == 1
    assert len(store.sessions.query(created_before=since)) == 0


def test_query_messages(store: Store) -> None:
    found = store.messages.query(agent_id="agt-abc123", role="assistant", content_type="tool_use", limit=50)
    assert [(message.seq, message.content[0]["name"]) for message in found] == [(1, "bash_run"), (3, "fs_read")]
    assert {message.agent_id for message in found} == {"agt-abc123"}
    texts = store.messages.query(agent_id="agt-abc123", content_type="text")
    assert [message.seq for message in texts] == [0, 5]
    results = store.messages.query(agent_id="agt-abc123", role="user", content_type="tool_result")
    assert [message.seq for message in results] == [2, 4]
    assert len(store.messages.query(agent_id="agt-abc123", role="assistant", content_type="tool_result")) == 0


def test_a_time_range_leaves_out_what_is_older(store: Store) -> None:
    week = store.messages.query(created_after=NOW - 7 * DAY)
    assert {message.agent_id for message in week} == {"agt-abc123", "agt-other"}
    assert {message.agent_id for message in store.messages.query(created_before=NOW - 7 * DAY)} == {"agt-old"}


def test_paging_by_offset_gives_every_message_once(store: Store) -> None:
    seen: list[str] = []
    offset = 0
    while page := store.messages.query(agent_id="agt-abc123", limit=4, offset=offset).items:
        seen += [message.id for message in page]
        offset += 4
    assert len(seen) == len(set(seen)) == 6


def test_query_messages_that_call_a_tool(store: Store) -> None:
    found = store.messages.query(tool_name="bash_run")
    assert [(message.agent_id, message.seq) for message in found] == [
        ("agt-old", 1),
        ("agt-other", 1),
        ("agt-abc123", 1),
    ]


def test_query_tool_calls(store: Store) -> None:
    failed = store.tool_calls.query(tool_name="bash_run", is_error=True, limit=10)
    assert {call.tool_call_id for call in failed} == {"c3"}
    assert len(failed) == 3
    assert len(store.tool_calls.query(tool_name="bash_run", is_error=False)) == 3
    approved = store.tool_calls.query(has_approval=True)
    assert {call.tool_call_id for call in approved} == {"c2"}
    assert {call.tool_call_id for call in store.tool_calls.query(has_approval=False)} == {"c1", "c3"}
    recent = store.tool_calls.query(agent_id="agt-old", created_after=NOW - DAY)
    assert len(recent) == 0
    call = store.tool_calls.get("c1", agent_id="agt-abc123")
    assert (call.input, call.output, call.is_error) == ({"command": "ls"}, "README.md", False)
    assert [step["state"] for step in call.audit_trail] == ["completed"]


def test_aggregate_stats(store: Store) -> None:
    stats = store.agents.aggregate_stats("agt-abc123")
    assert (stats.total_messages, stats.total_tool_calls) == (6, 3)
    assert (stats.successful_tool_calls, stats.failed_tool_calls) == (1, 2)
    assert stats.success_rate == pytest.approx(1 / 3)


def test_old_agents_are_deleted_with_what_belongs_to_them(store: Store) -> None:
    for agent in store.agents.list(created_before=NOW - 90 * DAY):
        store.agents.purge(agent.agent_id)
        store.sessions.purge(str(agent.session_id))
    assert agents(store.agents.list()) == ["agt-other", "agt-abc123"]
    assert store.messages.count() == 12
    assert store.tool_calls.count() == 6
