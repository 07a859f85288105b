"""Three roles: the SQL that the package prints lets each do what it has to, and nothing else."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from agentos_store import InvalidValueError, Settings, Store, UnavailableError, ensure_migrations
from agentos_store.cli.app import app
from agentos_store.migrate.grants import Roles, grants
from agentos_store.migrate.target import Target
from agentos_store.migrate.triggers import APPEND_ONLY
from agentos_store.migrate.upgrade import downgrade
from agentos_store.operations.retention import Policy
from agentos_store.testing import Databases
from agentos_store.testing.postgres import connect
from tests.postgresql.tour import look, work
from tests.standing import as_role

LACKS = r"the role lacks the privilege"

PRUNE_AUDITS = [Policy(table="task_audits", older_than=dt.timedelta(0))]


class Granted:
    """A schema in which the printed SQL was run before and behind the migrations, as the documentation says."""

    def __init__(self, url: str, schema: str) -> None:
        mark = secrets.token_hex(4)
        self.url = url
        self.schema = schema
        # Names that only stay whole between quotes.
        self.roles = Roles(f'o"{mark}', f"a's {mark}", f"读{mark}")
        self.grant()
        ensure_migrations(as_role(url, self.roles.owner), schema=schema)
        self.grant()

    def grant(self, append_only: str = "trigger") -> None:
        names = self.roles
        command = ["--url", self.url, "--schema", self.schema, "db", "grants"]
        options = ["--owner", names.owner, "--app", names.application, "--reader", names.reader]
        environment = {"DATABASE_APPEND_ONLY": append_only, "COLUMNS": "80"}
        printed = CliRunner().invoke(app, [*command, *options], env=environment, catch_exceptions=False)
        with connect(self.url) as admin:
            # Roles belong to the whole server, and two cannot change one at once.
            admin.execute("SELECT pg_advisory_lock(7013)")
            admin.execute(printed.stdout.encode())

    def drop(self) -> None:
        with connect(self.url) as admin:
            for role in self.roles.all():
                quoted = role.replace('"', '""')
                admin.execute(f'DROP OWNED BY "{quoted}" CASCADE'.encode())
                admin.execute(f'DROP ROLE "{quoted}"'.encode())

    def open(self, role: str, **settings: Any) -> Store:
        return Store.open(as_role(self.url, role), schema=self.schema, settings=Settings.load(**settings))

    @contextlib.contextmanager
    def session(self, role: str) -> Iterator[psycopg.Connection[Any]]:
        with contextlib.closing(connect(as_role(self.url, role))) as connection:
            yield connection


@pytest.fixture(scope="module")
def database(postgres_url: str) -> Iterator[str]:
    databases = Databases(postgres_url)
    made = databases.create()
    yield made
    databases.drop(made)


@contextlib.contextmanager
def granted_schema(database: str, schema: str) -> Iterator[Granted]:
    made = Granted(database, schema)
    try:
        yield made
    finally:
        made.drop()


@pytest.fixture(scope="module")
def granted(database: str) -> Iterator[Granted]:
    with granted_schema(database, "public") as made:
        yield made


@pytest.fixture(autouse=True)
def _no_rows(granted: Granted) -> None:
    with granted.session(granted.roles.owner) as session:
        found = session.execute("SELECT format('%I', tablename) FROM pg_tables WHERE schemaname = 'public'").fetchall()
        names = ", ".join(name for (name,) in found if name != "agentos_store_version")
        for verb in ("DISABLE", "ENABLE"):
            for table in APPEND_ONLY:
                session.execute(f"ALTER TABLE {table} {verb} TRIGGER USER".encode())
            session.execute(f"TRUNCATE {names}".encode() if verb == "DISABLE" else b"SELECT 1")


def test_a_database_without_the_schema_public_has_roles_too(database: str) -> None:
    printed = grants(Target.of(database, schema="tenant"), Roles("owner_there", "application_there", "reader_there"))
    with connect(database) as admin:
        admin.execute("BEGIN")
        admin.execute("ALTER SCHEMA public RENAME TO gone")
        admin.execute(printed.removeprefix("BEGIN;").removesuffix("COMMIT;").encode())
        assert admin.execute("SELECT has_schema_privilege('reader_there', 'tenant', 'USAGE')").fetchone() == (True,)
        admin.execute("ROLLBACK")


def test_each_role_does_what_it_has_to(granted: Granted) -> None:
    do_what_each_has_to(granted)


def test_the_schema_of_a_tenant_has_roles_of_its_own(granted: Granted) -> None:
    with granted_schema(granted.url, "tenant \"a's") as tenant:
        do_what_each_has_to(tenant)
        for role in tenant.roles.all():
            with pytest.raises(UnavailableError, match=LACKS):
                Store.open(as_role(granted.url, role))


def do_what_each_has_to(granted: Granted) -> None:
    with granted.open(granted.roles.application) as store:
        work(store)
        assert store.prune(PRUNE_AUDITS, confirm=True).rows > 0
        assert store.audits.verify().ok
    with granted.open(granted.roles.reader) as store:
        names = list(look(store))
        assert len(names) > 80
        assert store.messages.search("天气")
        assert store.status().rows["messages"] == 6
        assert store.check_consistency().ok
        with store.transaction(read_only=True) as tx:
            assert tx.tasks.count() == 3
        with store.events.subscribe(from_start=True, timeout=0) as live:
            assert list(live) == []
        with pytest.raises(UnavailableError, match=LACKS) as caught:
            store.tasks.create(title="t")
        assert caught.value.code == "42501"
        with pytest.raises(UnavailableError, match=LACKS), store.transaction() as tx:
            tx.tasks.update(next(iter(tx.tasks.list())).task_id, title="x")
    with granted.open(granted.roles.application) as store:
        assert list(look(store)) == names


FORBIDDEN = [
    "CREATE TABLE {schema}.mine (a int)",
    "CREATE FUNCTION {schema}.lower(text) RETURNS text LANGUAGE sql AS 'SELECT $1'",
    "CREATE TABLE public.mine (a int)",
    "CREATE SCHEMA mine",
    "DROP TABLE {schema}.tasks",
    "DROP SCHEMA {schema} CASCADE",
    "ALTER TABLE {schema}.tasks ADD COLUMN a int",
    "ALTER TABLE {schema}.task_audits DISABLE TRIGGER ALL",
    "DROP TRIGGER tr_task_audits_append_only ON {schema}.task_audits",
    "CREATE TRIGGER t BEFORE INSERT ON {schema}.tasks EXECUTE FUNCTION {schema}.task_audits_append_only()",
    "CREATE INDEX ON {schema}.tasks (title)",
    "TRUNCATE {schema}.events",
    "TRUNCATE {schema}.task_audits CASCADE",
    "UPDATE {schema}.agentos_store_version SET revision = 'x'",
    "DELETE FROM {schema}.agentos_store_version",
    "SET session_replication_role = replica",
    "CREATE ROLE mine",
]


def test_neither_the_application_nor_the_reader_changes_the_schema(granted: Granted) -> None:
    for role in (granted.roles.application, granted.roles.reader):
        with granted.session(role) as session:
            for statement in FORBIDDEN:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(statement.format(schema="public").encode())
        with pytest.raises(UnavailableError, match=LACKS):
            downgrade(Target.of(as_role(granted.url, role), schema="public"), None)
    with granted.session(granted.roles.reader) as session:
        tables = session.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert len(tables) > 30
        for (table,) in tables:
            session.execute(f'SELECT count(*) FROM "{table}"'.encode())
            for verb in (f'DELETE FROM "{table}"', f'INSERT INTO "{table}" DEFAULT VALUES'):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    session.execute(verb.encode())


@pytest.mark.parametrize("append_only", ["privileges", "trigger"])
def test_what_is_append_only_is_so_for_the_application(granted: Granted, append_only: str) -> None:
    # Privileges are asked before triggers, so that this is what holds where there are none.
    granted.grant(append_only)
    by_privileges = append_only == "privileges"
    with granted.open(granted.roles.application) as store:
        task = store.tasks.create(title="t")
        store.audits.record(task.task_id, event_type="e")
        store.verdicts.record(task.task_id, triggered_by="g", decision="warn")
        with granted.session(granted.roles.application) as session:
            for table in APPEND_ONLY:
                for statement in (f"DELETE FROM {table}", f"UPDATE {table} SET task_id = task_id"):
                    with pytest.raises(psycopg.Error) as caught:
                        session.execute(statement.encode())
                    assert caught.value.sqlstate == ("42501" if by_privileges else "23000")
        if by_privileges:
            with pytest.raises(UnavailableError, match=LACKS):
                store.prune(PRUNE_AUDITS, confirm=True)
        with granted.open(granted.roles.owner if by_privileges else granted.roles.application) as pruning:
            assert pruning.prune(PRUNE_AUDITS, confirm=True).rows > 0
        # What goes with its task goes all the same.
        store.tasks.delete(task.task_id)
        assert store.audits.verify().ok


def test_an_upgrade_needs_no_new_grant(granted: Granted) -> None:
    owner = as_role(granted.url, granted.roles.owner)
    downgrade(Target.of(owner, schema="public"), "0013_queue")
    ensure_migrations(owner)
    with granted.open(granted.roles.application) as store:
        work(store)
    with granted.open(granted.roles.reader) as store:
        assert store.messages.count() == 6


def test_the_limits_hold_for_the_roles_without_being_sent(granted: Granted) -> None:
    with granted.session(granted.roles.application) as session:
        assert session.execute("SHOW lock_timeout").fetchone() == ("5s",)
        assert session.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("1min",)


def test_the_documentation_shows_what_is_printed() -> None:
    page = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text(encoding="utf-8")
    shown = page.partition("```sql\n")[2].partition("```")[0]
    assert shown.strip() == grants(
        Target.of("postgresql:///agentos"), Roles("agentos_owner", "agentos_app", "agentos_reader")
    )


def test_what_cannot_be_three_roles_is_refused() -> None:
    target = Target.of("postgresql:///agentos")
    for names in (("a", "a", "b"), ("", "a", "b"), ("a" * 64, "b", "c"), ("a\x00", "b", "c")):
        with pytest.raises(InvalidValueError, match="role"):
            grants(target, Roles(*names))
    with pytest.raises(InvalidValueError, match="SQLite file"):
        grants(Target.of("sqlite:///x.db"), Roles("a", "b", "c"))


# The last, for the table is another one from then on.
def test_partitions_are_the_owners_to_make_and_the_application_gets_on_without_them(granted: Granted) -> None:
    with granted.open(granted.roles.application) as store:
        store.events.log_many({"event_type": "x", "data": number} for number in range(30))
        with pytest.raises(UnavailableError, match="only the owner of the table events"):
            store.partition_events(rows=10)
        with granted.open(granted.roles.owner) as owner:
            assert owner.partition_events(rows=10, ahead=1).divided
        store.events.log_many({"event_type": "x", "data": number} for number in range(100))
        assert store.events.count() == 130
        # Behind the last partition there is the one that catches the rest; row by row they all go.
        assert store.prune([Policy(table="events", older_than=dt.timedelta(0))], confirm=True).rows == 130
        assert store.events.count() == 0
    with granted.open(granted.roles.reader) as store:
        assert store.events.count() == 0
