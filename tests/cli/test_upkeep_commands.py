"""``db vacuum`` and ``db salvage``."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from agentos_store import Store
from tests.cli.conftest import Run


def test_vacuum_tells_the_bytes_before_and_after(cli: Run, filled: str) -> None:
    found = cli("--url", filled, "db", "vacuum", "--json")
    assert found.code == 0
    report = found.json
    assert report["full"]
    assert (report["skipped"], report["is_held_up"]) == ({}, False)
    assert report["bytes_after"] == Path(filled.removeprefix("sqlite:///")).stat().st_size
    told = cli("--url", filled, "db", "vacuum")
    assert (told.code, told.err) == (0, "")
    assert " before, " in told.out


def test_vacuum_makes_no_database(cli: Run, sqlite_url: str) -> None:
    cli("--url", sqlite_url, "db", "vacuum").assert_refused(3, "registry.sqlite")
    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()


def test_salvage_of_a_sound_file_finds_nothing_gone(cli: Run, filled: str, tmp_path: Path) -> None:
    found = cli("db", "salvage", filled.removeprefix("sqlite:///"), tmp_path / "new.sqlite")
    assert found.code == 0
    assert "nothing is known to be gone" in found.out
    with Store.open(filled) as old, Store.open(f"sqlite:///{tmp_path}/new.sqlite") as new:
        assert new.tasks.count() == old.tasks.count() > 0


def test_salvage_of_a_damaged_file_tells_what_is_gone(cli: Run, filled: str, tmp_path: Path) -> None:
    damaged = Path(filled.removeprefix("sqlite:///"))
    data = bytearray(damaged.read_bytes())
    choice = random.Random(1)
    for page in choice.sample(range(1, len(data) // 4096), len(data) // 4096 // 3):
        data[page * 4096 : page * 4096 + 4096] = choice.randbytes(4096)
    damaged.write_bytes(data)
    found = cli("db", "salvage", damaged, tmp_path / "new.sqlite", "--json")
    assert found.code == 1
    report = found.json
    assert not report["is_whole"]
    assert any(table["lost"] for table in report["tables"].values())
    cli("db", "salvage", damaged, tmp_path / "new.sqlite").assert_refused(5, "new.sqlite")
    told = cli("db", "salvage", damaged, tmp_path / "again.sqlite")
    assert told.code == 1
    assert "Salvaged from" in told.out


@pytest.mark.parametrize("name", ["nothing", "notes"])
def test_salvage_of_what_is_no_database_is_refused(cli: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "notes").write_text("no database")
    cli("db", "salvage", tmp_path / name, tmp_path / "new").assert_refused(3 if name == "nothing" else 1, name)
    assert not (tmp_path / "new").exists()
