"""What tasks depend on, may touch and made, read: nothing is lost, no circle comes in, and no right is gained."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeVar

import pytest

from agentos_store.importers.agentos.circles import Acyclic
from agentos_store.importers.agentos.records import DependencyRecord, ScopeRecord
from agentos_store.importers.agentos.registry import open_registry
from agentos_store.importers.problems import Problem

T = TypeVar("T")
Small = Callable[..., Path]

DEPENDS = (
    "INSERT INTO task_dependency (task_id, depends_on_task_id, dependency_type, reason, created_at)"
    " SELECT a.task_id, b.task_id, ?, ?, '2026-01-12'"
    " FROM (SELECT task_id FROM tasks ORDER BY rowid LIMIT 1 OFFSET ?) a,"
    " (SELECT task_id FROM tasks ORDER BY rowid LIMIT 1 OFFSET ?) b"
)
CLEAR = ("DELETE FROM task_dependency", ())


def depends(
    task: int, needed: int, kind: str | None = "blocks", reason: str | None = None
) -> tuple[str, tuple[object, ...]]:
    return DEPENDS, (kind, reason, task, needed)


def split(items: Iterable[T | Problem]) -> tuple[list[T], list[str]]:
    read = list(items)
    return (
        [item for item in read if not isinstance(item, Problem)],
        [item.reason for item in read if isinstance(item, Problem)],
    )


def links_of(path: Path) -> tuple[list[DependencyRecord], list[str]]:
    with open_registry(path) as registry:
        return split(registry.dependencies())


def scopes_of(path: Path) -> tuple[list[ScopeRecord], list[str]]:
    with open_registry(path) as registry:
        return split(registry.scopes())


@pytest.mark.parametrize("types", list(itertools.permutations(["suggests", "requires", "blocks"])))
def test_of_several_types_of_a_pair_the_strongest_counts(small: Small, types: tuple[str, ...]) -> None:
    path = small(CLEAR, *(depends(1, 0, kind, f"reason {kind}") for kind in types))
    (link,), aside = links_of(path)
    assert (link.dependency_type, link.merged, aside) == ("blocks", 2, [])
    assert link.reason == f"reason {types[0]}"
    assert link.metadata is not None
    rows = link.metadata["agentos_merged"]
    assert isinstance(rows, list)
    assert [row["reason"] for row in rows if isinstance(row, dict)] == [f"reason {kind}" for kind in types]
    assert len(link.repairs) == 1


def test_the_row_that_closes_a_circle_is_set_aside_with_the_way_around(small: Small) -> None:
    path = small(CLEAR, depends(1, 0), depends(2, 1), depends(0, 2), depends(0, 2, "suggests"), depends(2, 0))
    links, aside = links_of(path)
    assert len(links) == 3
    with open_registry(path) as registry:
        ids = [task.task_id for task in registry.tasks() if not isinstance(task, Problem)]
    assert aside == [
        f"it closes a circle: {ids[0]} → {ids[2]} → {ids[1]} → {ids[0]}",
        "an earlier row of the same pair was set aside, for it closes a circle",
    ]


def test_a_task_does_not_depend_on_itself_or_on_one_that_is_gone(small: Small) -> None:
    gone = "INSERT INTO task_dependency (task_id, depends_on_task_id) SELECT task_id, 'gone' FROM tasks LIMIT 1"
    lost = "INSERT INTO task_dependency (task_id, depends_on_task_id) SELECT 'gone', task_id FROM tasks LIMIT 1"
    links, aside = links_of(small(CLEAR, depends(0, 0), (gone, ()), (lost, ())))
    assert links == []
    assert aside == [
        "a task cannot depend on itself",
        "the task that it depends on is not in the registry",
        "its task is not in the registry",
    ]


@pytest.mark.parametrize(
    ("found", "kind", "repaired"),
    [("BLOCKS", "blocks", False), ("needs", "blocks", True), (None, "blocks", True), (" suggests", "suggests", False)],
)
def test_an_unknown_type_holds_the_task_back(small: Small, found: str | None, kind: str, repaired: bool) -> None:
    (link,), _ = links_of(small(CLEAR, depends(1, 0, found)))
    assert (link.dependency_type, bool(link.repairs)) == (kind, repaired)


def test_links_are_refused_exactly_when_they_close_a_circle() -> None:
    chance = random.Random(7)
    for _ in range(300):
        tasks = [str(number) for number in range(chance.randrange(2, 9))]
        graph = Acyclic()
        kept: dict[str, set[str]] = {}
        for _ in range(20):
            task, needed = chance.choice(tasks), chance.choice(tasks)
            trial = {**kept, task: {*kept.get(task, ()), needed}}
            circle = graph.add(task, needed)
            try:
                tuple(TopologicalSorter(trial).static_order())
            except CycleError:
                assert circle is not None
                assert circle[0] == circle[-1] == task
                assert circle[1] == needed
                assert all(there in trial[here] for here, there in itertools.pairwise(circle))
            else:
                assert circle is None
                kept = trial


@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
def test_a_long_chain_is_checked_whatever_its_order(order: str) -> None:
    pairs = [(f"{number:05}", f"{number - 1:05}") for number in range(1, 5001)]
    if order == "backward":
        pairs.reverse()
    elif order == "shuffled":
        random.Random(1).shuffle(pairs)
    graph = Acyclic()
    assert all(graph.add(task, needed) is None for task, needed in pairs)
    circle = graph.add("00000", "05000")
    assert circle is not None
    assert len(circle) == 5002


def set_scope(scope: str | None, filters: str | None) -> tuple[tuple[str, tuple[object, ...]], ...]:
    return (
        ("DELETE FROM task_repo_scope WHERE scope_id > 1", ()),
        ("UPDATE task_repo_scope SET scope = ?, path_filters = ?", (scope, filters)),
    )


@pytest.mark.parametrize(
    ("scope", "filters"),
    [
        (None, None),
        ("", None),
        ("everything", None),
        ("paths", None),
        ("paths", "[]"),
        ("paths", '["src/**", "docs'),
        ("paths", '["src/**", 5]'),
        ("paths", '["src/**", ""]'),
        ("paths", '{"src": 1}'),
        ("paths", '"src"'),
        ("paths", '["src/\\u0000"]'),
        ("paths", '["src/**", "# notes"]'),
        ("paths", '["src/**", " "]'),
        ("paths", '["src/**", "!"]'),
        ("paths", '["src/**\\n!src/keys"]'),
        ("full", '["src/**"]'),
        ("read_only", '["src/**"]'),
    ],
)
def test_a_scope_in_doubt_gives_no_right_at_all(small: Small, scope: str | None, filters: str | None) -> None:
    scopes, aside = scopes_of(small(*set_scope(scope, filters)))
    assert scopes == []
    assert len(aside) == 1
    assert "may touch nothing there" in aside[0]


@pytest.mark.parametrize(
    ("scope", "filters", "read", "patterns", "repaired"),
    [
        ("full", None, "full", [], False),
        ("full", "[]", "full", [], False),
        ("read_only", "null", "read_only", [], False),
        ("Read-Only", "", "read_only", [], True),
        ("paths", '["a/**", "!a/b", "\\u6587"]', "paths", ["a/**", "!a/b", "文"], False),
        ("paths", "['a/**', '!a/b']", "paths", ["a/**", "!a/b"], True),
    ],
)
def test_a_clear_scope_arrives_with_its_patterns_in_order(
    small: Small, scope: str, filters: str | None, read: str, patterns: list[str], repaired: bool
) -> None:
    (record,), aside = scopes_of(small(*set_scope(scope, filters)))
    assert (record.scope, record.path_filters, bool(record.repairs), aside) == (read, patterns, repaired, [])


@pytest.mark.parametrize(
    ("second", "kept"),
    [(("full", None), True), (("read_only", None), False), (("paths", '["a"]'), False), (("paths", "["), False)],
)
def test_rows_about_one_repository_count_only_when_they_agree(
    small: Small, second: tuple[str, str | None], kept: bool
) -> None:
    copy = (
        "INSERT INTO task_repo_scope (task_id, repo_id, scope, path_filters, created_at, metadata)"
        " SELECT task_id, repo_id, ?, ?, '2026-01-12', '{\"second\": true}' FROM task_repo_scope"
    )
    scopes, aside = scopes_of(small(*set_scope("full", None), (copy, second)))
    assert [(scope.scope, scope.merged) for scope in scopes] == ([("full", 1)] if kept else [])
    assert len(aside) == (0 if kept else 2)
    if kept:
        assert scopes[0].metadata is not None
        assert json.dumps(scopes[0].metadata["agentos_merged"]).count("second") == 1


@pytest.mark.parametrize(
    ("ref_type", "value", "read"),
    [
        ("commit", "a" * 1000, True),
        ("PR", "12", True),
        ("commit", "a" * 1001, False),
        ("commit", "文" * 900, False),
        ("commit", None, False),
        ("tarball", "x", False),
        (None, "x", False),
    ],
)
def test_an_artifact_that_no_index_holds_is_set_aside(
    small: Small, ref_type: str | None, value: str | None, read: bool
) -> None:
    path = small(
        ("DELETE FROM task_artifact_ref WHERE artifact_id > 1", ()),
        ("UPDATE task_artifact_ref SET ref_type = ?, ref_value = ?", (ref_type, value)),
    )
    with open_registry(path) as registry:
        artifacts, aside = split(registry.artifacts())
    assert (len(artifacts), len(aside)) == ((1, 0) if read else (0, 1))
