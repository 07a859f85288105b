from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest

from agentos_store import AsyncStore, Store
from agentos_store.agents.models import Agent
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.conversations.usage import ToolUsage, Usage
from agentos_store.conversations.users import UserRepository
from agentos_store.engine.session import Session
from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.operation import Awaiting, Blocking, Repository, writes

Users = UserRepository[Blocking]

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
START = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


class Rows(Repository[Blocking]):
    """Writes rows as they are, with any time."""

    name = "rows"

    @writes
    def session(self, session: Session, /, id: str, user_id: str | None = "u", **values: Any) -> None:
        zero = dict.fromkeys(("message_count", "next_seq", "generation", "total_tokens", "total_cost"), 0)
        row: dict[str, Any] = {
            "id": id,
            "user_id": user_id,
            "channel": "api",
            "status": "active",
            "metadata": {},
            **zero,
        }
        session.insert(Conversation, {**row, "created_at": NOW - 30 * DAY, "updated_at": NOW, **values})

    @writes
    def agent(self, session: Session, /, id: str, **values: Any) -> None:
        row: dict[str, Any] = {
            "agent_id": id,
            "state": "idle",
            "lineage": [],
            "last_sfp_index": -1,
            "stats": {},
            "metadata": {},
        }
        session.insert(Agent, {**row, "version": 1, "created_at": NOW, "updated_at": NOW, **values})

    @writes
    def message(self, session: Session, /, session_id: str, tokens: int = 0, **values: Any) -> str:
        key = session.new_ulid()
        row: dict[str, Any] = {
            "id": key,
            "session_id": session_id,
            "seq": int.from_bytes(key[-6:].encode(), "big"),
            "role": "user",
        }
        row |= {"from_generation": 0, "content": "", "content_types": 0, "token_count": tokens, "metadata": {}}
        session.insert(Message, {**row, "created_at": START, **values})
        return key

    @writes
    def call(self, session: Session, /, tool_name: str, **values: Any) -> None:
        key = session.new_ulid()
        row: dict[str, Any] = {
            "id": key,
            "tool_call_id": key,
            "ordinal": 0,
            "tool_name": tool_name,
            "state": "completed",
        }
        row |= {"input": {}, "has_output": False, "audit_trail": [], "created_at": NOW, "updated_at": NOW}
        session.insert(ToolCallRecord, {**row, **values})


@pytest.fixture
def users(store: Store) -> Users:
    found: Users = store.bind(UserRepository[Blocking])
    for user_id in "uv":
        found.create(name="n", id=user_id)
    return found


@pytest.fixture
def rows(store: Store, users: Users) -> Rows:
    return store.bind(Rows)


def tokens(found: Sequence[Usage]) -> list[tuple[str | None, int]]:
    return [(each.key, each.token_count) for each in found]


# --- one user's last days


def test_sessions_that_were_at_work_in_the_period_are_counted_whole(users: Users, rows: Rows) -> None:
    rows.session("a", total_tokens=100, message_count=3)
    rows.session("b", total_tokens=20, message_count=4, updated_at=NOW - 6 * DAY)
    rows.session("c", total_tokens=1000, message_count=50, updated_at=NOW - 8 * DAY)
    rows.session("d", total_tokens=10_000, message_count=60, deleted_at=NOW)
    rows.session("e", "v", total_tokens=7, message_count=1)
    found = users.usage_stats("u")
    assert (found.period_days, found.session_count, found.total_tokens, found.total_messages) == (7, 2, 120, 7)
    assert found.tool_usage == []
    found = users.usage_stats("u", days=9)
    assert (found.period_days, found.session_count, found.total_tokens, found.total_messages) == (9, 3, 1120, 57)


def test_a_user_without_sessions_used_nothing_and_an_unknown_one_is_an_error(users: Users) -> None:
    found = users.usage_stats("u")
    assert (found.session_count, found.total_tokens, found.total_messages, list(found.tool_usage)) == (0, 0, 0, [])
    with pytest.raises(NotFoundError) as caught:
        users.usage_stats("nobody")
    assert (caught.value.entity, caught.value.key) == ("user", "nobody")
    bad: list[Any] = [0, -1, 1.5, True, None, 36_501]
    for days in bad:
        with pytest.raises(InvalidValueError) as refused:
            users.usage_stats("u", days)
        assert refused.value.name == "days"


def test_tools_are_counted_with_their_latency_and_failures(users: Users, rows: Rows) -> None:
    rows.session("s")
    rows.session("t", "v")
    rows.session("gone", deleted_at=NOW)
    rows.call("search", session_id="s", duration_ms=10.0)
    rows.call("search", session_id="s", duration_ms=20.5, is_error=True)
    rows.call("search", session_id="s", state="failed", is_error=True)
    rows.call("search", session_id="s", state="failed", duration_ms=1.0, is_error=False)
    rows.call("搜索", session_id="s", is_error=False)
    rows.call("Zip", session_id="s")
    rows.call("zip", session_id="s")
    rows.call("old", session_id="s", created_at=NOW - 8 * DAY)
    rows.call("another's", session_id="t")
    rows.call("gone", session_id="gone")
    assert users.usage_stats("u").tool_usage == [
        ToolUsage("search", 4, 10.5, 3),
        ToolUsage("Zip", 1, None, 0),
        ToolUsage("zip", 1, None, 0),
        ToolUsage("搜索", 1, None, 0),
    ]
    assert [each.tool_name for each in users.usage_stats("u", 9).tool_usage].count("old") == 1


def test_a_call_without_a_session_belongs_to_its_agent_s(users: Users, rows: Rows) -> None:
    rows.session("s")
    rows.session("t", "v")
    rows.session("gone", deleted_at=NOW)
    rows.agent("a", session_id="s")
    rows.agent("b", session_id="t")
    rows.agent("c", session_id="gone")
    rows.agent("d")
    rows.agent("e", session_id="s", deleted_at=NOW)
    for agent_id in "abcde":
        rows.call(f"of {agent_id}", agent_id=agent_id)
    rows.call("mine by name", agent_id="b", session_id="s")
    rows.call("theirs by name", agent_id="a", session_id="t")
    names = [each.tool_name for each in users.usage_stats("u").tool_usage]
    assert names == ["mine by name", "of a"]
    names = [each.tool_name for each in users.usage_stats("v").tool_usage]
    assert names == ["of b", "theirs by name"]


# --- tokens and costs


def test_everything_is_summed_exactly(users: Users, rows: Rows) -> None:
    rows.session("s")
    some = {"input_tokens": 5, "output_tokens": 7, "cached_tokens": 3, "cost": Decimal("0.1")}
    for _ in range(3):
        rows.message("s", 12, **some)
    rows.message("s", 2**52, cost=Decimal("9007199.254740993"))
    rows.message("s")
    (found,) = users.usage(by="user")
    assert found == Usage("u", 5, 36 + 2**52, 15, 21, 9, Decimal("9007199.554740993"))
    assert str(found.cost) == "9007199.554740993"
    rows.session("t", "v")
    rows.message("t", 1)
    free = users.usage(by="user")[1]
    assert free == Usage("v", 1, 1, 0, 0, 0, Decimal(0))
    assert str(free.cost) == "0"


def test_what_was_rewritten_counts_and_copies_do_not(users: Users, rows: Rows) -> None:
    rows.session("s")
    closed = rows.message("s", 10, to_generation=1)
    rows.message("s", 10, from_generation=1, copied_from=closed)
    rows.message("s", 5)
    assert tokens(users.usage(by="user")) == [("u", 15)]


def test_sessions_that_are_softly_deleted_are_left_out_unless_asked_for(users: Users, rows: Rows) -> None:
    rows.session("s")
    rows.session("t", deleted_at=NOW)
    rows.message("s", 1)
    rows.message("t", 2)
    assert tokens(users.usage(by="user")) == [("u", 1)]
    assert tokens(users.usage(by="user", include_deleted=True)) == [("u", 3)]


def test_usage_by_each_key(users: Users, rows: Rows) -> None:
    rows.session("s")
    rows.session("t", "v")
    rows.session("none", None)
    rows.agent("a", template_id="m1")
    rows.agent("b", template_id="m1")
    rows.agent("c")
    rows.message("s", 1, agent_id="a", model="gpt")
    rows.message("s", 2, agent_id="b", model="claude")
    rows.message("t", 4, agent_id="c", model="gpt")
    rows.message("none", 8)
    assert tokens(users.usage(by="user")) == [(None, 8), ("v", 4), ("u", 3)]
    assert tokens(users.usage(by="agent")) == [(None, 8), ("c", 4), ("b", 2), ("a", 1)]
    assert tokens(users.usage(by="template")) == [(None, 12), ("m1", 3)]
    assert tokens(users.usage(by="model")) == [(None, 8), ("gpt", 5), ("claude", 2)]
    assert tokens(users.usage(by="tool")) == []
    assert tokens(users.usage(by="day")) == [("2026-03-01", 15)]


def test_a_message_counts_for_each_tool_that_it_calls(users: Users, rows: Rows) -> None:
    rows.session("s")
    rows.message("s", 5, tool_names=["search", "zip"], cost=Decimal("0.5"))
    rows.message("s", 1, tool_names=["zip"])
    rows.message("s", 9)
    rows.message("s", 5, tool_names=["Search", "搜索"])
    found = users.usage(by="tool")
    assert tokens(found) == [("zip", 6), ("Search", 5), ("search", 5), ("搜索", 5)]
    assert (found[0].messages, found[0].cost) == (2, Decimal("0.5"))


def test_a_day_is_one_in_utc(users: Users, rows: Rows) -> None:
    rows.session("s")
    east = dt.timezone(dt.timedelta(hours=8))
    rows.message("s", 1, created_at=dt.datetime(2026, 3, 1, 23, 59, 59, 999_999, tzinfo=dt.UTC))
    rows.message("s", 2, created_at=dt.datetime(2026, 3, 2, tzinfo=dt.UTC))
    rows.message("s", 4, created_at=dt.datetime(2026, 3, 2, 3, tzinfo=east))
    assert tokens(users.usage(by="day")) == [("2026-03-01", 5), ("2026-03-02", 2)]


def test_the_largest_comes_first_and_what_is_equal_in_the_order_of_keys(users: Users, rows: Rows) -> None:
    rows.session("s")
    for model, count in (("b", 3), ("a", 3), ("B", 3), (None, 3), ("z", 4), ("é", 3)):
        rows.message("s", count, model=model)
    expected = [("z", 4), ("B", 3), ("a", 3), ("b", 3), ("é", 3), (None, 3)]
    assert tokens(users.usage(by="model")) == expected
    assert tokens(users.usage(by="model", limit=2)) == expected[:2]


def test_filters_narrow_what_is_summed(users: Users, rows: Rows) -> None:
    rows.session("s")
    rows.session("t")
    rows.session("w", "v")
    rows.agent("a")
    for number, session_id in enumerate("sstw"):
        agent_id = "a" if number % 2 else None
        rows.message(session_id, 2**number, agent_id=agent_id, created_at=START + number * DAY)
    asked: list[tuple[dict[str, Any], int]] = [
        ({}, 15),
        ({"user_id": "u"}, 7),
        ({"session_id": "s"}, 3),
        ({"agent_id": "a"}, 10),
        ({"user_id": "u", "agent_id": "a"}, 2),
        ({"since": START + DAY}, 14),
        ({"until": START + DAY}, 1),
        ({"since": START + DAY, "until": START + 3 * DAY}, 6),
        ({"since": START + 3 * DAY, "until": START}, 0),
        ({"user_id": "nobody"}, 0),
        ({"session_id": "w", "user_id": "u"}, 0),
    ]
    for by in ("user", "agent", "template", "model", "day"):
        for filters, total in asked:
            assert sum(each.token_count for each in users.usage(by=by, **filters)) == total, (by, filters)
    assert users.usage(by="tool", since=START, user_id="u", agent_id="a", session_id="s") == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("by", {"by": "password"}),
        ("by", {"by": "user; DROP TABLE users"}),
        ("by", {"by": None}),
        ("by", {"by": ["user"]}),
        ("limit", {"limit": 0}),
        ("limit", {"limit": 10_001}),
        ("since", {"since": "2026-01-01"}),
        ("until", {"until": dt.datetime(2026, 1, 1)}),  # noqa: DTZ001  that is what is refused
        ("user_id", {"user_id": 1}),
    ],
)
def test_a_bad_question_is_refused(users: Users, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        users.usage(**{"by": "user", **options})
    assert caught.value.name == name


def test_usage_through_the_asynchronous_store(url: str, rows: Rows) -> None:
    rows.session("s", total_tokens=3, message_count=1)
    rows.message("s", 3, cost=Decimal("0.25"))

    async def main() -> None:
        async with AsyncStore.open(url) as store:
            users: UserRepository[Awaiting] = store.bind(UserRepository[Awaiting])
            assert await users.usage(by="user") == [Usage("u", 1, 3, 0, 0, 0, Decimal("0.25"))]
            assert (await users.usage_stats("u")).total_tokens == 3

    asyncio.run(main())
