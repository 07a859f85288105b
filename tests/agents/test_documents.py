from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import AsyncStore
from agentos_store.agents.documents import DocumentRepository
from agentos_store.agents.repository import AgentRepository
from agentos_store.errors import ConflictError, InvalidValueError, NotFoundError
from agentos_store.operation import Awaiting, Blocking
from tests.agents.world import World

Documents = DocumentRepository[Blocking]
EXACT: list[Any] = [
    {"b": 1, "a": [1e16, -0.0, 0, False, "", None]},
    "text\0 \ud800 天气",
    [],
    {},
    None,
    0,
    False,
    "",
]


@pytest.fixture(autouse=True)
def agent(world: World) -> None:
    world.agents.save("a")
    world.agents.save("b")


def strict(value: Any) -> Any:
    """Return the value in a form in which 1 is not True, 0.0 is not -0.0, and keys have an order."""
    if isinstance(value, dict):
        return [(key, strict(each)) for key, each in value.items()]
    return [strict(each) for each in value] if isinstance(value, list) else repr(value)


@pytest.mark.parametrize("content", EXACT)
def test_content_comes_back_exactly(documents: Documents, content: Any) -> None:
    saved = documents.save("a", "history_window", "1795240070871", content=content, metadata={"x": 1})
    found = documents.get("a", "history_window", "1795240070871")
    assert strict(found.content) == strict(saved.content) == strict(content)
    assert found.to_dict() == saved.to_dict()
    assert (found.version, found.metadata_, found.created_at) == (1, {"x": 1}, found.updated_at)


def test_each_writing_counts_and_metadata_that_is_left_out_stays(documents: Documents) -> None:
    first = documents.save("a", "todos", content=[1], metadata={"x": 1})
    second = documents.save("a", "todos", content=[2])
    assert (second.version, second.content, second.metadata_) == (2, [2], {"x": 1})
    assert second.created_at == first.created_at
    assert second.updated_at > first.updated_at
    third = documents.save("a", "todos", content=[3], metadata={})
    assert (third.version, third.metadata_) == (3, {})
    assert documents.save("b", "todos", content=[]).metadata_ == {}
    assert documents.get("a", "todos").to_dict() == third.to_dict()


def test_thirty_two_parallel_writings_all_count(documents: Documents) -> None:
    with ThreadPoolExecutor(32) as threads:
        versions = list(threads.map(lambda n: documents.save("a", "todos", content=n).version, range(32)))
    assert sorted(versions) == list(range(1, 33))


@pytest.mark.parametrize("version", [0, 1])
def test_of_sixteen_writings_at_one_version_one_comes_through(documents: Documents, version: int) -> None:
    if version:
        documents.save("a", "todos", content=None)

    def save(number: int) -> bool:
        try:
            documents.save("a", "todos", content=number, version=version)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(save, range(16))) == 1
    assert documents.get("a", "todos").version == version + 1


def test_another_version_is_refused(documents: Documents) -> None:
    with pytest.raises(NotFoundError) as missing:
        documents.save("a", "todos", content=1, version=1)
    assert (missing.value.entity, missing.value.key) == ("document", ("a", "todos", "main"))
    documents.save("a", "todos", content=1, version=0)
    for version in (0, 2):
        with pytest.raises(ConflictError) as caught:
            documents.save("a", "todos", content=2, version=version)
        assert (caught.value.entity, caught.value.key) == ("document", ("a", "todos", "main"))
    kept = documents.save("a", "todos", content=3, metadata={"y": 1}, version=1)
    assert (kept.version, kept.content, kept.metadata_) == (2, 3, {"y": 1})
    assert documents.save("a", "todos", content=4, version=2).metadata_ == {"y": 1}
    for bad in (-1, "1", True):
        with pytest.raises(InvalidValueError) as refused:
            documents.save("a", "todos", content=5, version=bad)  # type: ignore[arg-type]
        assert refused.value.name == "version"


@pytest.mark.parametrize(
    ("name", "value"),
    [("kind", "plan"), ("key", ""), ("key", "a\n"), ("metadata", None), ("metadata", [1]), ("content", {1: 2})],
)
def test_a_bad_value_is_refused_by_its_name(documents: Documents, name: str, value: Any) -> None:
    documents.save("a", "todos", "k", content=1)
    for version in (None, 0, 1):
        given = {"kind": "todos", "key": "k", "content": 1, name: value}
        with pytest.raises(InvalidValueError) as caught:
            documents.save("a", **given, version=version)
        assert caught.value.name == name
    assert documents.count("a") == 1


def test_an_unknown_or_deleted_agent_keeps_no_documents(world: World, documents: Documents) -> None:
    documents.save("b", "todos", content=1)
    world.agents.delete("b")
    for agent in ("nobody", "b"):
        for version in (None, 0, 1):
            with pytest.raises(NotFoundError) as caught:
                documents.save(agent, "todos", content=2, version=version)
            assert (caught.value.entity, caught.value.key) == ("agent", agent)
    assert len(documents.list("b")) == documents.count("b") == 0
    assert len(documents.list("b", include_deleted=True)) == documents.count("b", include_deleted=True) == 1
    assert documents.get("b", "todos").content == 1


def test_a_list_has_one_agent_s_documents_of_a_kind_in_their_order(documents: Documents) -> None:
    for key in ("3", "1", "2"):
        documents.save("a", "compression", key, content=key)
    documents.save("a", "todos", content=[])
    documents.save("b", "todos", content=[])
    assert [each.key for each in documents.list("a", kind="compression")] == ["1", "2", "3"]
    assert [each.key for each in documents.iterate("a", limit=1)] == ["1", "2", "3", "main"]
    assert [each.key for each in documents.list("a", order="-key", limit=2)] == ["main", "3"]
    assert (documents.count("a"), documents.count("a", kind="compression"), documents.count("c")) == (4, 3, 0)
    with pytest.raises(InvalidValueError):
        documents.list("a", kind="plan")


def test_a_document_is_removed_by_its_key(documents: Documents) -> None:
    documents.save("a", "todos", content=[])
    documents.save("b", "todos", content=[])
    documents.delete("a", "todos")
    assert documents.find("a", "todos") is None
    assert not documents.exists("a", "todos")
    assert documents.exists("b", "todos")
    calls: list[Callable[[], object]] = [
        lambda: documents.get("a", "todos"),
        lambda: documents.delete("a", "todos"),
    ]
    for call in calls:
        with pytest.raises(NotFoundError) as caught:
            call()
        assert (caught.value.entity, caught.value.key) == ("document", ("a", "todos", "main"))
    assert documents.save("a", "todos", content=[]).version == 1


def test_the_asynchronous_face_does_the_same(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            await store.bind(AgentRepository[Awaiting]).save("async")
            documents = store.bind(DocumentRepository[Awaiting])
            await asyncio.gather(*(documents.save("async", "todos", content=n) for n in range(16)))
            assert (await documents.get("async", "todos")).version == 16
            with pytest.raises(ConflictError):
                await documents.save("async", "todos", content=0, version=3)

    asyncio.run(main())
