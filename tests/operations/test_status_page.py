"""The figures of the status page: right while the rows are few, bounded when they are many."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.errors import UnavailableError
from agentos_store.operation import Access
from agentos_store.operations import lately
from agentos_store.operations.lately import FailingTool
from agentos_store.operations.status import _BY_STATUS, _OLDEST_PENDING, _ROWS, read_status
from tests.planned import Planner, Undone

NOW = dt.datetime.now(dt.UTC)


def ask(store: Store, work: Callable[..., Any], **options: Any) -> Any:
    return store._backend.run(Access.SNAPSHOT, "status", lambda session: work(session, **options), repeatable=True)


def stamp(raw: Callable[..., Any], table: str, key: str, when: dt.datetime) -> None:
    text = when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    raw(f"UPDATE {table} SET created_at = ? WHERE id = ?", text, key)


def test_failing_tools_are_those_of_the_last_day(store: Store, raw: Callable[..., Any]) -> None:
    session = store.sessions.create()
    for agent in ("a", "gone"):
        store.agents.create(agent)
    record = store.tool_calls.record
    for number, (tool, state, agent) in enumerate(
        [
            *[("bash", "failed", "a")] * 2,
            *[("bash", "completed", "a")] * 3,
            *[("grep", "failed", "a")] * 3,
            ("fine", "completed", "a"),
            ("old", "failed", "a"),
            ("deleted", "failed", "gone"),
        ]
    ):
        made = record(tool_name=tool, agent_id=agent, tool_call_id=f"c{number}", state=state)
        if tool == "old":
            stamp(raw, "tool_call_records", made.id, NOW - dt.timedelta(hours=25))
    record(tool_name="wrong", session_id=session.id, tool_call_id="x", state="completed", is_error=True)
    store.agents.delete("gone")
    expected = [FailingTool("grep", 3, 3), FailingTool("bash", 5, 2), FailingTool("wrong", 1, 1)]
    assert list(store.status().failing_tools) == expected


def test_tokens_are_those_of_each_day_in_utc(store: Store, raw: Callable[..., Any]) -> None:
    session, gone = store.sessions.create(), store.sessions.create()
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    for tokens, when in (
        (1, midnight),
        (10, midnight - dt.timedelta(microseconds=1)),
        (100, midnight - dt.timedelta(days=13)),
        (1000, midnight - dt.timedelta(days=13, microseconds=1)),
    ):
        message = store.messages.append(session.id, role="user", content="x", token_count=tokens)
        stamp(raw, "messages", message.id, when)
    store.messages.append(gone.id, role="user", content="x", token_count=5)
    store.sessions.delete(gone.id)
    found = store.status().tokens_by_day
    assert [day.day for day in found] == [(midnight - dt.timedelta(days=ago)).date() for ago in reversed(range(14))]
    assert [day.tokens for day in found] == [100, *[0] * 11, 10, 1]
    assert all(day.complete for day in found)
    # Of two messages that are looked at the older one is yesterday's, which may have had more.
    few = ask(store, lately.tokens_by_day, newest=3)
    assert [day.complete for day in few] == [*[False] * 13, True]
    assert few[-2].tokens == 10


def test_events_are_those_of_the_last_day(store: Store) -> None:
    assert store.status().events.newest_at is None
    for severity in ("info", "error", "critical", "warning"):
        store.events.log(event_type="x", severity=severity)
    found = store.status().events
    assert (found.count, found.errors, found.estimated) == (4, 2, False)
    assert found.newest_at is not None
    few = ask(store, lately.events_lately, newest=2)
    assert (few.count, few.errors, few.estimated) == (2, 1, True)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_file_that_is_gone_is_told(store: Store, url: str) -> None:
    store.tasks.create(title="x")
    Path(url.removeprefix("sqlite:///")).unlink()
    with pytest.raises(UnavailableError, match="No such file"):
        store.status()


def test_tasks_that_are_too_many_share_what_the_others_leave(
    store: Store, raw: Callable[..., Any], backend: str
) -> None:
    for number in range(12):
        store.tasks.create(title="x", enqueue=number < 2)
    if backend == "postgresql":
        raw("ANALYZE tasks")
    found = read_status(store._backend, exact=5)
    assert dict(found.tasks_by_status) == {"created": 10, "pending": 2}
    assert found.rows["tasks"] == 12
    assert {"tasks", "tasks.created"} <= set(found.estimated)
    assert "tasks.pending" not in found.estimated
    assert store.status().estimated == []
    # Every table can be estimated.
    for count in _ROWS.values():
        assert ask(store, count.of, exact=0).rows >= 0


def test_what_happened_lately_is_found_by_an_index(store: Store) -> None:
    works: list[Callable[[Session], object]]
    works = [lately.failing_tools, lately.tokens_by_day, lately.events_lately, _by_status]
    plans: list[str] = []
    for work in works:
        with pytest.raises(Undone) as undone:
            store.bind(Planner).plans(work)
        assert undone.value.plans
        plans += undone.value.plans
    for plan in plans:
        for table in ("tool_call_records", "messages", "events", "tasks"):
            assert f"SCAN {table}" not in plan.replace(f"SCAN {table} USING", ""), plan
            assert f"Seq Scan on {table}" not in plan, plan


def _by_status(session: Session) -> None:
    for count in _BY_STATUS.values():
        count.of(session)
    session.first(_OLDEST_PENDING)
