"""``agentos-store copy``: what it prints, what it refuses, and how it goes on after an interruption."""

from __future__ import annotations

import io
import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agentos_store import Store
from agentos_store.operations.moving import move
from tests.cli.conftest import Run


def test_a_copy_is_told_as_a_table_and_as_json(cli: Run, filled: str, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/target.sqlite"
    result = cli("copy", filled, target)
    assert (result.code, result.err) == (0, "")
    assert "tasks" in result.out
    assert "rows copied and compared in" in result.out
    again = cli("copy", filled, target, "--replace", "--yes", "--json").json
    assert again["target"] == f"{tmp_path}/target.sqlite"
    with Store.open(filled) as store:
        assert again["tables"]["tasks"]["rows"] == store.tasks.count()
    assert again["rows"] == sum(table["rows"] for table in again["tables"].values())
    assert again["root_hash"] in result.out
    assert not again["resumed"]


def test_a_copy_says_what_it_would_remove_and_asks_before(
    cli: Run, filled: str, sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = f"sqlite:///{tmp_path}/target.sqlite"
    replace = ("copy", filled, target, "--replace")
    assert "nothing of" in cli(*replace, "--dry-run").out
    assert not (tmp_path / "target.sqlite").exists()
    shutil.copy(sqlite_template, tmp_path / "target.sqlite")
    with Store.open(target) as store:
        store.tasks.create(title="mine")
    removed = {"tasks": 1}
    assert cli(*replace, "--dry-run", "--json").json["removed"] == removed
    assert cli(*replace[:-1], "--restart", "--dry-run", "--yes", "--json").json["removed"] == {}
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    done = cli(*replace)
    assert (done.code, "tasks" in done.out, "1 rows of" in done.err) == (130, True, True)
    with Store.open(target) as store:
        assert [task.title for task in store.tasks.iterate()] == ["mine"]
    (tmp_path / "target.sqlite").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    cli(*replace, "--dry-run").assert_refused(1, "is damaged")


def test_two_databases_are_compared(cli: Run, filled: str, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/target.sqlite"
    cli("copy", filled, target)
    result = cli("copy", filled, target, "--check")
    assert (result.code, result.out.split()[0]) == (0, "equal:")
    with Store.open(target) as store:
        key = store.tasks.list(limit=1).items[0].task_id
        store.tasks.merge_metadata(key, {"changed": True})
    result = cli("copy", filled, target, "--check")
    assert (result.code, result.err) == (1, "")
    assert f"{key}: differs in version, metadata, updated_at" in " ".join(result.out.split())
    found = cli("copy", filled, target, "--check", "--json")
    assert found.code == 1
    assert not found.json["equal"]
    assert found.json["source_root_hash"] != found.json["target_root_hash"]
    assert found.json["differing"]["tasks"]["rows"] == 1


def test_what_cannot_be_copied_is_refused_in_one_line(cli: Run, filled: str, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path}/target.sqlite"
    cli("copy", f"sqlite:///{tmp_path}/none.sqlite", target).assert_refused(3, "none.sqlite")
    cli("copy", filled, filled).assert_refused(5, "both the source and the target")
    cli("copy", filled, "mysql://me:sekret@host/db").assert_refused(4, "target")
    cli("copy", filled, "postgresql://me:sekret@127.0.0.1:1/db").assert_refused(7, "cannot connect")
    cli("copy", filled, target, "--target-schema", "s").assert_refused(4, "target schema")
    cli("--url", filled, "copy", filled, target).assert_refused(4, "--url")
    assert not (tmp_path / "target.sqlite").exists()
    cli("copy", filled, target)
    cli("copy", filled, target).assert_refused(5, "not empty")
    cli("copy", filled, target, "--restart").assert_refused(5, "not empty")


def test_an_interrupted_copy_is_finished_by_the_same_command(
    cli: Run, filled: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = f"sqlite:///{tmp_path}/target.sqlite"

    def interrupt(_: object) -> None:
        signal.raise_signal(signal.SIGINT)

    # It is interrupted as soon as rows are there.
    with monkeypatch.context() as patched:
        patched.setattr(move._Move, "index", interrupt)
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            done = cli("copy", filled, target)
        finally:
            signal.signal(signal.SIGINT, before)
    assert (done.code, done.out) == (130, "")
    assert "the command can be repeated" in done.err
    cli("--url", target, "status").assert_refused(6, "unfinished copy", "--restart")
    cli("--url", target, "db", "upgrade").assert_refused(6, "unfinished copy")
    result = cli("copy", filled, target, "--json")
    assert result.code == 0
    assert result.json["resumed"]
    with closing(sqlite3.connect(tmp_path / "target.sqlite")) as raw:
        assert raw.execute("SELECT 1 FROM sqlite_master WHERE name = 'agentos_store_move'").fetchone() is None
    assert cli("copy", filled, target, "--check").code == 0


def test_an_audit_trail_that_was_broken_before_is_told(cli: Run, filled: str, tmp_path: Path) -> None:
    with closing(sqlite3.connect(filled.removeprefix("sqlite:///"), isolation_level=None)) as raw:
        raw.execute("UPDATE task_audit_heads SET length = length + 1 WHERE rowid = 1")
    result = cli("copy", filled, f"sqlite:///{tmp_path}/target.sqlite")
    assert result.code == 1
    assert "broken in the source, too" in result.out
    with Store.open(f"sqlite:///{tmp_path}/target.sqlite") as store:
        assert len(store.audits.verify().faults) == 1
