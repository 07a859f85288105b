"""The doctor at a PostgreSQL server: planted faults of schema, tables, role and server, each found by its code."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import signal
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import URL, make_url

from agentos_store import Settings, Store, ensure_migrations
from agentos_store.migrate.grants import Roles, grants
from agentos_store.migrate.target import Target
from agentos_store.operations.doctor import Diagnosis, examine, load, patient, schema, server, tables
from agentos_store.store.opening import open_backend
from agentos_store.testing import PostgresServer
from agentos_store.testing.postgres import connect
from tests.engine.gather import wait_for
from tests.events.bouncer import bouncer
from tests.knowledge.shelf import pieces
from tests.operations.looks import asides
from tests.operations.test_doctor import facts, no_drift
from tests.standing import own_session, owners_work

pytestmark = [own_session, owners_work]

__all__ = ["no_drift"]

Raw = Callable[..., list[tuple[Any, ...]]]
Admin = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture
def backend() -> str:
    """Only PostgreSQL: what is tested here is its own."""
    return "postgresql"


@pytest.fixture
def admin(url: str) -> Iterator[Admin]:
    """A connection beside the store's own."""
    with contextlib.closing(connect(url)) as connection:
        yield connection


def at(url: str | URL, **settings: Any) -> Diagnosis:
    """Examine as the command does."""

    def opened(target: Target) -> Any:
        return open_backend(target.url, schema=target.schema, settings=target.settings, engine=None)

    return examine(Target.of(url, settings=Settings.load(**settings)), opened)


def test_a_schema_that_somebody_changed_is_found(store: Store, raw: Raw) -> None:
    raw("DROP INDEX ix_users_created_at_id")
    raw("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_events_created_at_position'::regclass")
    raw("ALTER TABLE task_audits DISABLE TRIGGER tr_task_audits_append_only")
    raw("DROP TABLE media_files CASCADE" if raw("SELECT to_regclass('media_files')")[0][0] else "SELECT")
    raw("ALTER TABLE projects RENAME description TO described")
    raw("ALTER TABLE events SET (autovacuum_enabled = off)")
    raw("CREATE INDEX mine ON events (severity)")
    found = facts(store.doctor())
    assert found.keys() - {"table-missing"} == {
        "index-missing",
        "index-invalid",
        "trigger-missing",
        "drift",
        "autovacuum-off",
        "schema-extra",
    }
    assert found["index-missing"] == "users: index ix_users_created_at_id"
    assert found["index-invalid"] == "ix_events_created_at_position"
    assert found["trigger-missing"] == "task_audits: trigger tr_task_audits_append_only"
    assert "projects: column description" in found["drift"]
    assert found["autovacuum-off"] == "it is off for events"
    assert "events: index mine" in found["schema-extra"]


def test_tables_that_are_in_a_bad_state_are_found(store: Store, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("DEAD", 5), ("ANALYSED", 5), ("WRAPAROUND", 0)):
        monkeypatch.setattr(tables, name, value)
    raw("ALTER TABLE events SET (autovacuum_enabled = off)")
    raw(
        "INSERT INTO events (event_id, event_type, severity, created_at)"
        " SELECT 'event-' || i, 'x', 'info', now() FROM generate_series(1, 30) AS i"
    )
    task = store.tasks.create(title="t")
    store.lineage.record(task.task_id, kind="commit", ref_id="9f1c2ab")
    raw("DELETE FROM events WHERE position <= 20")
    raw("SELECT setval(pg_get_serial_sequence('events', 'position'), 3)")
    raw("SELECT setval(pg_get_serial_sequence('task_lineage', 'lineage_id'), 9200000000000000000)")
    raw("SELECT pg_stat_force_next_flush()")
    store.kb.add_source(source_path="notes.md")
    found = facts(store.doctor())
    expected = {"dead-rows", "statistics-missing", "wraparound", "sequence-behind", "sequence-near-end"}
    assert found.keys() == {*expected, "autovacuum-off", "drift"}
    assert found["dead-rows"] == "events: 20 beside 10"
    assert found["sequence-behind"] == "events: 3 was drawn last, and there is 30"
    assert found["sequence-near-end"].startswith("task_lineage: ")


@pytest.mark.usefixtures("no_drift")
def test_a_large_index_that_nobody_uses_is_worth_a_note(
    store: Store, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "UNUSED", 20_000)
    raw(
        "INSERT INTO events (event_id, event_type, severity, created_at)"
        " SELECT 'event-' || i, 'x', 'info', now() FROM generate_series(1, 500) AS i"
    )
    raw("ANALYZE events")
    found = store.doctor()
    assert facts(found).keys() == {"index-unused"}
    assert "ix_events_created_at_position" in facts(found)["index-unused"]


@pytest.mark.usefixtures("no_drift")
def test_tables_that_are_locked_are_not_waited_for(url: str, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentos_store.operations.doctor.patient.PATIENCE", 0.02)
    raw("BEGIN")
    raw("LOCK TABLE events, tasks, users, memory_items IN ACCESS EXCLUSIVE MODE")
    found = facts(at(url, retries=0))
    raw("ROLLBACK")
    assert found.keys() == {"check-failed"}
    assert found["check-failed"].endswith("the rest was not looked at")


def test_events_that_find_no_partition_are_found(store: Store, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    store.partition_events(rows=1000, ahead=1)
    store.events.log("started")
    assert facts(store.doctor()) == {}
    monkeypatch.setattr(schema, "CHECKS", ())
    raw("SELECT setval(pg_get_serial_sequence('events', 'position'), 5000)")
    store.events.log("started")
    found = facts(store.doctor())
    assert found.keys() == {"events-rest", "partitions-short"}
    assert "5,001" in found["events-rest"]


@pytest.mark.usefixtures("no_drift")
def test_who_keeps_others_waiting_is_found(
    store: Store, raw: Raw, admin: Admin, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LOCK_WAIT", "TRANSACTION", "IDLE", "HELD_BACK", "STATEMENT"):
        monkeypatch.setattr(load, name, 0.0)
    assert facts(store.doctor()) == {}
    raw("CREATE TABLE held (i int)")
    raw("BEGIN")
    raw("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
    raw("SELECT txid_current()")
    ((holder,),) = raw("SELECT pg_backend_pid()")
    store.events.log("held.back")
    with contextlib.closing(connect(url)) as waiting:
        thread = threading.Thread(target=waiting.execute, args=("SELECT count(*) FROM held",))
        thread.start()
        wait_for(lambda: admin.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone() is not None)
        found = facts(store.doctor())
        raw("ROLLBACK")
        thread.join()
    # The one that waits is a transaction, too, and a statement.
    waits = {"lock-waits", "long-transaction", "slow-statements"}
    assert found.keys() == {"idle-in-transaction", "events-held-back", *waits}
    assert found["lock-waits"].startswith("1 wait, ")
    assert found["idle-in-transaction"].startswith(f"process {holder} for ")
    assert str(holder) not in found["long-transaction"]
    assert found["events-held-back"].startswith("1 events")


def test_what_the_database_was_told_is_found(url: str, admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    name = sql.Identifier(make_url(url).database or "")
    for setting in ("synchronous_commit = off", "default_transaction_read_only = on"):
        admin.execute(sql.SQL("ALTER DATABASE {} SET " + setting).format(name))
    monkeypatch.setattr(server, "YEARS", 2000)
    monkeypatch.setattr(server, "_now", lambda: dt.datetime.now(dt.UTC) - dt.timedelta(minutes=3))
    found = facts(at(url, pool_size=1_000_000), "server-old", "pool-large", "drift-unchecked")
    assert found.keys() == {
        "pool-large",
        "synchronous-commit-off",
        "read-only",
        "server-old",
        "clock-differs",
        "drift-unchecked",
    }
    assert found["clock-differs"] == "the clocks are 3 min apart"


@pytest.mark.usefixtures("no_drift")
def test_embeddings_without_pgvector_are_worth_a_note(store: Store, raw: Raw) -> None:
    if store.capabilities.vector_index:
        pytest.skip("this server has pgvector")
    source = store.kb.add_source(source_path="notes.md")
    chunks = store.kb.add_chunks(source.source_id, pieces("tea"))
    store.kb.embed("model", {chunks[0].chunk_id: [1.0, 2.0]})
    assert facts(store.doctor()) == {"pgvector-absent": "there are embeddings, and no pgvector"}


@pytest.fixture
def role(admin: Admin) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"agentos_doctor_{uuid.uuid4().hex[:12]}"
    admin.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_a_role_is_judged_by_what_it_may_do(url: str, admin: Admin, role: str) -> None:
    own = make_url(url).set(username=role)

    def look(**settings: Any) -> dict[str, str]:
        return facts(at(own, **settings), "drift-unchecked")

    admin.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    assert look()["rights-missing"] == "USAGE on the schema public"
    admin.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
    assert look()["rights-missing"].startswith("SELECT on agent")
    admin.execute(f"GRANT USAGE ON SCHEMA public TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    assert look().keys() == {"role-reads-only", "drift-unchecked"}
    admin.execute(f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}")
    assert look().keys() == {"drift-unchecked"}
    assert look(append_only="privileges")["append-only-open"].endswith("guardian_verdicts, task_audits")
    admin.execute(f"REVOKE UPDATE, DELETE ON task_audits, guardian_verdicts FROM {role}")
    assert look(append_only="privileges").keys() == {"drift-unchecked"}
    admin.execute(f"REVOKE INSERT ON tasks FROM {role}")
    assert look()["rights-missing"] == "INSERT on tasks"


def test_the_roles_that_are_recommended_are_right(url: str, admin: Admin) -> None:
    mark = uuid.uuid4().hex[:12]
    roles = Roles(f"owner_{mark}", f"app_{mark}", f"reader_{mark}")
    target = Target.of(url)
    admin.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    assert facts(at(url), "schema-open").keys() == {"schema-open"}
    admin.execute(grants(target, roles).encode())
    try:
        for name, found in ((roles.application, set()), (roles.reader, {"role-reads-only"})):
            diagnosis = at(target.url.set(username=name))
            assert facts(diagnosis, "schema-open", "role-owner", "role-superuser").keys() == found
    finally:
        for name in roles.all():
            admin.execute(f"REASSIGN OWNED BY {name} TO postgres; DROP OWNED BY {name}; DROP ROLE {name}".encode())


def test_an_owner_is_worth_a_note(url: str, admin: Admin, role: str) -> None:
    for (table,) in admin.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
        admin.execute(f"ALTER TABLE {table} OWNER TO {role}")
    admin.execute(f"GRANT ALL ON SCHEMA public TO {role}")
    admin.execute(
        sql.SQL("GRANT CREATE ON DATABASE {} TO " + role).format(sql.Identifier(make_url(url).database or ""))
    )
    found = at(make_url(url).set(username=role))
    assert facts(found, "role-owner").keys() == {"role-owner"}
    assert "role-superuser" not in found.codes()
    for (table,) in admin.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
        admin.execute(f"ALTER TABLE {table} OWNER TO postgres")


def test_what_no_store_opens_is_diagnosed_all_the_same(url: str, admin: Admin) -> None:
    admin.execute("UPDATE agentos_store_version SET revision = '9999_later'")
    assert facts(at(url)).keys() == {"revision-foreign"}
    admin.execute("DROP TABLE agentos_store_version")
    assert facts(at(url)).keys() == {"revision-missing"}
    missing = at(make_url(url).set(database="nobody_made_it"))
    assert facts(missing).keys() == {"cannot-open"}
    assert missing.server == "unknown"


def test_a_connection_that_is_cut_ends_the_examination(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(looked_at: Any) -> Any:
        looked_at.ask("SELECT pg_terminate_backend(pg_backend_pid())")
        yield

    monkeypatch.setattr(load, "CHECKS", (cut, *load.CHECKS))
    found = facts(store.doctor())
    assert found.keys() == {"check-failed"}
    assert found["check-failed"].endswith("the rest was not looked at")


def test_a_pooler_is_worth_a_note(url: str) -> None:
    with bouncer(url) as through:
        assert facts(at(through), "pooler") == {
            "pooler": "statements are sent through a pooler; prepared statements are on"
        }


@pytest.fixture(scope="module")
def weak() -> Iterator[PostgresServer]:
    """A server that is badly set up, with a store in a database of its own."""
    settings = {
        "full_page_writes": "off",
        "autovacuum": "off",
        "max_prepared_transactions": "2",
        "listen_addresses": "*",
        "port": str(_free_port()),
    }
    with PostgresServer(fsync=False, max_connections=8, settings=settings, sources=("embedded", "local")) as started:
        assert started.directory is not None
        rules = started.directory / "data" / "pg_hba.conf"
        rules.write_text("local all all trust\nhost all all all trust\n", encoding="utf-8")
        with contextlib.closing(connect(started.url)) as admin:
            admin.execute(f"CREATE DATABASE {ASCII} ENCODING 'SQL_ASCII' TEMPLATE template0".encode())
            admin.execute("SELECT pg_create_physical_replication_slot('gone', true), pg_reload_conf()")
            admin.execute("UPDATE pg_database SET datcollversion = '1.0' WHERE datname = %s", (ASCII,))
        ensure_migrations(make_url(started.url).set(database=ASCII))
        yield started


ASCII = "agentos_test_ascii"

WEAK = {"fsync-off", "full-page-writes-off", "autovacuum-off", "encoding", "collation-version"}


def test_a_server_that_is_badly_set_up_is_found(weak: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TRANSACTION", 0.0), ("BYTES_BEHIND", -1)):
        monkeypatch.setattr(load, name, value)
    url = make_url(weak.url).set(database=ASCII)
    with contextlib.ExitStack() as stack:
        others = [stack.enter_context(contextlib.closing(connect(url))) for _ in range(6)]
        others[0].execute("BEGIN")
        others[0].execute("CREATE TABLE t (i int)")
        others[0].execute("PREPARE TRANSACTION 'forgotten'")
        found = facts(at(url, pool_size=2, max_overflow=0))
        others[0].execute("ROLLBACK PREPARED 'forgotten'")
    assert found.keys() == WEAK | {"connections-high", "prepared-transaction", "slot-idle"}
    assert found["slot-idle"].startswith("gone keeps ")
    assert found["connections-high"] == "7 of 8 connections"


@pytest.mark.usefixtures("no_drift")
def test_a_connection_over_the_network_without_tls_is_found(weak: PostgresServer) -> None:
    host = _own_address()
    if server.is_local(host, host):
        pytest.skip("this machine has no address but the loopback")
    url = make_url(weak.url)
    remote = URL.create("postgresql", "postgres", host=host, port=int(str(url.query["port"])), database=ASCII)
    assert facts(at(remote, sslmode="disable"), "tls-off").keys() == WEAK | {"tls-off"}
    assert facts(at(remote.set(host="127.0.0.1"), sslmode="disable"), "tls-off").keys() == WEAK


@pytest.mark.usefixtures("no_drift")
def test_a_server_that_says_nothing_any_more_is_given_up(weak: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "LIMIT", 0.05)
    monkeypatch.setattr(patient, "GRACE", 0.1)
    assert weak.process is not None
    url = make_url(weak.url).set(database=ASCII)
    with Store.open(url) as store, contextlib.closing(connect(weak.url)) as admin:
        query = "SELECT pid FROM pg_stat_activity WHERE datname = %s"
        stopped = [weak.process.pid, *(pid for (pid,) in admin.execute(query, (ASCII,)))]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            silent = facts(store.doctor())
            unreachable = facts(at(url))
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        monkeypatch.undo()
        wait_for(lambda: not asides())
        assert silent == {"check-failed": "version got no answer within 0.3 s; the rest was not looked at"}
        assert unreachable == {"cannot-open": "no answer within 0.3 s"}
        assert "check-failed" not in facts(store.doctor())


@pytest.mark.parametrize(
    ("host", "address", "local"),
    [
        ("", "", True),
        ("/run/postgresql", "", True),
        ("localhost", "", True),
        ("localhost", "127.0.0.1", True),
        ("::1", "", True),
        ("db.example.com", "", False),
        ("db.example.com", "10.0.0.7", False),
        ("10.0.0.7", "", False),
    ],
)
def test_only_this_machine_is_local(host: str, address: str, local: bool) -> None:
    assert server.is_local(host, address) is local


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as way:
        # Nothing is sent: it only asks which address would be its own.
        try:
            way.connect(("10.255.255.255", 1))
        except OSError:
            return "127.0.0.1"
        return str(way.getsockname()[0])
