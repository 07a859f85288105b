from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

from agentos_store import AsyncStore
from agentos_store.agents.models import Agent
from agentos_store.agents.repository import AgentRepository
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.errors import AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError
from agentos_store.operation import Awaiting, Blocking
from tests.agents.world import World, tool_call

Agents = AgentRepository[Blocking]
EVERYTHING: dict[str, Any] = {
    "template_id": "coder",
    "role": "coder",
    "goal": "Write clean code",
    "backstory": "经验丰富",
    "state": "busy",
    "lineage": ["root", "parent/fork-1"],
    "config_version": "v2.7",
    "last_sfp_index": 11,
    "last_bookmark": {"seq": 3, "timestamp": 1795240070871},
    "breakpoint": "POST_TOOL",
    "stats": {"tasks_completed": 10, "success_rate": 0.9},
    "metadata": {"theme": {"dark": True}},
}


def plain(agent: Agent) -> dict[str, Any]:
    return agent.to_dict()


def test_an_agent_comes_back_as_it_was_saved(world: World, agents: Agents) -> None:
    world.conversation("s")
    agents.create("root")
    saved = agents.save("root/a", **EVERYTHING, parent_id="root", session_id="s")
    assert plain(agents.get("root/a")) == plain(saved)
    found = plain(saved)
    assert {name: found[name] for name in EVERYTHING} == EVERYTHING
    assert (found["parent_id"], found["session_id"], found["version"]) == ("root", "s", 1)
    assert found["created_at"] == found["updated_at"]
    assert agents.find("root/a") is not None
    assert agents.exists("root/a")


@pytest.mark.parametrize("make", ["save", "create"])
def test_what_is_left_out_has_the_defaults(agents: Agents, make: str) -> None:
    found = plain(getattr(agents, make)("a"))
    found = {name: value for name, value in found.items() if value is not None}
    assert found.pop("created_at") == found.pop("updated_at")
    assert found == {
        "agent_id": "a",
        "state": "idle",
        "lineage": [],
        "last_sfp_index": -1,
        "stats": {},
        "metadata": {},
        "version": 1,
    }


def test_a_saving_changes_what_is_given_and_leaves_the_rest(agents: Agents) -> None:
    first = agents.save("a", **EVERYTHING)
    second = agents.save("a", goal=None, state="idle", metadata={"b": 1})
    changed = {"goal": None, "state": "idle", "metadata": {"b": 1}, "version": 2, "updated_at": second.updated_at}
    assert plain(second) == plain(first) | changed
    assert second.updated_at > first.updated_at
    assert plain(agents.save("a")) == plain(second) | {"version": 3, "updated_at": agents.get("a").updated_at}


def test_the_time_of_its_making_is_kept(agents: Agents) -> None:
    early, late = dt.datetime(2025, 1, 1, tzinfo=dt.UTC), dt.datetime(2025, 2, 1, tzinfo=dt.UTC)
    assert agents.save("a", created_at=early).created_at == early
    assert agents.save("a", created_at=late).created_at == early
    assert agents.create("b", created_at=late).created_at == late


def test_thirty_two_parallel_savings_all_count(agents: Agents) -> None:
    def save(number: int) -> None:
        changes: dict[str, Any] = {"goal" if number % 2 else "role": f"{number}"}
        agents.save("a", **changes)

    with ThreadPoolExecutor(32) as threads:
        list(threads.map(save, range(32)))
    agent = agents.get("a")
    assert agent.version == 32
    assert int(agent.goal or 0) % 2 == 1
    assert int(agent.role or 1) % 2 == 0


def test_a_saving_at_another_version_is_refused(agents: Agents) -> None:
    agents.save("a")
    assert agents.save("a", goal="x", version=1).version == 2
    with pytest.raises(ConflictError) as caught:
        agents.save("a", goal="y", version=1)
    assert (caught.value.entity, caught.value.key) == ("agent", "a")
    assert agents.get("a").goal == "x"
    with pytest.raises(NotFoundError):
        agents.save("b", goal="y", version=1)
    assert not agents.exists("b")


def test_of_sixteen_savings_at_one_version_one_comes_through(agents: Agents) -> None:
    agents.save("a")

    def save(number: int) -> bool:
        try:
            agents.save("a", goal=f"{number}", version=1)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(save, range(16))) == 1
    assert agents.get("a").version == 2


@pytest.mark.parametrize("column", ["parent_id", "session_id", "last_task_id"])
def test_what_an_agent_refers_to_must_exist(agents: Agents, column: str) -> None:
    agents.save("a")
    nobody: dict[str, Any] = {column: "nobody"}
    calls: list[Callable[[], object]] = [
        lambda: agents.save("a", **nobody),
        lambda: agents.save("b", **nobody),
        lambda: agents.save("a", version=1, **nobody),
    ]
    if column != "last_task_id":
        calls.append(lambda: agents.create("b", **nobody))
    entity = {"parent_id": "agent", "session_id": "session", "last_task_id": "task"}[column]
    for call in calls:
        with pytest.raises(NotFoundError) as caught:
            call()
        assert (caught.value.entity, caught.value.key) == (entity, "nobody")
    assert agents.get("a").version == 1
    assert not agents.exists("b")


def test_a_taken_identifier_is_refused_also_when_its_agent_is_deleted(agents: Agents) -> None:
    agents.create("a")
    for _ in range(2):
        with pytest.raises(AlreadyExistsError) as caught:
            agents.create("a")
        assert (caught.value.entity, caught.value.key) == ("agent", "a")
        if agents.exists("a"):
            agents.delete("a")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state", "sleeping"),
        ("state", None),
        ("lineage", None),
        ("lineage", "abc"),
        ("lineage", {"a": 1}),
        ("last_sfp_index", -2),
        ("last_sfp_index", 2**63),
        ("last_bookmark", [1]),
        ("template_id", ""),
        ("template_id", "a\n"),
        ("goal", "\0"),
        ("role", 5),
        ("stats", None),
        ("stats", [1]),
        ("metadata", "abc"),
        ("metadata.a[0]", {"a": [float("nan")]}),
        ("parent_id", "x" * 256),
    ],
)
def test_a_bad_value_is_refused_by_its_name(agents: Agents, name: str, value: Any) -> None:
    agents.save("a")
    field = name.split("[", maxsplit=1)[0].split(".", maxsplit=1)[0]
    calls: list[Callable[[], object]] = [
        lambda: agents.save("a", **{field: value}),
        lambda: agents.save("b", **{field: value}),
        lambda: agents.save("a", version=1, **{field: value}),
    ]
    for call in calls:
        with pytest.raises(InvalidValueError) as caught:
            call()
        assert caught.value.name == name
    assert agents.get("a").version == 1
    assert agents.count() == 1


@pytest.mark.parametrize("key", ["", "a\n", "x" * 256, "\0", "\ud800", 5, None])
def test_a_bad_identifier_is_refused(agents: Agents, key: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        agents.save(key)
    assert caught.value.name == "agent_id"


def test_an_unknown_agent_is_not_found(agents: Agents) -> None:
    assert agents.find("nobody") is None
    assert not agents.exists("nobody")
    calls: list[Callable[[], object]] = [
        lambda: agents.get("nobody"),
        lambda: agents.set_state("nobody", "busy"),
        lambda: agents.update_stats("nobody", {}),
        lambda: agents.merge_metadata("nobody", {}),
        lambda: agents.delete("nobody"),
        lambda: agents.restore("nobody"),
        lambda: agents.purge("nobody"),
        lambda: agents.aggregate_stats("nobody"),
        lambda: agents.fork("nobody"),
    ]
    for call in calls:
        with pytest.raises(NotFoundError) as caught:
            call()
        assert (caught.value.entity, caught.value.key) == ("agent", "nobody")


def test_a_state_is_set_only_from_the_expected_one(agents: Agents) -> None:
    agents.save("a")
    assert agents.set_state("a", "busy", expected="idle").state == "busy"
    with pytest.raises(ConflictError):
        agents.set_state("a", "failed", expected="idle")
    assert (agents.get("a").state, agents.get("a").version) == ("busy", 2)
    assert agents.set_state("a", "archived").version == 3
    for state, expected, name in (("sleeping", None, "state"), ("idle", "sleeping", "expected")):
        with pytest.raises(InvalidValueError) as caught:
            agents.set_state("a", state, expected=expected)
        assert caught.value.name == name


def test_of_sixteen_that_make_an_idle_agent_busy_one_comes_through(agents: Agents) -> None:
    agents.save("a")

    def take(_: int) -> bool:
        try:
            agents.set_state("a", "busy", expected="idle")
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(take, range(16))) == 1


@pytest.mark.parametrize("column", ["stats", "metadata"])
def test_sixteen_parallel_merges_keep_sixteen_keys(agents: Agents, column: str) -> None:
    before: dict[str, Any] = {column: {"first": 1e16, "k0": None}}
    agents.save("a", **before)
    merge = agents.update_stats if column == "stats" else agents.merge_metadata
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: merge("a", {f"k{n}": {"n": [n]}}), range(16)))
    agent = plain(agents.get("a"))
    assert agent[column] == {"first": 1e16} | {f"k{n}": {"n": [n]} for n in range(16)}
    assert isinstance(agent[column]["first"], float)
    assert agent["version"] == 17
    bad: Any
    for bad in (None, [1], "abc"):
        with pytest.raises(InvalidValueError) as caught:
            merge("a", bad)
        assert caught.value.name == column


def test_a_deleted_agent_is_left_out_everywhere_until_it_is_restored(agents: Agents) -> None:
    before = agents.save("a", goal="g")
    agents.save("b")
    deleted = agents.delete("a")
    assert deleted.deleted_at is not None
    assert (agents.find("a"), agents.exists("a"), agents.count()) == (None, False, 1)
    assert [agent.agent_id for agent in agents.list()] == ["b"]
    assert agents.get("a", include_deleted=True).deleted_at == deleted.deleted_at
    assert agents.find("a", include_deleted=True) is not None
    assert agents.exists("a", include_deleted=True)
    assert agents.count(include_deleted=True) == len(agents.list(include_deleted=True)) == 2
    calls: list[Callable[[], object]] = [
        lambda: agents.get("a"),
        lambda: agents.delete("a"),
        lambda: agents.set_state("a", "busy"),
        lambda: agents.merge_metadata("a", {"b": 1}),
        lambda: agents.aggregate_stats("a"),
        lambda: agents.fork("a"),
    ]
    for call in calls:
        with pytest.raises(NotFoundError):
            call()
    restored = agents.restore("a")
    assert plain(restored) == plain(before) | {"version": 3, "updated_at": restored.updated_at}
    assert plain(agents.restore("a")) == plain(restored)


def test_saving_restores_a_deleted_agent_with_all_that_it_had(world: World, agents: Agents) -> None:
    agents.save("a", **EVERYTHING)
    world.documents.save("a", "todos", content=[])
    for version in (None, 4):
        agents.delete("a")
        saved = agents.save("a", goal="new", version=version)
        assert (saved.goal, saved.role, saved.deleted_at) == ("new", "coder", None)
    assert agents.exists("a")
    assert world.documents.count("a") == 1


def test_saving_touches_no_children(world: World, agents: Agents) -> None:
    world.conversation("s", 3)
    agents.save("a", session_id="s")
    agents.save("child", parent_id="a")
    world.rows.add(*calls_of("a"))
    world.snapshots.save("a", "one")
    world.documents.save("a", "todos", content=[1])
    agents.save("a", goal="g")
    assert agents.get("child").parent_id == "a"
    assert agents.aggregate_stats("a").total_tool_calls == 5
    assert len(world.snapshots.load("a", "one").messages) == 3
    assert world.documents.get("a", "todos").content == [1]


def calls_of(agent: str) -> tuple[Any, list[dict[str, Any]]]:
    return ToolCallRecord, [
        tool_call("c1", agent_id=agent),
        tool_call("c2", agent_id=agent, is_error=True),
        tool_call("c3", agent_id=agent, is_error=False),
        tool_call("c4", agent_id=agent, state="denied"),
        tool_call("c5", agent_id=agent, state="approval_required"),
    ]


def test_purging_takes_with_it_what_is_the_agent_s_alone(world: World, agents: Agents, raw: Any) -> None:
    world.conversation("s", 2)
    agents.save("a", session_id="s")
    agents.save("b", parent_id="a", lineage=["a"])
    world.messages("s", [2], agent_id="a")
    world.rows.add(*calls_of("a"))
    world.snapshots.save("a", "one")
    world.documents.save("a", "todos", content=[1])
    world.documents.save("b", "todos", content=[1])
    agents.delete("a")
    agents.purge("a")
    assert not agents.exists("a", include_deleted=True)
    for table, count in (("snapshots", 0), ("agent_documents", 1), ("tool_call_records", 0), ("messages", 3)):
        assert raw(f"SELECT count(*) FROM {table}") == [(count,)], table
    assert raw("SELECT agent_id FROM messages WHERE seq = 2") == [(None,)]
    assert raw("SELECT count(*) FROM sessions") == [(1,)]
    assert (agents.get("b").parent_id, agents.get("b").lineage) == (None, ["a"])
    with pytest.raises(NotFoundError):
        agents.purge("a")
    # The identifier is free again.
    assert agents.create("a").version == 1


def test_statistics_count_messages_calls_and_failures(world: World, agents: Agents) -> None:
    world.conversation("s", 4)
    agents.save("a", session_id="s")
    agents.save("b", session_id="s")
    agents.save("without")
    world.rows.add(*calls_of("a"))
    found = agents.aggregate_stats("a")
    assert (found.total_messages, found.total_tokens) == (4, 40)
    assert (found.total_tool_calls, found.successful_tool_calls, found.failed_tool_calls) == (5, 2, 2)
    assert found.success_rate == 0.5
    other = agents.aggregate_stats("b")
    assert (other.total_messages, other.total_tool_calls, other.success_rate) == (4, 0, None)
    empty = agents.aggregate_stats("without")
    assert (empty.total_messages, empty.total_tokens, empty.total_cost) == (0, 0, Decimal(0))


def test_the_asynchronous_face_does_the_same(url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            agents = store.bind(AgentRepository[Awaiting])
            await asyncio.gather(*(agents.save("a", goal=f"{n}") for n in range(32)))
            assert (await agents.get("a")).version == 32
            await asyncio.gather(*(agents.merge_metadata("a", {f"{n}": n}) for n in range(16)))
            assert (await agents.get("a")).metadata_ == {f"{n}": n for n in range(16)}
            await agents.save("b")
            assert [agent.agent_id async for agent in agents.iterate(limit=1)] == ["a", "b"]
            with pytest.raises(ConflictError):
                await agents.set_state("a", "busy", expected="failed")

    asyncio.run(main())
