"""What a call does that is run again because the answer to its commit was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentos_store import Store
from agentos_store.engine.session import Call, Session
from agentos_store.events.models import Event
from agentos_store.events.repository import EventRepository
from agentos_store.operation import Blocking, Repository, writes
from tests.events.test_subscription_races import clear

events: Any = EventRepository[Blocking]
none: Any = None


class Doubter(Repository[Blocking]):
    name = "doubter"

    @writes
    def twice(self, session: Session, call: Callable[[Session], Any]) -> tuple[Any, Any]:
        same = Call()
        first = call(Session(session._connection, same))
        same.in_doubt = True
        return first, call(Session(session._connection, same))


MANY = [{"event_type": "y", "data": n} for n in range(5)]
KEYED = [{"event_type": "y", "event_id": f"e{n}"} for n in range(5)]

CALLS: dict[str, tuple[Callable[[Session], Any], int]] = {
    "log": (lambda session: events.log(none, session, "x", data=1), 2),
    "log with an identifier": (lambda session: events.log(none, session, "x", event_id="e9"), 2),
    "log again": (lambda session: events.log(none, session, "x", event_id="e0"), 1),
    "log_many": (lambda session: events.log_many(none, session, MANY), 6),
    "log_many with identifiers": (lambda session: events.log_many(none, session, KEYED), 5),
    "log_many, some of them new": (lambda session: events.log_many(none, session, [*MANY, *KEYED]), 10),
}


def test_a_call_repeated_in_doubt_changes_nothing_more_and_answers_the_same(store: Store) -> None:
    for name, (call, count) in CALLS.items():
        store.events.log("first", event_id="e0")
        first, second = store.bind(Doubter).twice(call)
        assert plain(first) == plain(second), name
        assert store.events.count() == count, name
        assert store.events.get("e0").event_type == "first"
        clear(store)


def plain(result: Any) -> Any:
    return result.to_dict() if isinstance(result, Event) else result


def test_of_a_long_list_those_that_are_there_are_left_as_they_are(store: Store) -> None:
    store.events.log("first", event_id="e7")
    many = [{"event_type": "many", "event_id": f"e{n}"} for n in range(100)]
    assert store.events.log_many(many) == 99
    assert store.events.log_many(many) == 0
    with store.transaction() as tx:
        assert tx.events.log_many([*many, {"event_type": "new"}]) == 1
    assert store.events.get("e7").event_type == "first"
    assert store.events.count() == 101


def test_one_identifier_in_one_list_is_one_event(store: Store) -> None:
    assert store.events.log_many([{"event_type": kind, "event_id": "e"} for kind in "abc"]) == 1
    assert [event.event_type for event in store.events.list()] == ["a"]
