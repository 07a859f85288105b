"""What a call does that is run again because the answer to its commit was lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.engine.session import Call, Session
from agentos_store.knowledge.repository import KnowledgeRepository
from agentos_store.operation import Blocking, Repository, writes
from tests.knowledge.shelf import is_whole, lengths, pieces

kb: Any = KnowledgeRepository[Blocking]
none: Any = None


class Doubter(Repository[Blocking]):
    name = "doubter"

    @writes
    def twice(self, session: Session, call: Callable[[Session], Any]) -> tuple[Any, Any]:
        same = Call()
        first = call(Session(session._connection, same))
        same.in_doubt = True
        return first, call(Session(session._connection, same))


def source_of(session: Session, path: str) -> str:
    found: str = kb.find_source(none, session, None, path).source_id
    return found


def chunk_of(session: Session) -> str:
    found: str = kb.list_chunks(none, session).items[0].chunk_id
    return found


def refresh(session: Session, path: str, *texts: str, content_hash: str | None = "2") -> Any:
    done = kb.refresh(none, session, source_path=path, content_hash=content_hash, chunks=pieces(*texts))
    return (done.is_new, done.is_unchanged, done.added, done.kept, done.removed, done.source.to_dict())


class Interloper(Repository[Blocking]):
    name = "interloper"

    @writes
    def embed(self, session: Session, store: Store, first: str, second: str) -> None:
        """Embed one chunk twice, in doubt, and another one in between; search at each state."""

        def write(call: Call, key: str, vector: list[int]) -> None:
            kb.add_embeddings(none, Session(session._connection, call), "m", {key: vector})
            kb.search(store.kb, session, vector=[1, 0], model_name="m")

        same = Call()
        write(same, first, [1, 1])
        write(Call(), second, [1, 0])
        same.in_doubt = True
        write(same, first, [1, 1])


CALLS: dict[str, Callable[[Session], Any]] = {
    "add": lambda session: kb.add_source(none, session, source_path="/new").to_dict(),
    "add again": lambda session: kb.add_source(none, session, source_path="/a", content_hash="9").to_dict(),
    "refresh": lambda session: refresh(session, "/new", "x", "y"),
    "refresh again": lambda session: refresh(session, "/a", "b", "c"),
    "refresh without a hash": lambda session: refresh(session, "/a", "c", content_hash=None),
    "refresh with the same": lambda session: refresh(session, "/a", "a", "b", content_hash="1"),
    "replace": lambda session: kb.replace_chunks(none, session, source_of(session, "/a"), pieces("b", "c")),
    "update": lambda session: kb.update_chunk(none, session, chunk_of(session), content="z").to_dict(),
    "embed": lambda session: kb.add_embeddings(none, session, "n", {chunk_of(session): [1, 2, 3]}),
    "forget a model": lambda session: kb.delete_model(none, session, "m"),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_repeated_in_doubt_changes_nothing_more_and_answers_the_same(store: Store, name: str) -> None:
    store.kb.refresh(source_path="/a", content_hash="1", chunks=pieces("a", "b"))
    store.kb.embed("m", embedder=lengths)
    first, second = store.bind(Doubter).twice(CALLS[name])
    assert first == second
    assert store.kb.count_sources() == (2 if "/new" in str(first) else 1)
    assert is_whole(store)


def test_a_deletion_repeated_in_doubt_is_no_error(store: Store) -> None:
    source = store.kb.refresh(source_path="/a", content_hash="1", chunks=pieces("a", "b")).source
    store.bind(Doubter).twice(lambda session: kb.delete_source(none, session, source.source_id))
    assert store.kb.count_sources() == 0
    assert is_whole(store)


def test_what_others_embedded_between_two_tries_is_found(store: Store) -> None:
    store.kb.refresh(source_path="/a", content_hash="1", chunks=pieces("a", "b"))
    first, second = (chunk.chunk_id for chunk in store.kb.list_chunks())
    store.kb.embed("m", {first: [1, 1], second: [0, 1]})
    store.bind(Interloper).embed(store, first, second)
    assert [hit.chunk.chunk_id for hit in store.kb.search(vector=[1, 0], model_name="m")] == [second, first]
