from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos_store import AsyncStore, CycleError, InvalidValueError, NotFoundError, Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, insert_into
from agentos_store.operation import Blocking, Repository, writes
from agentos_store.tasks.link_models import TaskDependency
from agentos_store.tasks.models import Task
from agentos_store.types import now


def add_tasks(store: Store, *names: str, **options: Any) -> None:
    with store.transaction() as tx:
        for name in names:
            tx.tasks.create(title=name, task_id=name, **options)


def links(store: Store) -> set[tuple[str, str]]:
    return {(link.task_id, link.depends_on_task_id) for link in store.tasks.iterate_dependencies()}


def keys(tasks: Iterable[Task]) -> list[str]:
    return [task.task_id for task in tasks]


def chain(store: Store, *names: str) -> None:
    """Let each depend on the one before it."""
    for needed, name in pairwise(names):
        store.tasks.add_dependency(name, needed)


class Loader(Repository[Blocking]):
    """Adds many links at once, as an import does that has checked them."""

    name = "loader"

    @writes
    def load(self, session: Session, edges: Sequence[tuple[str, str]]) -> None:
        time = session.now()
        rows: list[dict[str, Any]] = [
            {
                "task_id": task,
                "depends_on_task_id": needed,
                "dependency_type": "blocks",
                "reason": None,
                "created_by": None,
                "metadata": {},
                "created_at": time,
            }
            for task, needed in edges
        ]
        session.execute_many(Statement(insert_into(TaskDependency), lasting=False), rows)

    @writes
    def add_tasks(self, session: Session, names: Sequence[str]) -> None:
        same: dict[str, Any] = dict.fromkeys(Task.table().c.keys()) | {
            "title": "t",
            "status": "created",
            "task_type": "",
            "priority": 0,
            "attempts": 0,
            "max_attempts": 3,
            "lease_token": 0,
            "version": 1,
            "metadata": {},
        }
        rows: list[dict[str, Any]] = []
        for name in names:
            # Times that grow with the position, so that ties are broken as the names are given.
            time = now()
            rows.append(same | {"task_id": name, "created_at": time, "updated_at": time})
        session.execute_many(Statement(insert_into(Task), lasting=False), rows)


@pytest.fixture
def loader(store: Store) -> Loader:
    return store.bind(Loader)


# --- links


def test_a_link_says_what_depends_on_what_and_why(store: Store) -> None:
    add_tasks(store, "a", "b")
    link = store.tasks.add_dependency(
        "b", "a", dependency_type="requires", reason="the schema", created_by="me", metadata={"rule": 1}
    )
    assert (link.task_id, link.depends_on_task_id, link.dependency_type) == ("b", "a", "requires")
    assert (link.reason, link.created_by, link.metadata_) == ("the schema", "me", {"rule": 1})
    (found,) = store.tasks.list_dependencies(task_id="b")
    assert found.to_dict() == link.to_dict()
    assert store.tasks.list_dependencies(depends_on_task_id="a").items[0].to_dict() == link.to_dict()
    assert store.tasks.list_dependencies(task_id="a").items == []


@pytest.mark.parametrize("first", ["suggests", "requires", "blocks"])
@pytest.mark.parametrize("second", ["suggests", "requires", "blocks"])
def test_the_same_pair_again_is_the_first_link_at_the_stronger_type(store: Store, first: str, second: str) -> None:
    add_tasks(store, "a", "b")
    one = store.tasks.add_dependency("b", "a", dependency_type=first, reason="one")
    two = store.tasks.add_dependency("b", "a", dependency_type=second, reason="two")
    strength = ["suggests", "requires", "blocks"]
    stronger = max(first, second, key=strength.index)
    assert two.to_dict() == one.to_dict() | {"dependency_type": stronger}
    assert [link.to_dict() for link in store.tasks.list_dependencies()] == [two.to_dict()]


def test_a_link_is_removed_once(store: Store) -> None:
    add_tasks(store, "a", "b")
    store.tasks.add_dependency("b", "a")
    store.tasks.remove_dependency("b", "a")
    assert links(store) == set()
    with pytest.raises(NotFoundError) as caught:
        store.tasks.remove_dependency("b", "a")
    assert (caught.value.entity, caught.value.key) == ("dependency", ("b", "a"))
    store.tasks.add_dependency("a", "b")


@pytest.mark.parametrize(
    ("task", "needed", "missing"), [("nobody", "a", "nobody"), ("a", "nobody", "nobody"), ("no", "body", "no")]
)
def test_an_unknown_task_is_named(store: Store, task: str, needed: str, missing: str) -> None:
    add_tasks(store, "a")
    with pytest.raises(NotFoundError) as caught:
        store.tasks.add_dependency(task, needed)
    assert (caught.value.entity, caught.value.key) == ("task", missing)
    assert links(store) == set()


BAD: list[tuple[str, dict[str, Any]]] = [
    ("task_id", {"task_id": ""}),
    ("task_id", {"task_id": None}),
    ("depends_on_task_id", {"depends_on_task_id": "a\nb"}),
    ("dependency_type", {"dependency_type": "needs"}),
    ("dependency_type", {"dependency_type": None}),
    ("reason", {"reason": "a\0b"}),
    ("metadata", {"metadata": 5}),
    ("metadata.a", {"metadata": {"a": float("nan")}}),
]


@pytest.mark.parametrize(("name", "options"), BAD)
def test_a_bad_value_is_refused_by_its_name(store: Store, name: str, options: dict[str, Any]) -> None:
    add_tasks(store, "a", "b")
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.add_dependency(**{"task_id": "b", "depends_on_task_id": "a", **options})
    assert caught.value.name == name
    assert links(store) == set()


def test_links_go_with_either_of_their_tasks(store: Store) -> None:
    add_tasks(store, "a", "b", "c", "d")
    chain(store, "a", "b", "c", "d")
    store.tasks.delete("b")
    assert links(store) == {("d", "c")}
    assert keys(store.tasks.ancestors("d")) == ["c"]


# --- circles


@pytest.mark.parametrize("length", [1, 2, 3, 40])
def test_a_circle_is_refused_with_its_path_and_changes_nothing(store: Store, length: int) -> None:
    names = [f"t{number:02}" for number in range(length)]
    add_tasks(store, *names)
    chain(store, *names)
    before = links(store)
    with pytest.raises(CycleError) as caught:
        store.tasks.add_dependency(names[0], names[-1])
    assert caught.value.path == (names[0], *names[::-1])
    assert links(store) == before


def test_the_shortest_circle_is_shown(store: Store) -> None:
    add_tasks(store, *"abcd")
    chain(store, *"abcd")
    store.tasks.add_dependency("d", "a")
    with pytest.raises(CycleError) as caught:
        store.tasks.add_dependency("a", "d")
    assert caught.value.path == ("a", "d", "a")


def test_a_refused_circle_leaves_its_transaction_usable(store: Store) -> None:
    add_tasks(store, *"abc")
    with store.transaction() as tx:
        tx.tasks.add_dependency("b", "a")
        with pytest.raises(CycleError):
            tx.tasks.add_dependency("a", "b")
        tx.tasks.add_dependency("c", "b")
    assert links(store) == {("b", "a"), ("c", "b")}


def race(store: Store, rounds: int, edges_of: Callable[[int], Sequence[tuple[str, str]]]) -> list[int]:
    """Add the edges of each round at once, each by a thread of its own; return how many each round refused."""
    width = len(edges_of(0))
    barrier = threading.Barrier(width, timeout=60)

    def add(edge: tuple[str, str]) -> int:
        barrier.wait()
        try:
            store.tasks.add_dependency(*edge)
        except CycleError as error:
            return int(error.path[:2] == edge and error.path[-1] == edge[0])
        return 0

    with ThreadPoolExecutor(width) as threads:
        return [sum(threads.map(add, edges_of(number))) for number in range(rounds)]


def test_of_two_links_that_close_a_circle_together_one_is_refused(store: Store) -> None:
    add_tasks(store, *(f"{name}{number}" for number in range(50) for name in "ab"))
    refused = race(store, 50, lambda number: [(f"a{number}", f"b{number}"), (f"b{number}", f"a{number}")])
    assert refused == [1] * 50
    assert len(store.tasks.topological_order()) == 100


def test_of_four_links_that_close_a_circle_together_one_is_refused(store: Store) -> None:
    add_tasks(store, *(f"{name}{number}" for number in range(20) for name in "abcd"))
    pairs = ("ab", "bc", "cd", "da")
    refused = race(store, 20, lambda number: [(f"{pair[0]}{number}", f"{pair[1]}{number}") for pair in pairs])
    assert refused == [1] * 20
    assert len(store.tasks.topological_order()) == 80


def test_one_pair_added_by_eight_threads_is_one_link(store: Store) -> None:
    add_tasks(store, "a", "b")
    types = ["suggests", "requires", "blocks"] * 3
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda kind: store.tasks.add_dependency("b", "a", dependency_type=kind), types))
    assert len({link.dependency_id for link in found}) == 1
    assert store.tasks.list_dependencies().items[0].dependency_type == "blocks"


def test_a_link_that_is_strengthened_and_removed_at_once_is_there_or_not(store: Store) -> None:
    add_tasks(store, "a", "b")

    def strengthen() -> None:
        for kind in ("suggests", "requires", "blocks") * 20:
            assert store.tasks.add_dependency("b", "a", dependency_type=kind).depends_on_task_id == "a"

    def remove() -> None:
        for _ in range(60):
            try:
                store.tasks.remove_dependency("b", "a")
            except NotFoundError:
                continue

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(work) for work in (strengthen, remove, strengthen, remove)]:
            future.result()
    assert links(store) <= {("b", "a")}


# --- orders


def test_what_a_task_depends_on_comes_before_it_and_what_depends_on_it_after(store: Store) -> None:
    add_tasks(store, *"abcdef")
    for task, needed in ("ca", "cb", "dc", "ec", "ed", "fa"):
        store.tasks.add_dependency(task, needed)
    assert keys(store.tasks.ancestors("e")) == ["a", "b", "c", "d"]
    assert keys(store.tasks.descendants("a")) == ["c", "d", "e", "f"]
    assert store.tasks.ancestors("a") == store.tasks.descendants("f") == []
    assert store.tasks.topological_order() == list("abcdef")
    assert store.tasks.ancestors("c")[0].to_dict() == store.tasks.get("a").to_dict()
    for ask in (store.tasks.ancestors, store.tasks.descendants):
        with pytest.raises(NotFoundError):
            ask("nobody")


def test_the_order_of_a_project_leaves_other_tasks_out(store: Store) -> None:
    for name in ("p", "q"):
        store.projects.create(id=name, name=name, path="/tmp")
    add_tasks(store, "z", "a", project_id="p")
    add_tasks(store, "m", project_id="q")
    store.tasks.add_dependency("z", "m")
    store.tasks.add_dependency("m", "a")
    assert store.tasks.topological_order(project_id="p") == ["z", "a"]
    assert store.tasks.topological_order(project_id="nobody") == []
    store.tasks.add_dependency("z", "a")
    assert store.tasks.topological_order(project_id="p") == ["a", "z"]
    assert store.tasks.topological_order() == ["a", "m", "z"]


def simple_order(names: Sequence[str], edges: set[tuple[str, str]]) -> list[str]:
    """Of the tasks that need nothing which is still missing, take the first, again and again."""
    ordered: list[str] = []
    while len(ordered) < len(names):
        ordered.append(
            next(
                name
                for name in names
                if name not in ordered and all(needed in ordered for task, needed in edges if task == name)
            )
        )
    return ordered


def simple_reach(start: str, edges: set[tuple[str, str]]) -> set[str]:
    reached: set[str] = set()
    while True:
        more = {needed for task, needed in edges if task == start or task in reached} - reached
        if not more:
            return reached
        reached |= more


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_orders_and_circles_are_those_of_a_simple_reference(store: Store, loader: Loader, data: st.DataObject) -> None:
    names = [f"t{number}" for number in data.draw(st.permutations(range(8)))]
    for task in list(store.tasks.iterate()):
        store.tasks.delete(task.task_id)
    loader.add_tasks(names)
    edges: set[tuple[str, str]] = set()
    for one, two in data.draw(st.lists(st.tuples(st.sampled_from(names), st.sampled_from(names)), max_size=16)):
        closes = one == two or one in simple_reach(two, edges)
        try:
            store.tasks.add_dependency(one, two)
        except CycleError as error:
            assert closes
            path = error.path
            assert path[:2] == (one, two)
            assert set(pairwise(path[1:])) <= edges
        else:
            assert not closes
            edges.add((one, two))
    assert links(store) == edges
    order = simple_order(names, edges)
    assert store.tasks.topological_order() == order
    backwards = {(needed, task) for task, needed in edges}
    for name in names:
        up, down = simple_reach(name, edges), simple_reach(name, backwards)
        inside = [{edge for edge in edges if set(edge) <= reached} for reached in (up, down)]
        assert keys(store.tasks.ancestors(name)) == simple_order([n for n in names if n in up], inside[0])
        assert keys(store.tasks.descendants(name)) == simple_order([n for n in names if n in down], inside[1])


def test_a_chain_of_five_thousand_links_works(store: Store, loader: Loader) -> None:
    names = [f"t{number:04}" for number in range(5001)]
    edges = list(zip(names[1:], names, strict=False))
    random.Random(1).shuffle(edges)
    loader.add_tasks(names)
    loader.load(edges)
    assert keys(store.tasks.ancestors(names[-1])) == names[:-1]
    assert keys(store.tasks.descendants(names[0])) == names[1:]
    assert store.tasks.topological_order() == names
    with pytest.raises(CycleError) as caught:
        store.tasks.add_dependency(names[0], names[-1])
    assert caught.value.path == (names[0], *names[::-1])
    assert store.tasks.add_dependency(names[-1], names[0]).depends_on_task_id == names[0]
    store.tasks.create(title="t", task_id="new")
    for needed in names[::500]:
        store.tasks.add_dependency("new", needed)
    assert len(store.tasks.ancestors("new")) == 5001


def test_a_chain_grows_link_by_link(store: Store, loader: Loader) -> None:
    names = [f"t{number:03}" for number in range(300)]
    loader.add_tasks(names)
    edges = list(zip(names[1:], names, strict=False))
    random.Random(2).shuffle(edges)
    for edge in edges:
        store.tasks.add_dependency(*edge)
    assert store.tasks.topological_order() == names


# --- guesses


def test_the_later_user_of_an_artifact_depends_on_the_earlier_ones(store: Store) -> None:
    add_tasks(store, *"abcd")
    for task in "abc":
        store.tasks.add_artifact(task, "r", "file", "src/main.py")
    store.tasks.add_artifact("a", "r", "branch", "fix")
    store.tasks.add_artifact("c", "r", "branch", "fix")
    store.tasks.add_artifact("d", "other", "file", "src/main.py")
    made = store.tasks.infer_dependencies("c")
    assert [(link.task_id, link.depends_on_task_id) for link in made] == [("c", "a"), ("c", "b")]
    assert {link.dependency_type for link in made} == {"suggests"}
    assert made[0].created_by == "auto_detect"
    assert made[0].metadata_ == {"rule": "artifact_ref", "ref_type": "file", "ref_value": "src/main.py"}
    assert store.tasks.infer_dependencies("a") == store.tasks.infer_dependencies("d") == []
    again = store.tasks.infer_dependencies("c", dependency_type="blocks")
    assert [link.dependency_id for link in again] == [link.dependency_id for link in made]
    assert {link.dependency_type for link in again} == {"blocks"}
    assert links(store) == {("c", "a"), ("c", "b")}


def test_a_guess_that_would_close_a_circle_is_left_out_and_the_others_are_made(store: Store) -> None:
    add_tasks(store, *"abc")
    for task in "abc":
        store.tasks.add_artifact(task, "r", "file", "src/main.py")
    store.tasks.add_dependency("a", "c")
    assert [link.depends_on_task_id for link in store.tasks.infer_dependencies("c")] == ["b"]
    assert links(store) == {("a", "c"), ("c", "b")}


def test_two_tasks_that_were_each_the_first_at_something_close_no_circle(store: Store) -> None:
    add_tasks(store, "a", "b")
    for task, value in (("a", "x"), ("b", "x"), ("b", "y"), ("a", "y")):
        store.tasks.add_artifact(task, "r", "file", value)
    assert len(store.tasks.infer_dependencies("a")) == 1
    assert store.tasks.infer_dependencies("b") == []


def test_a_guess_about_an_unknown_task_or_of_an_unknown_type_is_refused(store: Store) -> None:
    add_tasks(store, "a")
    with pytest.raises(NotFoundError):
        store.tasks.infer_dependencies("nobody")
    with pytest.raises(InvalidValueError):
        store.tasks.infer_dependencies("a", dependency_type="needs")


# --- graphs


def test_a_graph_shows_both_directions_as_far_as_asked(store: Store) -> None:
    add_tasks(store, *"abcdefg")
    chain(store, *"abcde")
    store.tasks.add_dependency("d", "f", dependency_type="suggests")
    graph = store.tasks.graph("c", depth=1)
    assert [node.task_id for node in graph.nodes] == ["c", "b", "d"]
    assert {(edge.task_id, edge.depends_on_task_id) for edge in graph.edges} == {("c", "b"), ("d", "c")}
    assert not graph.truncated
    graph = store.tasks.graph("c")
    assert {node.task_id for node in graph.nodes} == set("abcde")
    assert {(edge.task_id, edge.depends_on_task_id) for edge in graph.edges} == {
        ("c", "b"),
        ("b", "a"),
        ("d", "c"),
        ("e", "d"),
    }
    assert (graph.nodes[0].title, graph.nodes[0].status) == ("c", "created")


def test_a_graph_beyond_its_limit_says_so(store: Store) -> None:
    add_tasks(store, "root", *(f"t{number}" for number in range(9)))
    for number in range(9):
        store.tasks.add_dependency("root", f"t{number}")
    whole = store.tasks.graph("root", limit=10)
    assert (len(whole.nodes), len(whole.edges), whole.truncated) == (10, 9, False)
    part = store.tasks.graph("root", limit=4)
    assert (len(part.nodes), len(part.edges), part.truncated) == (4, 3, True)
    alone = store.tasks.graph("root", limit=1)
    assert (len(alone.nodes), len(alone.edges), alone.truncated) == (1, 0, True)


def test_each_link_is_drawn_once_however_many_ways_lead_to_it(store: Store) -> None:
    add_tasks(store, *"abcd")
    for task, needed in ("ba", "ca", "db", "dc", "da"):
        store.tasks.add_dependency(task, needed)
    graph = store.tasks.graph("d")
    assert len(graph.edges) == len(set(graph.edges)) == 5


def test_the_graph_of_a_project_shows_what_its_tasks_need_elsewhere(store: Store) -> None:
    store.projects.create(id="p", name="p", path="/tmp")
    add_tasks(store, "a", "b", project_id="p")
    add_tasks(store, "x", "y")
    store.tasks.add_dependency("b", "a")
    store.tasks.add_dependency("a", "x")
    store.tasks.add_dependency("y", "a")
    graph = store.tasks.project_graph("p")
    assert [node.task_id for node in graph.nodes] == ["a", "b", "x"]
    assert {(edge.task_id, edge.depends_on_task_id) for edge in graph.edges} == {("b", "a"), ("a", "x")}
    assert not graph.truncated
    assert store.tasks.project_graph("p", limit=2).truncated
    assert store.tasks.project_graph("p", limit=1).truncated
    assert store.tasks.project_graph("nobody").nodes == ()


@pytest.mark.parametrize("bad", [0, -1, True, "5", 10_001])
@pytest.mark.parametrize("name", ["depth", "limit"])
def test_a_graph_needs_a_depth_and_a_limit(store: Store, name: str, bad: Any) -> None:
    add_tasks(store, "a")
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.graph("a", **{name: bad})
    assert caught.value.name == name
    if name == "limit":
        with pytest.raises(InvalidValueError):
            store.tasks.project_graph("p", limit=bad)
    with pytest.raises(NotFoundError):
        store.tasks.graph("nobody")


def test_a_diagram_leads_from_what_is_needed_to_what_needs_it(store: Store) -> None:
    store.tasks.create(task_id="a", title='he said "stop" <b>')
    store.tasks.create(task_id="b", title="重构解析器")
    store.tasks.create(task_id="c", title="c")
    store.tasks.add_dependency("b", "a")
    store.tasks.add_dependency("c", "b", dependency_type="suggests")
    assert store.tasks.graph("b").mermaid() == (
        "flowchart LR\n"
        '    n0["重构解析器<br/>created"]\n'
        '    n1["he said #34;stop#34; #60;b#62;<br/>created"]\n'
        '    n2["c<br/>created"]\n'
        "    n1 --> n0\n"
        "    n0 -.-> n2\n"
    )
    assert store.tasks.project_graph("nobody").mermaid() == "flowchart LR\n"


def test_links_work_from_an_event_loop(url: str) -> None:
    async def work() -> None:
        async with AsyncStore.open(url) as store:
            for name in "abc":
                await store.tasks.create(title=name, task_id=name)
            await store.tasks.add_dependency("b", "a")
            racing = [store.tasks.add_dependency("c", "b"), store.tasks.add_dependency("b", "c")]
            outcomes = await asyncio.gather(*racing, return_exceptions=True)
            assert sum(isinstance(outcome, CycleError) for outcome in outcomes) == 1
            found = [link.depends_on_task_id async for link in store.tasks.iterate_dependencies(limit=1)]
            assert sorted(found) in (["a", "b"], ["a", "c"])
            assert "a" in [task.task_id for task in await store.tasks.ancestors("b")]
            assert len((await store.tasks.graph("b")).edges) == 2
            await store.tasks.set_scope("a", "r", "paths", path_filters=["src/"])
            assert await store.tasks.may_touch("a", "r", "src/x.py")
            await store.tasks.add_artifact("a", "r", "commit", "9f1c2ab")
            assert [task.task_id for task in await store.tasks.list_by_artifact("commit", "9f1c2ab")] == ["a"]
            assert await store.audits.decision_trace("a") == []

    asyncio.run(work())
