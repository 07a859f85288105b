from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agentos_store import InvalidValueError, LockTimeoutError, SchemaMismatchError, ensure_migrations
from agentos_store.engine.sqlite.connect import open_turnstile
from agentos_store.engine.sqlite.filelock import try_lock, unlock
from agentos_store.engine.version import HEAD, TABLE
from agentos_store.migrate.drift import find_drift
from agentos_store.migrate.locked import lock_key
from agentos_store.migrate.revisions import known
from agentos_store.migrate.target import Target

Revise = Callable[..., Path]
Alembic = Callable[..., None]

# Everything is imported before the processes are made, so that they start at once and what they do is migrating.
TOGETHER = """
import json, multiprocessing, sys
import agentos_store.migrate.environment, agentos_store.migrate.upgrade, agentos_store.engine.postgresql.backend
from agentos_store import ensure_migrations

def work(barrier, answers):
    barrier.wait()
    try:
        answers.put(ensure_migrations(sys.argv[1]))
    except BaseException as error:
        answers.put(f"{type(error).__name__}: {error}")

context = multiprocessing.get_context("fork")
barrier, answers = context.Barrier(16), context.Queue()
processes = [context.Process(target=work, args=(barrier, answers)) for _ in range(16)]
for process in processes:
    process.start()
found = [answers.get() for _ in processes]
for process in processes:
    process.join()
print(json.dumps(found))
"""

KILLS = int(os.environ.get("AGENTOS_STORE_KILLS", "4"))

# Each round forks a process that migrates an empty database, kills it some time into that, and forks another one that
# has to finish and to find nothing wrong. The process that forks touches no database.
KILLED = """
import json, os, random, signal, sys, time
import agentos_store.migrate.environment, agentos_store.engine.postgresql.backend
from agentos_store import ensure_migrations
from agentos_store.engine.version import HEAD
from agentos_store.migrate.drift import find_drift
from agentos_store.migrate.target import Target

def place(number):
    if sys.argv[1].startswith("sqlite"):
        return sys.argv[1] + str(number), None
    return sys.argv[1], f"round_{number}"

kills = int(sys.argv[2])

def forked(work):
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return pid

def migrate(number):
    url, schema = place(number)
    return ensure_migrations(url, schema=schema) * 0

def recover(number):
    url, schema = place(number)
    target = Target.of(url, schema=schema)
    left = target.revision()
    if left not in (None, HEAD):
        return 97
    ensure_migrations(url, schema=schema)
    # Looking closely takes as long as migrating.
    if target.revision() != HEAD or (number % 4 == 3 and find_drift(target, alone=True)):
        return 98
    return 1 if left is None else 0

started = time.perf_counter()
os.waitpid(forked(lambda: migrate("first")), 0)
duration = time.perf_counter() - started
codes, killed = [], 0
for number in range(kills):
    pid = forked(lambda: migrate(number))
    time.sleep(duration * (number + random.random()) / kills)
    os.kill(pid, signal.SIGKILL)
    killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    codes.append(os.waitstatus_to_exitcode(os.waitpid(forked(lambda: recover(number)), 0)[1]))
print(json.dumps({"codes": codes, "killed": killed, "duration": duration}))
"""

NOTHING_TO_DO = """
import json, sys
from agentos_store import ensure_migrations
found = ensure_migrations(sys.argv[1])
print(json.dumps([found, sorted(name for name in sys.modules if name.startswith("alembic"))]))
"""


def test_of_sixteen_processes_on_an_empty_database_one_migrates_and_all_succeed(
    empty_target: Target, run: Callable[..., Any]
) -> None:
    url = empty_target.url.render_as_string(hide_password=False)
    assert sorted(run(TOGETHER, url), key=str) == [0] * 15 + [len(known())]
    assert find_drift(empty_target, alone=True) == []


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_stricter_isolation_by_default_lets_nobody_migrate_twice(
    empty_target: Target, run: Callable[..., Any], execute: Callable[..., Any]
) -> None:
    # A snapshot from before the lock would show a migrator that had waited an empty database.
    execute(
        empty_target, f"ALTER DATABASE {empty_target.url.database} SET default_transaction_isolation = serializable"
    )
    found = run(TOGETHER.replace("16", "6"), empty_target.url.render_as_string(hide_password=False))
    assert sorted(found, key=str) == [0] * 5 + [len(known())]


@pytest.mark.parametrize("backend", ["postgresql"])
def test_processes_that_migrate_without_one_lock_are_found_out(empty_target: Target, run: Callable[..., Any]) -> None:
    alone = "import os, agentos_store.migrate.locked as locked\n    locked.lock_key = lambda _: os.getpid()\n    "
    # Several, for two of them could come one after the other on a busy machine.
    script = TOGETHER.replace("barrier.wait()", f"{alone}barrier.wait()").replace("16", "4")
    found = run(script, empty_target.url.render_as_string(hide_password=False))
    # They can migrate, but not together.
    assert len(known()) in found
    assert sorted(found, key=str) != [0] * 3 + [len(known())]


def test_after_a_kill_at_any_moment_the_next_start_finishes(empty_target: Target, run: Callable[..., Any]) -> None:
    found = run(KILLED, empty_target.url.render_as_string(hide_password=False), str(KILLS))
    assert set(found["codes"]) <= {0, 1}
    # Of those that were killed, most had committed nothing yet.
    assert found["killed"] >= KILLS // 3
    assert found["codes"].count(1) >= KILLS // 3


# A process that dies in the moment in which it switches a new file to the log leaves a journal that is still hot.
HOT_JOURNAL = """
import os, signal, sqlite3, sys
raw = sqlite3.connect(sys.argv[1], isolation_level=None)
raw.execute("PRAGMA cache_size=1")
raw.execute("BEGIN IMMEDIATE")
raw.execute("CREATE TABLE half (done)")
raw.executemany("INSERT INTO half VALUES (?)", [("x" * 4000,)] * 50)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("backend", ["sqlite"])
def test_what_a_dead_process_left_half_made_is_undone_by_the_next_start(empty_target: Target) -> None:
    path = empty_target.path
    assert path is not None
    subprocess.run([sys.executable, "-c", HOT_JOURNAL, path], check=False)
    assert Path(f"{path}-journal").stat().st_size > 0
    with (
        pytest.raises(sqlite3.OperationalError),
        contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as reader,
    ):
        reader.execute("SELECT 1 FROM sqlite_master").fetchone()
    assert empty_target.revision() is None
    assert ensure_migrations(empty_target.url) == len(known())
    assert find_drift(empty_target, alone=True) == []


def test_a_second_call_does_nothing_and_says_so(empty_url: str) -> None:
    assert ensure_migrations(empty_url) == len(known())
    assert ensure_migrations(empty_url) == 0


def test_with_nothing_to_do_no_lock_is_taken_and_alembic_stays_unimported(
    target: Target, connect: Callable[[Target], Any], run: Callable[..., Any]
) -> None:
    with ExitStack() as held:
        raw = held.enter_context(connect(target))
        if target.path is not None:
            turnstile = open_turnstile(target.path.resolve())
            held.callback(turnstile.close)
            turnstile.acquire(1)
            held.callback(turnstile.release)
            raw.execute("BEGIN IMMEDIATE")
        else:
            raw.execute("SELECT pg_advisory_lock(%s)", (lock_key(target.schema or ""),))
        url = target.url.render_as_string(hide_password=False)
        # Whoever took a lock would get LockTimeoutError.
        assert run(NOTHING_TO_DO, url, DATABASE_MIGRATION_TIMEOUT="0.1", DATABASE_BUSY_TIMEOUT="0.1") == [0, []]


def test_a_migrator_waits_for_the_one_before_it(empty_target: Target, connect: Callable[[Target], Any]) -> None:
    found: list[object] = []

    def migrate() -> None:
        found.append(ensure_migrations(empty_target.url))

    thread = threading.Thread(target=migrate)
    with connect(empty_target) as raw:
        if empty_target.path is not None:
            turnstile = open_turnstile(empty_target.path.resolve())
            turnstile.acquire(1)
            thread.start()
            wait_for(lambda: is_locked(Path(f"{empty_target.path}-next")))
            turnstile.release()
            thread.join()
            turnstile.close()
        else:
            key = lock_key(empty_target.schema or "")
            raw.execute("SELECT pg_advisory_lock(%s)", (key,))
            thread.start()
            waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            wait_for(lambda: raw.execute(waiting).fetchone() is not None)
            raw.execute("SELECT pg_advisory_unlock(%s)", (key,))
            thread.join()
    assert found == [len(known())]


def test_a_migrator_that_waits_too_long_says_so(
    empty_target: Target, connect: Callable[[Target], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_MIGRATION_TIMEOUT", "0.2")
    with connect(empty_target) as raw, ExitStack() as held:
        if empty_target.path is not None:
            turnstile = open_turnstile(empty_target.path.resolve())
            held.callback(turnstile.close)
            turnstile.acquire(1)
            held.callback(turnstile.release)
        else:
            raw.execute("SELECT pg_advisory_lock(%s)", (lock_key(empty_target.schema or ""),))
        with pytest.raises(LockTimeoutError) as caught:
            ensure_migrations(empty_target.url)
    assert caught.value.waited >= 0.2
    assert ensure_migrations(empty_target.url) == len(known())


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_stranger_that_holds_the_file_is_waited_for_no_longer_than_the_busy_timeout(
    empty_target: Target, connect: Callable[[Target], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_BUSY_TIMEOUT", "0.2")
    with connect(empty_target) as raw:
        raw.execute("PRAGMA journal_mode=WAL")
        raw.execute("BEGIN IMMEDIATE")
        with pytest.raises(LockTimeoutError) as caught:
            ensure_migrations(empty_target.url)
    assert caught.value.waited >= 0.2


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_reader_that_never_ends_is_waited_for_no_longer_than_the_limit(
    empty_target: Target, connect: Callable[[Target], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_migrations(empty_target.url, revision="0003_agents")
    monkeypatch.setenv("DATABASE_MIGRATION_TIMEOUT", "0.2")
    with connect(empty_target) as raw:
        raw.execute("BEGIN")
        raw.execute("SELECT * FROM agents")
        with pytest.raises(LockTimeoutError):
            ensure_migrations(empty_target.url)
    assert empty_target.revision() == "0003_agents"


def test_it_climbs_to_the_revision_that_is_named_and_never_descends(empty_target: Target) -> None:
    url = empty_target.url
    assert ensure_migrations(url, revision=known()[1]) == 2
    assert empty_target.revision() == known()[1]
    assert ensure_migrations(url, revision=known()[0]) == 0
    assert empty_target.revision() == known()[1]
    assert ensure_migrations(url, revision="head") == len(known()) - 2
    assert empty_target.revision() == HEAD


def test_a_revision_that_does_not_exist_is_refused(empty_target: Target) -> None:
    with pytest.raises(InvalidValueError, match="there is no such revision"):
        ensure_migrations(empty_target.url, revision="0000_nothing")
    assert empty_target.revision() is None


@pytest.mark.parametrize(("revision", "why"), [("9999_later", "newer"), ("0003_other", "never had")])
def test_a_revision_that_this_code_does_not_know_is_a_mismatch(
    target: Target, execute: Callable[..., Any], revision: str, why: str
) -> None:
    execute(target, f"UPDATE {TABLE} SET revision = '{revision}'")
    with pytest.raises(SchemaMismatchError, match=why) as caught:
        ensure_migrations(target.url)
    assert (caught.value.found, caught.value.expected) == (revision, HEAD)


def test_each_revision_is_written_down_with_its_time(empty_target: Target, execute: Callable[..., Any]) -> None:
    ensure_migrations(empty_target.url, revision=known()[0])
    (first,) = execute(empty_target, f"SELECT revision, applied_at FROM {TABLE}")
    ensure_migrations(empty_target.url)
    (second,) = execute(empty_target, f"SELECT revision, applied_at FROM {TABLE}")
    assert (first[0], second[0]) == (known()[0], HEAD)
    assert second[1] > first[1]


def test_a_change_of_the_environment_is_seen_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", "sqlite:///one.sqlite")
    assert ensure_migrations() == len(known())
    monkeypatch.setenv("DATABASE_URL", "sqlite:///two.sqlite")
    assert ensure_migrations() == len(known())
    monkeypatch.delenv("DATABASE_URL")
    Path(".env").write_text("DATABASE_URL=sqlite:///three.sqlite\n")
    assert ensure_migrations() == len(known())
    Path(".env").write_text("DATABASE_URL=sqlite:///number-four.sqlite\n")
    assert ensure_migrations() == len(known())
    assert {path.name for path in tmp_path.glob("*.sqlite")} == {
        "one.sqlite",
        "two.sqlite",
        "three.sqlite",
        "number-four.sqlite",
    }


def wait_for(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(3000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it never came true")


def is_locked(path: Path) -> bool:
    with path.open("rb+") as file:
        if try_lock(file.fileno()):
            unlock(file.fileno())
            return False
        return True


@pytest.mark.parametrize("backend", ["postgresql"])
def test_the_time_limits_of_ordinary_statements_do_not_end_a_migration(
    empty_target: Target, monkeypatch: pytest.MonkeyPatch, execute: Callable[..., Any], revise: Revise, alembic: Alembic
) -> None:
    monkeypatch.setenv("DATABASE_STATEMENT_TIMEOUT", "0.1")
    execute(empty_target, f"ALTER DATABASE {empty_target.url.database} SET idle_in_transaction_session_timeout = 100")
    folder = revise("9006_slow", upgrade='op.execute("SELECT pg_sleep(0.3)"); __import__("time").sleep(0.3)')
    alembic(folder, empty_target, "upgrade", "head")
    assert empty_target.revision() == "9006_slow"
