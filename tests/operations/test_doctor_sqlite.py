"""The doctor at an SQLite file: faults that are planted from outside and from inside, each found by its code."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Settings, Store
from agentos_store.engine import network_fs
from agentos_store.engine.version import UNFINISHED
from agentos_store.errors import NotFoundError
from agentos_store.migrate.target import Target
from agentos_store.operations.doctor import Diagnosis, examine, file, inside
from agentos_store.store.opening import open_backend
from tests.operations.test_doctor import facts

Raw = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def backend() -> str:
    """Only SQLite: what is tested here is its own."""
    return "sqlite"


@pytest.fixture
def path(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


@pytest.fixture
def look(url: str) -> Callable[..., dict[str, str]]:
    """Examine the file as the command does, and return what was found by its code."""

    def call(*planted: str, deep: bool = False) -> dict[str, str]:
        return facts(at(url, deep=deep), *planted)

    return call


def at(url: str, *, deep: bool = False) -> Diagnosis:
    return examine(Target.of(url), opened, deep=deep)


def opened(target: Target) -> Any:
    return open_backend(target.url, schema=None, settings=target.settings, engine=None)


@contextlib.contextmanager
def stranger(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


Look = Callable[..., dict[str, str]]


def test_a_healthy_file_shows_nothing_whether_a_store_is_open_or_not(look: Look, url: str) -> None:
    assert look() == {}
    with Store.open(url) as store:
        store.tasks.create(title="t")
        assert look(deep=True) == {}
    assert look(deep=True) == {}


def test_who_may_read_or_replace_the_file_is_found(look: Look, path: Path) -> None:
    path.chmod(0o644)
    path.parent.chmod(0o777)
    assert look() == {
        "file-readable": "registry.sqlite (644)",
        "directory-writable": f"{path.parent} (777)",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_of_another_owner_are_found(look: Look, path: Path) -> None:
    lock = path.with_name(f"{path.name}-turn")
    lock.touch(0o600)
    os.chown(lock, 65534, -1)
    assert look() == {"file-owner": "the database belongs to user 0; registry.sqlite-turn (user 65534)"}


def test_a_network_file_system_is_found_though_no_store_opens_it(
    look: Look, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"36 35 98:0 / {path.parent.resolve()} rw shared:1 - nfs4 host:/x rw\n", encoding="utf-8")
    monkeypatch.setattr(network_fs, "MOUNTINFO", mounts)
    assert look() == {"network-file-system": "the file lies on nfs4"}


def test_room_that_is_short_and_files_that_are_large_are_found(
    store: Store, look: Look, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.tasks.create(title="t")
    monkeypatch.setattr(file, "DISK_LOW", 2**62)
    monkeypatch.setattr(file, "WAL_LARGE", 4096)
    monkeypatch.setattr(file, "FILE_LARGE", 4096)
    assert look("disk-low").keys() == {"disk-low", "wal-large", "file-large"}


def test_growth_beyond_one_file_is_worth_a_note(store: Store, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentos_store.operations.doctor.data.MOST_AGENTS", 0)
    monkeypatch.setattr("agentos_store.operations.doctor.data.MOST_WRITES", 0)
    store.agents.save(agent_id="a")
    store.events.log("started")
    assert look() == {"outgrown": "1 agents, 0 messages and events a second within the last minute"}


def test_copies_that_were_left_are_found(look: Look, path: Path) -> None:
    path.with_name(f"{path.name}.at-0009_agents.backup").write_bytes(b"x" * 2048)
    path.with_name(f"{path.name}.at-0009_agents.backup.1").touch()
    path.with_name("another.sqlite").touch()
    path.with_name(f".{path.name}.0a1b2c.partial").touch()
    left = f"{path.name}.at-0009_agents.backup, {path.name}.at-0009_agents.backup.1"
    assert look() == {"leftovers": f"2 KiB in {left}"}, "what is new may be somebody's work"
    os.utime(path.with_name(f".{path.name}.0a1b2c.partial"), (0, 0))
    assert look() == {"leftovers": f"2 KiB in .{path.name}.0a1b2c.partial, {left}"}


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="only Linux tells who reads")
def test_a_reader_that_holds_back_the_log_is_found(
    store: Store, look: Look, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "FRAMES_BEHIND", 5)
    store.tasks.create(title="before")
    with stranger(path) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM tasks").fetchone()
        assert look() == {}
        for number in range(4):
            store.tasks.create(title=f"t{number}")
        found = look()
        assert found.keys() == {"long-reader"}
        assert found["long-reader"].startswith(f"process {os.getpid()} reads a state ")
        reader.execute("ROLLBACK")
    assert look() == {}


def test_looking_leaves_the_locks_of_the_process_alone(store: Store, path: Path) -> None:
    with store.transaction() as tx:
        tx.tasks.create(title="t")
        store.doctor()
        with stranger(path) as other, pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    assert store.tasks.count() == 1


def test_a_file_that_is_not_kept_as_it_should_be_is_found(
    look: Look, path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stranger(path) as other:
        assert other.execute("PRAGMA journal_mode=DELETE").fetchone() == ("delete",)
    monkeypatch.setenv("DATABASE_DURABILITY", "process_crash")
    assert look() == {
        "journal-mode": "the file is in the mode delete",
        "durability": "durability=process_crash",
    }
    with Store.open(url) as store:
        store.tasks.create(title="t")
        assert facts(store.doctor()) == {"durability": "durability=process_crash"}


def test_room_inside_and_missing_statistics_are_found(
    store: Store, look: Look, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("FREE_INSIDE", 100_000), ("FREE_PART", 0.1), ("STATISTICS", 100_000)):
        monkeypatch.setattr(inside, name, value)
    store.memory.remember("x" * 200_000, type="preference")
    assert look().keys() == {"statistics-missing"}
    raw("DELETE FROM memory_items")
    raw("DELETE FROM search_documents")
    raw("ANALYZE")
    assert look().keys() == {"space-inside"}


def test_a_file_that_was_put_in_the_place_of_an_open_one_is_an_error(store: Store, path: Path) -> None:
    store.tasks.create(title="t")
    copy = path.with_name("copy.sqlite")
    copy.write_bytes(path.read_bytes())
    for step, words in ((path.unlink, "No such file"), (lambda: copy.rename(path), "another file")):
        step()
        found = store.doctor()
        assert facts(found).keys() == found.codes("error") == {"cannot-open"}
        assert words in facts(found)["cannot-open"]


def test_numbers_that_were_forgotten_are_found(store: Store, look: Look, raw: Raw) -> None:
    store.events.log("started")
    raw("UPDATE sqlite_sequence SET seq = 0 WHERE name = 'events'")
    assert look() == {"sequence-behind": "events: 0 was drawn last, and there is 1"}


def test_a_write_that_was_cut_is_found_and_left_as_it_is(look: Look, path: Path) -> None:
    code = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "c.execute('PRAGMA journal_mode=DELETE'); c.execute('PRAGMA cache_size=1'); c.execute('BEGIN');"
        "c.execute('CREATE TABLE t (x)');"
        "[c.execute('INSERT INTO t VALUES (?)', ('x' * 3000,)) for _ in range(200)]; os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    journal = path.with_name(f"{path.name}-journal")
    before = path.read_bytes(), journal.read_bytes()
    found = look()
    assert {"journal-left", "check-failed"} == found.keys()
    assert found["check-failed"].endswith("the rest was not looked at")
    assert (path.read_bytes(), journal.read_bytes()) == before


def test_rows_that_refer_to_nothing_are_found(store: Store, look: Look, path: Path) -> None:
    task = store.tasks.create(title="t")
    store.lineage.record(task.task_id, kind="commit", ref_id="9f1c2ab")
    with stranger(path) as other:
        other.execute("DELETE FROM tasks")
    assert look() == {"foreign-keys": "1 of task_lineage to tasks"}


def test_a_schema_that_somebody_changed_is_found(look: Look, path: Path) -> None:
    with stranger(path) as other:
        other.execute("DROP INDEX ix_users_created_at_id")
        other.execute("DROP TRIGGER tr_task_audits_no_update")
        other.execute("DROP TABLE guardian_verdicts")
        other.execute("ALTER TABLE events ADD COLUMN mine TEXT")
        other.execute("CREATE INDEX mine ON events (mine)")
        other.execute("ALTER TABLE projects RENAME COLUMN description TO described")
    found = look()
    assert found.keys() == {"index-missing", "trigger-missing", "table-missing", "schema-extra", "drift"}
    assert found["index-missing"] == "users: index ix_users_created_at_id"
    assert found["trigger-missing"] == "task_audits: trigger tr_task_audits_no_update"
    assert found["table-missing"] == "guardian_verdicts: table"
    assert found["drift"] == "projects: column description"
    assert "events: index mine" in found["schema-extra"]


def test_pages_that_were_overwritten_are_found(store: Store, look: Look, path: Path) -> None:
    for number in range(50):
        store.tasks.create(title=f"{number} " * 100)
    store.close()
    with stranger(path) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        ((page,),) = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'tasks'")
    with path.open("r+b") as bytes_:
        bytes_.seek((page - 1) * 4096)
        bytes_.write(os.urandom(4096))
    found = at(f"sqlite:///{path}")
    assert "damaged" in found.codes("error")
    assert "drift" not in found.codes()


def test_a_full_text_table_that_lost_its_words_is_found_by_the_deep_look(store: Store, raw: Raw, look: Look) -> None:
    store.memory.remember({"likes": "tea"}, type="preference")
    raw("DELETE FROM search_index_data WHERE id > 10")
    assert look() == {}
    assert "search-damaged" in look(deep=True)
    store.search.rebuild()
    assert look(deep=True) == {}


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("DELETE FROM agentos_store_version", "revision-missing"),
        ("UPDATE agentos_store_version SET revision = '0009_agents'", "revision-old"),
        ("UPDATE agentos_store_version SET revision = '9999_later'", "revision-foreign"),
        (f"UPDATE agentos_store_version SET revision = '{UNFINISHED}'", "move-unfinished"),
    ],
)
def test_what_no_store_opens_is_diagnosed_all_the_same(look: Look, path: Path, statement: str, code: str) -> None:
    with stranger(path) as other:
        other.execute(statement)
    assert look().keys() == {code}
    assert not path.with_name(f"{path.name}-turn").exists(), "nothing is left beside a file that may be a stranger's"


def test_a_file_that_is_no_database_is_diagnosed(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database at all " * 1000, encoding="utf-8")
    path.chmod(0o600)
    found = facts(at(f"sqlite:///{path}"))
    assert found.keys() == {"damaged"}
    assert "not an SQLite database" in found["damaged"]
    empty = tmp_path / "empty.sqlite"
    empty.touch(0o600)
    assert "revision-missing" in facts(at(f"sqlite:///{empty}"))
    with pytest.raises(NotFoundError):
        at(f"sqlite:///{tmp_path}/missing.sqlite")


def test_a_file_that_a_stranger_has_locked_is_given_up_soon(
    look: Look, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentos_store.operations.doctor.patient.PATIENCE", 0.05)
    with stranger(path) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        found = look()
        other.execute("ROLLBACK")
    assert found.keys() == {"check-failed"}
    assert "another program" in found["check-failed"]
    assert found["check-failed"].endswith("the rest was not looked at")


def test_writers_that_had_to_wait_are_worth_a_note(store: Store, path: Path) -> None:
    store.tasks.create(title="t")
    lock = path.with_name(f"{path.name}-turn")
    with lock.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        threading.Timer(0.15, lambda: fcntl.flock(held, fcntl.LOCK_UN)).start()
        store.tasks.create(title="u")
    assert facts(store.doctor(), "write-waits") == {"write-waits": "1 of 2 calls"}
    assert facts(at(f"sqlite:///{path}"), "write-waits") == {}


def test_a_store_with_settings_of_its_own_is_judged_by_them(url: str) -> None:
    with Store.open(url, settings=Settings.load(durability="process_crash")) as store:
        assert facts(store.doctor()) == {"durability": "durability=process_crash"}
