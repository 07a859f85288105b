"""What a call does that is run again because the answer to its commit was lost."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import AlreadyExistsError, Store
from agentos_store.base import Base
from agentos_store.engine.session import Call, Session
from agentos_store.governance.inbox import InboxRepository
from agentos_store.governance.verdicts import VerdictRepository
from agentos_store.operation import Blocking, Repository, writes
from agentos_store.tasks.repository import TaskRepository

LEASE = dt.timedelta(minutes=5)

tasks: Any = TaskRepository[Blocking]
inbox: Any = InboxRepository[Blocking]
verdicts: Any = VerdictRepository[Blocking]
none: Any = None


class Doubter(Repository[Blocking]):
    name = "doubter"

    @writes
    def twice(self, session: Session, call: Callable[[Session], Any]) -> tuple[Any, Any]:
        same = Call()
        first = call(Session(session._connection, same))
        same.in_doubt = True
        return first, call(Session(session._connection, same))


def plain(result: Any) -> Any:
    if isinstance(result, Base):
        return result.to_dict()
    return [plain(each) for each in result] if isinstance(result, list) else result


def judge(session: Session) -> Any:
    return verdicts.record(none, session, "a", triggered_by="g", decision="warn", transition_to="running")


CALLS: dict[str, Callable[[Session], Any]] = {
    "add_dependency": lambda session: tasks.add_dependency(none, session, "c", "a"),
    "remove_dependency": lambda session: tasks.remove_dependency(none, session, "b", "a"),
    "infer_dependencies": lambda session: tasks.infer_dependencies(none, session, "c"),
    "set_scope": lambda session: tasks.set_scope(none, session, "a", "r", "read_only"),
    "remove_scope": lambda session: tasks.remove_scope(none, session, "b", "r"),
    "add_artifact": lambda session: tasks.add_artifact(none, session, "a", "r", "tag", "v1"),
    "record a verdict": judge,
    "add": lambda session: inbox.add(none, session, "a", event_type="e"),
    "complete": lambda session: inbox.complete(none, session, "held", 1),
    "fail": lambda session: inbox.fail(none, session, "held", 1, error="e"),
    "fail and park": lambda session: inbox.fail(none, session, "held", 1, error="e", max_attempts=1),
    "unpark": lambda session: inbox.unpark(none, session, "parked"),
}


@pytest.fixture
def doubter(store: Store) -> Doubter:
    for name in "abc":
        store.tasks.create(title=name, task_id=name)
    store.tasks.add_dependency("b", "a")
    store.tasks.set_scope("b", "r")
    for name in "bc":
        store.tasks.add_artifact(name, "r", "file", "x")
    for name in ("parked", "held"):
        store.inbox.add("a", event_type="e", id=name)
        (entry,) = store.inbox.claim(by="w", lease=LEASE)
        if name == "parked":
            store.inbox.fail(name, entry.lease_token, error="e", max_attempts=1)
    return store.bind(Doubter)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_repeated_in_doubt_changes_nothing_more_and_answers_the_same(
    store: Store, doubter: Doubter, name: str
) -> None:
    first, second = doubter.twice(CALLS[name])
    assert plain(first) == plain(second)
    assert store.verdicts.count() == len(store.audits.query(event_type="guardian.verdict"))
    assert len(store.tasks.history("a")) == store.verdicts.count() == (name == "record a verdict")


def test_a_call_in_doubt_does_not_take_another_s_verdict_for_its_own(store: Store, doubter: Doubter) -> None:
    store.verdicts.record("a", triggered_by="g", decision="warn", id="v")
    session_call = Call()
    session_call.in_doubt = True

    class Late(Repository[Blocking]):
        name = "late"

        @writes
        def record(self, session: Session) -> object:
            again = Session(session._connection, session_call)
            return verdicts.record(none, again, "a", triggered_by="g", decision="warn", id="v")

    with pytest.raises(AlreadyExistsError):
        store.bind(Late).record()
    assert store.verdicts.count() == 1
