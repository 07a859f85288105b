"""What a call does that is run again because the answer to its commit was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentos_store.agents.documents import DocumentRepository
from agentos_store.agents.repository import AgentRepository
from agentos_store.agents.snapshots import SnapshotRepository
from agentos_store.base import Base
from agentos_store.engine.session import Call, Session
from agentos_store.errors import AlreadyExistsError
from agentos_store.operation import Blocking, Repository, writes
from tests.agents.world import World

agents_: Any = AgentRepository[Blocking]
documents_: Any = DocumentRepository[Blocking]
snapshots_: Any = SnapshotRepository[Blocking]
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


CALLS: dict[str, Callable[[Session], Any]] = {
    "save a new one": lambda session: agents_.save(none, session, "new", goal="g"),
    "save": lambda session: agents_.save(none, session, "a", goal="g"),
    "save at a version": lambda session: agents_.save(none, session, "a", goal="g", version=1),
    "create": lambda session: agents_.create(none, session, "new"),
    "create under a key of its own": lambda session: agents_.create(none, session),
    "set_state": lambda session: agents_.set_state(none, session, "a", "busy", expected="idle"),
    "update_stats": lambda session: agents_.update_stats(none, session, "a", {"n": 1}),
    "merge_metadata": lambda session: agents_.merge_metadata(none, session, "a", {"n": 1}),
    "delete": lambda session: agents_.delete(none, session, "a"),
    "restore": lambda session: agents_.restore(none, session, "deleted"),
    "purge": lambda session: agents_.purge(none, session, "a"),
    "fork": lambda session: agents_.fork(none, session, "a", "new"),
    "batch_fork": lambda session: agents_.batch_fork(none, session, "a", 3),
    "save a document": lambda session: documents_.save(none, session, "a", "todos", content=[1]),
    "add a document": lambda session: documents_.save(none, session, "a", "compression", content=[1], version=0),
    "replace a document": lambda session: documents_.save(none, session, "a", "todos", content=[1], version=1),
    "delete a document": lambda session: documents_.delete(none, session, "a", "todos"),
    "save a snapshot": lambda session: snapshots_.save(none, session, "a"),
    "delete a snapshot": lambda session: snapshots_.delete(none, session, "a", "x"),
}


@pytest.fixture
def doubter(world: World) -> Doubter:
    world.conversation("s", 3)
    world.agents.save("a", session_id="s", metadata={"m": 1})
    world.agents.save("deleted")
    world.agents.delete("deleted")
    world.documents.save("a", "todos", content=[])
    world.snapshots.save("a", "x")
    return world.store.bind(Doubter)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_repeated_in_doubt_changes_nothing_more_and_answers_the_same(doubter: Doubter, name: str) -> None:
    first, second = doubter.twice(CALLS[name])
    assert plain(first) == plain(second)


@pytest.mark.parametrize("name", ["create", "fork"])
def test_a_call_in_doubt_does_not_take_another_s_agent_for_its_own(world: World, doubter: Doubter, name: str) -> None:
    world.agents.save("new")

    class Late(Repository[Blocking]):
        name = "late"

        @writes
        def call(self, session: Session) -> object:
            doubtful = Call()
            doubtful.in_doubt = True
            return CALLS[name](Session(session._connection, doubtful))

    with pytest.raises(AlreadyExistsError):
        world.store.bind(Late).call()
