"""``agentos-store import aios``: a database or a log comes in by one command, and what is wrong is one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store.testing.aios import KINDS, STATS_KEY, make_aios_database, make_event_log

Run = Callable[..., Any]


def test_a_database_comes_in_and_a_second_time_changes_nothing(cli: Run, url: str, tmp_path: Path) -> None:
    path = tmp_path / "aios.db"
    make_aios_database(path)
    report = cli("--url", url, "import", "aios", path, "--json")
    assert (report.code, report.err, report.json["shape"]) == (0, "", "sqlite")
    assert list(report.json["counts"]) == list(KINDS)
    assert STATS_KEY not in report.out
    again = cli("--url", url, "import", "aios", path, "--json").json
    assert sum(counts["imported"] for counts in again["counts"].values()) == 0
    rows = cli("--url", url, "status", "--json").json["rows"]
    assert rows["contexts"] == report.json["counts"]["contexts"]["imported"]
    shown = cli("--url", url, "import", "aios", path)
    assert shown.code == 0
    assert "AIOS" in shown.out


def test_a_log_comes_in_without_its_torn_line(cli: Run, sqlite_url: str, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    manifest = make_event_log(path)
    report = cli("--url", sqlite_url, "import", "aios", path, "--json")
    assert (report.code, report.json["shape"]) == (0, "jsonl")
    assert report.json["counts"]["events"]["imported"] == manifest.expected["events"].imported
    assert "torn" in report.json["set_aside"][-1]["why"]
    shown = cli("--url", sqlite_url, "import", "aios", path)
    assert "NUL bytes" in " ".join(shown.out.split())


def test_statuses_and_secrets_are_kept_when_that_is_asked(cli: Run, sqlite_url: str, tmp_path: Path) -> None:
    path = tmp_path / "aios.db"
    make_aios_database(path, flaws=False)
    command = ("import", "aios", path, "--keep-status", "--keep-secrets", "--json")
    report = cli("--url", sqlite_url, *command).json
    assert [note for note in report["repairs"] if "redacted" in note["why"]] == []
    waiting = cli("--url", sqlite_url, "tasks", "list", "--status", "pending", "--json").json["items"]
    assert len(waiting) == 4


@pytest.mark.parametrize("content", ["neither of both", "SQLite format 3\0 and no more"])
def test_a_slip_in_the_name_of_the_file_leaves_no_store_behind(
    cli: Run, sqlite_url: str, tmp_path: Path, content: str
) -> None:
    cli("--url", sqlite_url, "import", "aios", tmp_path / "none").assert_refused(3, "none")
    other = tmp_path / "other"
    other.write_text(content)
    cli("--url", sqlite_url, "import", "aios", other).assert_refused(4, "path")
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()
