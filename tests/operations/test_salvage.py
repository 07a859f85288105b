"""Salvage: what can be read of a damaged file is kept as it was, and what is gone is told."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store, ensure_migrations
from agentos_store.engine.version import HEAD
from agentos_store.errors import (
    AlreadyExistsError,
    DamagedFileError,
    LockTimeoutError,
    NotFoundError,
    SchemaMismatchError,
    UsageError,
)
from agentos_store.migrate.revisions import known
from agentos_store.migrate.target import Target
from agentos_store.migrate.upgrade import upgrade as make
from agentos_store.operations.backups import verify_sqlite
from agentos_store.operations.salvage import SalvageReport, run, salvage_sqlite
from tests.operations.populated import leave_a_log, names_in, populate, rows_of

SEEDS = int(os.environ.get("AGENTOS_STORE_SALVAGES", "1"))

SIZE = 4096


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """A sound file with rows in it; it is only copied."""
    path = tmp_path_factory.mktemp("sound") / "registry.sqlite"
    shutil.copy(sqlite_template, path)
    with Store.open(f"sqlite:///{path}") as store:
        populate(store)
    return path


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Path:
    """A copy of the file, for the test to damage."""
    return Path(shutil.copy(sound, tmp_path / "damaged.sqlite"))


@pytest.fixture(autouse=True)
def quick_schema(sqlite_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy the newest schema instead of making it, where a test is not about that."""

    def upgrade(target: Target, wanted: str) -> int:
        assert target.path is not None
        if wanted != HEAD or target.path.stat().st_size:
            return make(target, wanted)
        shutil.copyfile(sqlite_template, target.path)
        return 1

    monkeypatch.setattr(run, "upgrade", upgrade)


def kinds(path: Path) -> list[int]:
    """Return the kind of each page, if it is one of a tree."""
    data = path.read_bytes()
    return [data[start + (100 if start == 0 else 0)] for start in range(0, len(data), SIZE)]


def overwrite(path: Path, pages: list[int], seed: int = 1) -> None:
    """Overwrite pages, counted from 0, with random bytes."""
    choice = random.Random(seed)
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page * SIZE)
            file.write(choice.randbytes(SIZE))


def root_of(path: Path, name: str) -> int:
    """Return the page, counted from 0, at which a table or an index begins."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as raw:
        return int(raw.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()[0]) - 1


def salvage(damaged: Path) -> tuple[SalvageReport, Path]:
    """Salvage, and check what must hold of every salvage."""
    new = damaged.with_name("new.sqlite")
    before = damaged.read_bytes(), damaged.stat().st_mtime_ns
    told: list[tuple[str, int, int]] = []
    report = salvage_sqlite(damaged, new, progress=lambda *each: told.append(each))
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1] == told[-1][2]
    assert (damaged.read_bytes(), damaged.stat().st_mtime_ns) == before
    check = verify_sqlite(new)
    assert (check.integrity, check.foreign_keys) == ((), [])
    assert check.consistency is not None
    assert check.consistency.ok
    assert not list(new.parent.glob(".*"))
    return report, new


def compare(sound: Path, new: Path, report: SalvageReport) -> dict[str, int]:
    """See that no row was made up; return by table how many are gone, and see that the report says so."""
    gone = {}
    before, after = rows_of(sound), rows_of(new)
    for name, told in report.tables.items():
        rows: set[Any] = before[name]
        found: set[Any] = after[name]
        if told.unlinked or (name in {"messages", "sessions"} and report.repaired.counts):
            # What was put right after a loss: counters of sessions, and numbers of messages, in a new generation.
            rows = {row[0] for row in rows}
            found = {row[0] for row in found if "@" not in str(row[0])}
        assert found <= rows
        assert told.kept == len(found)
        gone[name] = len(rows - found)
        if told.lost is not None:
            total = told.lost + sum(told.left_out.values())
            assert total == gone[name] if told.lost_is_exact else total <= gone[name]
    return {name: count for name, count in gone.items() if count}


def test_of_a_sound_file_everything_is_kept(sound: Path, damaged: Path) -> None:
    report, new = salvage(damaged)
    assert rows_of(new) == rows_of(sound)
    assert report.is_whole
    assert report.audits.ok
    assert (report.found_revision, report.revision, report.left_out_path) == (HEAD, HEAD, None)
    with Store.open(f"sqlite:///{new}") as store:
        assert store.search.probe()
        assert all(each.ok and not each.missing for each in store.search.check().values())
        assert store.memory.search("天气", limit=100)
        # Numbers that were given are not given again.
        last = max(event.position for event in store.events.iterate())
        assert store.events.log("x").position == last + 1


@pytest.mark.parametrize("seed", range(SEEDS))
def test_of_a_file_with_twenty_overwritten_pages_the_rest_is_kept(sound: Path, damaged: Path, seed: int) -> None:
    overwrite(damaged, random.Random(seed).sample(range(1, len(kinds(damaged))), 20), seed)
    report, new = salvage(damaged)
    gone = compare(sound, new, report)
    assert not report.is_whole or not gone
    # A page holds a few rows; a row that is gone is not the end of others.
    assert sum(gone.values()) < 20 * 60


def test_rows_below_an_overwritten_page_find_their_way_back(sound: Path, damaged: Path) -> None:
    inner = [page for page, kind in enumerate(kinds(damaged)) if page and kind in {2, 5}]
    assert len(inner) > 5
    overwrite(damaged, inner)
    report, new = salvage(damaged)
    assert compare(sound, new, report) == {}
    assert {name: table.lost for name, table in report.tables.items() if table.lost} == {}


def test_without_the_first_page_the_schema_is_put_together_from_the_others(sound: Path, damaged: Path) -> None:
    overwrite(damaged, [0])
    with pytest.raises(DamagedFileError):
        verify_sqlite(damaged)
    report, new = salvage(damaged)
    assert compare(sound, new, report) == {}
    assert report.notes
    assert not report.is_whole


def test_tables_that_the_schema_has_lost_are_told_by_their_rows(sound: Path, damaged: Path) -> None:
    with contextlib.closing(sqlite3.connect(damaged, isolation_level=None)) as raw:
        raw.execute("PRAGMA writable_schema=ON")
        raw.execute("DELETE FROM sqlite_master WHERE tbl_name IN ('events', 'task_audits', 'messages')")
    report, new = salvage(damaged)
    found, rows = rows_of(new), rows_of(sound)
    for name in ("events", "task_audits", "messages"):
        assert found[name] <= rows[name]
        assert len(found[name]) > 0.9 * len(rows[name])
        assert report.tables[name].lost is None


def test_what_is_gone_is_named_by_the_indexes_that_still_know_it(sound: Path, damaged: Path) -> None:
    leaf = leaves_of(damaged, "events")[1]
    overwrite(damaged, [leaf])
    report, new = salvage(damaged)
    gone = compare(sound, new, report)
    told = report.tables["events"]
    assert gone == {"events": told.lost}
    assert told.lost_is_exact
    with Store.open(f"sqlite:///{new}") as store:
        there = {event.position for event in store.events.iterate()}
    assert told.lost_keys
    assert not set(told.lost_keys) & there


def leaves_of(path: Path, table: str) -> list[int]:
    """Return the leaves of a table, counted from 0, as its inner page has them."""
    data = path.read_bytes()
    root = root_of(path, table) * SIZE
    assert data[root] == 5
    count = int.from_bytes(data[root + 3 : root + 5], "big")
    cells = [int.from_bytes(data[root + 12 + 2 * n : root + 14 + 2 * n], "big") for n in range(count)]
    return [int.from_bytes(data[root + cell : root + cell + 4], "big") - 1 for cell in cells]


def test_a_chain_of_audits_that_lost_an_entry_says_so(damaged: Path) -> None:
    overwrite(damaged, [leaves_of(damaged, "task_audits")[1]])
    report, _ = salvage(damaged)
    assert not report.audits.ok
    assert {fault.kind for fault in report.audits.faults} <= {"missing", "cut"}


def test_rows_whose_parents_are_gone_are_left_out_and_written_beside(sound: Path, damaged: Path) -> None:
    overwrite(damaged, [root_of(damaged, "kb_sources")])
    report, new = salvage(damaged)
    assert report.tables["kb_sources"].lost == 10
    assert report.tables["kb_chunks"].left_out == {"its row of kb_sources is gone": 40}
    assert report.left_out_path is not None
    beside = Path(report.left_out_path)
    lines = [json.loads(line) for line in beside.read_text(encoding="utf-8").splitlines()]
    assert {(line["table"], line["why"]) for line in lines} == {("kb_chunks", "its row of kb_sources is gone")}
    assert {line["row"]["content"] for line in lines} == {row[2] for row in rows_of(sound)["kb_chunks"]}
    assert beside.stat().st_mode & 0o777 == 0o600
    with Store.open(f"sqlite:///{new}") as store:
        assert store.kb.search("天气") == []


def test_rows_that_may_stand_alone_are_kept_without_what_is_gone(sound: Path, damaged: Path) -> None:
    overwrite(damaged, [root_of(damaged, "sessions"), root_of(damaged, "projects")])
    report, _ = salvage(damaged)
    tasks = report.tables["tasks"]
    assert tasks.kept == len(rows_of(sound)["tasks"])
    assert tasks.unlinked == {"session_id": tasks.kept, "project_id": tasks.kept}
    assert report.tables["messages"].kept == 0


def test_values_that_the_store_refuses_are_left_out_with_the_reason(damaged: Path) -> None:
    with contextlib.closing(sqlite3.connect(damaged, isolation_level=None)) as raw:
        raw.execute("PRAGMA ignore_check_constraints=ON")
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute("UPDATE events SET created_at = 'yesterday' WHERE position = 1")
        raw.execute("UPDATE events SET severity = 'odd' WHERE position = 2")
        raw.execute("UPDATE events SET data = '{' WHERE position = 3")
        raw.execute("UPDATE events SET event_type = x'ff' WHERE position = 4")
        raw.execute("UPDATE memory_items SET confidence = 7 WHERE id = 'm01'")
    report, new = salvage(damaged)
    assert {why.partition(":")[0] for why in report.tables["events"].left_out} == {
        "created_at",
        "severity",
        "data",
        "event_type",
    }
    (why,) = report.tables["memory_items"].left_out
    assert why.startswith("the schema refuses it (CHECK constraint failed: ck_memory_items_confidence")
    with Store.open(f"sqlite:///{new}") as store:
        assert store.events.count() == 196


def test_rows_that_were_deleted_do_not_come_back(sound: Path, damaged: Path) -> None:
    with Store.open(f"sqlite:///{damaged}") as store:
        ids = [item.id for item in store.memory.iterate()]
        for key in ids[::2]:
            store.memory.delete(key)
        for event in list(store.events.iterate())[:150]:
            del event
    with contextlib.closing(sqlite3.connect(damaged, isolation_level=None)) as raw:
        raw.execute("DELETE FROM events WHERE position BETWEEN 20 AND 180")
        raw.execute("DELETE FROM task_lineage")
    kept = rows_of(damaged)
    inner = [page for page, kind in enumerate(kinds(damaged)) if page and kind == 5]
    overwrite(damaged, inner)
    report, new = salvage(damaged)
    found = rows_of(new)
    assert found["events"] == kept["events"]
    assert found["task_lineage"] == set()
    assert found["memory_items"] == kept["memory_items"] != rows_of(sound)["memory_items"]
    del report


def test_what_is_in_the_log_counts(damaged: Path) -> None:
    log = leave_a_log(damaged)
    before = log.read_bytes()
    overwrite(damaged, [0])
    report, new = salvage(damaged)
    assert log.read_bytes() == before
    with Store.open(f"sqlite:///{new}") as store:
        assert "in the log" in {task.title for task in store.tasks.iterate()}
    del report


@pytest.mark.parametrize("at", [8, 24 + 100], ids=["the mark of its round", "a page"])
def test_a_damaged_log_counts_up_to_the_damage_and_says_so(sound: Path, damaged: Path, at: int) -> None:
    log = leave_a_log(damaged)
    data = bytearray(log.read_bytes())
    data[32 + at] ^= 0xFF
    log.write_bytes(data)
    report, new = salvage(damaged)
    assert any("log is damaged" in note for note in report.notes)
    assert rows_of(new)["tasks"] == rows_of(sound)["tasks"]


def test_a_truncated_file_gives_what_is_left(sound: Path, damaged: Path) -> None:
    os.truncate(damaged, damaged.stat().st_size * 3 // 4 + 1000)
    report, new = salvage(damaged)
    assert compare(sound, new, report)
    assert not report.is_whole


@pytest.mark.parametrize("seed", range(SEEDS))
def test_single_wrong_bytes_anywhere_lead_nowhere(damaged: Path, seed: int) -> None:
    choice = random.Random(seed)
    data = bytearray(damaged.read_bytes())
    for _ in range(400):
        data[choice.randrange(100, len(data))] ^= 1 << choice.randrange(8)
    damaged.write_bytes(data)
    report, _ = salvage(damaged)
    assert sum(table.kept for table in report.tables.values()) > 100


def test_a_wrong_byte_costs_a_row_and_not_its_page(sound: Path, damaged: Path) -> None:
    first, second, *_ = leaves_of(damaged, "events")
    data = bytearray(damaged.read_bytes())
    # Where the second row of one page is, and the number of the second row of another.
    data[first * SIZE + 8 + 2] ^= 0x80
    cell = second * SIZE + int.from_bytes(data[second * SIZE + 10 : second * SIZE + 12], "big")
    data[cell + (2 if data[cell] & 0x80 else 1)] ^= 0x40
    damaged.write_bytes(data)
    report, new = salvage(damaged)
    assert compare(sound, new, report) == {"events": 2}
    assert report.tables["events"].lost == 2


def test_an_empty_page_in_the_place_of_another_is_not_taken_for_the_end(sound: Path, damaged: Path) -> None:
    data = bytearray(damaged.read_bytes())
    empty = root_of(damaged, "leases") * SIZE
    for page in (leaves_of(damaged, "events")[1], root_of(damaged, "projects")):
        data[page * SIZE : (page + 1) * SIZE] = data[empty : empty + SIZE]
    damaged.write_bytes(data)
    report, new = salvage(damaged)
    gone = compare(sound, new, report)
    assert gone.keys() == {"events", "projects"}
    assert gone == {name: report.tables[name].lost for name in gone}


def test_where_a_page_of_an_index_reads_as_zeros_no_row_is_thought_up(sound: Path, damaged: Path) -> None:
    data = bytearray(damaged.read_bytes())
    page = leaves_of(damaged, "events")[1]
    data[page * SIZE : (page + 1) * SIZE] = bytes(SIZE)
    for number, kind in enumerate(kinds(damaged)):
        if kind == 10 and number != page:
            data[number * SIZE + SIZE - 150 : (number + 1) * SIZE] = bytes(150)
    damaged.write_bytes(data)
    report, new = salvage(damaged)
    told = report.tables["events"]
    assert told.lost is not None
    assert told.lost <= compare(sound, new, report)["events"]
    assert not told.lost_is_exact


def test_a_column_whose_name_was_changed_keeps_its_values(sound: Path, damaged: Path) -> None:
    changed = damaged.read_bytes().replace(b"\n\tagent_id TEXT, ", b"\n\tagdnt_id TEXT, ")
    assert changed != damaged.read_bytes()
    damaged.write_bytes(changed)
    _, new = salvage(damaged)
    assert rows_of(new) == rows_of(sound)


def test_a_revision_of_which_a_letter_was_changed_is_still_told(sound: Path, damaged: Path) -> None:
    with contextlib.closing(sqlite3.connect(damaged, isolation_level=None)) as raw:
        raw.execute("UPDATE agentos_store_version SET revision = ?", (f"1{HEAD[1:]}",))
    report, new = salvage(damaged)
    assert report.found_revision == HEAD
    assert any("revision was damaged" in note for note in report.notes)
    assert rows_of(new) == rows_of(sound)


def test_a_file_that_somebody_writes_to_meanwhile_is_refused(damaged: Path) -> None:
    def write(what: str, done: int, total: int) -> None:
        del what, done, total
        os.utime(damaged)

    with pytest.raises(LockTimeoutError):
        salvage_sqlite(damaged, damaged.with_name("new.sqlite"), progress=write)
    assert names_in(damaged.parent) == [damaged.name]


def test_a_file_of_an_older_revision_comes_out_at_the_newest(tmp_path: Path) -> None:
    old = tmp_path / "damaged.sqlite"
    revision = known()[-4]
    ensure_migrations(f"sqlite:///{old}", revision=revision)
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as raw:
        raw.execute(
            "INSERT INTO leases (name, owner, token, acquired_at, expires_at) VALUES"
            " ('x', 'y', 1, '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z')"
            if revision >= "0015"
            else "INSERT INTO event_orders (origin, order_id, first_position, created_at) VALUES"
            " ('x', 'y', 1, '2026-01-01T00:00:00.000000Z')"
        )
        raw.execute(
            "INSERT INTO users (id, name, quota_total, quota_used, quota_reserved, preferences, created_at, updated_at)"
            " VALUES ('u', 'U', 1, 0, 0, '{}', '2026-01-01T00:00:00.000000Z', '2026-01-01T00:00:00.000000Z')"
        )
    report, new = salvage(old)
    assert (report.found_revision, report.revision) == (revision, HEAD)
    with Store.open(f"sqlite:///{new}") as store:
        assert store.users.get("u").name == "U"


# --- refusals, after which nothing is left behind


def test_a_newer_schema_is_refused(damaged: Path) -> None:
    with contextlib.closing(sqlite3.connect(damaged, isolation_level=None)) as raw:
        raw.execute("UPDATE agentos_store_version SET revision = '9999_later'")
    with pytest.raises(SchemaMismatchError):
        salvage(damaged)
    assert names_in(damaged.parent) == [damaged.name]


@pytest.mark.parametrize("content", [b"", b"x" * 100, os.urandom(50_000), bytes(50_000)])
def test_a_file_in_which_nothing_can_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "damaged.sqlite").write_bytes(content)
    with pytest.raises(DamagedFileError):
        salvage(tmp_path / "damaged.sqlite")
    assert names_in(tmp_path) == ["damaged.sqlite"]


def test_a_file_that_is_there_stays(damaged: Path) -> None:
    for name in ("new.sqlite", "new.sqlite.left-out.jsonl", "new.sqlite-wal", "new.sqlite-journal"):
        damaged.with_name(name).write_text("precious")
        with pytest.raises(AlreadyExistsError):
            salvage_sqlite(damaged, damaged.with_name("new.sqlite"))
        assert damaged.with_name(name).read_text() == "precious"
        damaged.with_name(name).unlink()
    with pytest.raises(AlreadyExistsError):
        salvage_sqlite(damaged, damaged)


def test_a_file_that_is_open_or_is_not_there_is_refused(damaged: Path) -> None:
    with Store.open(f"sqlite:///{damaged}"), pytest.raises(UsageError):
        salvage_sqlite(damaged, damaged.with_name("new.sqlite"))
    with pytest.raises(NotFoundError):
        salvage_sqlite(damaged.with_name("nothing"), damaged.with_name("new.sqlite"))


@pytest.fixture(autouse=True)
def nothing_left_open() -> Iterator[None]:
    yield
    from agentos_store.engine.sqlite.backend import _open

    assert not _open
