"""A filled registry of version 25 as AgentOS's migrations make it: the numbers that are known of it come out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentos_store.importers.agentos.registry import open_registry
from agentos_store.importers.agentos.report import Problem
from agentos_store.testing.registries import make_registry

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "agentos-registry"


@pytest.fixture
def sample(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The sample where it is at hand, else one that is made, with what is known of either."""
    if SAMPLE.is_dir():
        return SAMPLE / "registry-v25.sqlite", json.loads((SAMPLE / "manifest.json").read_text())
    path = tmp_path / "registry.sqlite"
    made = make_registry(path)
    return path, {"row_counts": made["row_counts"], "task_status_counts": {}, "anomalies": {}}


def test_the_known_numbers_of_the_sample_come_out(sample: tuple[Path, dict[str, Any]]) -> None:
    path, manifest = sample
    rows, flaws = manifest["row_counts"], manifest["anomalies"]
    before = path.read_bytes()
    with open_registry(path) as registry:
        assert (registry.shape, registry.problems, registry.check()) == ("agentos", (), ())
        out: dict[str, list[Any]] = {
            name: list(getattr(registry, name)())
            for name in ("projects", "repos", "sessions", "tasks", "lineage", "audits")
        }
        rest = registry.not_yet()
    assert path.read_bytes() == before
    for name, table in (("projects", "projects"), ("repos", "project_repos"), ("tasks", "tasks")):
        assert len(out[name]) == rows[table]
    assert (len(out["lineage"]), len(out["audits"])) == (rows["task_lineage"], rows["task_audits"])
    sessions = [record for record in out["sessions"] if not isinstance(record, Problem)]
    assert sum(1 + record.merged for record in sessions) == sum(
        rows[f"{kind}_sessions"] for kind in ("task", "chat", "webui")
    )
    assert {**rest.later, **rest.no_place} == {name: rows[name] for name in (*rest.later, *rest.no_place)}
    tasks = {record.task_id: record for record in out["tasks"] if not isinstance(record, Problem)}
    if manifest["task_status_counts"]:
        words = Counter(task.legacy_status or task.status for task in tasks.values())
        assert words == manifest["task_status_counts"]
    if not flaws:
        return
    assert sum(isinstance(item, Problem) for item in out["lineage"]) == flaws["orphan_task_lineage"]
    audits = {audit.source_id: audit for audit in out["audits"]}
    repaired = {number for number, audit in audits.items() if audit.repairs}
    assert repaired == {*flaws["audits_rotated_by_v24"], *flaws["audit_with_invalid_json"]}
    for number in flaws["audits_rotated_by_v24"]:
        audit = audits[number]
        assert (audit.event_type, audit.payload["operation"], audit.level in {"info", "warning"}) == (
            "repo_commit",
            "commit",
            True,
        )
    assert [audits[number].has_payload for number in flaws["audit_with_null_payload"]] == [False]
    gone, repo = flaws["project_with_dangling_default_repo"]
    assert [(item.id, item.settings["agentos"]) for item in out["projects"] if item.repairs] == [
        (gone, {"default_repo_id": repo})
    ]
    task_id, session_id = flaws["task_with_webui_session_id"]
    assert tasks[task_id].session_id == session_id
    bare = [tasks[key] for key in flaws["tasks_without_metadata"]]
    assert [task.metadata for task in bare] == [{"agentos": {"status": "draft"}}] * len(bare)
    golden = manifest["golden"]
    assert sum("数据库" in task.title for task in tasks.values()) == golden["tasks_title_contains_数据库"]
    links = [link for link in out["lineage"] if not isinstance(link, Problem)]
    shared = sum(link.ref_id == "shared-requirements-doc" for link in links)
    assert shared == golden["lineage_reverse_artifact_shared-requirements-doc"]
