from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import AsyncStore, Store
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.users import UserRepository
from agentos_store.engine.session import Call, Session
from agentos_store.errors import AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError
from agentos_store.operation import Awaiting, Blocking, Repository, writes

Users = UserRepository[Blocking]

bodies: Any = UserRepository
none: Any = None


class Behind(Repository[Blocking]):
    """What the library's users do not see."""

    name = "behind"

    @writes
    def add_session(self, session: Session, user_id: str, *, deleted: bool = False) -> None:
        time = session.now()
        zero = dict.fromkeys(("message_count", "next_seq", "generation", "total_tokens", "total_cost"), 0)
        row: dict[str, Any] = {
            "id": f"s-{user_id}",
            "user_id": user_id,
            "channel": "api",
            "status": "active",
            "metadata": {},
        }
        row |= {"created_at": time, "updated_at": time, "deleted_at": time if deleted else None}
        session.insert(Conversation, {**row, **zero})

    @writes
    def twice(self, session: Session, call: Callable[[Session], Any]) -> Any:
        same = Call()
        first = call(Session(session._connection, same))
        same.in_doubt = True
        return first, call(Session(session._connection, same))


@pytest.fixture
def users(store: Store) -> Users:
    found: Users = store.bind(UserRepository[Blocking])
    return found


# --- one user


def test_a_user_comes_back_as_it_was_made(users: Users) -> None:
    made = users.create(
        name="李雷",
        email="li@example.com",
        quota_total=7,
        preferences={"theme": "dark", "langs": ["zh", "en"]},
        api_key_hash="h",
        id="u",
    )
    assert (made.id, made.name, made.email, made.api_key_hash) == ("u", "李雷", "li@example.com", "h")
    assert (made.quota_total, made.quota_used, made.quota_reserved) == (7, 0, 0)
    assert made.preferences == {"theme": "dark", "langs": ["zh", "en"]}
    assert made.created_at == made.updated_at
    assert users.get("u").to_dict() == made.to_dict()
    plain = users.create(name="")
    assert (plain.name, plain.email, plain.quota_total, plain.preferences) == ("", None, 100_000, {})
    assert len(plain.id) == 26


def test_a_user_is_found_by_key_and_by_email(users: Users) -> None:
    made = users.create(name="n", email="a@b", id="u")
    assert users.exists("u")
    assert not users.exists("v")
    assert users.find("v") is None
    with pytest.raises(NotFoundError) as caught:
        users.get("v")
    assert (caught.value.entity, caught.value.key) == ("user", "v")
    found = users.find_by_email("a@b")
    assert found is not None
    assert found.to_dict() == made.to_dict()
    assert users.find_by_email("A@b") is None


def test_an_empty_email_is_none_and_many_may_have_none(users: Users) -> None:
    assert users.create(name="n", email="").email is None
    assert users.create(name="n", email="", id="u").email is None
    assert users.find_by_email("") is None
    users.update("u", email="a@b")
    assert users.update("u", email="").email is None


def test_a_key_and_an_email_are_taken_once(users: Users) -> None:
    users.create(name="n", email="a@b", id="u")
    with pytest.raises(AlreadyExistsError) as caught:
        users.create(name="n", id="u")
    assert (caught.value.entity, caught.value.key, caught.value.field) == ("user", "u", None)
    with pytest.raises(AlreadyExistsError) as caught:
        users.create(name="n", email="a@b")
    assert (caught.value.entity, caught.value.key, caught.value.field) == ("user", "a@b", "email")
    users.create(name="n", id="v")
    with pytest.raises(AlreadyExistsError) as caught:
        users.update("v", email="a@b")
    assert (caught.value.key, caught.value.field) == ("a@b", "email")
    assert users.update("u", email="a@b").email == "a@b"
    assert users.count() == 2


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("name", {"name": None}),
        ("name", {"name": 1}),
        ("email", {"email": "x" * 321}),
        ("quota_total", {"quota_total": -1}),
        ("quota_total", {"quota_total": 1.5}),
        ("quota_total", {"quota_total": True}),
        ("quota_total", {"quota_total": None}),
        ("preferences", {"preferences": ["a"]}),
        ("preferences.a", {"preferences": {"a": float("nan")}}),
    ],
)
def test_a_bad_value_is_refused_when_a_user_is_made_or_changed(
    users: Users, name: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidValueError) as caught:
        users.create(**{"name": "n", **options})
    assert caught.value.name == name
    before = users.create(name="n", id="u").to_dict()
    with pytest.raises(InvalidValueError) as caught:
        users.update("u", **options)
    assert caught.value.name == name
    assert users.get("u").to_dict() == before
    assert users.count() == 1


def test_a_change_leaves_the_rest(users: Users) -> None:
    made = users.create(name="n", email="a@b", preferences={"a": 1}, api_key_hash="h", id="u")
    changed = users.update("u", name="m", preferences={"b": 2})
    assert (changed.name, changed.email, changed.preferences, changed.api_key_hash) == ("m", "a@b", {"b": 2}, "h")
    assert changed.updated_at > made.updated_at
    cleared = users.update("u", email=None, api_key_hash=None, quota_total=5)
    assert (cleared.email, cleared.api_key_hash, cleared.quota_total) == (None, None, 5)
    assert users.get("u").to_dict() == cleared.to_dict()
    with pytest.raises(NotFoundError):
        users.update("v", name="m")
    missing: Any = None
    with pytest.raises(InvalidValueError) as caught:
        users.update("u", preferences=missing)
    assert caught.value.name == "preferences"


def test_preferences_are_merged_key_by_key(users: Users) -> None:
    users.create(name="n", id="u", preferences={"a": {"x": 1}, "b": 2})
    merged = users.merge_preferences("u", {"a": {"y": 1}, "c": None})
    assert merged.preferences == {"a": {"y": 1}, "b": 2, "c": None}
    assert users.get("u").to_dict() == merged.to_dict()
    with pytest.raises(NotFoundError):
        users.merge_preferences("v", {})
    wrong: Any = ["a"]
    with pytest.raises(InvalidValueError):
        users.merge_preferences("u", wrong)


def test_a_user_with_sessions_is_not_removed(store: Store, users: Users) -> None:
    behind = store.bind(Behind)
    for user_id in "uvw":
        users.create(name="n", id=user_id)
    behind.add_session("u")
    behind.add_session("v", deleted=True)
    for user_id in "uv":
        with pytest.raises(ConflictError) as caught:
            users.delete(user_id)
        assert (caught.value.entity, caught.value.key) == ("user", user_id)
        assert "sessions" in caught.value.why
    users.delete("w")
    assert [user.id for user in users.list()] == ["u", "v"]
    with pytest.raises(NotFoundError):
        users.delete("w")


def test_a_removal_that_is_refused_leaves_its_transaction_whole(store: Store, users: Users) -> None:
    users.create(name="n", id="u")
    store.bind(Behind).add_session("u")
    with store.transaction() as tx:
        inside = tx.bind(UserRepository[Blocking])
        with pytest.raises(ConflictError):
            inside.delete("u")
        with pytest.raises(AlreadyExistsError):
            inside.create(name="n", id="u")
        inside.create(name="n", id="v")
    assert users.count() == 2


# --- lists


def test_users_are_listed_in_the_order_in_which_they_were_made(users: Users) -> None:
    made = [users.create(name=f"n{number}") for number in range(7)]
    keys = [user.id for user in made]
    assert [user.id for user in users.list()] == keys
    assert [user.id for user in users.list(order="-created_at")] == keys[::-1]
    first = users.list(limit=3)
    assert [user.id for user in users.list(limit=3, cursor=first.next)] == keys[3:6]
    assert [user.id for user in users.list(limit=3, offset=2)] == keys[2:5]
    assert [user.id for user in users.iterate(limit=2)] == keys
    after, before = made[2].created_at, made[5].created_at
    assert [user.id for user in users.list(created_after=after, created_before=before)] == keys[2:5]
    assert users.count(created_after=after, created_before=before) == 3
    assert users.count() == 7
    assert len(users.list(created_after=dt.datetime(2100, 1, 1, tzinfo=dt.UTC))) == 0


def test_users_are_found_by_what_their_preferences_contain(users: Users) -> None:
    users.create(
        name="n", id="a", preferences={"theme": "dark", "langs": ["zh", "en"], "editor": {"tab": 4, "vi": True}}
    )
    users.create(name="n", id="b", preferences={"theme": "light", "langs": ["en"]})
    users.create(name="n", id="c", preferences={"theme": "dark"})
    users.create(name="n", id="d")
    for pattern, expected in (
        ({"theme": "dark"}, "ac"),
        ({"langs": ["en"]}, "ab"),
        ({"editor": {"vi": True}}, "a"),
        ({"theme": "dark", "langs": ["zh"]}, "a"),
        ({"theme": None}, ""),
        ({}, "abcd"),
    ):
        assert "".join(user.id for user in users.list(preferences=pattern)) == expected
        assert users.count(preferences=pattern) == len(expected)


def test_unknown_orders_and_bad_filters_are_refused(users: Users) -> None:
    wrong: dict[str, Any]
    for wrong in (
        {"order": "name"},
        {"order": "created_at; DROP TABLE users"},
        {"preferences": ["theme"]},
        {"created_after": "2026-01-01"},
        {"limit": 0},
        {"cursor": "x"},
        {"offset": -1},
    ):
        with pytest.raises(InvalidValueError) as caught:
            users.list(**wrong)
        assert caught.value.name == next(iter(wrong))
    unknown: dict[str, Any] = {"theme": "dark"}
    with pytest.raises(TypeError):
        users.list(**unknown)


# --- races and repeats


def test_sixteen_parallel_merges_keep_sixteen_keys(users: Users) -> None:
    users.create(name="n", id="u")
    barrier = threading.Barrier(16, timeout=60)

    def work(number: int) -> None:
        barrier.wait()
        users.merge_preferences("u", {f"k{number}": number})

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(16)))
    assert users.get("u").preferences == {f"k{number}": number for number in range(16)}


def test_of_eight_who_take_one_email_at_once_one_gets_it(users: Users) -> None:
    for number in range(8):
        users.create(name="n", id=f"u{number}")
    barrier = threading.Barrier(8, timeout=60)

    def take(number: int, email: str) -> tuple[str | None, object] | None:
        try:
            if number % 2:
                users.create(name="n", email=email)
            else:
                users.update(f"u{number}", email=email)
        except AlreadyExistsError as error:
            return error.field, error.key
        return None

    def work(number: int) -> list[tuple[str | None, object] | None]:
        found = []
        for turn in range(10):
            barrier.wait()
            found.append(take(number, f"{turn}@b"))
            # Nobody gives an email up before the others were refused.
            barrier.wait()
        return found

    with ThreadPoolExecutor(8) as threads:
        turns = list(zip(*threads.map(work, range(8)), strict=True))
    assert [turn.count(None) for turn in turns] == [1] * 10
    assert [turn.count(("email", f"{number}@b")) for number, turn in enumerate(turns)] == [7] * 10


def test_a_call_repeated_in_doubt_changes_nothing_more(store: Store, users: Users) -> None:
    behind = store.bind(Behind)
    first, again = behind.twice(lambda session: bodies.create(none, session, name="n", email="a@b"))
    assert first.to_dict() == again.to_dict()
    assert users.count() == 1
    first, again = behind.twice(lambda session: bodies.update(none, session, first.id, email="c@d"))
    assert first.to_dict() == again.to_dict()
    first, again = behind.twice(lambda session: bodies.merge_preferences(none, session, first.id, {"a": 1}))
    assert first.to_dict() == again.to_dict()
    assert behind.twice(lambda session: bodies.delete(none, session, first.id)) == (None, None)
    assert users.count() == 0
    users.create(name="other", id="u")
    with pytest.raises(AlreadyExistsError):
        behind.twice(lambda session: bodies.create(none, session, name="n", id="u"))


# --- the other face


def test_users_through_the_asynchronous_store(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            users: UserRepository[Awaiting] = store.bind(UserRepository[Awaiting])
            made = await users.create(name="n", email="a@b")
            await asyncio.gather(*(users.merge_preferences(made.id, {f"k{n}": n}) for n in range(16)))
            assert len((await users.get(made.id)).preferences) == 16
            with pytest.raises(AlreadyExistsError):
                await users.create(name="n", email="a@b")
            assert [user.id async for user in users.iterate(preferences={"k3": 3})] == [made.id]
            await users.delete(made.id)
            assert not await users.exists(made.id)

    asyncio.run(main())
