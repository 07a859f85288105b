"""Real faults of a server, one for each kind of code that is tried again."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import bindparam, update
from sqlalchemy.engine import make_url

from agentos_store import Settings, Store, StoreError, TransientError, ensure_migrations
from agentos_store.engine.statement import Statement
from agentos_store.operation import Access
from agentos_store.tasks.models import Task
from agentos_store.testing import PostgresServer
from agentos_store.testing.postgres import URL_VARIABLE, connect
from tests.engine.gather import wait_for
from tests.postgresql.test_server_faults import Admin, Opened, raise_in_server
from tests.standing import own_session

SET_PRIORITY: Statement[Any] = Statement(
    update(Task.table()).values(priority=bindparam("number", type_=Task.table().c.priority.type))
)


def run(store: Store, body: Callable[[Any], Any]) -> Any:
    return store._backend.run(Access.WRITE, "test", body, repeatable=False)


class Told:
    """Hears of retries, and does something at one of them."""

    def __init__(self, then: Callable[[], object] = lambda: None, *, at: int = 1) -> None:
        self.at = at
        self.codes: list[str | None] = []
        self.then = then

    def __call__(self, error: StoreError, attempt: int, wait: float) -> None:
        assert wait >= 0
        self.codes.append(getattr(error, "code", None))
        if attempt == self.at:
            self.then()


@contextlib.contextmanager
def opened(url: str, told: Told, **settings: Any) -> Iterator[Store]:
    with Store.open(url, settings=Settings.load(**{"retry_base": 0.01, **settings}), on_retry=told) as store:
        yield store


CODES = ["08000", "08003", "08006", "40001", "40P01", "53300", "55P03", "57P01", "57P02", "57P03", "25P03"]


@pytest.mark.parametrize("code", CODES)
def test_each_code_is_tried_again(url: str, code: str) -> None:
    told, tries = Told(), []

    def body(session: Any) -> int:
        tries.append(1)
        if len(tries) < 3:
            raise_in_server(session, code)
        return len(tries)

    with opened(url, told) as store:
        assert run(store, body) == 3
        assert told.codes == [code, code]
        # Inside a transaction nothing is.
        tries.clear()
        with pytest.raises(StoreError) as caught, store.transaction() as tx:
            tx._runner.call(Access.WRITE, "test", body, repeatable=True)
        assert (getattr(caught.value, "code", None), len(tries), len(told.codes)) == (code, 1, 2)


@pytest.mark.parametrize("code", ["40002", "40003", "53200", "53400", "55006", "57014", "57000", "25P02", "XX001"])
def test_their_neighbours_are_not(url: str, code: str) -> None:
    told = Told()
    with opened(url, told) as store:
        with pytest.raises(StoreError) as caught:
            run(store, lambda session: raise_in_server(session, code))
        assert not isinstance(caught.value, TransientError)
        assert told.codes == []


def test_a_serialization_failure(url: str, admin: Admin) -> None:
    told, tries = Told(), []

    def body(session: Any) -> None:
        tries.append(1)
        session._connection.command("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session._connection.command("SELECT priority FROM tasks")
        if len(tries) == 1:
            admin.execute("UPDATE tasks SET priority = 5")
        session.execute(SET_PRIORITY, {"number": 7})

    with opened(url, told) as store:
        task = store.tasks.create(title="t")
        run(store, body)
        assert store.tasks.get(task.task_id).priority == 7
    assert told.codes == ["40001"]


def test_a_lock_that_is_let_go_after_the_limit(url: str, admin: Admin) -> None:
    told = Told(lambda: admin.execute("ROLLBACK"))
    with opened(url, told, lock_timeout=0.05) as store:
        task = store.tasks.create(title="t")
        admin.execute("BEGIN")
        admin.execute("SELECT * FROM tasks FOR UPDATE")
        assert store.tasks.update(task.task_id, title="u").title == "u"
    assert told.codes == ["55P03"]


@own_session
def test_a_transaction_that_was_idle_for_too_long(url: str) -> None:
    told, tries = Told(), []

    def body(session: Any) -> None:
        tries.append(1)
        session.execute(SET_PRIORITY, {"number": 1})
        if len(tries) == 1:
            time.sleep(0.3)
        session.execute(SET_PRIORITY, {"number": len(tries)})

    with opened(url, told, idle_in_transaction_timeout=0.1) as store:
        task = store.tasks.create(title="t")
        run(store, body)
        assert store.tasks.get(task.task_id).priority == 2
    assert told.codes == ["25P03"]


@own_session
def test_too_many_connections(url: str, admin: Admin) -> None:
    role = f"limited_{secrets.token_hex(4)}"
    admin.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1 PASSWORD 'secret'".encode())
    # It may change what others own, and is no superuser, for whom there is no limit.
    admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}".encode())
    taken: list[psycopg.Connection[Any]] = []
    try:
        where = make_url(url).set(username=role, password="secret").render_as_string(hide_password=False)
        # The first try finds that its connection is gone, the second that there is no other to be had.
        told = Told(lambda: taken.pop().close(), at=2)
        with opened(where, told, retries=8, reconnect_timeout=0) as store:
            store.tasks.create(title="t")
            own = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = %s"
            admin.execute(own.encode(), (role,))
            left = "SELECT 1 FROM pg_stat_activity WHERE usename = %s"
            wait_for(lambda: not admin.execute(left.encode(), (role,)).fetchone())
            # Its place is taken when it comes back.
            taken.append(connect(where))
            assert store.tasks.count() == 1
        assert len(told.codes) >= 2
    finally:
        for each in taken:
            each.close()
        admin.execute(f"DROP OWNED BY {role}".encode())
        admin.execute(f"DROP ROLE {role}".encode())


def test_a_server_that_crashed_and_starts_again() -> None:
    if os.environ.get(URL_VARIABLE):
        pytest.skip("a server that belongs to somebody else is not killed")
    told = Told()
    with PostgresServer() as server, contextlib.closing(connect(server.url)) as victim:
        pid = victim.info.backend_pid
        if not is_postgres(pid):
            pytest.skip("the server's processes are not on this machine")
        ensure_migrations(server.url)
        with opened(server.url, told, retries=8, retry_base=0.1) as store:
            task = store.tasks.create(title="t")
            tries: list[int] = []

            def body(session: Any) -> None:
                tries.append(1)
                if len(tries) == 1:
                    session.execute(SET_PRIORITY, {"number": -1})
                    killer.start()
                    session._connection.command("SELECT pg_sleep(20)")
                session.execute(SET_PRIORITY, {"number": 2})

            # The end of one backend makes the server end all of them and start again.
            killer = threading.Thread(target=os.kill, args=(pid, signal.SIGKILL))
            run(store, body)
            killer.join()
            found = store.tasks.get(task.task_id)
            assert (found.priority, len(tries)) == (2, 2)
    # The server says 57P02 in a warning, which a driver need not show, and hangs up.
    assert told.codes[0] in {"57P02", None}


def is_postgres(pid: int) -> bool:
    name = Path(f"/proc/{pid}/comm")
    return name.exists() and name.read_text(encoding="utf-8").startswith("postgres")


def test_the_first_connection_is_not_waited_for(tmp_path: Path, url: str) -> None:
    told = Told()
    nowhere = make_url(url).update_query_dict({"host": str(tmp_path)}).render_as_string(hide_password=False)
    with pytest.raises(StoreError), opened(nowhere, told):
        pass
    assert told.codes == []


def test_a_store_of_its_own_policy_hears_of_its_own_retries_only(open_store: Opened, url: str, admin: Admin) -> None:
    told = Told()
    others = open_store(lock_timeout=0.05, retries=1)
    with opened(url, told) as store:
        task = store.tasks.create(title="t")
        with admin.transaction():
            admin.execute("SELECT * FROM tasks FOR UPDATE")
            with pytest.raises(StoreError):
                others.tasks.update(task.task_id, title="u")
    assert told.codes == []
