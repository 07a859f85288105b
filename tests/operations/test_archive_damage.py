"""Archives that are not what was written, in which nothing that was changed passes, and files that are none."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import (
    DamagedFileError,
    InvalidValueError,
    NotFoundError,
    SchemaMismatchError,
    Store,
    UnavailableError,
    restore_backup,
    verify_backup,
)
from agentos_store.operations.moving.archive_manifest import LONGEST_MANIFEST
from tests.operations.conftest import Files, Rewrite


def test_a_byte_that_was_changed_anywhere_is_found(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    rng = random.Random(1)
    path = tmp_path / "changed.zip"
    places = [0, 29, 35, 60, len(whole) - 1, len(whole) - 64, len(whole) - 65, len(whole) - 80]
    for place in [*places, *(rng.randrange(len(whole)) for _ in range(50))]:
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        with pytest.raises((DamagedFileError, InvalidValueError)) as caught:
            verify_backup(path)
        # What makes it an archive at all is in its first bytes.
        assert isinstance(caught.value, DamagedFileError) or place < 60, place


def test_a_damaged_row_is_named_with_its_table_and_line(archive: Path, rewrite: Rewrite, sqlite_url: str) -> None:
    def change(files: Files) -> Files:
        return [
            (name, content.replace(b'"assistant"', b'"assistant') if name == "tables/messages.jsonl" else content)
            for name, content in files
        ]

    path = rewrite(change)
    with zipfile.ZipFile(archive) as found:
        lines = found.read("tables/messages.jsonl").splitlines()
    line = next(number for number, each in enumerate(lines, start=1) if b'"assistant"' in each)
    for check in (verify_backup, lambda path: restore_backup(path, sqlite_url)):
        with pytest.raises(DamagedFileError) as caught:
            check(path)
        assert (caught.value.table, caught.value.line) == ("messages", line)
    # What was begun cannot be used.
    with pytest.raises(SchemaMismatchError, match="unfinished"):
        Store.open(sqlite_url)


def test_a_row_that_could_be_one_is_found_by_the_hash_of_its_table(rewrite: Rewrite, sqlite_url: str) -> None:
    path = rewrite(
        lambda files: [
            (name, content.replace("老王".encode(), "老李".encode()) if name == "tables/users.jsonl" else content)
            for name, content in files
        ]
    )
    for check in (verify_backup, lambda path: restore_backup(path, sqlite_url)):
        with pytest.raises(DamagedFileError) as caught:
            check(path)
        assert (caught.value.table, caught.value.line) == ("users", None)


def test_an_archive_that_was_cut_off_anywhere_is_found(archive: Path, tmp_path: Path) -> None:
    whole = archive.read_bytes()
    rng = random.Random(2)
    path = tmp_path / "cut.zip"
    for length in [0, 1, 40, 60, len(whole) - 1, len(whole) - 64, *(rng.randrange(len(whole)) for _ in range(50))]:
        path.write_bytes(whole[:length])
        with pytest.raises((DamagedFileError, InvalidValueError)) as caught:
            verify_backup(path)
        assert isinstance(caught.value, DamagedFileError) or length < 60, length
    path.write_bytes(whole + b"\n")
    with pytest.raises(DamagedFileError):
        verify_backup(path)


def test_a_damaged_archive_leaves_the_database_as_it_is(archive: Path, empty: str, tmp_path: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(DamagedFileError):
        restore_backup(tmp_path / "bad.zip", empty)
    with Store.open(empty) as store:
        assert store.tasks.count() == 0


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda files: [*files[:-1], ("../../etc/passwd", b"x"), files[-1]], "files that its manifest names"),
        (lambda files: [*files[:-1], ("/tables/tasks.jsonl", b"x"), files[-1]], "files that its manifest names"),
        (lambda files: [*files[:-2], files[-1]], "files that its manifest names"),
        (lambda files: [files[1], files[0], *files[2:]], None),
        (lambda files: files[:-1], "directory"),
        (lambda files: [*files[:-1], (files[-1][0], b"[" * 100_000)], "manifest"),
        (lambda files: [*files[:-1], (files[-1][0], b" " * (LONGEST_MANIFEST + 1))], "too long"),
        (lambda files: [(name, content.replace(b"\n", b"")) for name, content in files], None),
        (
            lambda files: [(n, c + b"[1]\n" if n.endswith("users.jsonl") else c) for n, c in files],
            "line 2 of tables/use",
        ),
        (
            lambda files: [(n, b"" if n.endswith("users.jsonl") else c) for n, c in files],
            "line 1 of tables/users.jsonl",
        ),
        # A bomb: a line that would fill the memory, in a file of few bytes.
        (
            lambda files: [(n, b"[" * 10**8 if n.endswith("users.jsonl") else c) for n, c in files],
            "line 1 of tables/us",
        ),
    ],
)
def test_what_nobody_can_have_archived_is_refused(
    change: Callable[[Files], Files], why: str | None, rewrite: Rewrite
) -> None:
    with pytest.raises((DamagedFileError, InvalidValueError), match=why):
        verify_backup(rewrite(change))


def test_a_file_that_is_there_twice_is_refused(rewrite: Rewrite) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        path = rewrite(lambda files: [*files[:-1], files[1], files[-1]])
    with pytest.raises(DamagedFileError, match="each once"):
        verify_backup(path)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda m: m.update(version=2), SchemaMismatchError),
        (lambda m: m.update(revision="9999_future"), SchemaMismatchError),
        (lambda m: m.update(format="something else"), DamagedFileError),
        (lambda m: m.update(root_hash="0" * 64), DamagedFileError),
        (lambda m: m.update(tables=None), DamagedFileError),
        (lambda m: m["tables"].pop(), DamagedFileError),
        (lambda m: m["tables"][0].update(rows=True), DamagedFileError),
        (lambda m: m["tables"][0].update(rows=-1), DamagedFileError),
        (lambda m: m["tables"][0].update(longest=2**40), DamagedFileError),
        (lambda m: m["tables"][0]["columns"].append("a\nb"), DamagedFileError),
        (lambda m: m["tables"][0]["columns"].append(["x"]), DamagedFileError),
        (lambda m: m["facts"].update(numbers={"users": 3}), DamagedFileError),
        (lambda m: m["facts"]["numbers"].update(events=-5), DamagedFileError),
        (lambda m: m.update(created_at="yesterday"), DamagedFileError),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    change: Callable[[dict[str, Any]], object], error: type[Exception], rewrite: Rewrite, sqlite_url: str
) -> None:
    path = rewrite(manifest=change)
    with pytest.raises(error):
        verify_backup(path)
    with pytest.raises(error):
        restore_backup(path, sqlite_url)
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()


def test_an_archive_of_an_older_revision_is_verified_and_not_restore_backup(rewrite: Rewrite, sqlite_url: str) -> None:
    path = rewrite(manifest=lambda found: found.update(revision="0016_retention"))
    assert verify_backup(path).revision == "0016_retention"
    with pytest.raises(SchemaMismatchError, match=r"agentos-store 0\.25"):
        restore_backup(path, sqlite_url)


def test_what_is_no_backup_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"hello", b"PK\x03\x04" + bytes(100), b"PK\x05\x06" + bytes(18)):
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(InvalidValueError, match="neither"):
            verify_backup(tmp_path / "x")
        with pytest.raises(InvalidValueError, match="neither"):
            restore_backup(tmp_path / "x", f"sqlite:///{tmp_path}/new.sqlite")
    with pytest.raises(NotFoundError):
        verify_backup(tmp_path / "none")
    with pytest.raises(UnavailableError):
        verify_backup(tmp_path)
    assert not (tmp_path / "new.sqlite").exists()
