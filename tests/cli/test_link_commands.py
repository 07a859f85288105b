"""The commands about what tasks depend on, what guardians decided, and what waits for the supervisor."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.cli import main
from agentos_store.importers.agentos.load import import_registry
from agentos_store.testing.registries import make_registry

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on the test's database and returns its exit code, its output and its errors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["agentos-store", "--url", url, *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        assert "Traceback" not in printed.err
        return ended.value.code, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A made registry, and what is in it."""
    path = tmp_path_factory.mktemp("made") / "source.sqlite"
    return path, make_registry(path)


@pytest.fixture
def manifest(url: str, made: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    """The registry, imported."""
    path, what = made
    with Store.open(url) as store:
        import_registry(store, path)
    return what


def data(run: Run, *arguments: str) -> Any:
    code, out, err = run(*arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_task_is_drawn_with_what_it_needs_and_what_needs_it(run: Run, manifest: dict[str, Any]) -> None:
    ids = manifest["task_ids"]
    code, out, _ = run("tasks", "graph", ids[1])
    assert code == 0
    assert out.index(ids[1]) < out.index("depends on") < out.index(ids[0]) < out.index("needed by") < out.index(ids[3])
    _, near, _ = run("tasks", "graph", ids[0], "--depth", "1")
    assert ids[2] in near
    assert ids[5] not in near
    found = data(run, "tasks", "graph", ids[1])
    assert {"task_id": ids[1], "depends_on_task_id": ids[0], "dependency_type": "requires"} in found["edges"]
    code, out, _ = run("tasks", "graph", ids[1], "--mermaid")
    assert out.startswith("flowchart LR\n")


def test_a_project_is_shown_with_all_its_dependencies(run: Run, manifest: dict[str, Any]) -> None:
    found = data(run, "tasks", "graph", "--project", "web-shop")
    code, out, _ = run("tasks", "graph", "--project", "web-shop")
    assert code == 0
    assert all(node["task_id"] in out for node in found["nodes"])
    assert f"{len(found['edges'])} dependencies" in out
    assert run("tasks", "graph", "--project", "nowhere")[0] == 3


def test_a_graph_is_of_one_task_or_of_one_project(run: Run, manifest: dict[str, Any]) -> None:
    assert run("tasks", "graph")[0] == 2
    assert run("tasks", "graph", "x", "--project", "web-shop")[0] == 2
    assert run("tasks", "graph", "no such task")[0] == 3
    assert run("tasks", "graph", manifest["task_ids"][0], "--depth", "0")[0] == 4


def test_a_task_is_shown_with_its_links_its_rights_and_its_verdict(run: Run, manifest: dict[str, Any]) -> None:
    task_id = manifest["task_ids"][0]
    found = data(run, "tasks", "show", task_id)
    assert found["depends_on"] == []
    assert [link["depends_on_task_id"] for link in found["needed_by"]] == [task_id, task_id]
    assert "web-shop_frontend" in {scope["repo_id"] for scope in found["scopes"]}
    assert manifest["shared_commit"] in {artifact["ref_value"] for artifact in found["artifacts"]}
    assert found["latest_verdict"]["decision"] == "warn"
    code, out, _ = run("tasks", "show", task_id)
    assert code == 0
    for title in ("Dependencies", "May touch", "Artifacts", "Latest verdict"):
        assert title in out


def test_the_inbox_is_listed_and_counted(run: Run, manifest: dict[str, Any]) -> None:
    counts = manifest["inbox_status_counts"]
    assert data(run, "inbox", "backlog")["by_status"] == counts
    waiting = data(run, "inbox", "list", "--status", "pending", "--limit", "100")["items"]
    assert len(waiting) == counts["pending"]
    code, out, _ = run("inbox", "list", "--limit", "1")
    assert code == 0
    assert "more: --cursor" in out
    code, out, _ = run("inbox", "backlog")
    assert code == 0
    assert "the oldest waits since 2026-01-10" in out
    assert run("inbox", "list", "--status", "sleeping")[0] == 4


def test_a_parked_event_is_let_go_once(run: Run, manifest: dict[str, Any]) -> None:
    (parked,) = data(run, "inbox", "list", "--status", "parked")["items"]
    code, out, _ = run("inbox", "unpark", parked["id"])
    assert (code, out) == (0, f"{parked['id']}: pending\n")
    assert run("inbox", "unpark", parked["id"])[0] == 3


def test_verdicts_are_listed_shown_and_counted(run: Run, manifest: dict[str, Any]) -> None:
    imported = manifest["expected"]["verdicts"]["imported"]
    assert len(data(run, "verdicts", "list")["items"]) == imported
    (rejected,) = data(run, "verdicts", "list", "--decision", "reject", "--by", "smoke_test")["items"]
    assert data(run, "verdicts", "list", "--before", "2026-01-01")["items"] == []
    assert len(data(run, "verdicts", "list", "--after", "2026-01-01T00:00:00Z")["items"]) == imported
    assert data(run, "verdicts", "show", rejected["id"]) == rejected
    assert data(run, "verdicts", "stats")["by_decision"]["reject"] == 1
    for arguments in (("list",), ("show", rejected["id"]), ("stats",)):
        code, out, _ = run("verdicts", *arguments)
        assert code == 0
        assert "reject" in out
    assert run("verdicts", "show", "no such verdict")[0] == 3
    assert run("verdicts", "list", "--after", "soon")[0] == 4


def test_decisions_are_listed_with_the_time_that_they_took(run: Run, manifest: dict[str, Any]) -> None:
    found = data(run, "audit", "decisions", manifest["task_ids"][0])
    assert {decision["lag"] for decision in found if decision["source_event_ts"]} == {2.0}
    code, out, _ = run("audit", "decisions", manifest["task_ids"][0])
    assert code == 0
    assert "2.000 s" in out
    assert data(run, "audit", "lag")["p95"] == 2.0
    assert data(run, "audit", "lag", "--before", "2020-01-01")["count"] == 0
    code, out, _ = run("audit", "lag")
    assert code == 0
    assert "95 % within" in out
    assert run("audit", "decisions", "no such task")[0] == 3


def test_the_status_page_shows_what_waits_in_the_inbox(run: Run, manifest: dict[str, Any]) -> None:
    assert data(run, "status")["inbox"]["by_status"] == manifest["inbox_status_counts"]
    code, out, _ = run("status")
    assert code == 0
    assert "Inbox" in out


def test_what_has_no_place_is_exported_when_asked(run: Run, tmp_path: Path) -> None:
    path, rest = tmp_path / "source.sqlite", tmp_path / "rest.jsonl"
    make_registry(path)
    code, out, _ = run("import", "agentos", str(path), "--export-rest", str(rest))
    written = len(rest.read_text().splitlines())
    assert code == 0
    assert f"Exported: {written:,} rows" in out
    assert run("import", "agentos", str(path), "--export-rest", str(rest))[0] == 5


def test_the_demo_shows_dependencies_and_the_inbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["agentos-store", "demo", "--folder", str(tmp_path / "demo")])
    with pytest.raises(SystemExit) as ended:
        main()
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert "needed by" in out
    assert "the oldest waits since" in out
