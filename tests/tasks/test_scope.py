from __future__ import annotations

from typing import Any

import pytest

from agentos_store import InvalidValueError, NotFoundError, Store
from agentos_store.tasks.models import Task


@pytest.fixture
def task(store: Store) -> Task:
    return store.tasks.create(title="t", task_id="t")


def allowed(store: Store, filters: list[str], *paths: str) -> list[str]:
    store.tasks.set_scope("t", "r", "paths", path_filters=filters)
    return [path for path in paths if store.tasks.may_touch("t", "r", path)]


@pytest.mark.usefixtures("task")
def test_a_scope_is_said_replaced_listed_and_taken_back(store: Store) -> None:
    first = store.tasks.set_scope("t", "r", "paths", path_filters=("src/**",), metadata={"by": "me"})
    assert (first.task_id, first.repo_id, first.scope) == ("t", "r", "paths")
    assert (first.path_filters, first.metadata_) == (["src/**"], {"by": "me"})
    second = store.tasks.set_scope("t", "r", "read_only")
    assert second.scope_id == first.scope_id
    assert (second.scope, second.path_filters, second.metadata_) == ("read_only", [], {})
    assert second.created_at > first.created_at
    store.tasks.set_scope("t", "other")
    assert [scope.to_dict() for scope in store.tasks.list_scopes(repo_id="r")] == [second.to_dict()]
    assert [scope.repo_id for scope in store.tasks.list_scopes(task_id="t", limit=1)] == ["r"]
    assert store.tasks.list_scopes(task_id="nobody").items == []
    store.tasks.remove_scope("t", "r")
    with pytest.raises(NotFoundError) as caught:
        store.tasks.remove_scope("t", "r")
    assert (caught.value.entity, caught.value.key) == ("scope", ("t", "r"))
    store.tasks.delete("t")
    assert store.tasks.list_scopes().items == []


def test_a_scope_needs_its_task(store: Store) -> None:
    with pytest.raises(NotFoundError) as caught:
        store.tasks.set_scope("nobody", "r")
    assert (caught.value.entity, caught.value.key) == ("task", "nobody")


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("scope", {"scope": "some"}),
        ("scope", {"scope": None}),
        ("path_filters", {"scope": "paths"}),
        ("path_filters", {"scope": "full", "path_filters": ["src/"]}),
        ("path_filters", {"scope": "read_only", "path_filters": ["src/"]}),
        ("path_filters", {"scope": "paths", "path_filters": "src/**"}),
        ("path_filters", {"scope": "paths", "path_filters": None}),
        ("path_filters", {"scope": "paths", "path_filters": {"src/"}}),
        ("path_filters[1]", {"scope": "paths", "path_filters": ["src/", ""]}),
        ("path_filters[0]", {"scope": "paths", "path_filters": [5]}),
        ("path_filters[0]", {"scope": "paths", "path_filters": ["  "]}),
        ("path_filters[0]", {"scope": "paths", "path_filters": ["# all"]}),
        ("path_filters[0]", {"scope": "paths", "path_filters": ["!"]}),
        ("path_filters[0]", {"scope": "paths", "path_filters": ["src/\nlib/"]}),
        ("path_filters[0]", {"scope": "paths", "path_filters": ["a\0b"]}),
        ("path_filters[0]", {"scope": "paths", "path_filters": ["\ud800"]}),
        ("metadata", {"metadata": [1]}),
        ("repo_id", {"repo_id": ""}),
    ],
)
def test_what_is_no_scope_is_refused_by_its_name(store: Store, name: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.set_scope(**{"task_id": "t", "repo_id": "r", **options})
    assert caught.value.name == name
    assert store.tasks.list_scopes().items == []


@pytest.mark.usefixtures("task")
def test_a_task_may_touch_what_its_scope_says(store: Store) -> None:
    def may() -> tuple[bool, bool]:
        write = store.tasks.may_touch("t", "r", "src/x.py")
        return write, store.tasks.may_touch("t", "r", "src/x.py", write=False)

    assert may() == (False, False)
    store.tasks.set_scope("t", "r")
    assert may() == (True, True)
    store.tasks.set_scope("t", "r", "read_only")
    assert may() == (False, True)
    store.tasks.set_scope("t", "r", "paths", path_filters=["docs/"])
    assert may() == (False, False)
    store.tasks.set_scope("t", "r", "paths", path_filters=["src/"])
    assert may() == (True, True)
    assert not store.tasks.may_touch("t", "other", "src/x.py")
    with pytest.raises(NotFoundError):
        store.tasks.may_touch("nobody", "r", "src/x.py")


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize(
    ("filters", "inside", "outside"),
    [
        (["*.py"], ["a.py", "src/deep/b.py", ".py"], ["a.pyc", "py"]),
        (["/setup.cfg"], ["setup.cfg"], ["src/setup.cfg"]),
        (["src/*.py"], ["src/a.py"], ["src/deep/a.py", "lib/src/a.py"]),
        (["src/**/test_*.py"], ["src/test_a.py", "src/a/b/test_c.py"], ["test_a.py"]),
        (["build/"], ["build/a", "lib/build/a/b", "build/"], ["build", "rebuild/a"]),
        (["src"], ["src", "src/a", "lib/src/b"], ["source/a"]),
        (["src/**", "!src/secret/**", "src/secret/but.txt"], ["src/a", "src/secret/but.txt"], ["src/secret/key"]),
        (["!src/a"], [], ["src/a", "src/b"]),
        (["文档/**/*.md"], ["文档/说明.md", "文档/第一章/引言.md"], ["文档/说明.txt", "doc/说明.md"]),
        (["[a-c]?.txt"], ["a1.txt"], ["d1.txt", "a12.txt"]),
        ([r"\#notes", r"\!x"], ["#notes", "!x"], ["notes", "x"]),
        (["a b/"], ["a b/c"], ["a/b/c"]),
    ],
)
def test_patterns_are_those_of_gitignore(
    store: Store, filters: list[str], inside: list[str], outside: list[str]
) -> None:
    assert allowed(store, filters, *inside, *outside) == inside


@pytest.mark.usefixtures("task")
def test_a_path_is_judged_in_its_plain_form(store: Store) -> None:
    assert allowed(store, ["/src/*.py"], "./src//a.py", "src/./a.py", "././src/a.py") == [
        "./src//a.py",
        "src/./a.py",
        "././src/a.py",
    ]
    assert allowed(store, ["src/"], "src/.", "src//", "...", "src../a", "..src/a") == ["src/.", "src//"]


HOSTILE = [
    "../x",
    "..",
    "a/../../b",
    # Where it leads depends on whether a is a symbolic link.
    "a/../b",
    "a/..",
    "/etc/passwd",
    "//etc/passwd",
    "C:/Windows",
    "c:x",
    "src\\..\\..\\x",
    "src\\a.py",
    "a\0.py",
    # A pattern ends where the line ends, and would match all of it but the last letter.
    "src/a.py\n",
    "src/a\x1b[2J",
    "",
    ".",
    "./",
    "././.",
    "\ud800.py",
    None,
    5,
    b"src/a.py",
]


@pytest.mark.usefixtures("task")
@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_that_may_lead_out_of_the_repository_is_refused_in_every_scope(store: Store, path: Any) -> None:
    for scope, filters in (("full", []), ("read_only", []), ("paths", ["**"])):
        store.tasks.set_scope("t", "r", scope, path_filters=filters)
        with pytest.raises(InvalidValueError) as caught:
            store.tasks.may_touch("t", "r", path, write=False)
        assert caught.value.name == "path"
