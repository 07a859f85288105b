"""Dependencies, scopes, artifacts, verdicts and events come into the store once, whatever interrupts the import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.importers.agentos.load import import_registry
from agentos_store.importers.report import ImportReport
from agentos_store.testing.registries import make_registry
from agentos_store.testing.registry_rows import DOMAINS
from tests.importers.killing import kill_at

Made = tuple[Path, dict[str, Any]]
Small = Callable[..., Path]

KINDS = DOMAINS[8:13]


def contents(store: Store) -> dict[str, list[dict[str, Any]]]:
    """What the store has of the five kinds, but for the numbers that it gave itself."""
    tasks = store.tasks
    rows: dict[str, list[Any]] = {
        "dependencies": list(tasks.iterate_dependencies()),
        "scopes": list(tasks.list_scopes(limit=1000).items),
        "artifacts": list(tasks.list_artifacts(limit=1000).items),
        "verdicts": list(store.verdicts.iterate()),
        "inbox": list(store.inbox.iterate()),
    }
    numbers = {"dependency_id", "scope_id", "artifact_id"}
    return {
        kind: [{name: value for name, value in row.to_dict().items() if name not in numbers} for row in found]
        for kind, found in rows.items()
    }


def numbers(report: ImportReport, kind: str) -> dict[str, int]:
    counts = report.counts[kind]
    return {
        "rows": counts.read,
        "imported": counts.imported + counts.repeated,
        "repaired": counts.repaired,
        "set_aside": counts.set_aside,
        "merged": counts.merged,
    }


def test_every_row_arrives_or_is_accounted_for_and_a_second_run_changes_nothing(store: Store, made: Made) -> None:
    path, manifest = made
    first = import_registry(store, path)
    there = contents(store)
    second = import_registry(store, path)
    assert contents(store) == there
    assert second.imported == 0
    for kind in KINDS:
        expected = manifest["expected"][kind]
        assert numbers(first, kind) == numbers(second, kind) == expected
        assert len(there[kind]) == first.counts[kind].imported == expected["imported"]
    assert store.inbox.backlog().by_status == manifest["inbox_status_counts"]
    assert store.audits.verify().ok
    assert all(entry["claimed_by"] is entry["lease_until"] is None for entry in there["inbox"])


@pytest.mark.parametrize("kind", ["audits", "dependencies", "artifacts"])
def test_a_killed_run_is_repeated_and_ends_as_if_nothing_had_happened(
    url: str, kind: str, sqlite_template: Path, tmp_path: Path
) -> None:
    path = tmp_path / "source.sqlite"
    make_registry(path)
    kill_at(import_registry, url, path, kind)
    quiet = tmp_path / "quiet.sqlite"
    quiet.write_bytes(sqlite_template.read_bytes())
    with Store.open(url) as store, Store.open(f"sqlite:///{quiet}") as undisturbed:
        import_registry(undisturbed, path)
        assert contents(store) != contents(undisturbed)
        import_registry(store, path)
        assert contents(store) == contents(undisturbed)
        assert import_registry(store, path).imported == 0


def test_a_link_that_closes_a_circle_with_the_stores_own_is_set_aside(store: Store, small: Small) -> None:
    path = small(tasks=4)
    import_registry(store, path)
    link = store.tasks.list_dependencies(limit=1).items[0]
    store.tasks.remove_dependency(link.task_id, link.depends_on_task_id)
    store.tasks.add_dependency(link.depends_on_task_id, link.task_id)
    there = contents(store)
    report = import_registry(store, path)
    assert contents(store) == there
    assert report.counts["dependencies"].set_aside == 1
    (note,) = report.set_aside
    assert note.table == "task_dependency"
    assert f"{link.task_id} → {link.depends_on_task_id}" in note.why


def test_what_people_changed_in_the_store_stays(store: Store, small: Small) -> None:
    path = small(tasks=4)
    import_registry(store, path)
    link = next(each for each in store.tasks.iterate_dependencies() if each.dependency_type != "suggests")
    store.tasks.remove_dependency(link.task_id, link.depends_on_task_id)
    store.tasks.add_dependency(link.task_id, link.depends_on_task_id, dependency_type="suggests")
    scope = next(each for each in store.tasks.list_scopes().items if each.scope == "full")
    store.tasks.set_scope(scope.task_id, scope.repo_id, "read_only")
    event = store.inbox.list(status="processed", limit=1).items[0]
    there = contents(store)
    assert import_registry(store, path).imported == 0
    assert contents(store) == there
    assert store.inbox.get(event.id).status == "processed"


def test_more_links_than_a_batch_holds_come_in_whole(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "source.sqlite"
    manifest = make_registry(path, tasks=230, flaws=False)
    report = import_registry(store, path)
    for kind in KINDS:
        assert numbers(report, kind) == manifest["expected"][kind]
    last = manifest["task_ids"][-1]
    number, above = 229, 0
    while number:
        number, above = (number - 1) // 2, above + 1
    assert len(store.tasks.ancestors(last)) == above
