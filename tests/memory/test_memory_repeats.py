"""What a call does that is run again because the answer to its commit was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.engine.session import Call, Session
from agentos_store.memory.repository import MemoryRepository
from agentos_store.operation import Blocking, Repository, writes

memory: Any = MemoryRepository[Blocking]
none: Any = None


class Doubter(Repository[Blocking]):
    name = "doubter"

    @writes
    def twice(self, session: Session, call: Callable[[Session], Any]) -> tuple[Any, Any]:
        same = Call()
        first = call(Session(session._connection, same))
        same.in_doubt = True
        return first, call(Session(session._connection, same))


CALLS: dict[str, Callable[[Session], Any]] = {
    "remember": lambda session: memory.remember(none, session, "new", type="fact"),
    "remember again": lambda session: memory.remember(none, session, "a", type="fact", tags=["more"]),
    "update a text": lambda session: memory.update(none, session, "a", content="other"),
    "update": lambda session: memory.update(none, session, "a", confidence=0.7),
    "delete": lambda session: memory.delete(none, session, "a"),
    "promote": lambda session: memory.promote(none, session, "t", "global"),
    "merge": lambda session: memory.merge(none, session, "a", "b"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_repeated_in_doubt_changes_nothing_more_and_answers_the_same(store: Store, name: str) -> None:
    for key in "ab":
        store.memory.remember(key, type="fact", id=key)
    store.memory.remember("t", type="fact", scope="task", scope_id="t", id="t")
    first, second = store.bind(Doubter).twice(CALLS[name])
    assert (first and first.to_dict()) == (second and second.to_dict())
    assert store.memory.count() == {"remember": 4, "delete": 2, "merge": 2}.get(name, 3)
    assert store.search.check()["memory"].examples == ()
