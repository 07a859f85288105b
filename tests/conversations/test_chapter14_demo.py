"""The demonstration of chapter 14 (the SQLite agent store), step by step against this store."""

from __future__ import annotations

import hashlib
from typing import Any

from agentos_store import Store

TALK: list[tuple[str, str, list[dict[str, Any]] | None, int]] = [
    ("user", "什么是 AI Agent?", None, 50),
    ("assistant", "AI Agent 是一种能自主感知、决策、执行的智能系统...", None, 120),
    ("user", "它由哪些组件组成?", None, 40),
    (
        "assistant",
        "主要由 LLM、规划器、记忆系统和工具调用四部分组成。",
        [{"name": "search", "arguments": {"query": "Agent components"}}],
        80,
    ),
    ("tool", "搜索结果:LLM/规划器/记忆/工具是Agent的核心组件", None, 30),
]


def test_the_whole_demonstration(store: Store) -> None:
    # 1. A user, with the quota that is given unless one is said.
    user = store.users.create(name="Alice", email="alice@example.com")
    assert user.quota_total == 100_000
    assert store.users.check_quota(user.id, 320)

    # 2. A session.
    session = store.sessions.create(user_id=user.id, title="学习 AI Agent", model="gpt-4o-mini")
    assert session.status == "active"

    # 3. A conversation.
    for role, content, tool_calls, tokens in TALK:
        call_id = f"call_{hashlib.md5(content.encode()).hexdigest()[:8]}" if role == "tool" else None
        store.messages.append(
            session.id, role=role, content=content, tool_calls=tool_calls, tool_call_id=call_id, token_count=tokens
        )
        store.users.consume_quota(user.id, tokens)

    # 4. The log of a tool call.
    store.tool_calls.record(
        session_id=session.id,
        tool_name="search",
        input={"query": "Agent components"},
        output={"results": ["LLM", "规划器", "记忆", "工具"]},
        duration_ms=350.5,
        state="completed",
        is_error=False,
    )

    # 5. The history, as a language model wants it.
    history = store.messages.history(session.id, last=10)
    assert [(each["role"], each["content"]) for each in history] == [(role, content) for role, content, _, _ in TALK]
    assert history[3]["tool_calls"][0]["name"] == "search"
    assert history[4]["tool_call_id"].startswith("call_")

    # 6. Pause and resume.
    store.sessions.pause(session.id)
    assert store.sessions.get(session.id).status == "paused"
    store.sessions.resume(session.id)
    assert store.sessions.get(session.id).status == "active"

    # 7. An asynchronous task.
    task = store.tasks.create(
        title="summarize",
        session_id=session.id,
        task_type="summarize",
        payload={"max_length": 200},
        priority=1,
        enqueue=True,
    )
    assert task.status == "pending"
    store.tasks.transition(task.task_id, "running")
    summary = {"summary": "本次对话讨论了 AI Agent 的基本概念和组成..."}
    store.tasks.transition(task.task_id, "completed", result=summary)
    done = store.tasks.get(task.task_id)
    assert (done.status, done.result) == ("completed", summary)
    assert done.started_at is not None
    assert done.completed_at is not None

    # 8. The user's sessions.
    (listed,) = store.sessions.list(user_id=user.id)
    assert (listed.title, listed.message_count, listed.total_tokens) == ("学习 AI Agent", 5, 320)

    # 9. What the user used in seven days.
    stats = store.users.usage_stats(user.id, days=7)
    assert (stats.period_days, stats.session_count, stats.total_tokens, stats.total_messages) == (7, 1, 320, 5)
    (search,) = stats.tool_usage
    assert (search.tool_name, search.call_count, search.avg_latency, search.failures) == ("search", 1, 350.5, 0)
    assert store.users.get(user.id).quota_used == 320

    # What the chapter says of queries over half-structured data, answered by filters.
    store.users.update(user.id, preferences={"theme": "dark", "language": "zh"})
    assert [each.id for each in store.users.list(preferences={"theme": "dark"})] == [user.id]
    assert len(store.users.list(preferences={"theme": "light"})) == 0
    assert [each.seq for each in store.messages.query(tool_name="search")] == [3]
