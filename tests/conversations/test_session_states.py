from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import AsyncStore, Store
from agentos_store.conversations.contexts import ContextRepository
from agentos_store.conversations.sessions import STEPS, SessionRepository
from agentos_store.engine.session import Call, Session
from agentos_store.errors import InvalidTransitionError, NotFoundError
from agentos_store.operation import Blocking, Repository, writes
from tests.conversations.tool_call_seeds import Seeds
from tests.engine.gather import threads

VERBS = {"paused": "pause", "active": "resume", "completed": "complete", "cancelled": "cancel"}
"""By status, the operation that takes a session there."""
WAYS: dict[str, tuple[str, ...]] = {
    "active": (),
    "paused": ("pause",),
    "completed": ("complete",),
    "cancelled": ("pause", "cancel"),
}
"""By status, how a session gets there."""
LEGAL = {
    ("active", "paused"),
    ("active", "completed"),
    ("active", "cancelled"),
    ("paused", "active"),
    ("paused", "completed"),
    ("paused", "cancelled"),
}

bodies: Any = SessionRepository
none: Any = None


class Behind(Repository[Blocking]):
    """Calls whose answer is lost."""

    name = "behind"

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


def walk(store: Store, key: str, verbs: tuple[str, ...]) -> Any:
    store.sessions.create(id=key, title="t", metadata={"a": 1})
    for verb in verbs:
        getattr(store.sessions, verb)(key)
    return store.sessions.get(key)


# --- steps


@pytest.mark.parametrize("origin", STEPS)
@pytest.mark.parametrize("to", STEPS)
def test_each_step_is_taken_or_refused_as_the_table_says(store: Store, origin: str, to: str) -> None:
    before = walk(store, "s", WAYS[origin])
    assert before.status == origin
    step = getattr(store.sessions, VERBS[to])
    if origin == to:
        assert step("s").to_dict() == before.to_dict()
    elif (origin, to) in LEGAL:
        after = step("s")
        assert after.updated_at > before.updated_at
        assert after.to_dict() == before.to_dict() | {"status": to, "updated_at": after.updated_at}
        assert store.sessions.get("s").to_dict() == after.to_dict()
        return
    else:
        with pytest.raises(InvalidTransitionError) as caught:
            step("s")
        error = caught.value
        assert (error.entity, error.key, error.current, error.requested) == ("session", "s", origin, to)
        assert set(error.allowed) == {end for start, end in LEGAL if start == origin}
        assert vars(pickle.loads(pickle.dumps(error))) == vars(error)
    assert store.sessions.get("s").to_dict() == before.to_dict()


@pytest.mark.parametrize("verb", VERBS.values())
def test_a_step_needs_a_session_that_is_there_and_moves_no_other(store: Store, verb: str) -> None:
    others = [walk(store, key, ways).to_dict() for key, ways in WAYS.items()]
    store.sessions.create(id="deleted")
    store.sessions.delete("deleted")
    for key in ("deleted", "never"):
        with pytest.raises(NotFoundError) as caught:
            getattr(store.sessions, verb)(key)
        assert (caught.value.entity, caught.value.key) == ("session", key)
    assert store.sessions.get("deleted", include_deleted=True).status == "active"
    assert [each.to_dict() for each in store.sessions.list()] == others


def test_one_of_two_ends_is_reached_by_sixteen_racers(store: Store) -> None:
    verbs = ["complete", "cancel"] * 8
    for turn in range(5):
        key = f"s{turn}"
        store.sessions.create(id=key)
        steps = [getattr(store.sessions, verb) for verb in verbs]
        with threads([lambda step=step, key=key: step(key) for step in steps]) as outcomes:  # type: ignore[misc]
            pass
        final = store.sessions.get(key)
        for verb, outcome in zip(verbs, outcomes, strict=True):
            if VERBS[final.status] == verb:
                # The first took the step, the others found it taken.
                assert outcome.to_dict() == final.to_dict()
            else:
                assert isinstance(outcome, InvalidTransitionError)
                assert outcome.current == final.status


def test_no_pause_comes_after_the_end_when_sixteen_race(store: Store) -> None:
    verbs = ["pause", "complete"] * 8
    for turn in range(5):
        key = f"s{turn}"
        store.sessions.create(id=key)
        steps = [getattr(store.sessions, verb) for verb in verbs]
        with threads([lambda step=step, key=key: step(key) for step in steps]) as outcomes:  # type: ignore[misc]
            pass
        final = store.sessions.get(key)
        assert final.status == "completed"
        paused = set()
        for verb, outcome in zip(verbs, outcomes, strict=True):
            if verb == "complete":
                assert outcome.to_dict() == final.to_dict()
            elif isinstance(outcome, InvalidTransitionError):
                assert outcome.current == "completed"
            else:
                assert outcome.status == "paused"
                paused.add(outcome.updated_at)
        # It was paused once, or never.
        assert len(paused) <= 1


@pytest.mark.parametrize("verb", VERBS.values())
def test_a_step_repeated_in_doubt_gives_the_same(store: Store, behind: Behind, verb: str) -> None:
    store.sessions.create(id="s")
    store.sessions.pause("s")
    first, second = behind.twice(lambda session: getattr(bodies, verb)(none, session, "s"), lambda _: None)
    assert first.to_dict() == second.to_dict() == store.sessions.get("s").to_dict()


def test_a_message_does_not_wake_a_paused_session(store: Store) -> None:
    walk(store, "s", ("pause",))
    store.messages.append("s", role="user", content="x")
    assert store.sessions.get("s").status == "paused"
    assert store.sessions.get("s").message_count == 1


# --- deleting


def fill(store: Store, key: str) -> None:
    """Give a session something of everything that belongs to one."""
    if store.sessions.find(key) is None:
        store.sessions.create(id=key)
    contexts: ContextRepository[Blocking] = store.bind(ContextRepository[Blocking])
    agent = store.bind(Seeds).agent(f"agent of {key}", session_id=key)
    message = store.messages.append(key, role="user", content="x", id=f"message of {key}")
    store.tool_calls.record(tool_call_id="t", tool_name="n", input={}, session_id=key, message_id=message.id)
    contexts.save(f"context of {key}", context_data=1, session_id=key, agent_id=agent)
    store.tasks.create(title="t", task_id=f"task of {key}", session_id=key)


def children(store: Store, key: str) -> list[int]:
    contexts: ContextRepository[Blocking] = store.bind(ContextRepository[Blocking])
    return [
        store.messages.count(session_id=key, include_deleted=True),
        len(store.tool_calls.query(session_id=key, include_deleted=True)),
        contexts.count(session_id=key, include_deleted=True),
    ]


def test_a_deleted_session_is_hidden_and_comes_back_as_it_was(store: Store) -> None:
    for key in ("s", "other"):
        fill(store, key)
    store.sessions.pause("s")
    before = store.sessions.get("s")
    store.sessions.delete("s")
    hidden = store.sessions.get("s", include_deleted=True)
    assert hidden.deleted_at is not None
    assert hidden.deleted_at > before.updated_at
    assert not store.sessions.exists("s")
    assert [each.id for each in store.sessions.list()] == ["other"]
    assert store.sessions.count() == 1
    with pytest.raises(NotFoundError):
        store.messages.append("s", role="user", content="x")
    # What belongs to it is untouched.
    assert children(store, "s") == [1, 1, 1]
    back = store.sessions.restore("s")
    assert back.updated_at > before.updated_at
    assert back.to_dict() == before.to_dict() | {"updated_at": back.updated_at}
    assert store.sessions.get("s").to_dict() == back.to_dict()
    assert store.messages.append("s", role="user", content="x").seq == 1


def test_a_session_is_deleted_once(store: Store, behind: Behind) -> None:
    store.sessions.create(id="s")
    store.sessions.delete("s")
    hidden = store.sessions.get("s", include_deleted=True).to_dict()
    for key in ("s", "never"):
        with pytest.raises(NotFoundError) as caught:
            store.sessions.delete(key)
        assert (caught.value.entity, caught.value.key) == ("session", key)
    assert store.sessions.get("s", include_deleted=True).to_dict() == hidden
    store.sessions.restore("s")
    behind.twice(lambda session: bodies.delete(none, session, "s"), lambda _: None)
    assert not store.sessions.exists("s")


def test_a_deletion_in_doubt_does_not_take_another_s_for_its_own(store: Store, behind: Behind) -> None:
    store.sessions.create(id="s")

    def delete_again(session: Session) -> None:
        bodies.restore(none, session, "s")
        bodies.delete(none, session, "s")

    with pytest.raises(NotFoundError):
        behind.twice(lambda session: bodies.delete(none, session, "s"), delete_again)


def test_what_is_not_deleted_stays_as_it_is_when_it_is_restored(store: Store, behind: Behind) -> None:
    before = store.sessions.create(id="s").to_dict()
    assert store.sessions.restore("s").to_dict() == before == store.sessions.get("s").to_dict()
    with pytest.raises(NotFoundError):
        store.sessions.restore("never")
    store.sessions.delete("s")
    first, second = behind.twice(lambda session: bodies.restore(none, session, "s"), lambda _: None)
    assert first.to_dict() == second.to_dict() == store.sessions.get("s").to_dict()


@pytest.mark.parametrize("deleted", [False, True])
def test_a_purge_removes_the_session_with_what_is_in_it_and_nothing_else(
    store: Store, behind: Behind, deleted: bool
) -> None:
    store.users.create(name="n", id="u")
    store.sessions.create(id="s", user_id="u")
    for key in ("s", "other"):
        fill(store, key)
    other = store.sessions.get("other").to_dict()
    if deleted:
        store.sessions.delete("s")
    store.sessions.purge("s")
    assert not store.sessions.exists("s", include_deleted=True)
    assert children(store, "s") == [0, 0, 0]
    assert store.messages.find("message of s") is None
    assert store.users.exists("u")
    assert store.tasks.exists("task of s")
    assert store.sessions.get("other").to_dict() == other
    assert children(store, "other") == [1, 1, 1]
    for key in ("s", "never"):
        with pytest.raises(NotFoundError):
            store.sessions.purge(key)
    with pytest.raises(NotFoundError):
        store.sessions.restore("s")
    behind.twice(lambda session: bodies.purge(none, session, "other"), lambda _: None)
    assert store.sessions.count(include_deleted=True) == 0
    # Its identifier is free.
    assert store.sessions.create(id="s").message_count == 0


def test_sixteen_delete_a_session_once(store: Store) -> None:
    for verb in ("delete", "purge"):
        store.sessions.create(id=verb)
        remove = getattr(store.sessions, verb)
        with threads([lambda remove=remove, verb=verb: remove(verb) for _ in range(16)]) as outcomes:  # type: ignore[misc]
            pass
        assert outcomes.count(None) == 1
        assert sum(isinstance(outcome, NotFoundError) for outcome in outcomes) == 15


# --- the other face


def test_states_are_awaited_through_the_asynchronous_store(url: str) -> None:
    async def work() -> None:
        async with AsyncStore.open(url) as store:
            await store.sessions.create(id="s")
            assert (await store.sessions.pause("s")).status == "paused"
            assert (await store.sessions.resume("s")).status == "active"
            ends = [store.sessions.complete("s") if n % 2 else store.sessions.cancel("s") for n in range(8)]
            outcomes = await asyncio.gather(*ends, return_exceptions=True)
            assert sum(isinstance(outcome, InvalidTransitionError) for outcome in outcomes) == 4
            await store.sessions.delete("s")
            assert (await store.sessions.restore("s")).deleted_at is None
            await store.sessions.purge("s")
            assert await store.sessions.find("s", include_deleted=True) is None

    asyncio.run(work())
