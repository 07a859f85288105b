"""``agentos-store backup``, ``restore``, ``verify`` and ``export``."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from agentos_store import Store
from tests.cli.conftest import Run


@pytest.fixture
def empty(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of an SQLite store without rows."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'empty.sqlite')}"


@pytest.mark.parametrize("name", ["a.zip", "a.db"])
def test_a_store_is_backed_up_verified_and_restored(
    name: str, cli: Run, filled: str, empty: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    made = cli("--url", filled, "backup", path, "--json")
    assert (made.code, made.err) == (0, "")
    checked = cli("verify", path, "--json")
    assert (checked.code, checked.json["ok"], checked.json["faults"]) == (0, True, [])
    assert checked.json["rows"]["tasks"] == made.json["rows"]["tasks"] > 0
    assert made.json["format"] == {"a.zip": "archive", "a.db": "sqlite"}[name]
    done = cli("--url", empty, "restore", path)
    assert (done.code, done.err) == (0, "")
    with Store.open(filled) as before, Store.open(empty) as after:
        assert before.tasks.count() == after.tasks.count()
    cli("--url", empty, "restore", path).assert_refused(5)
    with Store.open(empty) as store:
        store.tasks.create(title="mine")
    restore = ("--url", empty, "restore", path, "--replace")
    removed = cli(*restore, "--dry-run", "--json").json["removed"]
    assert removed["tasks"] == made.json["rows"]["tasks"] + 1
    told = f"{sum(removed.values()):,} rows of"
    assert told in cli(*restore, "--dry-run").out
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    unanswered = cli(*restore, "--json")
    assert (unanswered.code, unanswered.out.strip()) == (130, "")
    assert told in unanswered.err
    assert "nothing was changed" in unanswered.err
    with Store.open(empty) as store:
        assert store.tasks.count() == removed["tasks"]
    assert cli(*restore, "--yes", "--json").code == 0
    with Store.open(empty) as store:
        assert store.tasks.count() == made.json["rows"]["tasks"]


def test_people_read_what_was_done(cli: Run, filled: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    made = cli("--url", filled, "backup", path)
    assert (made.code, made.err) == (0, "")
    assert "root hash" in made.out
    assert "whole: " in cli("verify", path).out


def test_refusals_are_one_line_and_an_exit_code(cli: Run, filled: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    cli("--url", filled, "backup", path)
    cli("--url", filled, "backup", path).assert_refused(5, "exists already")
    cli("--url", filled, "backup", tmp_path / "store.sqlite", "--replace").assert_refused(4, "the database itself")
    cli("--url", filled, "backup", tmp_path / "b", "--format", "tar").assert_refused(4, "archive, sqlite")
    cli("--url", f"sqlite:///{tmp_path}/none.sqlite", "backup", tmp_path / "b").assert_refused(3)
    cli("verify", tmp_path / "none").assert_refused(3)
    (tmp_path / "text").write_text("hello")
    cli("verify", tmp_path / "text").assert_refused(4, "neither")
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    cli("verify", path).assert_refused(1, "is damaged")
    cli("--url", f"sqlite:///{tmp_path}/new.sqlite", "restore", path).assert_refused(1, "is damaged")
    assert not (tmp_path / "new.sqlite").exists()


def test_rows_are_exported_to_the_standard_output_and_to_a_directory(cli: Run, filled: str, tmp_path: Path) -> None:
    streamed = cli("--url", filled, "export", "tasks", "audits")
    assert (streamed.code, streamed.err) == (0, "")
    lines = [json.loads(line) for line in streamed.out.splitlines()]
    with Store.open(filled) as store:
        assert sum(line["table"] == "tasks" for line in lines) == store.tasks.count()
    done = cli("--url", filled, "export", "tasks", "audits", "--output", tmp_path / "out", "--json")
    assert done.code == 0
    for table, count in done.json["rows"].items():
        written = [json.loads(line) for line in (tmp_path / "out" / f"{table}.jsonl").read_text().splitlines()]
        assert len(written) == count
        assert [{"table": table, **row} for row in written] == [line for line in lines if line["table"] == table]
    cli("--url", filled, "export", "--output", tmp_path / "out").assert_refused(5, "exists already")
    cli("--url", filled, "export", "nonsense").assert_refused(4, "nonsense")
    cli("--url", filled, "export", "--json").assert_refused(4, "--output")
