from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import AsyncStore, Store
from agentos_store.agents.models import Agent
from agentos_store.conversations import contexts as module
from agentos_store.conversations.context_models import Context
from agentos_store.conversations.contexts import ContextRepository
from agentos_store.engine.session import Call, Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.operation import Awaiting, Blocking, Repository, reads, writes
from tests.engine.gather import threads, wait_for
from tests.plans import some_row

Contexts = ContextRepository[Blocking]

START = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
FUTURE = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
TINY = dt.timedelta(milliseconds=20)

bodies: Any = ContextRepository
none: Any = None

_ALL: Statement[Context] = Statement(module._CONTEXTS.select(), returns=Context)


class Behind(Repository[Blocking]):
    """What users do not see, and what others write."""

    name = "behind"

    @writes
    def agent(self, session: Session, key: str, values: dict[str, Any]) -> None:
        session.insert(Agent, some_row(Agent, agent_id=key, **values))

    @writes
    def context(self, session: Session, key: str, values: dict[str, Any]) -> None:
        session.insert(Context, some_row(Context, context_id=key, **values))

    @reads
    def there(self, session: Session) -> list[str]:
        return sorted(each.context_id for each in session.all(_ALL))

    @writes
    def twice(self, session: Session, call: Callable[[Session], Any]) -> Any:
        same = Call()
        first = call(Session(session._connection, same))
        same.in_doubt = True
        return first, call(Session(session._connection, same))


@pytest.fixture
def behind(store: Store) -> Behind:
    return store.bind(Behind)


@pytest.fixture
def contexts(store: Store) -> Contexts:
    found: Contexts = store.bind(ContextRepository[Blocking])
    return found


@pytest.fixture
def parents(store: Store, behind: Behind) -> None:
    """Two agents and two sessions, and one of each that is deleted."""
    for n in (1, 2):
        behind.agent(f"a{n}", {})
        store.sessions.create(id=f"s{n}")
    behind.agent("gone", {"deleted_at": START})
    store.sessions.create(id="gone")
    store.sessions.delete("gone")


def ids(page: Any) -> list[str]:
    return [each.context_id for each in page]


# --- saving


def test_a_context_comes_back_as_it_was_saved(contexts: Contexts, parents: None) -> None:
    made = contexts.save(context_data={"task": "refactor"}, agent_id="a1", session_id="s1")
    assert (made.agent_id, made.session_id, made.expires_at) == ("a1", "s1", None)
    found = contexts.get(made.context_id)
    assert found.to_dict() == made.to_dict()
    found = contexts.find(made.context_id) or found
    assert found.context_data == {"task": "refactor"}
    assert contexts.exists(made.context_id)


@pytest.mark.parametrize(
    "data",
    [
        {"z": 1, "a": 2, "m": {"b": 1, "a": 2}},
        {"float": 1e16, "zero": -0.0, "big": 10**40, "int": 1},
        "U+0000 \x00, a lone surrogate \ud800, 天气 🌤",
        {"\x00": "\x00"},
        [],
        {},
        "",
        0,
        False,
        None,
        [None, [None]],
    ],
)
def test_data_are_exact(contexts: Contexts, data: Any) -> None:
    made = contexts.save("c", context_data=data)
    again = contexts.save("c", context_data=data)
    for each in (made, again, contexts.get("c"), contexts.list().items[0]):
        # In the same order, and of the same types.
        assert json.dumps(each.context_data) == json.dumps(data)


@pytest.mark.parametrize("data", [float("nan"), (1, 2), {1: 2}, object(), {"a": {1, 2}}])
def test_what_is_no_json_is_refused(contexts: Contexts, data: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        contexts.save("c", context_data=data)
    assert caught.value.name.startswith("context_data")
    assert contexts.count() == 0


def test_saving_again_replaces_all_but_the_time_of_making(contexts: Contexts, behind: Behind, parents: None) -> None:
    first = contexts.save("c", context_data=1, agent_id="a1", session_id="s1", ttl=HOUR)
    other = contexts.save("other", context_data=0).to_dict()
    second = contexts.save("c", context_data=2, agent_id="a2")
    assert second.to_dict() == {
        "context_id": "c",
        "agent_id": "a2",
        "session_id": None,
        "context_data": 2,
        "expires_at": None,
        "created_at": first.created_at,
    }
    assert contexts.get("c").to_dict() == second.to_dict()
    assert contexts.get("other").to_dict() == other
    assert behind.there() == ["c", "other"]


def test_an_unknown_agent_or_session_is_not_found(contexts: Contexts, parents: None) -> None:
    before = contexts.save("c", context_data=1).to_dict()
    for name, entity in (("agent_id", "agent"), ("session_id", "session")):
        for key in ("c", "new"):
            parent: dict[str, Any] = {name: "never"}
            with pytest.raises(NotFoundError) as caught:
                contexts.save(key, context_data=2, **parent)
            assert (caught.value.entity, caught.value.key) == (entity, "never")
    assert contexts.get("c").to_dict() == before
    assert contexts.count() == 1


def test_of_parallel_writers_the_last_one_wins_whole(contexts: Contexts, behind: Behind, parents: None) -> None:
    def save(number: int) -> None:
        for _ in range(5):
            contexts.save("c", context_data=number, agent_id=f"a{number % 2 + 1}", ttl=HOUR * (number + 1))

    with threads([lambda number=number: save(number) for number in range(16)]) as outcomes:  # type: ignore[misc]
        pass
    assert outcomes == [None] * 16
    found = contexts.get("c")
    assert found.agent_id == f"a{found.context_data % 2 + 1}"
    assert found.expires_at is not None
    assert round((found.expires_at - found.created_at) / HOUR) == found.context_data + 1
    assert behind.there() == ["c"]


def test_a_save_repeated_in_doubt_makes_one_context(contexts: Contexts, behind: Behind) -> None:
    first, second = behind.twice(lambda session: bodies.save(none, session, context_data=1))
    assert first.to_dict() == second.to_dict()
    assert behind.there() == [first.context_id]


# --- expiring


def test_it_expires_so_long_from_now_or_at_the_time_given(contexts: Contexts) -> None:
    before = dt.datetime.now(dt.UTC)
    made = contexts.save("for an hour", context_data=1, ttl=HOUR)
    assert made.expires_at is not None
    # Both clocks are this machine's.
    assert before + HOUR - dt.timedelta(seconds=1) < made.expires_at < dt.datetime.now(dt.UTC) + 2 * HOUR
    assert contexts.save("until", context_data=1, expires_at=FUTURE).expires_at == FUTURE
    assert contexts.save("for ever", context_data=1).expires_at is None
    assert contexts.count() == 3


def test_a_time_and_a_duration_cannot_both_be_given(contexts: Contexts) -> None:
    with pytest.raises(InvalidValueError) as caught:
        contexts.save("c", context_data=1, ttl=HOUR, expires_at=FUTURE)
    assert caught.value.name == "expires_at"
    assert not contexts.exists("c")


@pytest.mark.parametrize("ttl", [dt.timedelta(0), -HOUR, 3600, "1h", dt.timedelta(days=36_501), dt.timedelta.max])
def test_a_duration_is_above_zero_and_of_a_century_at_most(contexts: Contexts, ttl: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        contexts.save(context_data=1, ttl=ttl)
    assert caught.value.name == "ttl"
    assert contexts.save(context_data=1, ttl=dt.timedelta(days=36_500)).expires_at is not None


@pytest.mark.parametrize("expires_at", [dt.datetime(2999, 1, 1), 1e9, "2999-01-01"])  # noqa: DTZ001  it is refused
def test_a_time_has_a_zone(contexts: Contexts, expires_at: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        contexts.save(context_data=1, expires_at=expires_at)
    assert caught.value.name == "expires_at"


def test_what_has_expired_is_not_there_although_its_row_is(contexts: Contexts, behind: Behind, parents: None) -> None:
    contexts.save("live", context_data=1, agent_id="a1", session_id="s1", ttl=HOUR)
    contexts.save("c", context_data=1, agent_id="a1", session_id="s1", ttl=TINY)
    wait_for(lambda: not contexts.exists("c"))
    assert contexts.find("c") is None
    for call in (lambda: contexts.get("c"), lambda: contexts.delete("c")):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert (caught.value.entity, caught.value.key) == ("context", "c")
    for include_deleted in (False, True):
        assert ids(contexts.list(include_deleted=include_deleted)) == ["live"]
        assert contexts.count(include_deleted=include_deleted) == 1
    assert ids(contexts.list(session_id="s1")) == ids(contexts.list_by_agent("a1")) == ["live"]
    assert ids(contexts.iterate(agent_id="a1", limit=1)) == ["live"]
    assert contexts.count(agent_id="a1") == 1
    assert behind.there() == ["c", "live"]


def test_a_time_that_is_past_expires_at_once(contexts: Contexts, behind: Behind) -> None:
    assert contexts.save("c", context_data=1, expires_at=PAST).expires_at == PAST
    assert not contexts.exists("c")
    assert behind.there() == ["c"]


def test_what_has_expired_is_replaced_as_if_it_were_not_there(contexts: Contexts, behind: Behind) -> None:
    first = contexts.save("c", context_data=1, expires_at=PAST)
    second = contexts.save("c", context_data=2, ttl=HOUR)
    assert second.created_at > first.created_at
    assert contexts.get("c").to_dict() == second.to_dict()
    assert contexts.save("c", context_data=3).created_at == second.created_at
    assert behind.there() == ["c"]


def test_a_context_can_be_ended_or_kept_by_saving_it(contexts: Contexts) -> None:
    contexts.save("c", context_data=1)
    contexts.save("c", context_data=1, expires_at=PAST)
    assert not contexts.exists("c")
    contexts.save("d", context_data=1, expires_at=FUTURE)
    assert contexts.save("d", context_data=1).expires_at is None


# --- lists


def test_a_list_has_the_contexts_of_the_agent_or_session(contexts: Contexts, parents: None) -> None:
    for key, agent_id, session_id in (
        ("1", "a1", "s1"),
        ("2", "a1", None),
        ("3", None, "s1"),
        ("4", "a2", "s1"),
        ("5", "a1", "s2"),
        ("6", None, None),
    ):
        contexts.save(key, context_data=1, agent_id=agent_id, session_id=session_id)
    for filters, left in (
        ({}, "123456"),
        ({"agent_id": "a1"}, "125"),
        ({"agent_id": "a2"}, "4"),
        ({"agent_id": "never"}, ""),
        ({"session_id": "s1"}, "134"),
        ({"session_id": "s2"}, "5"),
        ({"agent_id": "a1", "session_id": "s1"}, "1"),
    ):
        given: dict[str, Any] = filters
        assert ids(contexts.list(**given)) == list(left)
        assert ids(contexts.list(**given, order="-created_at")) == list(left)[::-1]
        assert ids(contexts.iterate(**given, limit=1)) == list(left)
        assert contexts.count(**given) == len(left)
    assert ids(contexts.list_by_agent("a1")) == ["1", "2", "5"]
    first = contexts.list_by_agent("a1", limit=2)
    assert ids(contexts.list_by_agent("a1", limit=2, cursor=first.next)) == ["5"]
    assert ids(contexts.list_by_agent("a1", order="-created_at", offset=1)) == ["2", "1"]


def test_contexts_of_deleted_agents_and_sessions_are_left_out_unless_asked_for(
    contexts: Contexts, store: Store, parents: None
) -> None:
    contexts.save("1", context_data=1, agent_id="a1", session_id="s1")
    contexts.save("2", context_data=1, agent_id="gone")
    contexts.save("3", context_data=1, session_id="gone")
    contexts.save("4", context_data=1, agent_id="a1", session_id="gone")
    contexts.save("5", context_data=1, agent_id="gone", session_id="s1")
    assert ids(contexts.list()) == ["1"]
    assert ids(contexts.list(include_deleted=True)) == list("12345")
    assert (contexts.count(), contexts.count(include_deleted=True)) == (1, 5)
    assert ids(contexts.list_by_agent("a1")) == ["1"]
    assert ids(contexts.list_by_agent("a1", include_deleted=True)) == ["1", "4"]
    assert ids(contexts.list(session_id="s1")) == ["1"]
    assert ids(contexts.list(session_id="s1", include_deleted=True)) == ["1", "5"]
    store.sessions.restore("gone")
    assert ids(contexts.list()) == ["1", "3", "4"]
    # Whoever knows its name gets it.
    assert contexts.exists("2")


def test_an_agent_s_list_needs_an_agent(contexts: Contexts) -> None:
    contexts.save(context_data=1)
    bad: list[Any] = [None, 5, ""]
    for agent_id in bad:
        with pytest.raises(InvalidValueError) as caught:
            contexts.list_by_agent(agent_id)
        assert caught.value.name == "agent_id"


def test_an_unknown_filter_or_order_is_refused(contexts: Contexts) -> None:
    unknown: dict[str, Any] = {"agentId": "a1"}
    with pytest.raises(TypeError):
        contexts.list(**unknown)
    with pytest.raises(InvalidValueError):
        module._LISTING._check(unknown)
    for order in ("expires_at", "context_data", "'"):
        with pytest.raises(InvalidValueError):
            contexts.list(order=order)


# --- removing


def test_a_deleted_context_is_gone(contexts: Contexts, behind: Behind) -> None:
    contexts.save("c", context_data=1)
    contexts.save("other", context_data=1)
    contexts.delete("c")
    assert behind.there() == ["other"]
    for key in ("c", "never"):
        with pytest.raises(NotFoundError):
            contexts.delete(key)
    behind.twice(lambda session: bodies.delete(none, session, "other"))
    assert behind.there() == []


def test_contexts_go_with_their_session(contexts: Contexts, store: Store, behind: Behind, parents: None) -> None:
    contexts.save("1", context_data=1, session_id="s1")
    contexts.save("2", context_data=1, session_id="s2", agent_id="a1")
    store.sessions.delete("s1")
    assert behind.there() == ["1", "2"]
    store.sessions.purge("s1")
    assert behind.there() == ["2"]


def test_a_clean_up_removes_what_has_expired_in_batches_the_longest_first(contexts: Contexts, behind: Behind) -> None:
    for n in range(7):
        behind.context(f"old{n}", {"expires_at": PAST + n * HOUR, "context_data": n})
    contexts.save("for ever", context_data=1)
    contexts.save("live", context_data=1, ttl=HOUR)
    contexts.save("later", context_data=1, expires_at=FUTURE)
    live = ["for ever", "later", "live"]
    assert contexts.cleanup_expired(limit=3) == 3
    assert behind.there() == [*live, "old3", "old4", "old5", "old6"]
    assert [contexts.cleanup_expired(limit=3) for _ in range(3)] == [3, 1, 0]
    assert contexts.cleanup_expired() == 0
    assert behind.there() == live
    assert contexts.count() == 3


@pytest.mark.parametrize("limit", [0, -1, 10_001, True, 1.0, None])
def test_a_clean_up_has_a_limit(contexts: Contexts, behind: Behind, limit: Any) -> None:
    contexts.save("c", context_data=1, expires_at=PAST)
    with pytest.raises(InvalidValueError) as caught:
        contexts.cleanup_expired(limit=limit)
    assert caught.value.name == "limit"
    assert behind.there() == ["c"]


def test_parallel_clean_ups_remove_each_once_and_never_what_is_saved_anew(contexts: Contexts, behind: Behind) -> None:
    for n in range(200):
        contexts.save(f"{n}", context_data="old", expires_at=PAST)

    def clean() -> int:
        return sum(contexts.cleanup_expired(limit=10) for _ in range(10))

    def renew(part: int) -> int:
        for n in range(part, 200, 8):
            contexts.save(f"{n}", context_data="new", ttl=HOUR)
        return 0

    works = [clean for _ in range(8)]
    works += [lambda part=part: renew(part) for part in range(4)]  # type: ignore[misc]
    with threads(works) as outcomes:
        pass
    removed = sum(outcomes)
    assert removed <= 200
    there = set(behind.there())
    renewed = {f"{n}" for n in range(200) if n % 8 < 4}
    assert renewed <= there
    left = len(there - renewed)
    # A renewed one may have been removed before it was saved anew, or have been replaced in its place.
    assert 100 - left <= removed
    assert {each.context_data for each in contexts.iterate()} == {"new"}
    assert contexts.count() == 100


# --- the other face


def test_contexts_are_awaited_through_the_asynchronous_store(url: str) -> None:
    async def work() -> None:
        async with AsyncStore.open(url) as store:
            contexts: ContextRepository[Awaiting] = store.bind(ContextRepository[Awaiting])
            saves = [contexts.save(f"{n}", context_data={"n": n}, ttl=HOUR) for n in range(5)]
            await asyncio.gather(*saves)
            await contexts.save("old", context_data=1, expires_at=PAST)
            assert {each.context_id async for each in contexts.iterate(limit=2)} == set("01234")
            assert (await contexts.get("3")).context_data == {"n": 3}
            assert await contexts.find("old") is None
            assert await contexts.cleanup_expired() == 1
            with pytest.raises(NotFoundError):
                await contexts.delete("old")

    asyncio.run(work())
