from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import AsyncStore
from agentos_store.agents.snapshots import SnapshotRepository
from agentos_store.errors import ConflictError, InvalidValueError, NotFoundError
from agentos_store.operation import Awaiting, Blocking
from tests.agents.world import START, World

Snapshots = SnapshotRepository[Blocking]


def contents(world: World, snapshot_id: str, agent_id: str = "a") -> list[Any]:
    found = world.snapshots.load(agent_id, snapshot_id)
    assert [message.seq for message in found.messages] == list(range(found.snapshot.up_to_seq + 1))
    return [message.content for message in found.messages]


@pytest.fixture(autouse=True)
def agent(world: World) -> None:
    world.conversation("s", 5)
    world.agents.save("a", session_id="s", last_sfp_index=3, last_bookmark={"seq": 7})


def rewrite(world: World, raw: Any) -> None:
    """Cut the second and third message out and put one in, as saving a changed conversation does."""
    raw("UPDATE messages SET to_generation = 1 WHERE session_id = 's' AND seq BETWEEN 1 AND 2")
    for number in (3, 4):
        world.messages("s", [number], id=f"s.m{number}@1", to_generation=1, copied_from=f"s.m{number}")
    # One statement for each, as no two may have one number, not even for a moment.
    for old, new in ((3, 2), (4, 3)):
        raw(f"UPDATE messages SET seq = {new}, from_generation = 1 WHERE id = 's.m{old}'")
    world.messages("s", [1], id="s.new", from_generation=1, content="new 1")
    raw("UPDATE sessions SET generation = 1, next_seq = 4, message_count = 4 WHERE id = 's'")


def test_a_snapshot_records_what_agent_and_conversation_are(snapshots: Snapshots) -> None:
    saved = snapshots.save("a", "sfp:3", parent_snapshot_id="sfp:1", metadata={"why": "测试"})
    assert snapshots.get("a", "sfp:3").to_dict() == saved.to_dict()
    found = saved.to_dict()
    assert found.pop("created_at") is not None
    assert found == {
        "agent_id": "a",
        "snapshot_id": "sfp:3",
        "parent_snapshot_id": "sfp:1",
        "session_id": "s",
        "generation": 0,
        "up_to_seq": 4,
        "last_sfp_index": 3,
        "last_bookmark": {"seq": 7},
        "metadata": {"why": "测试"},
    }
    assert snapshots.exists("a", "sfp:3")
    made = snapshots.save("a")
    assert len(made.snapshot_id) == 26
    assert made.metadata_ == {}


def test_what_is_given_goes_before_what_the_agent_has(snapshots: Snapshots) -> None:
    made = snapshots.save("a", "x", up_to_seq=1, last_sfp_index=0, last_bookmark={}, created_at=START)
    assert (made.up_to_seq, made.last_sfp_index, made.last_bookmark, made.created_at) == (1, 0, {}, START)
    assert snapshots.save("a", "none", up_to_seq=-1).up_to_seq == -1


def test_a_snapshot_shows_the_conversation_as_it_was_whatever_happened_since(world: World, raw: Any) -> None:
    world.snapshots.save("a", "first", up_to_seq=1)
    world.snapshots.save("a", "before")
    world.messages("s", [5, 6])
    raw("UPDATE sessions SET next_seq = 7, message_count = 7 WHERE id = 's'")
    before = [f"text {number}" for number in range(5)]
    assert contents(world, "before") == before
    raw("DELETE FROM messages WHERE session_id = 's' AND seq > 4")
    raw("UPDATE sessions SET next_seq = 5, message_count = 5 WHERE id = 's'")
    rewrite(world, raw)
    assert contents(world, "before") == before
    assert contents(world, "first") == before[:2]
    after = world.snapshots.save("a", "after")
    assert (after.generation, after.up_to_seq) == (1, 3)
    assert contents(world, "after") == ["text 0", "new 1", "text 3", "text 4"]


def test_an_empty_conversation_has_a_snapshot_too(world: World) -> None:
    world.conversation("empty")
    world.agents.save("e", session_id="empty")
    assert world.snapshots.save("e", "x").up_to_seq == -1
    assert contents(world, "x", "e") == []


def test_a_snapshot_stays_with_its_conversation_when_the_agent_gets_another(world: World) -> None:
    world.snapshots.save("a", "old")
    world.conversation("t", 1)
    world.agents.save("a", session_id="t")
    assert len(contents(world, "old")) == 5
    assert world.snapshots.save("a", "new").session_id == "t"


def test_a_snapshot_under_the_same_identifier_is_replaced(world: World, raw: Any) -> None:
    first = world.snapshots.save("a", "x", parent_snapshot_id="p", metadata={"n": 1})
    rewrite(world, raw)
    second = world.snapshots.save("a", "x", metadata={"n": 2})
    assert world.snapshots.count("a") == 1
    assert (second.generation, second.up_to_seq, second.metadata_) == (1, 3, {"n": 2})
    assert second.parent_snapshot_id is None
    assert second.created_at > first.created_at
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: world.snapshots.save("a", "x", metadata={"n": n}), range(16)))
    assert world.snapshots.count("a") == 1


def test_what_cannot_be_recorded_is_refused(world: World, raw: Any) -> None:
    snapshots = world.snapshots
    world.agents.save("without")
    world.conversation("gone")
    world.agents.save("stranded", session_id="gone")
    raw("UPDATE sessions SET deleted_at = updated_at WHERE id = 'gone'")
    world.agents.save("deleted", session_id="s")
    world.agents.delete("deleted")
    for agent_id in ("nobody", "deleted"):
        with pytest.raises(NotFoundError) as missing:
            snapshots.save(agent_id, "x")
        assert (missing.value.entity, missing.value.key) == ("agent", agent_id)
    with pytest.raises(NotFoundError) as missing:
        snapshots.save("stranded", "x")
    assert (missing.value.entity, missing.value.key) == ("session", "gone")
    with pytest.raises(ConflictError):
        snapshots.save("without", "x")
    bad: list[tuple[str, dict[str, Any]]] = [
        ("up_to_seq", {"up_to_seq": 5}),
        ("up_to_seq", {"up_to_seq": -2}),
        ("up_to_seq", {"up_to_seq": 2**63}),
        ("last_sfp_index", {"last_sfp_index": -2}),
        ("last_bookmark", {"last_bookmark": [1]}),
        ("metadata", {"metadata": "abc"}),
        ("snapshot_id", {"snapshot_id": ""}),
        ("parent_snapshot_id", {"parent_snapshot_id": "\n"}),
    ]
    for name, given in bad:
        with pytest.raises(InvalidValueError) as caught:
            snapshots.save("a", **given)
        assert caught.value.name == name
    assert raw("SELECT count(*) FROM snapshots") == [(0,)]


def test_a_list_has_one_agent_s_snapshots_the_oldest_first(world: World) -> None:
    snapshots = world.snapshots
    world.agents.save("b", session_id="s")
    for number, key in enumerate("cab"):
        snapshots.save("a", key, created_at=START + dt.timedelta(days=number))
        snapshots.save("b", key)
    assert [each.snapshot_id for each in snapshots.list("a")] == list("cab")
    assert [each.snapshot_id for each in snapshots.iterate("a", limit=1)] == list("cab")
    assert [each.snapshot_id for each in snapshots.list("a", order="-created_at", limit=1)] == ["b"]
    day = dt.timedelta(days=1)
    within = snapshots.list("a", created_after=START + day, created_before=START + 2 * day)
    assert [each.snapshot_id for each in within] == ["a"]
    world.agents.delete("a")
    assert len(snapshots.list("a")) == snapshots.count("a") == 0
    assert len(snapshots.list("a", include_deleted=True)) == snapshots.count("a", include_deleted=True) == 3
    assert snapshots.find("a", "c") is not None


def test_a_snapshot_is_removed_and_the_conversation_stays(world: World) -> None:
    world.snapshots.save("a", "x")
    world.snapshots.save("a", "y")
    world.snapshots.delete("a", "x")
    assert world.snapshots.find("a", "x") is None
    assert len(contents(world, "y")) == 5
    calls: list[Callable[[], object]] = [
        lambda: world.snapshots.get("a", "x"),
        lambda: world.snapshots.load("a", "x"),
        lambda: world.snapshots.delete("a", "x"),
        lambda: world.agents.fork("a", snapshot_id="x"),
    ]
    for call in calls:
        with pytest.raises(NotFoundError) as caught:
            call()
        assert (caught.value.entity, caught.value.key) == ("snapshot", ("a", "x"))


def test_snapshots_go_with_their_conversation(world: World, raw: Any) -> None:
    world.snapshots.save("a", "x")
    raw("DELETE FROM sessions WHERE id = 's'")
    assert world.snapshots.count("a") == 0
    assert world.agents.get("a").session_id is None


def test_the_asynchronous_face_does_the_same(world: World, url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            snapshots = store.bind(SnapshotRepository[Awaiting])
            await snapshots.save("a", "x")
            assert len((await snapshots.load("a", "x")).messages) == 5
            with pytest.raises(NotFoundError):
                await snapshots.load("a", "y")

    asyncio.run(main())
