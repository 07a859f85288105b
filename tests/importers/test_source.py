"""Opening a registry changes nothing, misses nothing, and refuses what it cannot read."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentos_store.errors import (
    InvalidValueError,
    NotFoundError,
    SchemaMismatchError,
    UnavailableError,
    UsageError,
)
from agentos_store.importers.agentos.registry import open_registry
from agentos_store.importers.problems import Problem
from agentos_store.testing.registries import make_registry

Small = Callable[..., Path]


def titles(path: Path) -> list[str]:
    with open_registry(path) as registry:
        return [task.title for task in registry.tasks() if not isinstance(task, Problem)]


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError) as refused:
        open_registry(tmp_path / "none.sqlite")
    assert (refused.value.entity, refused.value.key) == ("file", str(tmp_path / "none.sqlite"))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_registry_is_refused(tmp_path: Path) -> None:
    text, empty, other = (tmp_path / name for name in ("text", "empty", "other"))
    text.write_text("tasks: none")
    empty.touch()
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE tasks (task_id TEXT)")
    connection.close()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path, text, empty, other, pipe, Path("a\0b")):
        with pytest.raises(InvalidValueError) as refused:
            open_registry(path)
        assert refused.value.name == "path"


def test_a_file_that_may_not_be_read_is_unavailable(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UnavailableError):
        open_registry(path)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("DELETE FROM schema_version WHERE version = '0.25.0'", "0.24.0"),
        ("INSERT INTO schema_version VALUES ('0.26.0', NULL)", "0.26.0"),
        ("INSERT INTO schema_version VALUES ('1.0', NULL)", "1.0"),
        ("DELETE FROM schema_version", None),
        ("UPDATE schema_version SET version = 'newest ' || version", None),
    ],
)
def test_another_version_is_refused_and_named(small: Small, change: str, found: str | None) -> None:
    path = small((change, ()))
    # 0.9.0 sorts after 0.25.0 as text, and does not count as later.
    with pytest.raises(SchemaMismatchError) as refused:
        open_registry(path)
    assert (refused.value.found, refused.value.expected) == (found, "0.25")


def test_a_later_patch_of_the_same_version_is_read(small: Small) -> None:
    with open_registry(small(("INSERT INTO schema_version VALUES ('0.25.3', NULL)", ()))) as registry:
        assert registry.version == "0.25.3"


def test_the_shape_is_told_by_the_columns(tmp_path: Path) -> None:
    make_registry(tmp_path / "a", shape="agentos", tasks=1)
    make_registry(tmp_path / "d", shape="document", tasks=1)
    with open_registry(tmp_path / "a") as first, open_registry(tmp_path / "d") as second:
        assert (first.shape, second.shape) == ("agentos", "document")
        assert first.problems == second.problems == ()


@pytest.mark.parametrize("name", ["with space?.sqlite", "100%#1.sqlite", "登记.sqlite", "a'b\"c;d&e=f"])
def test_any_name_of_a_file_can_be_opened(small: Small, name: str) -> None:
    path = small()
    path = path.rename(path.with_name(name))
    assert len(titles(path)) == 3
    assert list(path.parent.iterdir()) == [path]


def test_a_file_left_in_wal_mode_is_read_without_making_a_log(small: Small) -> None:
    path = small()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("UPDATE tasks SET title = 'from the log'")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    path.parent.chmod(0o500)
    try:
        assert titles(path) == ["from the log"] * 3
    finally:
        path.parent.chmod(0o700)
    assert (path.read_bytes(), list(path.parent.iterdir())) == (before, [path])


def test_rows_that_are_only_in_the_log_are_read(small: Small) -> None:
    path = small()
    writer = sqlite3.connect(path)
    writer.execute("PRAGMA journal_mode=WAL")
    writer.execute("PRAGMA wal_autocheckpoint=0")
    writer.execute("UPDATE tasks SET title = 'from the log'")
    writer.commit()
    before = {entry.name: entry.read_bytes() for entry in path.parent.iterdir()}
    assert len(before["registry.sqlite-wal"]) > 0
    assert titles(path) == ["from the log"] * 3
    assert {entry.name: entry.read_bytes() for entry in path.parent.iterdir()} == before
    writer.close()


def test_a_transaction_that_was_cut_off_is_undone_in_the_copy(small: Small, tmp_path: Path) -> None:
    path = small(tasks=60)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA cache_size=1")
    writer.execute("BEGIN")
    writer.execute("UPDATE tasks SET title = 'half of it' || hex(zeroblob(200))")
    crashed = tmp_path / "crashed"
    shutil.copytree(path.parent, crashed)
    writer.execute("ROLLBACK")
    writer.close()
    before = {entry.name: entry.read_bytes() for entry in crashed.iterdir()}
    assert set(before) == {"registry.sqlite", "registry.sqlite-journal"}
    assert b"half of it" in before["registry.sqlite"]
    assert not [title for title in titles(crashed / "registry.sqlite") if title.startswith("half")]
    assert {entry.name: entry.read_bytes() for entry in crashed.iterdir()} == before


def test_the_copy_is_private_and_removed(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small()
    (path.parent / "registry.sqlite-wal").write_bytes(b"no log at all")
    (tmp_path / "temp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temp"))
    with open_registry(path):
        (folder,) = (tmp_path / "temp").iterdir()
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list((tmp_path / "temp").iterdir()) == []


def test_a_registry_that_is_written_to_all_the_time_is_refused(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small()
    log = path.parent / "registry.sqlite-wal"
    log.write_bytes(b"x")
    copy = shutil.copyfile

    def copy_while_it_grows(source: Path, target: Path) -> Path:
        with log.open("ab") as file:
            file.write(b"x")
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy_while_it_grows)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(UnavailableError):
        open_registry(path)


def test_a_change_during_the_reading_is_noticed(small: Small) -> None:
    path = small()
    with open_registry(path) as registry:
        assert not registry.changed
        connection = sqlite3.connect(path)
        connection.execute("DELETE FROM tasks")
        connection.commit()
        connection.close()
        os.utime(path, ns=(1, 1))
        assert registry.changed


def test_an_iterator_does_not_outlive_its_registry(small: Small) -> None:
    with open_registry(small()) as registry:
        tasks = registry.tasks()
        next(tasks)
        abandoned = registry.lineage()
        next(abandoned)
    with pytest.raises(UsageError):
        list(tasks)
    del abandoned


def test_search_tables_and_their_shadows_are_left_out(small: Small) -> None:
    path = small(
        ("CREATE VIRTUAL TABLE memory_fts USING fts5(id UNINDEXED, content)", ()),
        ("INSERT INTO memory_fts VALUES ('mem-1', '数据库')", ()),
        ("CREATE TABLE memory_fts_notes (id INTEGER PRIMARY KEY AUTOINCREMENT)", ()),
    )
    with open_registry(path) as registry:
        names = set(registry.no_place())
    assert {name for name in names if "fts" in name or name.startswith("sqlite_")} == {"memory_fts_notes"}


def test_what_is_not_read_is_counted(tmp_path: Path) -> None:
    manifest = make_registry(tmp_path / "registry.sqlite")
    with open_registry(tmp_path / "registry.sqlite") as registry:
        counted = registry.no_place()
        raw = list(registry.raw("snippets"))
        with pytest.raises(NotFoundError):
            registry.raw("no such table")
    assert counted == {
        "guardian_assignments": manifest["unused_assignments"],
        "patches": 1,
        "runs": 1,
        "snippets": 1,
    }
    assert not isinstance(raw[0], Problem)
    assert raw[0].values["title"] == "打开数据库"


def test_an_unknown_or_missing_column_is_told_of(small: Small) -> None:
    path = small(
        ("ALTER TABLE tasks ADD COLUMN mood TEXT", ()),
        ("ALTER TABLE project_repos DROP COLUMN remote_url", ()),
    )
    with open_registry(path) as registry:
        told = {(problem.table, problem.key) for problem in registry.problems}
        assert told == {("tasks", "column mood"), ("project_repos", "column remote_url")}
        assert len(list(registry.repos())) == 5
