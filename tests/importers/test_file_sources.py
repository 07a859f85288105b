"""Files come in whole or not at all, whatever happens to them meanwhile."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from agentos_store import Store
from agentos_store.importers.files import FilesReport, add_files, find_files


def make(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        parts = (f"# Part {part} of {number}\n\n数据库 text\n\n" for part in range(5))
        (folder / f"{number}.md").write_text("".join(parts), encoding="utf-8")


def test_a_file_that_goes_after_it_was_found_is_reported(store: Store, tmp_path: Path) -> None:
    make(tmp_path / "notes", 2)
    add_files(store, find_files([tmp_path / "notes"]))
    files = find_files([tmp_path / "notes"])
    (tmp_path / "notes" / "0.md").unlink()
    report = add_files(store, files)
    assert [(Path(path).name, why) for path, why in report.skipped] == [("0.md", "is gone since it was found")]
    # What was known of it stays until it is pruned.
    assert store.kb.count_sources() == 2
    assert add_files(store, find_files([tmp_path / "notes"]), prune=True).removed == 1


def test_a_directory_or_a_link_in_the_place_of_a_file_means_that_the_file_is_gone(store: Store, tmp_path: Path) -> None:
    make(tmp_path / "notes", 3)
    add_files(store, find_files([tmp_path / "notes"]))
    for name in ("0.md", "1.md"):
        (tmp_path / "notes" / name).unlink()
    (tmp_path / "notes" / "0.md").mkdir()
    (tmp_path / "notes" / "1.md").symlink_to("2.md")
    report = add_files(store, find_files([tmp_path / "notes"]), prune=True)
    assert (report.removed, report.unchanged, report.links) == (2, 1, 1)


def test_a_path_that_is_too_long_for_the_store_is_reported(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "notes"
    make(folder, 1)
    deep = folder
    for _ in range(5):
        deep /= "长" * 80
    deep.mkdir(parents=True)
    (deep / "a.md").write_text("text")
    report = add_files(store, find_files([folder]))
    assert (report.added, len(report.skipped)) == (1, 1)
    assert "1,200" in report.skipped[0][1]


def test_a_long_text_comes_in_and_is_found(store: Store, tmp_path: Path) -> None:
    # 5 MB in UTF-8, or as many as show the same.
    lines = 110_000 if os.environ.get("AGENTOS_STORE_PACKAGES") == "all" else 10_000
    text = "# Start\n\n" + "今天北京天气很好。The pool is full.\n\n" * lines + "# End\n\n图书馆\n"
    (tmp_path / "long.md").write_text(text, encoding="utf-8")
    report = add_files(store, find_files([tmp_path / "long.md"]))
    assert report.chunks_added == store.kb.count_chunks()
    (hit,) = store.kb.search("图书馆")
    assert (hit.chunk.heading, hit.chunk.start_line, hit.chunk.end_line) == ("End", 2 * lines + 3, 2 * lines + 5)
    assert add_files(store, find_files([tmp_path / "long.md"])).unchanged == 1


def test_two_runs_at_once_end_with_every_file_once_and_whole(store: Store, url: str, tmp_path: Path) -> None:
    make(tmp_path / "notes", 15)
    reports: list[FilesReport] = []
    barrier = threading.Barrier(3)

    def run() -> None:
        with Store.open(url) as other:
            barrier.wait()
            reports.append(add_files(other, find_files([tmp_path / "notes"])))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 3
    assert sum(report.added for report in reports) == 15
    assert sum(report.chunks_added for report in reports) == store.kb.count_chunks() == 75
    assert len(store.kb.search("数据库", limit=1000)) == 75


def test_progress_is_told_for_each_file(store: Store, tmp_path: Path) -> None:
    make(tmp_path / "notes", 3)
    (tmp_path / "notes" / "1.md").write_bytes(b"\0")
    told: list[tuple[int, int]] = []
    add_files(store, find_files([tmp_path / "notes"]), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
