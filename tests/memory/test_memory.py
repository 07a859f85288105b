from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import AlreadyExistsError, AsyncStore, InvalidValueError, NotFoundError, Store, Transaction
from agentos_store.memory.models import MemoryItem

Run = Callable[..., list[tuple[Any, ...]]]

START = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
LATE = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


def found(store: Store, query: str, **filters: Any) -> list[str]:
    return [hit.item.id for hit in store.memory.search(query, **filters)]


def test_what_is_remembered_is_read_back_and_found(store: Store) -> None:
    content = {"text": "用PostgreSQL存储", "why": ["1e16", 1e16, None, {"z": "nul \0", "a": -0.0}]}
    item = store.memory.remember(
        content, type="decision", tags=["db", "存储", "db"], sources=[{"task": "t"}, "x"], confidence=1, id="m"
    )
    assert (item.id, item.scope, item.scope_id, item.type) == ("m", "global", None, "decision")
    assert (item.content, list(item.content)) == (content, ["text", "why"])
    assert (item.tags, item.sources, item.confidence) == (["db", "存储"], [{"task": "t"}, "x"], 1.0)
    assert (item.use_count, item.last_used_at, item.retention_type) == (0, None, "project")
    assert (item.expires_at, item.auto_cleanup, item.decayed_at) == (None, True, item.created_at)
    assert store.memory.get("m").to_dict() == item.to_dict()
    assert (found(store, "存储"), found(store, "nul"), found(store, "text")) == (["m"], ["m"], [])
    assert store.memory.find("n") is None
    assert (store.memory.exists("m"), store.memory.exists("n")) == (True, False)
    with pytest.raises(NotFoundError):
        store.memory.get("n")


def test_the_same_content_again_is_the_first_item_which_learns(store: Store) -> None:
    store.projects.create(path="/p", id="p")
    first = store.memory.remember({"a": 1, "b": "天气"}, type="fact", tags=["x"], sources=[1], confidence=0.5)
    again = store.memory.remember(
        {"b": "天气", "a": 1},
        type="fact",
        tags=["y", "x"],
        sources=[True, 1, "s"],
        confidence=0.9,
        project_id="p",
        retention_type="permanent",
        auto_cleanup=False,
    )
    assert store.memory.count() == 1
    assert (again.id, again.created_at, again.tags) == (first.id, first.created_at, ["x", "y"])
    assert [(type(each), each) for each in again.sources] == [(int, 1), (bool, True), (str, "s")]
    assert (again.confidence, again.project_id, again.retention_type, again.auto_cleanup) == (
        0.9,
        "p",
        "permanent",
        False,
    )
    assert again.updated_at > first.updated_at
    assert found(store, "y") == [first.id]
    less = store.memory.remember({"a": 1, "b": "天气"}, type="fact", confidence=0.1, retention_type="temporary")
    assert (less.confidence, less.retention_type, less.tags) == (0.9, "permanent", ["x", "y"])
    others: list[dict[str, Any]] = [
        {"type": "rule"},
        {"scope": "task", "scope_id": "t"},
        {"scope": "task", "scope_id": "u"},
        {"scope": "task"},
    ]
    for other in others:
        store.memory.remember({"a": 1, "b": "天气"}, **{"type": "fact", **other})
    assert store.memory.count() == 5
    assert store.memory.remember({"a": 1.0, "b": "天气"}, type="fact").id != first.id


def test_remembering_again_never_shortens_a_life(store: Store) -> None:
    for first, second, expected in ((START, LATE, LATE), (LATE, START, LATE), (None, LATE, None), (LATE, None, None)):
        for expiry in (first, second):
            item = store.memory.remember(f"{first} {second}", type="fact", expires_at=expiry)
        assert item.expires_at == expected


def test_one_content_remembered_by_eight_threads_is_one_item_with_all_tags(store: Store) -> None:
    barrier = threading.Barrier(8, timeout=60)

    def work(number: int) -> list[str]:
        keys = []
        for turn in range(5):
            barrier.wait()
            keys.append(store.memory.remember(f"content {turn}", type="fact", tags=[f"tag{number}"]).id)
        return keys

    with ThreadPoolExecutor(8) as threads:
        seen = list(threads.map(work, range(8)))
    assert all(keys == seen[0] for keys in seen)
    assert store.memory.count() == 5
    for key in seen[0]:
        assert sorted(store.memory.get(key).tags) == [f"tag{number}" for number in range(8)]
    assert [len(found(store, f"tag{number}")) for number in range(8)] == [5] * 8
    assert store.search.check()["memory"].examples == ()


BAD: list[tuple[str, dict[str, Any]]] = [
    ("content", {"content": None}),
    ("content.a", {"content": {"a": float("nan")}}),
    ("type", {"type": ""}),
    ("scope", {"scope": "universe"}),
    ("scope_id", {"scope_id": "x"}),
    ("scope_id", {"scope": "task", "scope_id": ""}),
    ("tags", {"tags": "abc"}),
    ("tags[1]", {"tags": ["a", 1]}),
    ("tags[0]", {"tags": ["a\0"]}),
    ("confidence", {"confidence": 1.01}),
    ("confidence", {"confidence": -0.01}),
    ("confidence", {"confidence": True}),
    ("retention_type", {"retention_type": "eternal"}),
    ("expires_at", {"expires_at": dt.datetime(2026, 3, 1)}),  # noqa: DTZ001  that is what is refused
    ("id", {"id": "a\nb"}),
]


def test_a_bad_value_is_refused(store: Store) -> None:
    for name, options in BAD:
        with pytest.raises(InvalidValueError) as caught:
            store.memory.remember(**{"content": "x", "type": "fact", **options})
        assert caught.value.name == name
    assert store.memory.count() == 0


def test_a_project_must_exist_and_is_forgotten_when_it_goes(store: Store, raw: Run) -> None:
    with pytest.raises(NotFoundError) as caught:
        store.memory.remember("x", type="fact", project_id="p")
    assert caught.value.entity == "project"
    store.projects.create(path="/p", id="p")
    item = store.memory.remember("x", type="fact", scope="project", project_id="p")
    assert (item.scope_id, item.project_id) == ("p", "p")
    raw("DELETE FROM projects WHERE id = 'p'")
    assert store.memory.get(item.id).project_id is None
    assert found(store, "x") == [item.id]


def test_an_identifier_of_another_content_is_taken(store: Store) -> None:
    store.memory.remember("x", type="fact", id="m")
    assert store.memory.remember("x", type="fact", id="m").id == "m"
    with pytest.raises(AlreadyExistsError):
        store.memory.remember("y", type="fact", id="m")
    assert (found(store, "x"), found(store, "y")) == (["m"], [])


def test_an_update_changes_what_is_given_and_what_is_found(store: Store) -> None:
    item = store.memory.remember("alt", type="fact", tags=["t"], confidence=0.5, id="m")
    changed = store.memory.update("m", content="neu", confidence=0.7)
    assert (changed.content, changed.tags, changed.confidence) == ("neu", ["t"], 0.7)
    assert changed.decayed_at > item.decayed_at
    assert (found(store, "alt"), found(store, "neu"), found(store, "t")) == ([], ["m"], ["m"])
    store.memory.update("m", tags=["u"])
    assert (found(store, "neu"), found(store, "t"), found(store, "u")) == (["m"], [], ["m"])
    assert store.memory.remember("neu", type="fact").id == "m"
    other = store.memory.remember("alt", type="fact")
    assert other.id != "m"
    with pytest.raises(AlreadyExistsError):
        store.memory.update("m", content="alt")
    assert found(store, "neu") == ["m"]
    with pytest.raises(NotFoundError) as caught:
        store.memory.update("m", project_id="nowhere")
    assert caught.value.entity == "project"
    calls: list[dict[str, Any]] = [{"content": "z"}, {"sources": []}]
    for call in calls:
        with pytest.raises(NotFoundError):
            store.memory.update("nowhere", **call)
    assert store.memory.update("m", expires_at=LATE, auto_cleanup=False, retention_type="permanent").expires_at == LATE
    bads: list[dict[str, Any]] = [{"content": None}, {"tags": "x"}, {"confidence": 2}]
    for bad in bads:
        with pytest.raises(InvalidValueError):
            store.memory.update("m", **bad)


def test_what_is_deleted_is_not_found(store: Store, raw: Run) -> None:
    store.memory.remember("天气 " * 400, type="fact", id="m")
    store.memory.delete("m")
    assert found(store, "天气") == []
    assert raw("SELECT count(*) FROM search_documents")[0][0] == 0
    with pytest.raises(NotFoundError):
        store.memory.delete("m")


def test_a_transaction_that_is_rolled_back_leaves_nothing_in_the_index(store: Store) -> None:
    store.memory.remember("kept", type="fact", id="m")

    def work(tx: Transaction) -> None:
        tx.memory.remember("lost", type="fact")
        tx.memory.update("m", content="other")
        assert [hit.item.id for hit in tx.memory.search("other")] == ["m"]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.run(work)
    assert (found(store, "lost"), found(store, "other"), found(store, "kept")) == ([], [], ["m"])
    assert store.search.probe()


def test_a_hundred_parallel_uses_are_a_hundred(store: Store, raw: Run) -> None:
    store.memory.remember("x", type="fact", id="m")
    before = raw("SELECT doc_id, tokens FROM search_documents")
    with ThreadPoolExecutor(16) as threads:
        counts = list(threads.map(lambda _: store.memory.touch("m").use_count, range(100)))
    assert sorted(counts) == list(range(1, 101))
    item = store.memory.get("m")
    assert item.use_count == 100
    assert item.last_used_at == item.updated_at
    assert raw("SELECT doc_id, tokens FROM search_documents") == before
    with pytest.raises(NotFoundError):
        store.memory.touch("nowhere")


def test_nothing_is_indexed_anew_when_no_text_changes(sqlite_url: str) -> None:
    with Store.open(sqlite_url) as store:
        store.memory.remember("天气", type="fact", tags=["a"], id="m")
        path = sqlite_url.removeprefix("sqlite:///")
        with sqlite3.connect(path) as raw:
            raw.execute("CREATE TABLE touched (n INTEGER)")
            for event in ("INSERT", "UPDATE", "DELETE"):
                raw.execute(
                    f"CREATE TRIGGER watch_{event} AFTER {event} ON search_documents"
                    " BEGIN INSERT INTO touched VALUES (1); END"
                )
        store.memory.touch("m")
        store.memory.update("m", confidence=0.9, sources=["s"])
        store.memory.update("m", content="天气", tags=["a"])
        store.memory.remember("天气", type="fact", tags=["a"])
        store.memory.decay(at=dt.datetime.now(dt.UTC) + dt.timedelta(days=2))
        assert raw.execute("SELECT count(*) FROM touched").fetchone()[0] == 0
        store.memory.update("m", tags=["b"])
        assert raw.execute("SELECT count(*) FROM touched").fetchone()[0] == 1
        raw.close()


def test_lists_and_counts_filter(store: Store) -> None:
    store.projects.create(path="/p", id="p")
    with store.transaction() as tx:
        for number in range(12):
            scope = ("global", "task", "project")[number % 3]
            tx.memory.remember(
                f"c{number}",
                type=f"type{number % 2}",
                scope=scope,
                scope_id=None if scope == "global" else f"s{number % 4}",
                tags=[f"t{number % 5}", "all"],
                project_id="p" if number % 4 == 0 else None,
                id=f"m{number:02}",
            )

    def keys(**filters: Any) -> list[int]:
        page = store.memory.list(**filters)
        assert store.memory.count(**{k: v for k, v in filters.items() if k not in {"order", "limit"}}) == len(page)
        return [int(item.id[1:]) for item in page]

    assert keys() == list(range(12))
    assert keys(scope="task") == [1, 4, 7, 10]
    assert keys(scope="task", scope_id="s3") == [7]
    assert keys(type="type1", scope="project") == [5, 11]
    assert keys(project_id="p") == [0, 4, 8]
    assert keys(tags=["t2", "all"]) == [2, 7]
    assert [item.id for item in store.memory.list(order="-created_at", limit=2)] == ["m11", "m10"]
    assert [item.id for item in store.memory.iterate(limit=5)] == [f"m{n:02}" for n in range(12)]
    sixth = store.memory.get("m06").created_at
    assert [item.id for item in store.memory.list(created_after=sixth, limit=1)] == ["m06"]
    assert len(store.memory.list(created_before=sixth)) == 6


def test_the_asynchronous_store_remembers_and_finds(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            items = await asyncio.gather(*(store.memory.remember(f"天气 {n}", type="fact") for n in range(20)))
            hits = await store.memory.search("天气", limit=50)
            assert {hit.item.id for hit in hits} == {item.id for item in items}
            await asyncio.gather(*(store.memory.touch(items[0].id) for _ in range(20)))
            found: MemoryItem = await store.memory.get(items[0].id)
            assert found.use_count == 20
            assert len((await store.memory.context(token_budget=1000)).items) == 20

    asyncio.run(main())


def test_writers_that_race_for_one_item_leave_it_and_its_index_alike(store: Store) -> None:
    barrier = threading.Barrier(6, timeout=60)

    def work(number: int) -> None:
        barrier.wait()
        for turn in range(12):
            try:
                if number == 0:
                    store.memory.delete("m")
                elif number == 1:
                    store.memory.remember(f"born {turn}", type="fact", id="m")
                else:
                    words = "many words " * (200 if turn % 3 else 1)
                    store.memory.update("m", content=f"{words} writer{number} turn{turn}")
            except (NotFoundError, AlreadyExistsError):
                continue

    store.memory.remember("born", type="fact", id="m")
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    report = store.search.check()["memory"]
    assert (report.missing, report.stale) == (0, 0)
    item = store.memory.find("m")
    words = [] if item is None else item.content.split()[-1:]
    assert [found(store, word) for word in words] == [["m"] for _ in words]
    assert store.search.probe()
