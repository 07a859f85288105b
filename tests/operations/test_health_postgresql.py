"""Whatever the server does, a look at it ends in time and says what is wrong."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import SingletonThreadPool

from agentos_store import Settings, Store
from agentos_store.engine.urls import parse_url
from agentos_store.testing.postgres import connect
from tests.engine.gather import threads, wait_for
from tests.engine.test_fork import in_child
from tests.operations.looks import SOON, asides, assert_told
from tests.standing import own_session, owners_work

pytestmark = [own_session, owners_work]


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process of the server hang."""
    try:
        os.kill(pid, signal.SIGSTOP)
    except (ProcessLookupError, PermissionError):
        pytest.skip("the server's processes are not here")
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def backend() -> str:
    """Only PostgreSQL: what is tested here is its own."""
    return "postgresql"


@pytest.fixture
def narrow(url: str) -> Iterator[Store]:
    """A store with a single connection."""
    with Store.open(url, settings=Settings.load(pool_size=1, max_overflow=0, pool_timeout=30, retries=0)) as store:
        yield store


@pytest.fixture
def admin(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection beside the store's own."""
    with contextlib.closing(connect(url)) as connection:
        yield connection


def pid_of(store: Store) -> int:
    with store._backend.raw_connection() as cursor:
        ((pid,),) = cursor.execute("SELECT pg_backend_pid()").fetchall()
    return int(pid)


def test_a_server_that_hangs_is_told_in_time_by_one_thread(narrow: Store) -> None:
    with stopped(pid_of(narrow)):
        for _ in range(3):
            found = narrow.health_check(SOON)
            assert_told(found, "no answer within 0.1 s", "connecting")
            assert (found.connected, found.latency) == (False, None)
            assert found.pool is not None
            assert found.pool.in_use == 1
            assert asides() == 1
    wait_for(lambda: asides() == 0)
    assert narrow.health_check(20).ok


def test_a_question_that_waits_for_a_lock_keeps_no_look_waiting(url: str, admin: psycopg.Connection[Any]) -> None:
    with Store.open(url) as store:
        assert store.health_check(20).ok
        admin.execute("BEGIN")
        # As VACUUM FULL does for as long as it takes; only the size of the tables waits for it.
        admin.execute("LOCK TABLE kb_sources IN ACCESS EXCLUSIVE MODE")
        assert store.metrics(SOON).storage is None
        assert asides() == 1
        assert store.health_check(20).ok
        admin.execute("LOCK TABLE agentos_store_version IN ACCESS EXCLUSIVE MODE")
        found = store.health_check(SOON)
        assert_told(found, "no answer", "reading the revision")
        assert (found.connected, found.revision, found.schema_ok) == (True, None, None)
        admin.execute("ROLLBACK")
        wait_for(lambda: asides() == 0)


def test_a_pool_of_another_kind_is_well_without_numbers(url: str) -> None:
    engine = create_engine(url, poolclass=SingletonThreadPool)
    with Store.open(engine=engine) as store:
        found = store.health_check(20)
        assert found.ok
        assert found.pool is not None
        assert (found.pool.size, found.pool.limit) == (None, None)
    engine.dispose()


def test_a_pool_without_a_free_connection_is_told_in_time(narrow: Store) -> None:
    with narrow.transaction() as tx:
        tx.tasks.create(title="x")
        found = narrow.health_check(SOON)
        assert_told(found, "no answer")
        assert found.pool is not None
        assert (found.pool.in_use, found.pool.limit) == (1, 1)
    wait_for(lambda: asides() == 0)
    assert narrow.health_check(20).ok


def test_a_server_that_only_accepts_reads_is_told(url: str, admin: psycopg.Connection[Any]) -> None:
    admin.execute(f'ALTER DATABASE "{admin.info.dbname}" SET default_transaction_read_only = on'.encode())
    with Store.open(url) as store:
        found = store.health_check(20)
        assert_told(found, "only accepts reads")
        assert (found.connected, found.writable) == (True, False)


def test_a_role_that_may_only_read_is_told(url: str, admin: psycopg.Connection[Any]) -> None:
    role = f"reader_{secrets.token_hex(6)}"
    admin.execute(f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}".encode())
    try:
        with Store.open(parse_url(url).set(username=role)) as store:
            found = store.health_check(20)
            assert_told(found, "may not insert")
            assert (found.connected, found.writable) == (True, False)
    finally:
        admin.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_a_server_that_cuts_connections_is_reached_again(narrow: Store, admin: psycopg.Connection[Any]) -> None:
    admin.execute("SELECT pg_terminate_backend(%s, 5000)", (pid_of(narrow),))
    assert narrow.health_check(20).ok


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_the_look_of_its_parent(narrow: Store) -> None:
    with stopped(pid_of(narrow)):
        assert_told(narrow.health_check(0.05), "no answer")

        def work() -> None:
            assert narrow.health_check(20).ok

        in_child(work)()
    wait_for(lambda: asides() == 0)


def test_who_waits_for_a_lock_of_a_row_is_seen(url: str) -> None:
    with Store.open(url) as store:
        task = store.tasks.create(title="x")
        with store.transaction() as tx:
            tx.tasks.update(task.task_id, title="y")
            with threads([lambda: store.tasks.update(task.task_id, title="z")]):
                wait_for(lambda: store._backend.server_state().lock_waits == 1)  # type: ignore[union-attr]
                tx._runner.end(commit=True)  # type: ignore[attr-defined]
        assert store._backend.server_state().lock_waits == 0  # type: ignore[union-attr]
