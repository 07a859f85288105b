"""Each command does its work, and tells it in JSON with keys that stay."""

from __future__ import annotations

import io
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.engine.version import HEAD
from agentos_store.migrate.revisions import known

Run = Callable[..., Any]

TASK = {
    *("agent_id", "attempts", "claimed_by", "completed_at", "created_at", "created_by", "duration", "error_message"),
    *("exit_reason", "idempotency_key", "lease_token", "lease_until", "max_attempts", "metadata", "payload"),
    *("priority", "project_id", "requirements_json", "result", "route_plan_json", "router_version", "run_after"),
    *("selected_instance_id", "session_id", "started_at", "status", "task_id", "task_type", "title", "updated_at"),
    "version",
}


def test_the_main_job_from_an_empty_database_to_verified_audits(cli: Run, empty_url: str, registry: Path) -> None:
    at = ("--url", empty_url)
    done = cli(*at, "db", "upgrade")
    assert (done.code, done.err) == (0, "")
    assert f"{len(known())} revisions applied, at {HEAD}" in done.out
    assert "nothing to do" in cli(*at, "db", "upgrade").out

    report = cli(*at, "import", "agentos", registry, "--json")
    assert (report.code, report.err) == (0, "")
    assert set(report.json) == {
        *("source", "shape", "version", "counts", "not_yet", "no_place", "repairs", "set_aside", "unlisted", "exported")
    }
    counts = report.json["counts"]
    assert list(counts)[:5] == ["projects", "repositories", "users", "sessions", "messages"]
    assert list(counts)[5:] == [
        *("tasks", "lineage", "audits", "dependencies", "scopes", "artifacts", "verdicts", "inbox"),
        *("memory", "sources", "chunks", "embeddings"),
    ]
    assert set(counts["tasks"]) == {"read", "imported", "repeated", "repaired", "set_aside", "merged"}
    assert all(set(note) == {"table", "key", "why"} for note in report.json["repairs"] + report.json["set_aside"])
    again = cli(*at, "import", "agentos", registry)
    assert again.code == 0
    assert "set aside" in again.out

    status = cli(*at, "status", "--json").json
    assert set(status) == {
        *(
            "backend",
            "server_version",
            "location",
            "revision",
            "head",
            "size_bytes",
            "rows",
            "tasks_by_status",
            "estimated",
            "failing_tools",
            "tokens_by_day",
            "events",
            "inbox",
            "queue",
        ),
        "oldest_pending",
    }
    assert status["rows"]["tasks"] == counts["tasks"]["imported"] == sum(status["tasks_by_status"].values())
    assert "sekret" not in cli(*at, "status").out

    listed = cli(*at, "tasks", "list", "--json", "--limit", "7").json
    assert set(listed) == {"items", "next"}
    assert set(listed["items"][0]) == TASK
    following = cli(*at, "tasks", "list", "--json", "--limit", "7", "--cursor", listed["next"]).json
    seen = [task["task_id"] for task in listed["items"] + following["items"]]
    assert len(set(seen)) == len(seen) == 14
    assert seen[0] in cli(*at, "tasks", "list").out

    # The newest tasks of a made registry are those with flaws, which have no links.
    (first,) = cli(*at, "tasks", "list", "--json", "--oldest", "--limit", "1").json["items"]
    task_id = first["task_id"]
    shown = cli(*at, "tasks", "show", task_id, "--json").json
    links = {"depends_on", "needed_by", "scopes", "artifacts", "latest_verdict"}
    assert set(shown) == TASK | {"history", "audits"} | links
    assert task_id in cli(*at, "tasks", "show", task_id).out

    graph = cli(*at, "lineage", task_id, "--json").json
    assert set(graph) == {"root", "nodes", "edges", "truncated"}
    assert set(graph["nodes"][0]) == {"id", "type", "label", "kind"}
    assert set(graph["edges"][0]) == {"source", "target", "kind", "phase"}
    assert task_id in cli(*at, "lineage", task_id).out
    assert cli(*at, "lineage", task_id, "--mermaid").out.startswith("flowchart LR\n")

    assert cli(*at, "audit", "verify").out.endswith("all whole\n")
    found = cli(*at, "audit", "verify", "--json").json
    assert set(found) == {"ok", "chains", "entries", "faults", "erased"}
    assert (found["ok"], found["entries"]) == (True, counts["audits"]["imported"])
    assert cli(*at, "audit", "verify", task_id, "--json").json["chains"] == 1


def test_revisions_are_told_climbed_and_descended(cli: Run, empty_url: str) -> None:
    at = ("--url", empty_url)
    current = cli(*at, "db", "current", "--json").json
    assert (set(current), current["revision"]) == ({"database", "revision", "head"}, None)
    assert "no schema yet" in cli(*at, "db", "current").out
    assert "1 revision applied" in cli(*at, "db", "upgrade", known()[0]).out
    history = cli(*at, "db", "history", "--json").json
    assert history == [{"revision": each, "applied": each == known()[0]} for each in known()]
    cli(*at, "db", "upgrade")
    assert cli(*at, "db", "history").out.count("yes") == len(known())
    dry = cli(*at, "db", "downgrade", "base", "--dry-run")
    assert (dry.code, cli(*at, "db", "current", "--json").json["revision"]) == (0, HEAD)
    assert ", ".join(reversed(known())) in dry.out
    assert f"{len(known())} revisions taken back, at base" in cli(*at, "db", "downgrade", "base", "--yes").out
    assert cli(*at, "db", "current", "--json").json["revision"] is None
    assert "takes back nothing" in cli(*at, "db", "downgrade", "base", "--yes").out


def test_a_downgrade_that_nobody_confirms_changes_nothing(
    cli: Run, filled: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for answer in ("", "n\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        done = cli("--url", filled, "db", "downgrade", "base")
        assert (done.code, done.err.strip()) == (130, "error: there was no answer; nothing was changed")
    with Store.open(filled) as store:
        assert store.tasks.count() > 0


def test_sql_and_configuration_are_for_alembic(cli: Run, url: str) -> None:
    script = cli("--url", url, "db", "sql")
    assert script.code == 0
    assert all(f"'{revision}'" in script.out for revision in known())
    assert HEAD not in cli("--url", url, "db", "sql", known()[0]).out
    assert Path(cli("db", "config").out.strip()).is_file()


def test_check_finds_a_schema_that_has_drifted(cli: Run, url: str, filled: str) -> None:
    whole = cli("--url", url, "db", "check")
    assert (whole.code, whole.out) == (0, "no drift: the database is what the models say\n")
    assert cli("--url", url, "db", "check", "--json").json == []
    with closing(sqlite3.connect(filled.removeprefix("sqlite:///"))) as raw:
        raw.execute("DROP INDEX ix_tasks_created_at_task_id")
    found = cli("--url", filled, "db", "check", "--json")
    assert found.code == 1
    assert [(each["table"], each["what"]) for each in found.json] == [("tasks", "index ix_tasks_created_at_task_id")]
    assert set(found.json[0]) == {"table", "what", "database", "models"}
    assert "ix_tasks_created_at_task_id" in cli("--url", filled, "db", "check").out


def test_verify_finds_a_chain_that_is_not_whole(cli: Run, filled: str) -> None:
    with closing(sqlite3.connect(filled.removeprefix("sqlite:///"))) as raw:
        (task_id,) = raw.execute("SELECT task_id FROM task_audit_heads ORDER BY task_id LIMIT 1").fetchone()
        raw.execute("UPDATE task_audit_heads SET length = length + 1 WHERE task_id = ?", (task_id,))
        raw.commit()
    found = cli("--url", filled, "audit", "verify")
    assert (found.code, found.err) == (1, "")
    assert task_id in found.out
    faults = cli("--url", filled, "audit", "verify", "--json").json["faults"]
    assert [(fault["task_id"], set(fault)) for fault in faults] == [
        (task_id, {"task_id", "kind", "audit_id", "detail"})
    ]


def test_keep_status_and_filters_reach_the_store(cli: Run, sqlite_url: str, small_registry: Path) -> None:
    at = ("--url", sqlite_url)
    assert cli(*at, "import", "agentos", small_registry, "--keep-status").code == 0
    statuses = cli(*at, "status", "--json").json["tasks_by_status"]
    assert statuses["pending"] > 0
    assert statuses["running"] > 0
    for chosen in (("--status", "pending"), ("--project", "web-shop"), ("--type", ""), ("--session", "none")):
        items = cli(*at, "tasks", "list", "--json", *chosen).json["items"]
        with Store.open(sqlite_url) as store:
            names = {"--status": "status", "--project": "project_id", "--type": "task_type", "--session": "session_id"}
            wanted: dict[str, Any] = {names[chosen[0]]: chosen[1]}
            expected = store.tasks.list(order="-created_at", limit=20, **wanted)
        assert [item["task_id"] for item in items] == [task.task_id for task in expected.items]
    oldest = cli(*at, "tasks", "list", "--json", "--oldest").json["items"]
    assert [item["created_at"] for item in oldest] == sorted(item["created_at"] for item in oldest)


def test_the_installed_program_tells_its_version() -> None:
    script = Path(sys.executable).with_name("agentos-store")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"agentos-store {version('agentos-store')}\n", "")


@pytest.mark.parametrize("arguments", [(), ("db",), ("import",), ("tasks",), ("audit",)])
def test_a_group_without_a_command_shows_its_help(cli: Run, arguments: tuple[str, ...]) -> None:
    done = cli(*arguments)
    assert (done.code, done.err) == (2, "")
    assert "Usage" in done.out


def test_help_tells_the_exit_codes(cli: Run) -> None:
    assert "Exit codes: 0 done, 1 something was found wrong" in " ".join(cli("--help").out.split())
