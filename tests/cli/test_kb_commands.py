"""``agentos-store kb``: directories become searchable, what did not change costs nothing, and nothing is half in."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store, ensure_migrations

Run = Callable[..., Any]

HEARS_SIGINT = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)"
"""Whoever runs the tests in the background has it ignored, and a child inherits that."""


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """Some notes of a person."""
    folder = tmp_path / "notes"
    (folder / "工作").mkdir(parents=True)
    (folder / "db.md").write_text("# 数据库\n\n## 迁移\n\n先备份，再做数据库迁移。\n", encoding="utf-8")
    (folder / "工作" / "plan.txt").write_text("Move the database in May.\n", encoding="utf-8")
    (folder / "empty.md").write_text("")
    (folder / "code.py").write_text("print()")
    return folder


def added(result: Any) -> tuple[int, int, int, int]:
    report = result.json
    return report["added"], report["changed"], report["unchanged"], report["removed"]


def rows(store: Store) -> list[Any]:
    """Everything that is known, times of indexing included."""
    return [
        *(source.to_dict() for source in store.kb.iterate_sources()),
        *(chunk.to_dict() for chunk in store.kb.iterate_chunks()),
    ]


def test_a_second_run_from_anywhere_changes_nothing(
    cli: Run, url: str, store: Store, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = cli("--url", url, "kb", "add", notes, "--json")
    assert (first.code, first.err, added(first)) == (0, "", (3, 0, 0, 0))
    assert first.json["chunks"] == {"added": 2, "kept": 0, "removed": 0}
    before = rows(store)
    assert [row["source_path"] for row in before[:3]] == [
        os.path.realpath(notes / name) for name in ("db.md", "empty.md", "工作/plan.txt")
    ]
    monkeypatch.chdir(notes)
    (notes.parent / "link").symlink_to(notes)
    for again in (".", "../notes", "../link", "db.md"):
        result = cli("--url", url, "kb", "add", again, "--json")
        assert (result.code, added(result)[:2], result.json["chunks"]["added"]) == (0, (0, 0), 0)
    assert rows(store) == before


def test_a_changed_file_keeps_the_chunks_that_stayed(cli: Run, url: str, store: Store, notes: Path) -> None:
    cli("--url", url, "kb", "add", notes)
    (kept,) = [chunk for chunk in store.kb.iterate_chunks() if chunk.heading]
    (notes / "db.md").write_text("# 新的\n\nneu\n\n" + (notes / "db.md").read_text(encoding="utf-8"), encoding="utf-8")
    result = cli("--url", url, "kb", "add", notes, "--json")
    assert added(result) == (0, 1, 2, 0)
    assert result.json["chunks"] == {"added": 1, "kept": 1, "removed": 0}
    chunk = store.kb.get_chunk(kept.chunk_id)
    assert (chunk.content, chunk.start_line, chunk.end_line) == (kept.content, 5, 9)


def test_what_cannot_be_read_is_reported_and_the_rest_comes_in(cli: Run, sqlite_url: str, notes: Path) -> None:
    (notes / "picture.txt").write_bytes(b"\x89PNG\0\0")
    (notes / "gb.md").write_bytes("今天天气很好".encode("gb18030"))
    (notes / "utf16.md").write_text("今天天气很好", encoding="utf-16")
    (notes / "link.md").symlink_to("db.md")
    result = cli("--url", sqlite_url, "kb", "add", notes, "--json")
    assert (result.code, added(result), result.json["links"]) == (1, (4, 0, 0, 0), 1)
    assert {Path(each["path"]).name: each["why"] for each in result.json["skipped"]} == {
        "picture.txt": "is binary",
        "gb.md": "is no UTF-8 from byte 0 on; it is read when its encoding is named",
    }
    assert [(Path(each["path"]).name, each["encoding"]) for each in result.json["encodings"]] == [
        ("utf16.md", "utf-16")
    ]
    shown = cli("--url", sqlite_url, "kb", "add", notes, "--encoding", "gb18030", "--exclude", "picture.*")
    assert (shown.code, shown.err) == (0, "")
    assert "gb18030" in shown.out
    found = cli("--url", sqlite_url, "search", "天气", "--json").json["hits"]
    assert {Path(hit["path"]).name for hit in found} == {"gb.md", "utf16.md"}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_is_reported(cli: Run, sqlite_url: str, notes: Path) -> None:
    Path(os.fsdecode(os.fsencode(notes) + b"/\xff.md")).write_text("text")
    result = cli("--url", sqlite_url, "kb", "add", notes, "--json")
    assert (result.code, added(result)) == (1, (3, 0, 0, 0))
    (skipped,) = result.json["skipped"]
    assert "source_path" not in skipped["why"]


def test_prune_removes_what_is_gone_below_the_path_and_nothing_else(
    cli: Run, url: str, store: Store, notes: Path
) -> None:
    store.projects.create(id="shop", path="/srv/shop", name="Shop")
    (notes.parent / "notes2").mkdir()
    (notes.parent / "notes2" / "a.md").write_text("text")
    cli("--url", url, "kb", "add", notes, notes.parent / "notes2")
    cli("--url", url, "kb", "add", notes, "--project", "shop")
    (notes / "db.md").unlink()
    (notes / "工作" / "plan.txt").rename(notes / "plan.txt")
    (notes.parent / "notes2" / "a.md").unlink()
    # A file that is there and not selected is not gone.
    arguments = ("--url", url, "kb", "add", notes, "--prune", "--exclude", "empty.md", "--json")
    for dry in (True, False):
        assert added(cli(*arguments, *(["--dry-run"] if dry else []))) == (1, 0, 0, 2)
    left = [(source.project_id, Path(source.source_path).name) for source in store.kb.iterate_sources()]
    assert sorted(left, key=str) == [
        *(("shop", "db.md"), ("shop", "empty.md"), ("shop", "plan.txt")),
        *((None, "a.md"), (None, "empty.md"), (None, "plan.txt")),
    ]
    assert cli("--url", url, "search", "数据库", "--json").json["hits"][0]["kind"] == "chunk"
    assert added(cli("--url", url, "kb", "add", notes, "--prune", "--project", "shop", "--json")) == (1, 0, 1, 2)
    assert cli("--url", url, "search", "数据库", "--json").json["hits"] == []
    assert store.search.check()["chunk"].documents == store.kb.count_chunks()
    assert store.search.check()["chunk"].orphaned == 0


def test_a_dry_run_writes_nothing_and_makes_no_store(cli: Run, sqlite_url: str, notes: Path) -> None:
    result = cli("--url", sqlite_url, "kb", "add", notes, "--dry-run", "--prune", "--json")
    assert (result.code, added(result), result.json["dry_run"]) == (0, (3, 0, 0, 0), True)
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()
    assert "Would be done" in cli("--url", sqlite_url, "kb", "add", notes, "--dry-run").out


def test_gitignore_counts_unless_it_is_said_otherwise(cli: Run, sqlite_url: str, notes: Path) -> None:
    (notes / ".gitignore").write_text("工作\n")
    (notes / ".hidden.md").write_text("text")
    counts = [
        added(cli("--url", sqlite_url, "kb", "add", notes, "--dry-run", "--json", *options))[0]
        for options in ((), ("--no-gitignore",), ("--all",), ("--include", "*.py", "--include", "*.md"))
    ]
    assert counts == [2, 3, 4, 3]


def test_a_slip_leaves_no_store_behind(cli: Run, sqlite_url: str, notes: Path) -> None:
    def add(*arguments: str | Path) -> Any:
        return cli("--url", sqlite_url, "kb", "add", *arguments)

    add(notes, notes / "none").assert_refused(3, "no file or directory", "none")
    add(notes, "--include", "!").assert_refused(4, "include")
    add(notes, "--encoding", "utf-99").assert_refused(4, "encoding")
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()
    add(notes, "--project", "none").assert_refused(3, "project")


def test_without_the_extra_the_error_says_how_to_install_it(
    cli: Run, sqlite_url: str, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "semantic_text_splitter", None)
    cli("--url", sqlite_url, "kb", "add", notes).assert_refused(1, "pip install 'agentos-store[kb]'")
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()


def test_sources_are_listed_by_their_paths(cli: Run, sqlite_url: str, notes: Path) -> None:
    cli("--url", sqlite_url, "kb", "add", notes)
    first = cli("--url", sqlite_url, "kb", "list", "--limit", "2", "--json").json
    rest = cli("--url", sqlite_url, "kb", "list", "--limit", "2", "--cursor", first["next"], "--json").json
    names = [Path(item["source_path"]).name for item in first["items"] + rest["items"]]
    assert (names, rest["next"]) == (["db.md", "empty.md", "plan.txt"], None)
    below = cli("--url", sqlite_url, "kb", "list", "--below", notes / "工作", "--json").json["items"]
    assert [Path(item["source_path"]).name for item in below] == ["plan.txt"]
    assert "plan.txt" in cli("--url", sqlite_url, "kb", "list").out
    assert "more: --cursor" in cli("--url", sqlite_url, "kb", "list", "--limit", "1").out


def test_a_source_is_removed_by_its_key_its_file_or_its_directory(
    cli: Run, url: str, store: Store, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("--url", url, "kb", "add", notes)
    sources = list(store.kb.iterate_sources())
    cli("--url", url, "kb", "remove", sources[0].source_id, "none").assert_refused(3, "none")
    assert cli("--url", url, "kb", "remove", notes, "--dry-run").out.startswith("Would be removed (3)")
    assert store.kb.count_sources() == 3
    assert cli("--url", url, "kb", "remove", sources[0].source_id).code == 0
    monkeypatch.chdir(notes)
    assert len(cli("--url", url, "kb", "remove", "empty.md", "--json").json["removed"]) == 1
    # The file may be gone.
    (notes / "工作" / "plan.txt").unlink()
    assert len(cli("--url", url, "kb", "remove", "工作", "--json").json["removed"]) == 1
    assert rows(store) == []
    assert store.search.check()["chunk"].documents == store.kb.count_chunks()
    assert store.search.check()["chunk"].orphaned == 0


def test_an_interrupted_run_leaves_whole_files_only_and_can_be_repeated(
    cli: Run, start: Run, sqlite_url: str, tmp_path: Path
) -> None:
    # How an interrupt ends a command on PostgreSQL is that of the import, too.
    ensure_migrations(sqlite_url)
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(100):
        (folder / f"{number:03}.md").write_text("".join(f"# Part {part}\n\ntext\n\n" for part in range(5)))
    with Store.open(sqlite_url) as store:
        child = start("--url", sqlite_url, "kb", "add", folder, before=HEARS_SIGINT)
        while child.poll() is None and not store.kb.count_sources():
            time.sleep(0.01)
        with store.transaction():
            # It waits in the queue meanwhile, so it cannot be done before the signal is on its way.
            child.send_signal(signal.SIGINT)
        out, err = child.communicate()
        assert (child.returncode, out) == (130, "")
        assert err == "interrupted: what was committed stays; the command can be repeated\n"
        stored = store.kb.count_sources()
        assert 0 < stored < 100
        assert store.kb.count_chunks() == 5 * stored
        assert {store.kb.count_chunks(source_id=source.source_id) for source in store.kb.iterate_sources()} == {5}
        result = cli("--url", sqlite_url, "kb", "add", folder, "--json")
        assert added(result) == (100 - stored, 0, stored, 0)
        assert store.kb.count_chunks() == 500


def test_a_directory_is_searched_in_two_commands(cli: Run, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(notes)
    result = cli("kb", "add", ".", "--json")
    # The bar is for terminals.
    assert (result.code, result.err) == (0, "")
    assert json.loads(result.out)["added"] == 3
    assert (notes / "store" / "registry.sqlite").exists()
    assert "db.md:3" in cli("search", "迁移").out
