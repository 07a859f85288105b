from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.errors import InvalidValueError, NotFoundError


@pytest.fixture
def task(store: Store) -> str:
    return store.tasks.create(title="t").task_id


def test_a_link_comes_back_as_it_was_recorded(store: Store, task: str) -> None:
    made = store.lineage.record(task, kind="commit", ref_id="9f1c2ab", phase="done", metadata={"files": [1, 2]})
    assert store.lineage.get(made.lineage_id).to_dict() == made.to_dict()
    assert store.lineage.find(made.lineage_id) is not None
    assert store.lineage.exists(task, kind="commit", ref_id="9f1c2ab")
    assert not store.lineage.exists(task, kind="commit", ref_id="9f1c2a")


def test_an_unknown_link_is_not_found(store: Store) -> None:
    assert store.lineage.find(1) is None
    with pytest.raises(NotFoundError) as caught:
        store.lineage.get(1)
    assert (caught.value.entity, caught.value.key) == ("lineage link", 1)


def test_the_same_link_again_gives_the_first_row(store: Store, task: str) -> None:
    first = store.lineage.record(task, kind="commit", ref_id="c", phase="a", metadata={"a": 1})
    again = store.lineage.record(task, kind="commit", ref_id="c", phase="b", metadata={"b": 2})
    assert again.to_dict() == first.to_dict()
    assert store.lineage.count(task_id=task) == 1


def test_sixteen_callers_with_one_link_get_one_row(store: Store, task: str) -> None:
    with ThreadPoolExecutor(16) as threads:
        made = list(threads.map(lambda _: store.lineage.record(task, kind="k", ref_id="r").lineage_id, range(16)))
    assert len(set(made)) == 1
    assert store.lineage.count() == 1


def test_an_unknown_task_is_not_found(store: Store) -> None:
    for call in (
        lambda: store.lineage.record("nobody", kind="commit", ref_id="c"),
        lambda: store.lineage.chain("nobody"),
        lambda: store.lineage.graph("nobody"),
    ):
        with pytest.raises(NotFoundError) as caught:
            call()
        assert (caught.value.entity, caught.value.key) == ("task", "nobody")
    assert store.lineage.trace("nothing") == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("kind", {"kind": ""}),
        ("kind", {"kind": "k" * 101}),
        ("ref_id", {"ref_id": ""}),
        ("ref_id", {"ref_id": "r" * 1001}),
        ("ref_id", {"ref_id": "\U0001f600" * 301}),
        ("phase", {"phase": 1}),
        ("metadata", {"metadata": "text"}),
        ("metadata", {"metadata": ["list"]}),
        ("metadata.a", {"metadata": {"a": b""}}),
    ],
)
def test_a_bad_value_is_refused_by_its_name(store: Store, task: str, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.lineage.record(task, **{"kind": "k", "ref_id": "r", **options})
    assert caught.value.name == name
    assert store.lineage.count() == 0


def test_the_longest_link_fits_every_index(store: Store) -> None:
    # Characters that no compression makes shorter.
    rare = "".join(chr(0x10000 + 7919 * n % 0xFFFF) for n in range(300))
    task = store.tasks.create(title="t", task_id=rare[:255], task_type=rare[:255], idempotency_key=rare[:255])
    assert store.lineage.record(task.task_id, kind=rare[:100], ref_id=rare).ref_id == rare
    assert store.lineage.record(task.task_id, kind=rare[:100], ref_id="https://" + "r" * 992)
    store.audits.record(task.task_id, event_type=rare[:255], repo_id=rare[:255], decision_id=rare[:255])
    assert [found.task_id for found in store.lineage.trace(rare)] == [task.task_id]


def test_a_chain_is_in_the_order_of_recording(store: Store, task: str) -> None:
    for number in (3, 1, 2):
        store.lineage.record(task, kind="k", ref_id=str(number))
    assert [link.ref_id for link in store.lineage.chain(task)] == ["3", "1", "2"]
    assert store.lineage.chain(store.tasks.create(title="alone").task_id) == []


def test_a_trace_finds_every_task_once(store: Store) -> None:
    first, second, third = (store.tasks.create(title=str(n)).task_id for n in range(3))
    for task, kind in ((second, "commit"), (first, "commit"), (first, "intent"), (third, "intent")):
        store.lineage.record(task, kind=kind, ref_id="shared")
    store.lineage.record(third, kind="commit", ref_id="other")
    assert [task.task_id for task in store.lineage.trace("shared")] == [second, first, third]
    assert [task.task_id for task in store.lineage.trace("shared", kind="intent")] == [first, third]
    assert store.lineage.trace("shared", kind="no such kind") == []


def test_each_filter_keeps_its_links(store: Store) -> None:
    tasks = [store.tasks.create(title="t").task_id for _ in range(2)]
    made = [
        store.lineage.record(task, kind=kind, ref_id=ref) for task in tasks for kind in ("a", "b") for ref in ("1", "2")
    ]

    def ids(**filters: Any) -> list[int]:
        found = [link.lineage_id for link in store.lineage.iterate(limit=2, **filters)]
        assert store.lineage.count(**filters) == len(found)
        assert [link.lineage_id for link in store.lineage.list(order="-lineage_id", **filters)] == found[::-1]
        return found

    assert ids() == [link.lineage_id for link in made]
    assert ids(task_id=tasks[0]) == [link.lineage_id for link in made[:4]]
    assert ids(kind="a", ref_id="2") == [made[1].lineage_id, made[5].lineage_id]


@pytest.fixture
def shared(store: Store) -> list[str]:
    """Three tasks in a row: each shares a commit with the next."""
    tasks = [store.tasks.create(title=f"task {n}", task_id=f"t{n}").task_id for n in range(3)]
    for task, ref in ((0, "c01"), (1, "c01"), (1, "c12"), (2, "c12"), (2, "c2")):
        store.lineage.record(tasks[task], kind="commit", ref_id=ref, phase="p")
    return tasks


@pytest.mark.parametrize(
    ("depth", "nodes"),
    [
        (1, ["task:t0", "ref:commit:c01"]),
        (2, ["task:t0", "ref:commit:c01", "task:t1"]),
        (3, ["task:t0", "ref:commit:c01", "task:t1", "ref:commit:c12"]),
        (4, ["task:t0", "ref:commit:c01", "task:t1", "ref:commit:c12", "task:t2"]),
        (10**9, ["task:t0", "ref:commit:c01", "task:t1", "ref:commit:c12", "task:t2", "ref:commit:c2"]),
    ],
)
def test_a_graph_goes_as_far_as_its_depth(store: Store, shared: list[str], depth: int, nodes: list[str]) -> None:
    graph = store.lineage.graph("t0", depth=depth)
    assert [node.id for node in graph.nodes] == nodes
    assert (graph.root, graph.truncated) == ("task:t0", False)
    ids = set(nodes)
    assert all(edge.source in ids and edge.target in ids for edge in graph.edges)
    assert len(graph.edges) == len(nodes) - 1
    assert {edge.phase for edge in graph.edges} == {"p"}


def test_a_graph_that_is_cut_says_so(store: Store, shared: list[str]) -> None:
    for limit in range(1, 7):
        graph = store.lineage.graph("t0", depth=9, limit=limit)
        assert len(graph.nodes) == limit
        assert graph.truncated == (limit < 6)


@pytest.mark.parametrize(("name", "value"), [("depth", 0), ("limit", 0), ("depth", True), ("limit", "5")])
def test_a_graph_has_at_least_one_step_and_one_node(store: Store, task: str, name: str, value: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.lineage.graph(task, **{name: value})
    assert caught.value.name == name


def test_two_references_are_never_one_node(store: Store, task: str) -> None:
    for kind, ref in (("a", "b:c"), ("a:b", "c"), ("a%3Ab", "c")):
        store.lineage.record(task, kind=kind, ref_id=ref)
    graph = store.lineage.graph(task)
    assert len({node.id for node in graph.nodes}) == 4


HOSTILE = [
    'say "hi"]; click n0 "javascript:alert(1)"',
    "<script>alert(1)</script>",
    "two\nlines\r\nand\tmore\u2028end",
    "`**bold**`",
    "%%{init: {'securityLevel': 'loose'}}%%",
    "&lt;b&gt; #quot; #35; style x:#fff;",
    "a<br/>b",
    "$$\\frac{1}{2}$$ | ~ ^ @{shape: cyl} ::: class",
    "\x1b[31mred",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_stays_a_label(store: Store, text: str) -> None:
    task = store.tasks.create(title=text).task_id
    store.lineage.record(task, kind=text, ref_id=text)
    lines = store.lineage.graph(task).mermaid().splitlines()
    label = r'"(?:[^\x00-\x1f"`<>%&$:|^~@{}\[\]\\]|<br/>)*"'
    assert lines[0] == "flowchart LR"
    assert re.fullmatch(rf"    n0\[{label}\]", lines[1])
    assert re.fullmatch(rf"    n1\({label}\)", lines[2])
    assert lines[3:] == ["    n0 --> n1"]
    shown = re.sub(r"#(\d+);", lambda found: chr(int(found[1])), lines[1])
    expected = "".join(character if character.isprintable() else " " for character in text)
    assert shown == f'    n0["{expected}<br/>created"]'


def test_chinese_is_shown_as_it_is(store: Store) -> None:
    task = store.tasks.create(title="今天天气（北京）怎么样？ 😀").task_id
    assert '["今天天气（北京）怎么样？ 😀<br/>created"]' in store.lineage.graph(task).mermaid()
