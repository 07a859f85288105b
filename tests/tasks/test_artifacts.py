from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import InvalidValueError, NotFoundError, Store
from agentos_store.tasks.models import Task


@pytest.fixture
def tasks(store: Store) -> list[Task]:
    return [store.tasks.create(title=name, task_id=name) for name in "abc"]


@pytest.mark.usefixtures("tasks")
def test_an_artifact_is_recorded_once(store: Store) -> None:
    first = store.tasks.add_artifact("a", "r", "commit", "9f1c2ab", summary="one", metadata={"files": 3})
    assert (first.summary, first.metadata_, first.ref_type, first.ref_value) == (
        "one",
        {"files": 3},
        "commit",
        "9f1c2ab",
    )
    again = store.tasks.add_artifact("a", "r", "commit", "9f1c2ab", summary="two")
    assert again.to_dict() == first.to_dict()
    for other in (("b", "r", "commit", "9f1c2ab"), ("a", "s", "commit", "9f1c2ab"), ("a", "r", "tag", "9f1c2ab")):
        assert store.tasks.add_artifact(*other).artifact_id != first.artifact_id
    assert len(store.tasks.list_artifacts()) == 4


@pytest.mark.usefixtures("tasks")
def test_of_eight_that_record_one_artifact_all_get_the_same_row(store: Store) -> None:
    for number in range(10):
        with ThreadPoolExecutor(8) as threads:
            found = list(
                threads.map(
                    lambda summary, value=f"v{number}": store.tasks.add_artifact(
                        "a", "r", "file", value, summary=summary
                    ),
                    map(str, range(8)),
                )
            )
        assert len({(row.artifact_id, row.summary) for row in found}) == 1
    assert len(store.tasks.list_artifacts(task_id="a")) == 10


@pytest.mark.usefixtures("tasks")
def test_artifacts_are_filtered_and_paged_in_the_order_of_recording(store: Store) -> None:
    for task, kind, value in (("b", "pr", "1"), ("a", "pr", "1"), ("a", "tag", "v1"), ("c", "pr", "2")):
        store.tasks.add_artifact(task, "r", kind, value)

    def found(**filters: Any) -> list[tuple[str, str, str]]:
        return [(row.task_id, row.ref_type, row.ref_value) for row in store.tasks.list_artifacts(**filters)]

    assert found(task_id="a") == [("a", "pr", "1"), ("a", "tag", "v1")]
    assert found(ref_type="pr") == [("b", "pr", "1"), ("a", "pr", "1"), ("c", "pr", "2")]
    assert found(ref_type="pr", ref_value="1") == [("b", "pr", "1"), ("a", "pr", "1")]
    assert found(task_id="a", ref_type="pr", ref_value="1") == [("a", "pr", "1")]
    assert found(task_id="nobody") == []
    page = store.tasks.list_artifacts(limit=3)
    assert len(page) == 3
    assert [row.task_id for row in store.tasks.list_artifacts(limit=3, cursor=page.next)] == ["c"]
    with pytest.raises(InvalidValueError):
        found(ref_value="1")


@pytest.mark.usefixtures("tasks")
def test_all_tasks_of_an_artifact_are_found_the_first_one_first(store: Store) -> None:
    for task, repo in (("b", "r"), ("a", "r"), ("b", "s"), ("c", "s")):
        store.tasks.add_artifact(task, repo, "branch", "修复")
    store.tasks.add_artifact("a", "r", "tag", "v1")
    found = store.tasks.list_by_artifact("branch", "修复")
    assert [task.task_id for task in found] == ["b", "a", "c"]
    assert found[0].to_dict() == store.tasks.get("b").to_dict()
    assert store.tasks.list_by_artifact("tag", "修复") == []
    store.tasks.delete("b")
    assert [task.task_id for task in store.tasks.list_by_artifact("branch", "修复")] == ["a", "c"]


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ref_type", {"ref_type": "issue"}),
        ("ref_type", {"ref_type": None}),
        ("ref_value", {"ref_value": ""}),
        ("ref_value", {"ref_value": "x" * 1001}),
        ("repo_id", {"repo_id": "a\tb"}),
        ("summary", {"summary": "a\0b"}),
        ("metadata", {"metadata": "text"}),
    ],
)
def test_what_is_no_artifact_is_refused_by_its_name(store: Store, name: str, options: dict[str, Any]) -> None:
    values: dict[str, Any] = {"task_id": "a", "repo_id": "r", "ref_type": "pr", "ref_value": "1"} | options
    with pytest.raises(InvalidValueError) as caught:
        store.tasks.add_artifact(**values)
    assert caught.value.name in {name, "artifact"}
    assert store.tasks.list_artifacts().items == []
    if name == "ref_type":
        with pytest.raises(InvalidValueError):
            store.tasks.list_by_artifact(values["ref_type"], "1")


def test_an_artifact_needs_its_task(store: Store) -> None:
    with pytest.raises(NotFoundError) as caught:
        store.tasks.add_artifact("nobody", "r", "pr", "1")
    assert (caught.value.entity, caught.value.key) == ("task", "nobody")


@pytest.mark.parametrize(
    ("repo_id", "ref_value"), [("r", "\U00020000" * 301), ("\U00020000" * 255, "\U00020000" * 300), ("r", "x" * 1001)]
)
def test_a_value_that_no_index_of_postgresql_holds_is_refused_on_both(
    store: Store, repo_id: str, ref_value: str
) -> None:
    task = store.tasks.create(title="t", task_id="\U00020000" * 255)
    with pytest.raises(InvalidValueError) as refused:
        store.tasks.add_artifact(task.task_id, repo_id, "file", ref_value)
    assert refused.value.name == "ref_value"
