"""What has no place in the store is written to a file of its own, whole, private, and never over another file."""

from __future__ import annotations

import base64
import json
import sqlite3
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.errors import AlreadyExistsError, ConflictError
from agentos_store.importers.agentos.load import import_registry

Made = tuple[Path, dict[str, Any]]
Small = Callable[..., Path]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_row_that_is_counted_as_left_is_written(store: Store, made: Made, tmp_path: Path) -> None:
    path, _ = made
    rest = tmp_path / "rest.jsonl"
    report = import_registry(store, path, export_rest=rest)
    written = lines(rest)
    assert Counter(line["table"] for line in written) == report.no_place == report.exported
    assert all(set(line) == {"table", "row"} for line in written)
    assert stat.S_IMODE(rest.stat().st_mode) == 0o600
    assert list(tmp_path.glob(".rest*")) == []


def test_bytes_and_broken_text_come_back_as_they_were(store: Store, small: Small, tmp_path: Path) -> None:
    path = small(
        ("CREATE TABLE odd (a BLOB, b TEXT, c REAL, d INTEGER, e TEXT)", ()),
        ("INSERT INTO odd VALUES (?, CAST(? AS TEXT), 9e999, ?, ?)", (b"\x00\xff", b"caf\xe9", 2**63 - 1, "文\n\x00")),
    )
    rest = tmp_path / "rest.jsonl"
    import_registry(store, path, export_rest=rest)
    (row,) = [line["row"] for line in lines(rest) if line["table"] == "odd"]
    assert base64.b64decode(row["a"]["base64"]) == b"\x00\xff"
    assert base64.b64decode(row["b"]["base64"]) == b"caf\xe9"
    assert (row["c"], row["d"], row["e"]) == ({"float": "inf"}, 2**63 - 1, "文\n\x00")
    assert not {"memory_items", "kb_sources", "kb_chunks", "kb_embeddings"} & {line["table"] for line in lines(rest)}


def test_a_file_that_is_there_is_refused_before_anything_is_imported(
    store: Store, small: Small, tmp_path: Path
) -> None:
    rest = tmp_path / "rest.jsonl"
    for make in (lambda: rest.write_text("mine"), lambda: rest.symlink_to(tmp_path / "nowhere")):
        make()
        with pytest.raises(AlreadyExistsError):
            import_registry(
                store, tmp_path / "small" / "registry.sqlite" if rest.is_symlink() else small(), export_rest=rest
            )
        assert store.tasks.count() == 0
        rest.unlink()
    assert sorted(path.name for path in tmp_path.iterdir() if "rest" in path.name) == []


def test_a_file_that_appears_meanwhile_is_not_written_over(store: Store, small: Small, tmp_path: Path) -> None:
    rest = tmp_path / "rest.jsonl"

    def progress(kind: str, done: int, total: int) -> None:
        rest.write_text("mine")

    with pytest.raises(AlreadyExistsError):
        import_registry(store, small(), export_rest=rest, progress=progress)
    assert rest.read_text() == "mine"
    assert list(tmp_path.glob(".rest*")) == []


def test_nothing_is_left_of_the_file_when_the_registry_was_written_to(
    store: Store, small: Small, tmp_path: Path
) -> None:
    path, rest = small(), tmp_path / "rest.jsonl"

    def progress(kind: str, done: int, total: int) -> None:
        if kind == "inbox":
            connection = sqlite3.connect(path)
            connection.execute("CREATE TABLE another (id INTEGER)")
            connection.close()

    with pytest.raises(ConflictError):
        import_registry(store, path, export_rest=rest, progress=progress)
    assert [found.name for found in tmp_path.iterdir() if "rest" in found.name] == []


def test_where_no_file_can_be_made_nothing_is_imported(store: Store, small: Small, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        import_registry(store, small(), export_rest=tmp_path / "no such folder" / "rest.jsonl")
    assert store.tasks.count() == 0
