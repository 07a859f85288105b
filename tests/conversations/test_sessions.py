from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from agentos_store import AsyncStore, Store
from agentos_store.agents.models import Agent
from agentos_store.conversations import sessions as module
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.sessions import SessionRepository
from agentos_store.engine.session import Call, Session
from agentos_store.errors import AlreadyExistsError, InvalidValueError, NotFoundError
from agentos_store.operation import Blocking, Repository, writes
from tests.engine.gather import threads
from tests.plans import some_row

START = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)

bodies: Any = SessionRepository
none: Any = None


def at(minutes: float) -> dt.datetime:
    return START + dt.timedelta(minutes=minutes)


class Behind(Repository[Blocking]):
    """Rows at times of one's choosing, and calls whose answer is lost."""

    name = "behind"

    @writes
    def session(self, session: Session, key: str, values: dict[str, Any]) -> None:
        session.insert(Conversation, some_row(Conversation, id=key, **values))

    @writes
    def agent(self, session: Session, key: str, values: dict[str, Any]) -> None:
        session.insert(Agent, some_row(Agent, agent_id=key, **values))

    @writes
    def twice(self, session: Session, call: Callable[[Session], Any], between: Callable[[Session], Any]) -> Any:
        same = Call()
        first = call(Session(session._connection, same))
        between(Session(session._connection, Call()))
        same.in_doubt = True
        return first, call(Session(session._connection, same))


@pytest.fixture
def behind(store: Store) -> Behind:
    return store.bind(Behind)


def ids(page: Any) -> list[str]:
    return [each.id for each in page]


# --- creating and reading


def test_a_new_session_is_active_and_empty(store: Store) -> None:
    made = store.sessions.create()
    assert (made.user_id, made.channel, made.title, made.model, made.status) == (None, "api", None, None, "active")
    assert (made.message_count, made.next_seq, made.generation, made.total_tokens) == (0, 0, 0, 0)
    assert (made.total_cost, made.budget, made.metadata_, made.deleted_at) == (Decimal(0), None, {}, None)
    assert made.created_at == made.updated_at
    assert store.sessions.get(made.id).to_dict() == made.to_dict()


def test_what_is_given_comes_back(store: Store) -> None:
    store.users.create(name="n", id="u")
    made = store.sessions.create(
        user_id="u",
        channel="webui",
        title="天气 'x'; --",
        model="m",
        budget=Decimal("1.000000001"),
        metadata={"z": [1, {"a": None}], "a": "天气"},
        id="s",
    )
    found = store.sessions.get("s")
    assert found.to_dict() == made.to_dict()
    assert (found.user_id, found.channel, found.title, found.model) == ("u", "webui", "天气 'x'; --", "m")
    assert found.budget == Decimal("1.000000001")
    assert found.metadata_ == {"z": [1, {"a": None}], "a": "天气"}


def test_a_user_must_be_there_and_an_identifier_free(store: Store) -> None:
    with pytest.raises(NotFoundError) as unknown:
        store.sessions.create(user_id="nobody")
    assert (unknown.value.entity, unknown.value.key) == ("user", "nobody")
    store.sessions.create(id="s", title="first")
    store.sessions.create(id="deleted")
    store.sessions.delete("deleted")
    for key in ("s", "deleted"):
        with pytest.raises(AlreadyExistsError) as taken:
            store.sessions.create(id=key)
        assert (taken.value.entity, taken.value.key) == ("session", key)
    assert store.sessions.get("s").title == "first"
    assert store.sessions.count(include_deleted=True) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("budget", Decimal(-1)),
        ("budget", Decimal("-0.000000001")),
        ("budget", 1.5),
        ("budget", "1"),
        ("channel", "c" * 101),
        ("channel", None),
        ("title", 5),
        ("metadata", []),
        ("metadata", "{}"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(store: Store, name: str, value: Any) -> None:
    before = store.sessions.create(id="s").to_dict()
    calls: list[Callable[[], object]] = [
        lambda: store.sessions.create(**{name: value}),
        lambda: store.sessions.update("s", **{name: value}),
    ]
    for call in calls:
        with pytest.raises(InvalidValueError) as caught:
            call()
        assert caught.value.name == name
    assert store.sessions.get("s").to_dict() == before
    assert store.sessions.count() == 1


def test_no_budget_is_not_a_budget_of_nothing(store: Store) -> None:
    assert store.sessions.create(budget=Decimal(0)).budget == Decimal(0)
    assert store.sessions.create(budget=None).budget is None


def test_an_unknown_session_and_a_deleted_one_are_not_found(store: Store) -> None:
    store.sessions.create(id="s")
    store.sessions.create(id="deleted")
    store.sessions.delete("deleted")
    for key in ("deleted", "never"):
        with pytest.raises(NotFoundError) as caught:
            store.sessions.get(key)
        assert (caught.value.entity, caught.value.key) == ("session", key)
        assert store.sessions.find(key) is None
        assert not store.sessions.exists(key)
    assert store.sessions.exists("s")
    assert store.sessions.get("deleted", include_deleted=True).deleted_at is not None
    assert store.sessions.find("deleted", include_deleted=True) is not None
    assert store.sessions.exists("deleted", include_deleted=True)
    assert not store.sessions.exists("never", include_deleted=True)


# --- lists


@pytest.fixture
def rows(store: Store, behind: Behind) -> Store:
    """Six sessions; each filter keeps some of them and leaves some out."""
    for user in "uv":
        store.users.create(name="n", id=user)
    made: list[dict[str, Any]] = [
        {"user_id": "u", "status": "active", "channel": "api", "metadata": {"theme": "dark", "n": 1}},
        {"user_id": "u", "status": "paused", "channel": "webui", "metadata": {"theme": "light"}},
        {"user_id": "v", "status": "active", "channel": "webui", "metadata": {"tags": ["a", "b"]}},
        {"user_id": None, "status": "completed", "channel": "task", "metadata": {"deep": {"x": 1, "y": 2}}},
        {"user_id": "u", "status": "cancelled", "channel": "api", "metadata": {"n": "1"}},
        {"user_id": "u", "status": "active", "channel": "api", "metadata": {"theme": "dark"}, "deleted_at": START},
    ]
    for n, values in enumerate(made):
        # Changed in another order than made.
        behind.session(f"s{n}", {"created_at": at(n), "updated_at": at(10 - n), **values})
    for key, template, session_id, deleted in (
        ("a0", "t", "s0", None),
        ("a0 too", "t", "s0", None),
        ("a1", "t", "s1", START),
        ("a2", "other", "s2", None),
        ("a3", None, "s3", None),
        ("a4", "t", "s4", None),
        ("a5", "t", "s5", None),
        ("nowhere", "t", None, None),
    ):
        behind.agent(key, {"template_id": template, "session_id": session_id, "deleted_at": deleted})
    return store


FILTERED: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["s0", "s1", "s2", "s3", "s4"]),
    ({"status": "active"}, ["s0", "s2"]),
    ({"status": "completed"}, ["s3"]),
    ({"channel": "webui"}, ["s1", "s2"]),
    ({"template_id": "t"}, ["s0", "s4"]),
    ({"template_id": "other"}, ["s2"]),
    ({"template_id": "never"}, []),
    ({"agent_id": "a0"}, ["s0"]),
    ({"agent_id": "a1"}, []),
    ({"agent_id": "nowhere"}, []),
    ({"created_after": at(2)}, ["s2", "s3", "s4"]),
    ({"created_before": at(2)}, ["s0", "s1"]),
    ({"created_after": at(1), "created_before": at(3)}, ["s1", "s2"]),
    ({"updated_after": at(8)}, ["s0", "s1", "s2"]),
    ({"updated_before": at(8)}, ["s3", "s4"]),
    ({"updated_after": at(7), "updated_before": at(9)}, ["s2", "s3"]),
    ({"metadata": {"theme": "dark"}}, ["s0"]),
    ({"metadata": {"n": 1}}, ["s0"]),
    ({"metadata": {"n": "1"}}, ["s4"]),
    ({"metadata": {"tags": ["b"]}}, ["s2"]),
    ({"metadata": {"deep": {"y": 2}}}, ["s3"]),
    ({"metadata": {"deep": {}}}, ["s3"]),
    ({"metadata": {"theme": None}}, []),
    ({"metadata": {}}, ["s0", "s1", "s2", "s3", "s4"]),
    ({"include_deleted": True}, ["s0", "s1", "s2", "s3", "s4", "s5"]),
    ({"template_id": "t", "include_deleted": True}, ["s0", "s4", "s5"]),
    ({"status": "active", "channel": "api", "metadata": {"theme": "dark"}}, ["s0"]),
]


@pytest.mark.parametrize(("filters", "left"), FILTERED)
def test_a_filter_leaves_out_what_does_not_pass(rows: Store, filters: dict[str, Any], left: list[str]) -> None:
    assert ids(rows.sessions.list(**filters)) == left
    assert ids(rows.sessions.list(**filters, order="-created_at")) == left[::-1]
    assert ids(rows.sessions.list(**filters, order="updated_at")) == left[::-1]
    assert ids(rows.sessions.iterate(**filters, limit=1)) == left


COUNTED = {"user_id", "status", "channel", "template_id", "metadata", "include_deleted"}


@pytest.mark.parametrize(("filters", "left"), [each for each in FILTERED if COUNTED.issuperset(each[0])])
def test_a_count_counts_what_a_list_gives(rows: Store, filters: dict[str, Any], left: list[str]) -> None:
    assert rows.sessions.count(**filters) == len(left)


def test_a_user_s_sessions_come_with_the_latest_change_first(rows: Store) -> None:
    assert ids(rows.sessions.list(user_id="u")) == ["s0", "s1", "s4"]
    assert ids(rows.sessions.list(user_id="u", order="created_at")) == ["s0", "s1", "s4"]
    rows.sessions.update("s4", title="t")
    assert ids(rows.sessions.list(user_id="u")) == ["s4", "s0", "s1"]
    assert ids(rows.sessions.iterate(user_id="u", limit=1)) == ["s4", "s0", "s1"]
    assert ids(rows.sessions.list(user_id="nobody")) == []
    assert rows.sessions.count(user_id="u") == 3
    assert rows.sessions.count(user_id="u", include_deleted=True) == 4


def test_a_message_makes_its_session_the_latest(rows: Store) -> None:
    rows.messages.append("s4", role="user", content="x")
    assert ids(rows.sessions.list(user_id="u")) == ["s4", "s0", "s1"]


def test_sessions_of_one_time_are_given_once_each(store: Store, behind: Behind) -> None:
    for n in range(7):
        behind.session(f"s{n}", {"created_at": START, "updated_at": START})
    for order in ("created_at", "-created_at", "updated_at", "-updated_at"):
        found = ids(store.sessions.iterate(order=order, limit=2))
        assert found == sorted(found, reverse=order.startswith("-"))
        assert len(found) == 7


def test_pages_and_offsets_follow_each_other(rows: Store) -> None:
    first = rows.sessions.list(limit=2)
    assert ids(first) == ["s0", "s1"]
    assert ids(rows.sessions.list(limit=2, cursor=first.next)) == ["s2", "s3"]
    assert ids(rows.sessions.list(limit=2, offset=3)) == ["s3", "s4"]
    with pytest.raises(InvalidValueError):
        rows.sessions.list(status="active", cursor=first.next)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", "Active"),
        ("status", "' OR 1=1 --"),
        ("order", "title"),
        ("order", "--created_at"),
        ("limit", 0),
        ("offset", -1),
        ("created_after", dt.datetime(2026, 1, 1)),  # noqa: DTZ001  that is what is refused
        ("updated_before", "2026-01-01"),
        ("metadata", [1]),
        ("template_id", 5),
    ],
)
def test_a_filter_s_value_that_cannot_be_is_refused(rows: Store, name: str, value: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        rows.sessions.list(**{name: value})
    assert caught.value.name == name


def test_an_unknown_filter_is_refused(rows: Store) -> None:
    unknown: dict[str, Any] = {"templateId": "t"}
    for call in (rows.sessions.list, rows.sessions.query, rows.sessions.count):
        with pytest.raises(TypeError):
            call(**unknown)
    with pytest.raises(InvalidValueError) as caught:
        module._LISTING._check(unknown)
    assert caught.value.name == "templateId"


def test_the_kode_sdk_s_query_gives_the_newest_first(rows: Store) -> None:
    assert ids(rows.sessions.query()) == ["s4", "s3", "s2", "s1", "s0"]
    assert ids(rows.sessions.query(template_id="t")) == ["s4", "s0"]
    assert ids(rows.sessions.query(template_id="t", limit=1)) == ["s4"]
    assert ids(rows.sessions.query(template_id="t", limit=1, offset=1)) == ["s0"]
    assert ids(rows.sessions.query(created_after=at(1), created_before=at(3))) == ["s2", "s1"]
    assert ids(rows.sessions.query(metadata={"theme": "dark"})) == ["s0"]


def test_a_page_has_a_hundred_sessions_unless_more_are_asked_for(store: Store, behind: Behind) -> None:
    for n in range(101):
        behind.session(f"s{n:03}", {"created_at": at(n)})
    assert len(store.sessions.list()) == len(store.sessions.query()) == 100
    assert len(store.sessions.list(limit=101)) == 101


# --- changing


def test_an_update_changes_what_is_given_and_leaves_the_rest(store: Store) -> None:
    store.users.create(name="n", id="u")
    made = store.sessions.create(
        id="s", user_id="u", title="t", model="m", budget=Decimal(5), metadata={"a": 1}, channel="webui"
    )
    other = store.sessions.create(id="other", title="o").to_dict()
    changes: dict[str, Any] = {
        "title": "new",
        "model": None,
        "channel": "task",
        "budget": Decimal("7.5"),
        "metadata": {"b": 2},
        "user_id": None,
    }
    expected, last = made.to_dict(), made.updated_at
    for name, value in changes.items():
        changed = store.sessions.update("s", **{name: value})
        assert changed.updated_at > last
        last = changed.updated_at
        expected |= {name: value, "updated_at": last}
        assert changed.to_dict() == expected == store.sessions.get("s").to_dict()
    assert store.sessions.update("s", budget=None).budget is None
    assert store.sessions.get("other").to_dict() == other


def test_only_a_session_that_is_there_can_be_changed_and_only_to_a_user_who_is(store: Store) -> None:
    before = store.sessions.create(id="s").to_dict()
    store.sessions.create(id="deleted")
    store.sessions.delete("deleted")
    calls: list[Callable[[str], object]] = [
        lambda key: store.sessions.update(key, title="t"),
        lambda key: store.sessions.merge_metadata(key, {"a": 1}),
    ]
    for key in ("deleted", "never"):
        for call in calls:
            with pytest.raises(NotFoundError) as caught:
                call(key)
            assert (caught.value.entity, caught.value.key) == ("session", key)
    with pytest.raises(NotFoundError) as unknown:
        store.sessions.update("s", user_id="nobody")
    assert (unknown.value.entity, unknown.value.key) == ("user", "nobody")
    assert store.sessions.get("s").to_dict() == before


def test_a_merge_sets_its_keys_and_keeps_the_others(store: Store) -> None:
    made = store.sessions.create(id="s", metadata={"a": 1, "deep": {"x": 1}})
    merged = store.sessions.merge_metadata("s", {"b": 2, "deep": {"y": 2}, "none": None})
    # A value is replaced whole.
    assert merged.metadata_ == {"a": 1, "b": 2, "deep": {"y": 2}, "none": None}
    assert merged.updated_at > made.updated_at
    assert store.sessions.get("s").to_dict() == merged.to_dict()
    bad: list[Any] = [None, [], "a", 5]
    for metadata in bad:
        with pytest.raises(InvalidValueError) as caught:
            store.sessions.merge_metadata("s", metadata)
        assert caught.value.name == "metadata"
    with pytest.raises(InvalidValueError) as inside:
        store.sessions.merge_metadata("s", {"c": float("nan")})
    assert inside.value.name == "metadata.c"
    assert store.sessions.get("s").to_dict() == merged.to_dict()


def test_parallel_merges_keep_each_other_s_keys(store: Store) -> None:
    store.sessions.create(id="s", metadata={"first": 0})

    def merge(number: int) -> None:
        for turn in range(5):
            store.sessions.merge_metadata("s", {f"{number}-{turn}": number, "last": number})

    with threads([lambda number=number: merge(number) for number in range(16)]) as outcomes:  # type: ignore[misc]
        pass
    assert outcomes == [None] * 16
    metadata = store.sessions.get("s").metadata_
    assert metadata.pop("last") in range(16)
    assert metadata == {"first": 0} | {f"{n}-{turn}": n for n in range(16) for turn in range(5)}


# --- calls whose answer was lost


def test_a_creation_repeated_in_doubt_makes_one_session(store: Store, behind: Behind) -> None:
    for key in (None, "s"):
        create = lambda session, key=key: bodies.create(none, session, title="t", id=key)  # noqa: E731
        first, second = behind.twice(create, lambda _: None)
        assert first.to_dict() == second.to_dict()
    assert store.sessions.count() == 2


def test_a_creation_in_doubt_does_not_take_another_s_session_for_its_own(store: Store, behind: Behind) -> None:
    def replace(session: Session) -> None:
        bodies.purge(none, session, "s")
        bodies.create(none, session, id="s", title="another")

    with pytest.raises(AlreadyExistsError):
        behind.twice(lambda session: bodies.create(none, session, id="s"), replace)


def test_changes_repeated_in_doubt_give_the_same(store: Store, behind: Behind) -> None:
    store.sessions.create(id="s", metadata={"a": 1})
    for call in (
        lambda session: bodies.update(none, session, "s", title="t"),
        lambda session: bodies.merge_metadata(none, session, "s", {"b": 2}),
    ):
        first, second = behind.twice(call, lambda _: None)
        assert first.to_dict() == second.to_dict() == store.sessions.get("s").to_dict()


# --- the other face


def test_sessions_are_awaited_through_the_asynchronous_store(url: str) -> None:
    async def work() -> None:
        async with AsyncStore.open(url) as store:
            made = [await store.sessions.create(title=f"{n}") for n in range(5)]
            merges = [store.sessions.merge_metadata(made[0].id, {f"{n}": n}) for n in range(8)]
            await asyncio.gather(*merges)
            assert (await store.sessions.get(made[0].id)).metadata_ == {f"{n}": n for n in range(8)}
            assert [each.title async for each in store.sessions.iterate(limit=2)] == list("01234")
            assert ids(await store.sessions.query(limit=1)) == [made[-1].id]
            with pytest.raises(NotFoundError):
                await store.sessions.get("never")

    asyncio.run(work())
