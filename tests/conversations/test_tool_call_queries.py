"""Lists of tool calls: every filter keeps what it says, in order, page by page."""

from __future__ import annotations

from typing import Any

import pytest

from agentos_store import Store
from agentos_store.errors import InvalidValueError
from tests.conversations.tool_call_seeds import Calls, Seeds, minutes, seeded


def filled(store: Store) -> Calls:
    calls = seeded(store)
    if calls.count(include_deleted=True):
        return calls
    seeds = store.bind(Seeds)
    seeds.session("gone", deleted=True)
    seeds.agent("dead", deleted=True)
    rows: list[dict[str, Any]] = [
        {"agent_id": "a1", "tool_name": "bash", "state": "completed"},
        {"agent_id": "a1", "tool_name": "read", "state": "failed", "session_id": "s1"},
        {"agent_id": "a2", "tool_name": "bash", "state": "approval_required"},
        {"session_id": "s1", "tool_name": "bash", "state": "executing"},
        {"session_id": "s2", "tool_name": "read", "state": "approval_required", "approval": {"required": True, "x": 1}},
        {"agent_id": "a1", "tool_name": "bash", "state": "completed", "is_error": True, "approval": {"required": True}},
        {"agent_id": "a2", "tool_name": "grep", "state": "pending", "is_error": False},
        {"agent_id": "dead", "tool_name": "bash", "state": "approval_required", "session_id": "s1"},
        {"agent_id": "a1", "session_id": "gone", "tool_name": "bash", "state": "approval_required", "is_error": True},
        {"agent_id": "a2", "tool_name": "bash", "state": "approval_required"},
    ]
    for number, row in enumerate(rows):
        calls.record(tool_call_id=f"c{number}", created_at=minutes(number), **row)
    return calls


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, "0123456 9"),
        ({"include_deleted": True}, "0123456789"),
        ({"tool_name": "bash"}, "0235 9"),
        ({"tool_name": "bash", "include_deleted": True}, "0235789"),
        ({"state": "approval_required"}, "249"),
        ({"state": "completed"}, "05"),
        ({"is_error": True}, "15"),
        ({"is_error": False}, "06"),
        ({"has_approval": True}, "2459"),
        ({"has_approval": False}, "0136"),
        ({"agent_id": "a1"}, "015"),
        ({"agent_id": "dead"}, ""),
        ({"agent_id": "dead", "include_deleted": True}, "7"),
        ({"session_id": "s1"}, "13"),
        ({"session_id": "s1", "include_deleted": True}, "137"),
        ({"session_id": "gone"}, ""),
        ({"created_after": minutes(4)}, "4569"),
        ({"created_before": minutes(4)}, "0123"),
        ({"created_after": minutes(1), "created_before": minutes(3)}, "12"),
        ({"tool_name": "bash", "is_error": True, "agent_id": "a1"}, "5"),
        ({"state": "approval_required", "agent_id": "a2", "created_after": minutes(3)}, "9"),
        ({"tool_name": "nothing"}, ""),
    ],
)
def test_every_filter_keeps_what_it_says(both: list[Store], filters: dict[str, Any], expected: str) -> None:
    names = [f"c{number}" for number in expected.replace(" ", "")]
    for store in both:
        calls = filled(store)
        assert [call.tool_call_id for call in calls.list(**filters)] == names
        assert [call.tool_call_id for call in calls.query(**filters)] == names
        assert [call.tool_call_id for call in calls.iterate(**filters, limit=1)] == names
        assert [call.tool_call_id for call in calls.list(**filters, order="-created_at")] == names[::-1]
        assert [call.tool_call_id for call in calls.list(**filters, limit=2, offset=1)] == names[1:3]
        assert calls.count(**filters) == len(names)


def test_pending_approvals_are_those_of_all_agents_the_oldest_first(both: list[Store]) -> None:
    for store in both:
        calls = filled(store)
        first = calls.pending_approvals(limit=2)
        assert [call.tool_call_id for call in first] == ["c2", "c4"]
        assert first.next is not None
        second = calls.pending_approvals(limit=2, cursor=first.next)
        assert ([call.tool_call_id for call in second], second.next) == (["c9"], None)
        everywhere = calls.pending_approvals(include_deleted=True)
        assert [call.tool_call_id for call in everywhere] == ["c2", "c4", "c7", "c8", "c9"]


def test_unknown_states_and_types_are_refused_by_the_filters(store: Store) -> None:
    calls = seeded(store)
    for name, value in (("state", "done"), ("is_error", 1), ("has_approval", "yes"), ("limit", 0), ("order", "state")):
        with pytest.raises(InvalidValueError) as caught:
            calls.list(**{name: value})  # type: ignore[arg-type]
        assert caught.value.name == name


def test_a_cursor_of_another_query_is_refused(store: Store) -> None:
    calls = seeded(store)
    for number in range(3):
        calls.record(tool_name="t", agent_id="a1", created_at=minutes(number))
    cursor = calls.list(limit=1, is_error=None).next
    with pytest.raises(InvalidValueError):
        calls.list(limit=1, has_approval=False, cursor=cursor)
    with pytest.raises(InvalidValueError):
        calls.pending_approvals(limit=1, cursor=cursor)
