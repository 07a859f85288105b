"""Every filter of messages leaves out what it must leave out."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.agents.models import Agent
from agentos_store.engine.session import Session
from agentos_store.errors import InvalidValueError
from agentos_store.operation import Blocking, F, Repository, writes

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def at(minute: int) -> dt.datetime:
    return START + dt.timedelta(minutes=minute)


def block(kind: str, **values: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": "see"}, {"type": kind, **values}]


SAID: dict[str, dict[str, Any]] = {
    "system": {"role": "system", "content": "be brief"},
    "asked": {"role": "user", "content": "今天天气怎么样？", "metadata": {"theme": "dark", "n": 1}},
    "called": {"role": "assistant", "content": block("tool_use", id="1", name="weather", input={"city": "北京"})},
    "answered": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "晴"}]},
    "openai": {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "2", "type": "function", "function": {"name": "search", "arguments": "{}"}}],
    },
    "tool": {"role": "tool", "content": "found", "tool_call_id": "2", "name": "search"},
    "thought": {"role": "assistant", "content": block("reasoning", text="hm")},
    "image": {"role": "user", "content": block("image_url", image_url={"url": "x"})},
    "audio": {"role": "user", "content": [{"type": "input_audio", "data": ""}]},
    "video": {"role": "user", "content": [{"type": "video"}], "metadata": {"theme": "light"}},
    "file": {"role": "user", "content": [{"type": "document"}]},
    "odd": {"role": "user", "content": [{"type": "hologram"}]},
}
NAMES = list(SAID)


@pytest.fixture
def sessions(store: Store) -> list[str]:
    """Return three conversations, of which the last is deleted."""
    found = [store.sessions.create().id for _ in range(3)]
    for number, session_id in enumerate(found):
        store.messages.append_many(
            session_id,
            [
                {**values, "id": f"{number}-{name}", "created_at": at(place * 10 + number)}
                for place, (name, values) in enumerate(SAID.items())
            ],
        )
    store.sessions.delete(found[2])
    return found


def ids(page: Any) -> list[str]:
    return [message.id for message in page]


def names(page: Any) -> list[str]:
    """Return what was found, and make sure that it is so in both conversations."""
    found = ids(page)
    one, other = ([each[2:] for each in found if each.startswith(number)] for number in "01")
    assert one == other
    assert not any(each.startswith("2") for each in found)
    return one


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, NAMES),
        ({"role": "system"}, ["system"]),
        ({"role": "assistant"}, ["called", "openai", "thought"]),
        ({"role": "tool"}, ["tool"]),
        ({"content_type": "text"}, ["system", "asked", "called", "tool", "thought", "image"]),
        ({"content_type": "tool_use"}, ["called", "openai"]),
        ({"content_type": "tool_result"}, ["answered", "tool"]),
        ({"content_type": "reasoning"}, ["thought"]),
        ({"content_type": "image"}, ["image"]),
        ({"content_type": "audio"}, ["audio"]),
        ({"content_type": "video"}, ["video"]),
        ({"content_type": "file"}, ["file"]),
        ({"content_type": "other"}, ["odd"]),
        ({"tool_name": "weather"}, ["called"]),
        ({"tool_name": "search"}, ["openai"]),
        ({"tool_name": "sea"}, []),
        ({"metadata": {"theme": "dark"}}, ["asked"]),
        ({"metadata": {}}, NAMES),
        ({"metadata": {"theme": "dark", "n": 2}}, []),
        ({"created_after": at(100), "created_before": at(110)}, ["file"]),
        ({"created_after": at(101), "role": "user", "content_type": "other"}, ["odd"]),
    ],
)
def test_a_filter_leaves_out_what_it_must(
    store: Store, sessions: list[str], filters: dict[str, Any], expected: list[str]
) -> None:
    if "created_after" in filters:
        # The two conversations are a minute apart.
        found = ids(store.messages.query(session_id=sessions[1], **filters))
        assert found == [f"1-{name}" for name in expected]
    else:
        assert names(store.messages.query(**filters)) == expected
        assert ids(store.messages.query(session_id=sessions[0], **filters)) == [f"0-{name}" for name in expected]
    countable = {"role", "content_type", "tool_name"}
    if filters and filters.keys() <= countable:
        assert store.messages.count(**filters) == 2 * len(expected)


def test_time_is_inclusive_at_the_start_and_not_at_the_end(store: Store, sessions: list[str]) -> None:
    found = store.messages.query(created_after=at(10), created_before=at(20))
    assert ids(found) == ["0-asked", "1-asked"]
    assert ids(store.messages.query(created_after=at(11), created_before=at(21))) == ["1-asked", "0-called"]


def test_deleted_sessions_are_left_out_unless_asked_for(store: Store, sessions: list[str]) -> None:
    assert store.messages.count() == 24
    assert store.messages.count(include_deleted=True) == 36
    assert store.messages.count(session_id=sessions[2]) == 0
    assert ids(store.messages.query(role="system", include_deleted=True)) == ["0-system", "1-system", "2-system"]


def test_closed_messages_are_no_part_of_an_answer(store: Store, sessions: list[str]) -> None:
    store.messages.save(sessions[0], [SAID["asked"]])
    assert ids(store.messages.query(session_id=sessions[0])) == ["0-asked"]
    assert ids(store.messages.query(tool_name="weather")) == ["1-called"]
    assert store.messages.count(content_type="tool_result") == 2


class Agents(Repository[F]):
    """Makes agents."""

    name = "maker"

    @writes
    def make(self, session: Session, agent_id: str) -> None:
        time = session.now()
        values = {"agent_id": agent_id, "state": "idle", "lineage": [], "last_sfp_index": -1, "stats": {}}
        values |= {"metadata": {}, "version": 1, "created_at": time, "updated_at": time}
        session.insert(Agent, values)


def test_an_agents_messages_are_found_over_its_sessions(store: Store, sessions: list[str]) -> None:
    for place, agent in enumerate(("one", "other")):
        store.bind(Agents[Blocking]).make(agent)
        for number, session_id in enumerate(sessions[:2]):
            time = at(500 + number * 2 + place)
            store.messages.append(session_id, role="user", content=agent, agent_id=agent, created_at=time)
    assert [each.content for each in store.messages.query(agent_id="one")] == ["one", "one"]
    assert len(store.messages.query(agent_id="one", session_id=sessions[0])) == 1
    assert store.messages.count(agent_id="nobody") == 0


@pytest.mark.parametrize(
    "filters",
    [
        {"role": "robot"},
        {"content_type": "texts"},
        {"content_type": 1},
        {"tool_name": ""},
        {"tool_name": 7},
        {"order": "seq"},
        {"order": "content"},
        {"created_after": dt.datetime(2026, 1, 1)},  # noqa: DTZ001
        {"metadata": "x"},
        {"limit": 0},
        {"limit": 10_001},
        {"offset": -1},
        {"cursor": "x"},
    ],
)
def test_what_is_no_filter_is_refused(store: Store, filters: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError):
        store.messages.query(**filters)


def test_pages_follow_each_other(store: Store, sessions: list[str]) -> None:
    queries: tuple[dict[str, Any], ...] = (
        {"session_id": sessions[0]},
        {"session_id": sessions[0], "order": "-seq"},
        {"role": "user"},
        {"order": "-created_at"},
        {"content_type": "tool_use"},
        {"tool_name": "weather"},
    )
    for query in queries:
        whole = ids(store.messages.query(**query))
        walked: list[str] = []
        cursor = None
        while True:
            page = store.messages.query(**query, limit=1, cursor=cursor)
            walked += ids(page)
            cursor = page.next
            if cursor is None:
                break
        assert walked == whole
        assert ids(store.messages.query(**query, limit=3, offset=1)) == whole[1:4]


def test_a_cursor_of_another_query_is_refused(store: Store, sessions: list[str]) -> None:
    cursor = store.messages.query(role="user", limit=1).next
    others: tuple[dict[str, Any], ...] = (
        {},
        {"role": "system"},
        {"role": "user", "session_id": sessions[0]},
        {"role": "user", "tool_name": "x"},
    )
    for other in others:
        with pytest.raises(InvalidValueError) as caught:
            store.messages.query(cursor=cursor, **other)
        assert caught.value.name == "cursor"
