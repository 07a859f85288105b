"""``agentos-store import kode``: a directory comes in by one command, and what is wrong with it is one clear line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentos_store.testing.kode_stores import API_KEY, REVIEWER, damage, make_kode_store

Run = Callable[..., Any]


def test_a_directory_comes_in_and_a_second_time_changes_nothing(cli: Run, url: str, tmp_path: Path) -> None:
    base = tmp_path / "kode"
    make_kode_store(base)
    damage(base, "todos of zeros")
    report = cli("--url", url, "import", "kode", base, "--json")
    assert (report.code, report.err, report.json["shape"]) == (0, "", "jsonstore")
    assert report.json["agents"][REVIEWER]["todos"]["set_aside"] == 1
    assert API_KEY not in report.out
    again = cli("--url", url, "import", "kode", base, "--json").json
    assert sum(counts["imported"] for counts in again["counts"].values()) == 0
    shown = cli("--url", url, "import", "kode", base)
    assert shown.code == 0
    assert "KODE" in shown.out
    assert "nothing but NUL bytes" in " ".join(shown.out.split())


def test_a_slip_in_the_name_is_one_line_and_leaves_no_store(cli: Run, sqlite_url: str, tmp_path: Path) -> None:
    cli("--url", sqlite_url, "import", "kode", tmp_path / "none").assert_refused(3, "no folder")
    base = tmp_path / "kode"
    make_kode_store(base)
    cli("--url", sqlite_url, "import", "kode", base / REVIEWER).assert_refused(4, "the one above it")
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()
