"""What a call on messages does that is run again because the answer to its commit was lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import AlreadyExistsError, ConflictError, Store
from agentos_store.conversations import saving
from agentos_store.conversations.contexts import ContextRepository
from agentos_store.conversations.difference import find_runs
from agentos_store.conversations.messages import MessageRepository
from agentos_store.conversations.saving import Saved
from agentos_store.engine.session import Call, Session
from agentos_store.operation import Blocking, Repository, writes, writes_once
from tests.engine.gather import threads

messages: Any = MessageRepository[Blocking]
contexts: Any = ContextRepository[Blocking]
none: Any = None
Body = Callable[[Session], Any]


class Undone(Exception):
    """Takes back what a try did."""


class Doubter(Repository[Blocking]):
    """Runs a call twice, as one whose first answer was lost; somebody else may come in between."""

    name = "doubter"

    @writes
    def twice(self, session: Session, call: Body, between: Body | None = None) -> tuple[Any, Any]:
        same = Call()
        first = call(Session(session._connection, same))
        if between is not None:
            between(session)
        same.in_doubt = True
        return first, call(Session(session._connection, same))

    @writes
    def again(self, session: Session, same: Call, call: Body) -> Any:
        return call(Session(session._connection, same))

    @writes_once
    def by_itself(self, session: Session, same: Call, call: Body) -> Any:
        """Run one try as the store runs it, without a transaction where the database can."""
        session._call = same
        return call(session)


@pytest.fixture
def session_id(store: Store) -> str:
    return store.sessions.create().id


def say(*contents: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content} for content in contents]


def told(store: Store, session_id: str) -> list[str]:
    return [each["content"] for each in store.messages.history(session_id)]


def test_an_append_that_was_stored_is_not_stored_again(store: Store, session_id: str) -> None:
    doubter = store.bind(Doubter)
    first, second = doubter.twice(lambda s: messages.append(none, s, session_id, role="user", content="a"))
    assert second.to_dict() == first.to_dict()
    many = doubter.twice(lambda s: messages.append_many(none, s, session_id, say("b", "c")))
    assert [each.id for each in many[0]] == [each.id for each in many[1]]
    assert told(store, session_id) == ["a", "b", "c"]
    assert store.sessions.get(session_id).message_count == 3


def test_anothers_message_does_not_pass_for_ours(store: Store, session_id: str) -> None:
    other = store.sessions.create().id
    store.messages.append(other, role="user", content="theirs", id="taken")
    in_doubt = Call()
    in_doubt.in_doubt = True
    doubter = store.bind(Doubter)
    with pytest.raises(AlreadyExistsError):
        doubter.again(in_doubt, lambda s: messages.append(none, s, session_id, role="user", content="a", id="taken"))
    assert store.messages.history(session_id) == []


@pytest.mark.parametrize("expected", [{}, {"expected_generation": 0, "expected_next_seq": 1}])
@pytest.mark.parametrize("wanted", [("0", "A"), ("A", "B"), ("A",), ()])
def test_a_save_that_was_stored_keeps_what_others_added_since(
    store: Store, session_id: str, wanted: tuple[str, ...], expected: dict[str, int]
) -> None:
    store.messages.append_many(session_id, say("0"))
    store.bind(Doubter).twice(
        lambda s: messages.save(none, s, session_id, say(*wanted), **expected),
        lambda s: messages.append(none, s, session_id, role="user", content="another's"),
    )
    assert told(store, session_id) == [*wanted, "another's"]


@pytest.mark.parametrize("expected", [{}, {"expected_generation": 0, "expected_next_seq": 1}])
@pytest.mark.parametrize("wanted", [("0", "A"), ("A", "B"), ("A",), ()])
def test_a_save_without_a_transaction_that_was_stored_keeps_what_others_added_since(
    store: Store, session_id: str, wanted: tuple[str, ...], expected: dict[str, int]
) -> None:
    store.messages.append_many(session_id, say("0"))
    doubter, same = store.bind(Doubter), Call()

    def save(session: Session) -> Saved:
        saved: Saved = messages.save(none, session, session_id, say(*wanted), **expected)
        return saved

    first = doubter.by_itself(same, save)
    store.messages.append(session_id, role="user", content="another's")
    same.in_doubt = True
    second = doubter.by_itself(same, save)
    assert (second.generation, second.added, second.closed) == (first.generation, 0, 0)
    assert told(store, session_id) == [*wanted, "another's"]


def test_a_save_that_was_not_stored_is_judged_anew(store: Store, session_id: str) -> None:
    store.messages.append_many(session_id, say("0"))
    same = Call()

    def lost(session: Session) -> None:
        messages.save(
            none,
            Session(session._connection, same),
            session_id,
            say("mine"),
            expected_generation=0,
            expected_next_seq=1,
        )
        raise Undone

    doubter = store.bind(Doubter)
    with pytest.raises(Undone):
        doubter.again(Call(), lost)
    store.messages.append_many(session_id, say("another's"))
    same.in_doubt = True
    with pytest.raises(ConflictError):
        doubter.again(
            same,
            lambda s: messages.save(none, s, session_id, say("mine"), expected_generation=0, expected_next_seq=1),
        )
    assert told(store, session_id) == ["0", "another's"]


def test_a_save_that_was_not_stored_counts_from_what_it_was_to_change(
    both: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    # On SQLite nobody comes in between.
    store = both[1]
    session_id = store.sessions.create().id
    store.messages.append_many(session_id, say("0"))
    doubter, same = store.bind(Doubter), Call()
    others: list[threading.Thread] = []

    def find_runs_late(*args: Any) -> Any:
        if not others:
            others.append(threading.Thread(target=store.messages.append_many, args=(session_id, say("A", "B"))))
            others[0].start()
            others[0].join()
        return find_runs(*args)

    def save(session: Session) -> None:
        messages.save(none, session, session_id, say("0", "A"))

    def lost(session: Session) -> None:
        save(session)
        assert session.in_transaction
        raise Undone

    monkeypatch.setattr(saving, "find_runs", find_runs_late)
    with pytest.raises(Undone):
        doubter.by_itself(same, lost)
    assert told(store, session_id) == ["0", "A", "B"]
    same.in_doubt = True
    doubter.by_itself(same, save)
    assert told(store, session_id) == ["0", "A"]


@pytest.mark.parametrize("verb", ["append_many", "save"])
def test_what_follows_draws_the_same_when_nothing_is_left_to_write(store: Store, session_id: str, verb: str) -> None:
    same = Call()
    given = [{"role": "user", "content": "a", "idempotency_key": "k"}]

    def write(session: Session) -> str:
        getattr(messages, verb)(none, session, session_id, given)
        return session.new_ulid()

    first = store.bind(Doubter).again(same, write)
    # Run anew after it was rolled back, somebody else having written the same.
    assert store.bind(Doubter).again(same, write) == first
    assert told(store, session_id) == ["a"]


def test_a_save_after_others_saved_a_part_of_it_stores_the_rest(store: Store, session_id: str) -> None:
    same = Call()

    def lost(session: Session) -> None:
        messages.save(none, Session(session._connection, same), session_id, say("a", "b"))
        raise Undone

    doubter = store.bind(Doubter)
    with pytest.raises(Undone):
        doubter.again(Call(), lost)
    store.messages.save(session_id, say("a"))
    same.in_doubt = True
    doubter.again(same, lambda s: messages.save(none, s, session_id, say("a", "b")))
    assert told(store, session_id) == ["a", "b"]


@pytest.mark.parametrize("verb", ["append", "append_many", "save", "merge_metadata"])
def test_who_refers_to_a_session_does_not_lock_out_who_writes_to_it(store: Store, session_id: str, verb: str) -> None:
    together = threading.Barrier(2)

    def work(name: str) -> Callable[[], None]:
        def run() -> None:
            with store.transaction() as tx:
                tx.contexts.save(session_id=session_id, context_data=name)
                if store.capabilities.row_locks:
                    together.wait(20)
                if verb == "append":
                    tx.messages.append(session_id, role="user", content=name, idempotency_key=name)
                elif verb == "append_many":
                    tx.messages.append_many(session_id, say(name))
                elif verb == "save":
                    tx.messages.save(session_id, say(name))
                else:
                    tx.sessions.merge_metadata(session_id, {name: 1})

        return run

    with threads([work("a"), work("b")]) as outcomes:
        pass
    assert outcomes == [None, None]


def test_one_key_and_one_identifier_at_once_give_one_row(store: Store, session_id: str) -> None:
    together = threading.Barrier(8)

    def append() -> str:
        together.wait(20)
        row = store.messages.append(session_id, role="user", content="a", id="m", idempotency_key="k")
        (again,) = store.messages.append_many(session_id, [{"role": "user", "content": "a", "idempotency_key": "k"}])
        assert again.id == row.id
        return row.id

    with threads([append] * 8) as outcomes:
        pass
    assert outcomes == ["m"] * 8
    assert store.sessions.get(session_id).message_count == 1
