from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import bindparam, create_engine, text, update
from sqlalchemy.engine import make_url

from agentos_store import Store, ensure_migrations
from agentos_store.engine.statement import Statement
from agentos_store.errors import (
    LockTimeoutError,
    NotFoundError,
    StoreError,
    TransientError,
    UnavailableError,
)
from agentos_store.operation import Access
from agentos_store.tasks.models import Task
from tests.standing import own_session, owners_work

Admin = psycopg.Connection[Any]
Opened = Callable[..., Store]

OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


def run(store: Store, body: Any, *, access: Access = Access.WRITE, repeatable: bool = True) -> Any:
    return store._backend.run(access, "test", body, repeatable=repeatable)


def pool_of(store: Store) -> Any:
    backend: Any = store._backend
    return backend._pool


def statement(sql: Any, **options: Any) -> Statement[Any]:
    return Statement(sql, lasting=False, **options)


def test_a_deadlock_is_tried_again(open_store: Opened) -> None:
    store = open_store()
    first, second = (store.tasks.create(title="t", priority=0).task_id for _ in range(2))
    table = Task.table()
    add = Statement[Any](update(table).where(table.c.task_id == bindparam("key")).values(priority=table.c.priority + 1))
    met = threading.Barrier(2)
    tries = []

    def work(order: tuple[str, str]) -> None:
        def body(session: Any) -> None:
            tries.append(order)
            session.execute(add, {"key": order[0]})
            with contextlib.suppress(threading.BrokenBarrierError):
                met.wait(5)
            session.execute(add, {"key": order[1]})

        run(store, body)

    def leave(order: tuple[str, str]) -> None:
        work(order)
        met.abort()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(leave, [(first, second), (second, first)]))
    assert len(tries) > 2
    assert [store.tasks.get(key).priority for key in (first, second)] == [2, 2]


def test_a_serialization_failure_is_tried_again(open_store: Opened) -> None:
    store = open_store()
    tries = []

    def body(session: Any) -> int:
        tries.append(1)
        if len(tries) < 3:
            raise_in_server(session, "40001")
        return len(tries)

    assert run(store, body, repeatable=False) == 3


def raise_in_server(session: Any, code: str) -> None:
    """Let the server itself raise an error with this code."""
    command = f"DO $$ BEGIN RAISE EXCEPTION 'provoked' USING ERRCODE = '{code}'; END $$"
    session._connection.command(command)


@pytest.mark.parametrize("code", ["40001", "40P01", "53300", "08006", "57P01", "57P03", "25P03"])
def test_a_fault_that_outlives_the_retries_is_a_transient_error(open_store: Opened, code: str) -> None:
    store = open_store(retries=2)
    tries = []

    def body(session: Any) -> None:
        tries.append(1)
        raise_in_server(session, code)

    with pytest.raises(TransientError) as caught:
        run(store, body)
    assert (caught.value.code, caught.value.outcome_unknown) == (code, False)
    assert len(tries) == 3
    assert "provoked" not in str(caught.value)
    assert store.tasks.count() == 0


@pytest.mark.parametrize("code", ["XX000", "53100", "42501", "54000"])
def test_a_fault_that_will_not_pass_is_not_tried_again(open_store: Opened, code: str) -> None:
    store = open_store()
    tries = []

    def body(session: Any) -> None:
        tries.append(1)
        raise_in_server(session, code)

    with pytest.raises(UnavailableError) as caught:
        run(store, body)
    assert not isinstance(caught.value, TransientError)
    assert (caught.value.code, len(tries)) == (code, 1)


def test_a_lock_that_is_held_too_long_is_a_lock_timeout_after_the_retries(open_store: Opened, admin: Admin) -> None:
    store = open_store(lock_timeout=0.05, retries=2)
    task = store.tasks.create(title="t")
    with admin.transaction():
        admin.execute("SELECT * FROM tasks FOR UPDATE")
        calls: list[Callable[[], object]] = [
            lambda: store.tasks.update(task.task_id, title="u"),
            lambda: store.tasks.merge_metadata(task.task_id, {"a": 1}),
            lambda: store.tasks.transition(task.task_id, "running"),
        ]
        for call in calls:
            with pytest.raises(LockTimeoutError) as caught:
                call()
            assert (caught.value.code, caught.value.waited) == ("55P03", 0.05)
    assert store.tasks.get(task.task_id).to_dict() == task.to_dict()
    assert store.tasks.update(task.task_id, title="u").title == "u"


def test_an_update_that_waited_for_another_writer_is_still_judged_by_its_version(
    open_store: Opened, admin: Admin
) -> None:
    store = open_store(lock_timeout=0.1, retries=10)
    task = store.tasks.create(title="t")
    with ThreadPoolExecutor(1) as threads:
        with admin.transaction():
            admin.execute("UPDATE tasks SET title = 'theirs', version = 2")
            ours = threads.submit(store.tasks.update, task.task_id, title="ours", version=1)
            # Longer than the lock timeout, so that at least one try has failed.
            time.sleep(0.3)
        with pytest.raises(StoreError, match="version 2, not 1"):
            ours.result()
    assert store.tasks.get(task.task_id).title == "theirs"


def test_a_connection_that_was_ended_while_idle_is_replaced(open_store: Opened, admin: Admin) -> None:
    store = open_store()
    task = store.tasks.create(title="t").task_id
    project = store.projects.create(path="/a").id
    calls: list[Callable[[], object]] = [
        lambda: store.tasks.get(task),
        lambda: store.tasks.create(title="t"),
        lambda: store.audits.record(task, event_type="e"),
        lambda: store.lineage.record(task, kind="k", ref_id=str(time.monotonic())),
        lambda: store.tasks.transition(task, "running"),
        lambda: store.tasks.merge_metadata(task, {"a": 1}),
        lambda: store.tasks.delete(store.tasks.create(title="t").task_id),
        lambda: store.projects.add_repo(project, str(time.monotonic()), repo_path="."),
        store.audits.verify,
        store.status,
        lambda: in_transaction(store),
        lambda: in_transaction(store, read_only=True),
    ]
    for call in calls:
        fill_pool(store)
        admin.execute(OTHERS)
        call()
    assert store.tasks.count() == 2
    assert store.audits.verify().entries == 2


def fill_pool(store: Store) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(store.transaction(read_only=True)).tasks.count()


def in_transaction(store: Store, *, read_only: bool = False) -> None:
    with store.transaction(read_only=read_only) as tx:
        tx.tasks.count()


def test_a_transaction_whose_connection_is_ended_stores_nothing(open_store: Opened, admin: Admin) -> None:
    store = open_store()

    def work(tx: Any) -> str:
        tries.append(1)
        tx.tasks.create(title="t")
        if len(tries) == 1:
            admin.execute(OTHERS)
        return str(tx.tasks.create(title="u").task_id)

    tries: list[int] = []
    with pytest.raises(TransientError) as caught, store.transaction() as tx:
        work(tx)
    assert not caught.value.outcome_unknown
    assert store.tasks.count() == 0
    tries.clear()
    assert store.tasks.get(store.run(work)).title == "u"
    assert store.tasks.count() == 2


@pytest.mark.parametrize("verb", ["create", "record", "link", "transition", "update", "merge"])
def test_a_statement_that_is_ended_while_it_runs_is_done_once(open_store: Opened, admin: Admin, verb: str) -> None:
    store = open_store(retries=6)
    task = store.tasks.create(title="t").task_id
    calls: dict[str, Callable[[], object]] = {
        "create": lambda: store.tasks.create(title="new", idempotency_key="k"),
        "record": lambda: store.audits.record(task, event_type="e", decision_id="d"),
        "link": lambda: store.lineage.record(task, kind="k", ref_id="r"),
        "transition": lambda: store.tasks.transition(task, "running", version=1),
        "update": lambda: store.tasks.update(task, title="u", version=1),
        "merge": lambda: store.tasks.merge_metadata(task, {"a": 1}),
    }
    with ThreadPoolExecutor(1) as threads:
        with admin.transaction():
            admin.execute("LOCK TABLE tasks, task_audits, task_lineage IN ACCESS EXCLUSIVE MODE")
            call = threads.submit(calls[verb])
            while not admin.execute(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            ).fetchone():
                time.sleep(0.01)
                # The view is a snapshot of the transaction's first look.
                admin.execute("SELECT pg_stat_clear_snapshot()")
            admin.execute(OTHERS)
        call.result()
    found = store.tasks.get(task)
    assert store.tasks.count() == (2 if verb == "create" else 1)
    assert store.audits.count() == (1 if verb in {"record", "transition"} else 0)
    assert store.lineage.count() == (1 if verb == "link" else 0)
    assert found.version == (2 if verb in {"transition", "update", "merge"} else 1)
    assert store.audits.verify().ok


def test_what_cannot_be_reached_is_unavailable_and_the_message_has_no_password(url: str, tmp_path: Any) -> None:
    where = make_url(url).set(username="postgres", password="s3cret-p4ss")
    down = where.update_query_dict({"host": str(tmp_path)})
    nowhere = where.set(database="no_such_database")
    stranger = where.set(username="no_such_role")
    for bad in (down, nowhere, stranger):
        with pytest.raises(UnavailableError) as caught:
            Store.open(bad)
        error = caught.value
        assert "s3cret-p4ss" not in f"{error} {error!r} {error.__cause__!r} {error.why}"
        assert "cannot connect" in str(error)


def test_a_server_that_goes_down_is_unavailable_until_it_is_back(open_store: Opened, proxy: Any, url: str) -> None:
    store = open_store(proxy.url, retries=1, reconnect_timeout=0.1)
    store.tasks.create(title="t")
    proxy.close()
    for _ in range(3):
        with pytest.raises(UnavailableError):
            store.tasks.create(title="t")
        with pytest.raises(UnavailableError), store.transaction():
            pass
        with pytest.raises(UnavailableError):
            store.status()


COMMIT = b"COMMIT\0"
"""The whole command: READ COMMITTED holds the word too."""

CUTS: dict[str, tuple[bytes, Callable[[Store, str, int], object]]] = {
    "create": (b"INTO public.tasks", lambda store, _, n: store.tasks.create(title=f"n{n}")),
    "create with key": (
        b"INTO public.tasks",
        lambda store, _, n: store.tasks.create(title=f"n{n}", idempotency_key=f"k{n}"),
    ),
    "create with id": (b"INTO public.tasks", lambda store, _, n: store.tasks.create(title=f"n{n}", task_id=f"id{n}")),
    "record": (b"public.task_audits", lambda store, task, n: store.audits.record(task, event_type=f"n{n}")),
    "decide": (
        b"public.task_audits",
        lambda store, task, n: store.audits.record(task, event_type=f"n{n}", decision_id=f"d{n}"),
    ),
    "link": (b"public.task_lineage", lambda store, task, n: store.lineage.record(task, kind="k", ref_id=f"n{n}")),
    "transition": (
        b"public.tasks",
        lambda store, task, n: store.tasks.transition(task, "paused" if n % 2 else "running", by=f"n{n}"),
    ),
    "project": (b"public.projects", lambda store, _, n: store.projects.create(path=f"n{n}", id=f"p{n}", name=f"n{n}")),
    "repository": (
        b"public.project_repos",
        lambda store, _, n: store.projects.add_repo("home", f"r{n}", repo_path="."),
    ),
    "merge": (COMMIT, lambda store, task, n: store.tasks.merge_metadata(task, {f"n{n}": n})),
    "delete": (COMMIT, lambda store, _, n: store.tasks.delete(f"old{n}")),
}


@pytest.mark.parametrize("verb", CUTS)
def test_a_cut_after_the_commit_doubles_nothing(open_store: Opened, proxy: Any, verb: str) -> None:
    store = open_store(proxy.url)
    mark, call = CUTS[verb]
    task = store.tasks.create(title="t", task_id="target").task_id
    store.projects.create(path="/", id="home")
    for n in range(10):
        store.tasks.create(title="old", task_id=f"old{n}")
    # The first statement of a kind is prepared, whose text later ones do not carry; a new connection has to prepare.
    for n in range(10):
        pool_of(store).dispose()
        proxy.cut_answer_to(mark)
        call(store, task, n)
        assert proxy.cuts == n + 1
    tasks, audits, links = store.tasks.count(), store.audits.count(), store.lineage.count()
    assert tasks == {"create": 21, "create with key": 21, "create with id": 21, "delete": 1}.get(verb, 11)
    assert audits == (10 if verb in {"record", "decide", "transition"} else 0)
    assert links == (10 if verb == "link" else 0)
    assert store.projects.count() == (11 if verb == "project" else 1)
    assert len(store.projects.list_repos("home")) == (10 if verb == "repository" else 0)
    assert store.audits.verify().ok
    if verb == "transition":
        assert [step.by for step in store.tasks.history(task)] == [f"n{n}" for n in range(10)]
        assert store.tasks.get(task).version == 11
    if verb == "merge":
        assert store.tasks.get(task).metadata_ == {f"n{n}": n for n in range(10)}


def test_a_step_that_was_cut_is_not_taken_again_after_the_task_went_on(
    open_store: Opened, proxy: Any, admin: Admin
) -> None:
    store = open_store(proxy.url, retry_base=0.3, retry_jitter=0)
    task = store.tasks.create(title="t").task_id
    others = open_store()
    proxy.cut_answer_to(b"public.task_audit_heads")
    with ThreadPoolExecutor(1) as threads:
        call = threads.submit(store.tasks.transition, task, "running", by="first")
        while others.tasks.get(task).status != "running":
            time.sleep(0.01)
        others.tasks.pause(task, by="second")
        assert call.result().status == "paused"
    assert [step.to for step in others.tasks.history(task)] == ["running", "paused"]


def test_a_cut_commit_of_a_transaction_is_told_as_an_unknown_outcome(open_store: Opened, proxy: Any) -> None:
    store = open_store(proxy.url)
    proxy.cut_answer_to(COMMIT)
    with pytest.raises(TransientError) as caught, store.transaction() as tx:
        tx.tasks.create(title="t")
    assert caught.value.outcome_unknown
    proxy.cut_answer_to(COMMIT)
    with pytest.raises(TransientError):
        store.run(lambda tx: tx.tasks.create(title="u"))
    assert sorted(task.title for task in store.tasks.list()) == ["t", "u"]


def test_a_pool_that_is_used_up_is_unavailable(open_store: Opened) -> None:
    store = open_store(pool_size=1, max_overflow=0, pool_timeout=0.1)
    with store.transaction():
        for call in (store.tasks.count, lambda: store.tasks.create(title="t"), store.status):
            with pytest.raises(UnavailableError) as caught:
                call()
            assert not isinstance(caught.value, TransientError)
            assert "pool" in str(caught.value)
    assert store.tasks.count() == 0


@own_session
def test_no_failing_call_keeps_a_connection(open_store: Opened, admin: Admin) -> None:
    store = open_store(pool_size=1, max_overflow=0, pool_timeout=1, retries=0, statement_timeout=0.2)
    task = store.tasks.create(title="t").task_id

    def fail(number: int) -> None:
        kind = number % 8
        if kind == 0:
            store.tasks.get("nobody")
        elif kind == 1:
            store.tasks.create(title="")
        elif kind == 2:
            store.tasks.create(title="t", task_id=task)
        elif kind == 3:
            store.tasks.update(task, session_id="nobody")
        elif kind == 4:
            run(store, lambda session: raise_in_server(session, "XX000"))
        elif kind == 5:
            with store.transaction() as tx:
                tx.tasks.create(title="t")
                raise NotFoundError("nothing", 0)
        elif kind == 6:
            with store.transaction() as tx:
                run_in(tx, lambda session: raise_in_server(session, "08006"))
        else:
            fill_one(store)
            admin.execute(OTHERS)
            run(store, lambda session: session.execute(statement(update(Task.table()).values(title="x"))))

    for number in range(200):
        with pytest.raises(StoreError):
            fail(number)
    assert store.tasks.count() == 1
    assert pool_of(store).checkedout() == 0


def fill_one(store: Store) -> None:
    store.tasks.count()


def run_in(tx: Any, body: Any) -> Any:
    return tx.tasks._runner.call(Access.WRITE, "test", body, repeatable=False)


def test_many_threads_on_a_small_pool_lose_nothing_when_connections_are_ended(open_store: Opened, admin: Admin) -> None:
    store = open_store(pool_size=2, max_overflow=1, retries=20)
    done = threading.Event()

    def kill() -> None:
        while not done.wait(0.03):
            admin.execute(OTHERS)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda n: store.tasks.create(title=str(n)), range(150)))
    finally:
        done.set()
        killer.join()
    titles = sorted(int(task.title) for task in store.tasks.iterate())
    assert titles == list(range(150))
    assert pool_of(store).checkedout() == 0


@own_session
def test_a_statement_beyond_its_time_limit_is_unavailable(open_store: Opened, admin: Admin) -> None:
    store = open_store(statement_timeout=0.1)
    task = store.tasks.create(title="t")
    with admin.transaction():
        admin.execute("SELECT * FROM tasks FOR UPDATE")
        with pytest.raises(UnavailableError) as caught:
            store.tasks.update(task.task_id, title="u")
    assert caught.value.code == "57014"
    assert not isinstance(caught.value, TransientError)
    assert store.tasks.get(task.task_id).title == "t"


@own_session
def test_an_idle_transaction_is_ended_by_the_server(open_store: Opened) -> None:
    store = open_store(idle_in_transaction_timeout=0.1)

    def work(tx: Any) -> None:
        tx.tasks.create(title="t")
        time.sleep(0.4)
        tx.tasks.create(title="u")

    with pytest.raises(TransientError), store.transaction() as tx:
        work(tx)
    assert store.tasks.count() == 0


def test_text_is_whole_whatever_encoding_the_environment_asks_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "latin1")
    with Store.open(url) as store:
        task = store.tasks.create(title="天气", payload={"🌤": "晴"})
        found = store.tasks.get(task.task_id)
        assert (found.title, found.payload) == ("天气", {"🌤": "晴"})


NAMES = ["tenant_a", 'we "ird" Schema', "天气", "select"]


@owners_work
@pytest.mark.parametrize("schema", NAMES)
def test_a_schema_may_have_any_name(url: str, schema: str) -> None:
    ensure_migrations(url, schema=schema)
    with Store.open(url, schema=schema) as store, Store.open(url) as other:
        project = store.projects.create(path="/a", tags=["a"])
        task = store.tasks.create(title="t", project_id=project.id, metadata={"a": 1})
        store.tasks.update(task.task_id, project_id=project.id)
        store.tasks.transition(task.task_id, "running")
        store.audits.record(task.task_id, event_type="e")
        store.lineage.record(task.task_id, kind="k", ref_id="r")
        assert store.audits.verify().ok
        assert [found.task_id for found in store.tasks.list(metadata={"a": 1})] == [task.task_id]
        with pytest.raises(StoreError, match="has tasks"):
            store.projects.delete(project.id)
        assert store.lineage.graph(task.task_id).edges
        store.tasks.delete(task.task_id)
        store.projects.delete(project.id)
        assert other.tasks.count() == other.projects.count() == 0
        assert other.audits.verify().chains == 0


def test_an_engine_of_somebody_else_stays_as_it_was(url: str) -> None:
    engine = create_engine(url, pool_size=1, max_overflow=0, json_deserializer=lambda _: "mine")
    with engine.connect() as connection:
        before: Any = connection.connection.dbapi_connection
        threshold = before.prepare_threshold
    with Store.open(engine=engine) as store:
        task = store.tasks.create(title="t", payload={"a": 1e16}, metadata={"b": 2})
        with engine.connect() as connection:
            assert connection.execute(text("SELECT payload FROM tasks")).scalar_one() == "mine"
            raw: Any = connection.connection.dbapi_connection
            assert raw is before
            assert (raw.autocommit, raw.prepare_threshold) == (False, threshold)
            connection.execute(text("DELETE FROM tasks"))
            connection.rollback()
        found = store.tasks.get(task.task_id)
        assert (found.payload, found.metadata_) == ({"a": 1e16}, {"b": 2})
        with store.transaction() as tx:
            tx.tasks.update(task.task_id, title="u")
        engine.dispose()
        assert store.tasks.get(task.task_id).title == "u"
        assert store.status().rows["tasks"] == 1
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM tasks")).scalar_one() == 1
    engine.dispose()


def test_an_engine_with_factories_of_its_own_serves(url: str) -> None:
    engine = create_engine(url, connect_args={"cursor_factory": psycopg.ClientCursor})
    with Store.open(engine=engine) as store:
        task = store.tasks.create(title="t", payload=[1])
        assert store.tasks.get(task.task_id).payload == [1]
        assert store.audits.verify().ok
    engine.dispose()


def test_an_engine_of_somebody_else_recovers_from_ended_connections(url: str, admin: Admin) -> None:
    engine = create_engine(url, pool_size=2)
    with Store.open(engine=engine) as store:
        for _ in range(3):
            store.tasks.create(title="t")
            fill_one(store)
            admin.execute(OTHERS)
        assert store.tasks.count() == 3
    engine.dispose()


@own_session
def test_nothing_is_prepared_when_the_setting_says_so(open_store: Opened) -> None:
    for prepared, expected in ((True, True), (False, False)):
        store = open_store(prepare_statements=prepared, pool_size=1)
        for _ in range(6):
            store.tasks.create(title="t")
            store.tasks.count()
        with store._backend.raw_connection() as cursor:
            names = cursor.execute("SELECT count(*) FROM pg_prepared_statements", prepare=False).fetchone()
        assert (names[0] > 0) == expected


@pytest.mark.parametrize("in_transaction", [False, True])
def test_statements_prepared_before_a_migration_are_prepared_again(
    open_store: Opened, admin: Admin, in_transaction: bool
) -> None:
    store = open_store()
    task = store.tasks.create(title="t").task_id

    def use() -> str:
        if in_transaction:
            return store.run(lambda tx: tx.tasks.update(task, priority=1)).title
        return store.tasks.update(task, priority=1).title

    for type_ in ("varchar(500)", "text", "varchar(600)"):
        for _ in range(3):
            use()
        fill_pool(store)
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                stack.enter_context(store.transaction(read_only=True)).tasks.get(task)
        admin.execute(f"ALTER TABLE tasks ALTER COLUMN title TYPE {type_}")
        assert use() == "t"
        assert store.tasks.get(task).title == "t"


def test_statements_that_somebody_else_discarded_are_prepared_again(open_store: Opened) -> None:
    store = open_store(pool_size=1, max_overflow=0)
    task = store.tasks.create(title="t").task_id
    for _ in range(3):
        store.tasks.get(task)
        with store._backend.raw_connection() as cursor:
            cursor.execute("DEALLOCATE ALL", prepare=False)
        assert store.tasks.get(task).title == "t"
        assert store.tasks.update(task, priority=1).title == "t"


def test_a_failed_question_to_the_catalogue_is_a_typed_error(open_store: Opened) -> None:
    store = open_store()
    with pytest.raises(StoreError), store._backend.raw_connection() as cursor:
        cursor.execute("SELECT 1/0")
    assert pool_of(store).checkedout() == 0


def test_no_error_shows_a_row(open_store: Opened, admin: Admin) -> None:
    store = open_store()
    admin.execute("ALTER TABLE tasks ADD CONSTRAINT no_secrets CHECK (title NOT LIKE '%hunter2%')")
    with pytest.raises(StoreError) as caught:
        store.tasks.create(title="my password is hunter2")
    shown = [caught.value, caught.value.__cause__]
    assert "hunter2" not in json.dumps([repr(each) + str(each) for each in shown])
