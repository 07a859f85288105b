"""A filled registry of version 25 as AgentOS's migrations make it: the numbers that are known of it come out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.importers.agentos.load import import_registry
from agentos_store.importers.agentos.registry import open_registry
from agentos_store.importers.problems import Problem
from agentos_store.testing.registries import make_registry

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "agentos-registry"


@pytest.fixture
def sample(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The sample where it is at hand, else one that is made, with what is known of either."""
    if SAMPLE.is_dir():
        return SAMPLE / "registry-v25.sqlite", json.loads((SAMPLE / "manifest.json").read_text())
    path = tmp_path / "source.sqlite"
    made = make_registry(path)
    rows = {**made["row_counts"], "guardian_assignments": made["unused_assignments"]}
    return path, {**made, "row_counts": rows, "task_status_counts": {}, "anomalies": {}}


def test_the_known_numbers_of_the_sample_come_out(sample: tuple[Path, dict[str, Any]]) -> None:
    path, manifest = sample
    rows, flaws = manifest["row_counts"], manifest["anomalies"]
    before = path.read_bytes()
    with open_registry(path) as registry:
        assert (registry.shape, registry.problems, registry.check()) == ("agentos", (), ())
        out: dict[str, list[Any]] = {
            name: list(getattr(registry, name)())
            for name in ("projects", "repos", "users", "sessions", "messages", "tasks", "lineage", "audits")
        }
        rest = registry.no_place()
    assert path.read_bytes() == before
    for name, table in (("projects", "projects"), ("repos", "project_repos"), ("tasks", "tasks")):
        assert len(out[name]) == rows[table]
    assert (len(out["lineage"]), len(out["audits"])) == (rows["task_lineage"], rows["task_audits"])
    sessions = [record for record in out["sessions"] if not isinstance(record, Problem)]
    assert sum(1 + record.merged for record in sessions) == sum(
        rows[f"{kind}_sessions"] for kind in ("task", "chat", "webui")
    )
    assert rest == {name: rows[name] for name in rest}
    messages = rows["chat_messages"] + rows["webui_messages"]
    assert len(out["messages"]) == messages
    assert not {"chat_messages", "webui_messages"} & {*rest}
    tasks = {record.task_id: record for record in out["tasks"] if not isinstance(record, Problem)}
    if manifest["task_status_counts"]:
        words = Counter(task.legacy_status or task.status for task in tasks.values())
        assert words == manifest["task_status_counts"]
    if not flaws:
        return
    orphans = [item.reason for item in out["messages"] if isinstance(item, Problem)]
    assert orphans == ["its session is not in the registry"] * flaws["orphan_webui_messages"]
    assert {user.id for user in out["users"]} == {"default", "pangge", "用户三"}
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


def test_what_belongs_to_the_tasks_of_the_sample_arrives(store: Store, sample: tuple[Path, dict[str, Any]]) -> None:
    path, manifest = sample
    rows = manifest["row_counts"]
    first, second = import_registry(store, path), import_registry(store, path)
    assert second.imported == 0
    kinds = {
        "dependencies": "task_dependency",
        "scopes": "task_repo_scope",
        "artifacts": "task_artifact_ref",
        "verdicts": "guardian_verdicts",
        "inbox": "supervisor_inbox",
    }
    for kind, table in kinds.items():
        counts, again = first.counts[kind], second.counts[kind]
        assert counts.read == counts.imported + counts.merged + counts.set_aside == rows[table]
        assert (again.read, again.repeated) == (counts.read, counts.imported)
        assert (again.merged, again.set_aside, again.repaired) == (counts.merged, counts.set_aside, counts.repaired)
    if not manifest["anomalies"]:
        return
    edges, flaws = manifest["dependency"], manifest["anomalies"]
    assert first.counts["dependencies"].read == edges["edges"]
    assert first.counts["dependencies"].imported == edges["distinct_pairs"]
    assert len(store.tasks.ancestors(edges["last_task"])) == edges["ancestors_of_last_task"]
    merged = [link for link in store.tasks.iterate_dependencies() if "agentos_merged" in link.metadata_]
    assert [[link.task_id, link.depends_on_task_id] for link in merged] == flaws["dependency_pairs_with_two_types"]
    strength = ["suggests", "requires", "blocks"]
    for link in merged:
        types = [row["dependency_type"] for row in link.metadata_["agentos_merged"]]
        assert link.dependency_type == max(types, key=strength.index)
    found = manifest["inbox_status_counts"]
    assert store.inbox.backlog().by_status == {
        "processed": found["completed"],
        "failed": found["failed"],
        "pending": found["pending"] + found["processing"],
    }
    assert first.counts["inbox"].repaired == flaws["inbox_stuck_processing"] == found["processing"]
    words = {"approve": "PASS", "reject": "FAIL", "warn": "NEEDS_CHANGES"}
    decided = store.verdicts.stats().by_decision
    assert {words[decision]: count for decision, count in decided.items()} == manifest["verdict_status_counts"]
    assert all("reason" in verdict.policy_json for verdict in store.verdicts.iterate())
    assert first.not_yet == {}
    assert "guardian_assignments" not in first.no_place
    assert [first.counts[kind].set_aside for kind in kinds] == [0] * len(kinds)
