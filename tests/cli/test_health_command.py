"""A probe gets one line and an exit code, soon, whatever the database does."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentos_store.engine.version import HEAD
from agentos_store.testing.postgres import connect
from tests.engine.gather import wait_for

Run = Callable[..., Any]

KEYS = {
    *("ok", "connected", "latency", "revision", "head", "schema_ok", "writable", "pool", "problems", "location"),
    "checked_at",
}


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A migrated SQLite file without rows."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'registry.sqlite')}"


def one_line(done: Any, code: int, *words: str) -> None:
    assert (done.code, done.err) == (code, ""), done
    assert done.out.count("\n") == 1
    assert "sekret" not in done.out
    for word in words:
        assert word in done.out, done.out


def test_a_database_that_works_gives_zero(cli: Run, url: str) -> None:
    one_line(cli("--url", url, "health"), 0, "ok: ", " ms", HEAD, "writable")
    done = cli("--url", url, "health", "--json", "--timeout", "30")
    assert done.code == 0
    assert set(done.json) == KEYS
    assert (done.json["ok"], done.json["problems"], done.json["revision"]) == (True, [], HEAD)
    assert done.json["pool"]["in_use"] == 0


def test_a_file_that_is_not_there_gives_seven_and_makes_none(cli: Run, tmp_path: Path) -> None:
    at = f"sqlite:///{tmp_path}/folder/slip.sqlite"
    one_line(cli("--url", at, "health"), 7, "not ok: ", "slip.sqlite")
    assert not list(tmp_path.iterdir())
    done = cli("--url", at, "health", "--json")
    assert (done.code, done.json["ok"], done.json["connected"], done.json["pool"]) == (7, False, False, None)


def test_a_file_of_somebody_else_gives_six_or_seven_and_stays_as_it_is(cli: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE songs (title TEXT)")
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear Sir, " * 100)
    before = {each: each.read_bytes() for each in tmp_path.iterdir()}
    one_line(cli("--url", f"sqlite:///{path}", "health"), 6, "no schema of this store")
    one_line(cli("--url", f"sqlite:///{letter}", "health"), 7, "not an SQLite database")
    assert {each: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_another_revision_gives_six(cli: Run, url: str, raw: Callable[..., Any]) -> None:
    raw("UPDATE agentos_store_version SET revision = '0001_core'")
    one_line(cli("--url", url, "health"), 6, "0001_core")
    raw("UPDATE agentos_store_version SET revision = '9999_later'")
    one_line(cli("--url", url, "health"), 6, "newer")


def test_a_server_that_is_down_gives_seven(cli: Run) -> None:
    # Nobody listens at port 1.
    one_line(cli("--url", "postgresql://user:sekret@127.0.0.1:1/x", "health"), 7, "not ok: cannot connect", "***")


def test_a_file_that_is_locked_gives_seven_in_time(cli: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_BUSY_TIMEOUT", "30")
    with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        one_line(cli("--url", sqlite_url, "health", "--timeout", "0.2"), 7, "no answer within 0.2 s", "writing")
    wait_for(lambda: not [each for each in threading.enumerate() if each.name == "agentos-store-aside"])


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_schema_that_could_not_be_read_gives_seven(cli: Run, url: str) -> None:
    with contextlib.closing(connect(url)) as admin:
        admin.execute("BEGIN")
        admin.execute("LOCK TABLE agentos_store_version IN ACCESS EXCLUSIVE MODE")
        one_line(cli("--url", url, "health", "--timeout", "0.2"), 7, "no answer", "reading the revision")
        admin.execute("ROLLBACK")
    wait_for(lambda: not [each for each in threading.enumerate() if each.name == "agentos-store-aside"])


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "1e9"])
def test_a_timeout_that_is_none_is_refused(cli: Run, tmp_path: Path, timeout: str) -> None:
    cli("--url", f"sqlite:///{tmp_path}/x", "health", "--timeout", timeout).assert_refused(4, "timeout")


def test_a_probe_imports_no_model_and_ends_although_its_look_hangs(program: Run, sqlite_url: str) -> None:
    heavy = (
        "agentos_store.models",
        "agentos_store.tasks.models",
        "agentos_store.store.blocking",
        "alembic",
        "rich.table",
    )
    code = (
        f"import atexit, sys\natexit.register(lambda: sys.stderr.write(repr([n for n in {heavy} if n in sys.modules])))"
    )
    environment = {**os.environ, "DATABASE_BUSY_TIMEOUT": "600", "DATABASE_LOCK_TIMEOUT": "600"}
    with contextlib.closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        done = program("--url", sqlite_url, "health", "--timeout", "0.5", before=code, env=environment)
    # Writing is the last that it does.
    assert "no answer" in done.out
    assert "writing" in done.out
    assert (done.code, done.err) == (7, "[]")
