from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import AsyncStore, Store
from agentos_store.errors import AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError
from agentos_store.tasks.models import Task
from agentos_store.tasks.trail import GENESIS

LATER = dt.datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)


def same_row(one: Task, other: Task) -> bool:
    return one.to_dict() == other.to_dict()


def test_a_task_comes_back_as_it_was_created(store: Store) -> None:
    project = store.projects.create(path="/src")
    made = store.tasks.create(
        title="Refactor",
        task_type="code",
        priority=7,
        payload={"b": 1, "a": [1.0, None]},
        project_id=project.id,
        route_plan={"steps": []},
        requirements=["python"],
        selected_instance_id="i-1",
        router_version="2",
        max_attempts=5,
        run_after=LATER,
        idempotency_key="k",
        created_by="天气",
        metadata={"theme": "dark"},
    )
    found = store.tasks.get(made.task_id)
    assert same_row(made, found)
    assert (found.status, found.version, found.attempts, found.lease_token) == ("created", 1, 0, 0)
    assert list(found.payload) == ["b", "a"]
    assert found.created_at == found.updated_at
    assert store.tasks.find(made.task_id).title == "Refactor"  # type: ignore[union-attr]
    assert store.tasks.exists(made.task_id)


def test_what_is_left_out_has_the_defaults(store: Store) -> None:
    made = store.tasks.get(store.tasks.create(title="t").task_id)
    assert (made.task_type, made.priority, made.max_attempts, made.metadata_) == ("", 0, 3, {})
    assert (made.payload, made.result, made.project_id, made.run_after, made.started_at) == (None,) * 5


def test_enqueue_makes_a_task_pending(store: Store) -> None:
    assert store.tasks.create(title="t", enqueue=True).status == "pending"


def test_an_unknown_task_is_not_found(store: Store) -> None:
    assert store.tasks.find("nobody") is None
    assert not store.tasks.exists("nobody")
    calls: list[Callable[[], object]] = [
        lambda: store.tasks.get("nobody"),
        lambda: store.tasks.update("nobody", title="t"),
        lambda: store.tasks.set_routing("nobody", router_version="1"),
        lambda: store.tasks.merge_metadata("nobody", {"a": 1}),
        lambda: store.tasks.transition("nobody", "running"),
        lambda: store.tasks.cancel("nobody"),
        lambda: store.tasks.delete("nobody"),
        lambda: store.tasks.history("nobody"),
    ]
    for call in calls:
        with pytest.raises(NotFoundError) as caught:
            call()
        assert (caught.value.entity, caught.value.key) == ("task", "nobody")


@pytest.mark.parametrize("field", ["session_id", "project_id", "agent_id"])
def test_a_parent_that_does_not_exist_is_not_found(store: Store, field: str) -> None:
    missing: Any = {field: "nobody"}
    with pytest.raises(NotFoundError) as caught:
        store.tasks.create(title="t", **missing)
    assert (caught.value.entity, caught.value.key) == (field.removesuffix("_id"), "nobody")
    task = store.tasks.create(title="t")
    with pytest.raises(NotFoundError) as caught:
        store.tasks.update(task.task_id, **missing)
    assert (caught.value.entity, caught.value.key) == (field.removesuffix("_id"), "nobody")
    assert same_row(store.tasks.get(task.task_id), task)
    assert store.tasks.count() == 1


def test_a_taken_identifier_is_refused(store: Store) -> None:
    first = store.tasks.create(title="first", task_id="parent/fork-1795240070871")
    with pytest.raises(AlreadyExistsError) as caught:
        store.tasks.create(title="second", task_id=first.task_id)
    assert (caught.value.entity, caught.value.key, caught.value.field) == ("task", first.task_id, None)
    assert store.tasks.get(first.task_id).title == "first"


def test_the_same_idempotency_key_returns_the_first_task(store: Store) -> None:
    first = store.tasks.create(title="first", task_type="a", idempotency_key="k")
    store.tasks.transition(first.task_id, "running")
    again = store.tasks.create(title="second", task_type="a", idempotency_key="k", priority=9)
    assert again.task_id == first.task_id
    assert (again.title, again.status, again.priority) == ("first", "running", 0)
    other = store.tasks.create(title="third", task_type="b", idempotency_key="k")
    assert other.task_id != first.task_id
    assert store.tasks.count() == 2


def test_sixteen_callers_with_one_idempotency_key_make_one_task(store: Store) -> None:
    project = store.projects.create(path="/src")
    with ThreadPoolExecutor(16) as threads:
        made = list(
            threads.map(
                lambda n: (
                    store.tasks.create(
                        title=str(n), idempotency_key="k", project_id=project.id if n % 2 else None
                    ).task_id
                ),
                range(16),
            )
        )
    assert len(set(made)) == 1
    assert store.tasks.count() == 1


@pytest.mark.parametrize("length", [1, 500])
def test_a_title_of_1_to_500_characters_is_stored(store: Store, length: int) -> None:
    assert store.tasks.get(store.tasks.create(title="気" * length).task_id).title == "気" * length


@pytest.mark.parametrize("title", ["", "気" * 501])
def test_a_title_of_another_length_is_refused(store: Store, title: str) -> None:
    task = store.tasks.create(title="t")
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.create(title=title)
    assert caught.value.name == "title"
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.update(task.task_id, title=title)
    assert caught.value.name == "title"


@pytest.mark.parametrize("attempts", [0, -1])
def test_a_task_has_at_least_one_attempt(store: Store, attempts: int) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.create(title="t", max_attempts=attempts)
    assert caught.value.name == "max_attempts"


def test_update_changes_what_is_given_and_leaves_the_rest(store: Store) -> None:
    task = store.tasks.create(title="t", priority=3, metadata={"a": 1})
    project = store.projects.create(path="/src")
    changed = store.tasks.update(task.task_id, title="u", run_after=LATER, project_id=project.id)
    assert (changed.title, changed.priority, changed.run_after, changed.project_id) == ("u", 3, LATER, project.id)
    assert changed.version == 2
    assert changed.updated_at > task.updated_at
    assert changed.created_at == task.created_at
    assert same_row(changed, store.tasks.get(task.task_id))
    cleared = store.tasks.update(task.task_id, run_after=None, project_id=None)
    assert (cleared.run_after, cleared.project_id, cleared.title) == (None, None, "u")


def test_an_update_of_another_version_is_a_conflict(store: Store) -> None:
    task = store.tasks.create(title="t")
    assert store.tasks.update(task.task_id, title="u", version=1).version == 2
    changes: list[Callable[[], object]] = [
        lambda: store.tasks.update(task.task_id, title="v", version=1),
        lambda: store.tasks.set_routing(task.task_id, router_version="1", version=1),
    ]
    for change in changes:
        with pytest.raises(ConflictError) as caught:
            change()
        assert (caught.value.entity, caught.value.key) == ("task", task.task_id)
    assert store.tasks.get(task.task_id).title == "u"


def test_of_sixteen_updates_of_one_version_one_wins(store: Store) -> None:
    task = store.tasks.create(title="t")

    def change(number: int) -> bool:
        try:
            store.tasks.update(task.task_id, title=str(number), version=1)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(change, range(16))) == 1
    assert store.tasks.get(task.task_id).version == 2


def test_routing_is_recorded_piece_by_piece(store: Store) -> None:
    task = store.tasks.create(title="t")
    store.tasks.set_routing(task.task_id, route_plan={"a": [1]}, requirements=None, selected_instance_id="i")
    changed = store.tasks.set_routing(task.task_id, router_version="2")
    assert (changed.route_plan_json, changed.requirements_json) == ({"a": [1]}, None)
    assert (changed.selected_instance_id, changed.router_version) == ("i", "2")
    assert store.tasks.set_routing(task.task_id, route_plan=None).route_plan_json is None


def test_merging_sets_keys_and_keeps_the_others(store: Store) -> None:
    task = store.tasks.create(title="t", metadata={"a": 1, "b": {"c": 2}})
    merged = store.tasks.merge_metadata(task.task_id, {"b": 3, "d": 4})
    assert merged.metadata_ == {"a": 1, "b": 3, "d": 4}
    assert store.tasks.get(task.task_id).metadata_ == merged.metadata_


def test_sixteen_merges_at_once_keep_sixteen_keys(store: Store) -> None:
    task = store.tasks.create(title="t")
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: store.tasks.merge_metadata(task.task_id, {f"key{n}": n}), range(16)))
    assert store.tasks.get(task.task_id).metadata_ == {f"key{n}": n for n in range(16)}
    assert store.tasks.get(task.task_id).version == 17


def test_deleting_removes_what_belongs_to_the_task(store: Store) -> None:
    task = store.tasks.create(title="t")
    store.audits.record(task.task_id, event_type="e")
    store.lineage.record(task.task_id, kind="commit", ref_id="9f1c2ab")
    store.tasks.delete(task.task_id)
    assert store.tasks.find(task.task_id) is None
    assert store.audits.count() == store.lineage.count() == 0


def test_a_deleted_chain_verifies_and_goes_on_when_the_task_comes_again(store: Store) -> None:
    last = GENESIS
    for _ in range(3):
        task = store.tasks.create(title="t", task_id="again")
        store.audits.record(task.task_id, event_type="e")
        store.tasks.transition(task.task_id, "running")
        assert store.audits.verify("again").ok
        assert store.audits.query(task_id="again").items[0].prev_hash == last
        last = store.audits.query(task_id="again").items[-1].row_hash
        store.tasks.delete("again")
        found = store.audits.verify("again")
        assert (found.ok, found.chains, found.entries) == (True, 1, 0)
    assert store.audits.verify().ok


def test_statistics_of_an_agent_count_by_status(store: Store, url: str) -> None:
    assert store.tasks.agent_stats("nobody").total == 0
    assert store.tasks.agent_stats("nobody").success_rate is None
    insert_agent(url, "agent-1")
    for duration in (1.0, 3.0):
        task = store.tasks.create(title="t", agent_id="agent-1")
        store.tasks.transition(task.task_id, "running")
        store.tasks.transition(task.task_id, "completed", duration=duration)
    task = store.tasks.create(title="t", agent_id="agent-1")
    store.tasks.transition(task.task_id, "running")
    store.tasks.transition(task.task_id, "failed", exit_reason="boom")
    store.tasks.create(title="t", agent_id="agent-1")
    stats = store.tasks.agent_stats("agent-1")
    assert (stats.agent_id, stats.total) == ("agent-1", 4)
    assert stats.by_status == {"completed": 2, "failed": 1, "created": 1}
    assert stats.success_rate == pytest.approx(2 / 3)
    assert stats.mean_duration == 2.0
    start, later = task.created_at, task.created_at + dt.timedelta(days=1)
    assert store.tasks.agent_stats("agent-1", created_after=start).by_status == {"failed": 1, "created": 1}
    assert store.tasks.agent_stats("agent-1", created_before=start).by_status == {"completed": 2}
    assert store.tasks.agent_stats("agent-1", created_after=later).mean_duration is None
    assert store.tasks.count(agent_id="agent-1", created_after=start, created_before=later) == 2


def test_an_operation_that_fails_leaves_the_transaction_usable(store: Store) -> None:
    task = store.tasks.create(title="t")
    with store.transaction() as tx:
        tx.tasks.update(task.task_id, title="u")
        with pytest.raises(NotFoundError):
            tx.tasks.update(task.task_id, session_id="nobody")
        with pytest.raises(InvalidValueError):
            tx.tasks.update(task.task_id, title="")
        with pytest.raises(AlreadyExistsError):
            tx.tasks.create(title="v", task_id=task.task_id)
        tx.tasks.create(title="w", task_id="other")
    assert store.tasks.get(task.task_id).title == "u"
    assert store.tasks.exists("other")


async def _with_a_task(url: str) -> None:
    async with AsyncStore.open(url) as store:
        task = await store.tasks.create(title="t", metadata={"a": 1})
        await store.tasks.merge_metadata(task.task_id, {"b": 2})
        await store.tasks.transition(task.task_id, "running", by="me")
        await store.lineage.record(task.task_id, kind="commit", ref_id="c")
        async with store.transaction() as tx:
            await tx.audits.record(task.task_id, event_type="e")
            await tx.tasks.update(task.task_id, title="u")
        assert (await store.tasks.get(task.task_id)).title == "u"
        assert [step.to for step in await store.tasks.history(task.task_id)] == ["running"]
        assert (await store.audits.verify()).ok
        assert [t.task_id async for t in store.tasks.iterate(limit=1)] == [task.task_id]
        assert (await store.lineage.graph(task.task_id)).root == f"task:{task.task_id}"
        with pytest.raises(NotFoundError):
            await store.tasks.get("nobody")


def test_the_asynchronous_store_does_the_same(url: str) -> None:
    asyncio.run(_with_a_task(url))


def insert_agent(url: str, agent_id: str) -> None:
    """Put an agent in past the library, whose own repository is another domain's."""
    from sqlalchemy import create_engine, insert

    from agentos_store.agents.models import Agent

    engine = create_engine(url)
    now = dt.datetime.now(dt.UTC)
    row: dict[str, Any] = {}
    for column in Agent.table().columns:
        kind = type(column.type).__name__
        if column.nullable:
            continue
        kinds: dict[str, Any] = {"Int64": 0, "UTCDateTime": now, "JSONValue": {}, "Choice": "idle", "Boolean": False}
        row[column.name] = kinds.get(kind, "")
    row["agent_id"] = agent_id
    row |= {name: [] for name in ("lineage",) if name in row}
    with engine.begin() as connection:
        connection.execute(insert(Agent.table()).values(row))
    engine.dispose()
