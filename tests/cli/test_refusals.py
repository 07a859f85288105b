"""What cannot be done is told in one clear line with its exit code, and leaves nothing behind."""

from __future__ import annotations

import shutil
import socket
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.engine.urls import parse_url
from agentos_store.testing import PostgresServer
from agentos_store.testing.postgres import connect

Run = Callable[..., Any]

READING = (("status",), ("tasks", "list"), ("tasks", "show", "x"), ("lineage", "x"), ("audit", "verify"))

FULL = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))"


def change(path: Path, statement: str) -> Path:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(statement)
        raw.commit()
    return path


@pytest.mark.parametrize("arguments", READING)
def test_reading_a_file_that_is_not_there_makes_none(cli: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    cli("--url", f"sqlite:///{tmp_path}/folder/slip.sqlite", *arguments).assert_refused(3, "slip.sqlite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [*READING, ("db", "upgrade"), ("db", "current"), ("db", "check")])
def test_a_file_that_is_no_database_stays_as_it_is(cli: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir, " * 100)
    cli("--url", f"sqlite:///{path}", *arguments).assert_refused(7, "not an SQLite database")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "Dear Sir, " * 100


@pytest.mark.parametrize("arguments", READING)
def test_a_database_of_somebody_else_stays_as_it_is(cli: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    path = change(tmp_path / "other.sqlite", "CREATE TABLE songs (title TEXT)")
    before = path.read_bytes()
    cli("--url", f"sqlite:///{path}", *arguments).assert_refused(6, "agentos-store db upgrade")
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_a_registry_that_cannot_be_imported_leaves_no_store(
    cli: Run, tmp_path: Path, small_registry: Path, sqlite_url: str
) -> None:
    other = change(
        Path(shutil.copy(small_registry, tmp_path / "old.sqlite")), "DELETE FROM schema_version WHERE version > '0.24'"
    )
    junk = tmp_path / "junk"
    junk.write_bytes(b"\0" * 100)
    no_registry = change(tmp_path / "songs.sqlite", "CREATE TABLE songs (title TEXT)")
    before = sorted(tmp_path.iterdir())
    for path, code, word in (
        (tmp_path / "nowhere.sqlite", 3, "nowhere.sqlite"),
        (junk, 4, "no SQLite database"),
        (tmp_path, 4, "directory"),
        (no_registry, 4, "no AgentOS registry"),
    ):
        cli("--url", sqlite_url, "import", "agentos", path).assert_refused(code, word)
    refused = cli("--url", sqlite_url, "import", "agentos", other)
    assert refused.code == 6
    refused.assert_refused(6, "0.25")
    assert sorted(tmp_path.iterdir()) == before


def test_a_store_cannot_be_imported_into_itself(cli: Run, filled: str, small_registry: Path, tmp_path: Path) -> None:
    cli("--url", filled, "import", "agentos", filled.removeprefix("sqlite:///")).assert_refused(
        4, "no AgentOS registry"
    )
    own = shutil.copy(small_registry, tmp_path / "own.sqlite")
    before = Path(own).read_bytes()
    cli("--url", f"sqlite:///{own}", "import", "agentos", own).assert_refused(6, "no schema of this store")
    assert Path(own).read_bytes() == before


@pytest.mark.parametrize(
    "arguments", [*READING, ("db", "upgrade"), ("db", "downgrade", "base", "--yes"), ("import", "agentos", "REGISTRY")]
)
def test_a_schema_newer_than_this_code_is_left_alone(
    cli: Run, url: str, small_registry: Path, arguments: tuple[str, ...]
) -> None:
    statement = "UPDATE agentos_store_version SET revision = '9999_later'"
    if url.startswith("sqlite"):
        change(Path(url.removeprefix("sqlite:///")), statement)
    else:
        with connect(url) as raw:
            raw.execute(statement)
    named = [str(small_registry) if each == "REGISTRY" else each for each in arguments]
    cli("--url", url, *named).assert_refused(6, "9999_later", "newer")
    assert cli("--url", url, "db", "current", "--json").json["revision"] == "9999_later"
    assert not any(each["applied"] for each in cli("--url", url, "db", "history", "--json").json)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("tasks", "list", "--cursor", "!!"), 4),
        (("tasks", "list", "--cursor", "W10"), 4),
        (("tasks", "list", "--limit", "0"), 4),
        (("tasks", "list", "--limit", "many"), 2),
        (("tasks", "list", "--status", "asleep"), 4),
        (("tasks", "list", "--project", "a\nb"), 4),
        (("tasks", "list", "--colour"), 2),
        (("tasks", "lst"), 2),
        (("tasks", "show"), 2),
        (("tasks", "show", "nobody"), 3),
        (("tasks", "show", "'; DROP TABLE tasks; --"), 3),
        (("tasks", "show", "\x1b[31m[red]\n"), 4),
        (("tasks", "show", "x" * 300), 4),
        (("tasks", "show", ""), 4),
        (("tasks", "show", "\udce9"), 4),
        (("lineage", "[bold]nobody[/bold]"), 3),
        (("lineage", "nobody", "--depth", "0"), 4),
        (("audit", "verify", "nobody"), 3),
        (("import", "kode"), 2),
        (("import", "agentos"), 2),
        (("import", "agentos", "a\udce9b"), 3),
        (("db", "upgrade", "9999"), 4),
        (("db", "downgrade", "9999"), 4),
        (("db", "sql", "9999"), 4),
        (("nothing",), 2),
        (("--url",), 2),
        (("--schema", "tenant", "status"), 4),
    ],
)
def test_bad_arguments_are_told_in_one_line(
    program: Run, cli: Run, filled: str, arguments: tuple[str, ...], code: int
) -> None:
    before = Path(filled.removeprefix("sqlite:///")).read_bytes()
    refused = cli("--url", filled, *arguments)
    refused.assert_refused(code)
    assert refused.err.rstrip("\n").replace("\ufffd", " ").isprintable()
    assert Path(filled.removeprefix("sqlite:///")).read_bytes() == before


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", 4),
        ("sekret", 4),
        ("mysql://user:sekret@host/x", 4),
        ("postgresql://user:sek@ret@sekret@host/x", 4),
        ("sqlite://", 4),
        ("sqlite:///file:x?mode=ro", 4),
        ("sqlite:////proc/nowhere/x.sqlite", 3),
    ],
)
def test_bad_urls_are_told_without_the_secrets_in_them(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    cli("--url", url, "status").assert_refused(code)
    monkeypatch.setenv("DATABASE_URL", url or "://")
    cli("status").assert_refused(code)
    assert not list(tmp_path.iterdir())


def test_a_server_that_is_down_or_lacks_the_database_is_told(cli: Run, postgres_url: str, small_registry: Path) -> None:
    with socket.socket() as bound:
        # Nobody listens at a port that is only bound.
        bound.bind(("127.0.0.1", 0))
        down = f"postgresql://user:sekret@127.0.0.1:{bound.getsockname()[1]}/x"
        for arguments in (*READING, ("db", "upgrade"), ("db", "check"), ("import", "agentos", small_registry)):
            cli("--url", down, *arguments).assert_refused(7, "127.0.0.1", "***")
    missing = parse_url(postgres_url).set(database="agentos_nowhere").render_as_string(hide_password=False)
    for arguments in (("status",), ("db", "upgrade"), ("db", "current")):
        cli("--url", missing, *arguments).assert_refused(7, "agentos_nowhere")


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A database on a server that asks one role for its password."""
    folder = Path(tempfile.mkdtemp(prefix="agentos-hba-", dir="/tmp"))
    folder.chmod(0o755)
    rules = folder / "pg_hba.conf"
    rules.write_text("local all guarded scram-sha-256\nlocal all all trust\n")
    try:
        with PostgresServer(settings={"hba_file": str(rules)}, sources=("embedded", "local")) as server:
            with connect(server.url) as raw:
                raw.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
            yield parse_url(server.url).set(username="guarded").render_as_string(hide_password=False)
    finally:
        shutil.rmtree(folder)


def test_a_wrong_password_is_told_and_never_shown(cli: Run, guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = parse_url(guarded).set(password="sekret").render_as_string(hide_password=False)
    for arguments in (("status",), ("db", "upgrade"), ("db", "check")):
        cli("--url", wrong, *arguments).assert_refused(7, "password authentication failed")
    monkeypatch.setenv("DATABASE_URL", guarded)
    monkeypatch.setenv("DATABASE_PASSWORD", "sekret")
    cli("status").assert_refused(7, "password authentication failed")


def test_a_role_that_may_not_is_told(cli: Run, guarded: str, program: Run) -> None:
    right = parse_url(guarded).set(password="right").render_as_string(hide_password=False)
    cli("--url", right, "status").assert_refused(6, "no schema of this store")
    # As a process, for the library's log is nobody's business there.
    program("--url", right, "--schema", "mine", "db", "upgrade").assert_refused(7, "privilege")


def test_a_full_disk_ends_an_import_that_can_be_repeated(
    program: Run, cli: Run, sqlite_url: str, filled: str, small_registry: Path
) -> None:
    program("--url", sqlite_url, "db", "upgrade", before=FULL.replace("400_000", "50_000")).assert_refused(7, "disk")
    assert cli("--url", sqlite_url, "db", "upgrade").code == 0
    program("--url", sqlite_url, "import", "agentos", small_registry, before=FULL).assert_refused(7, "disk")
    assert cli("--url", sqlite_url, "audit", "verify").code == 0
    assert cli("--url", sqlite_url, "import", "agentos", small_registry).code == 0
    with Store.open(sqlite_url) as store, Store.open(filled) as other:
        here, there = store.status().rows, other.status().rows
        assert {**here, "maintenance_runs": 1} == {**there, "maintenance_runs": 1}
        assert [task.to_dict() for task in store.tasks.iterate()] == [task.to_dict() for task in other.tasks.iterate()]
        assert store.audits.verify() == other.audits.verify()


def test_a_misspelt_variable_is_told_in_one_line(program: Run, filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_PASWORD", "sekret")
    done = program("--url", filled, "db", "current")
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert done.err.startswith("warning: DATABASE_PASWORD is not a setting")
