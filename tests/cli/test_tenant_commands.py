"""``db upgrade --all-schemas`` and ``db current --all-schemas``: all tenants of one database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentos_store import ensure_migrations
from agentos_store.engine.version import HEAD, TABLE
from agentos_store.migrate.revisions import known
from agentos_store.testing.postgres import connect

Run = Callable[..., Any]


def execute(url: str, *statements: str) -> None:
    with connect(url) as raw:
        for statement in statements:
            raw.execute(statement.encode())


def test_tenants_are_shown_and_upgraded_together(cli: Run, postgres_database: str) -> None:
    at = ("--url", postgres_database)
    for command in ("current", "upgrade"):
        assert cli(*at, "db", command, "--all-schemas").out == "no schema of this database holds a store\n"
        empty = cli(*at, "db", command, "--all-schemas", "--json").json
        assert empty == {"head": HEAD, "failed": 0, "schemas": []}
    made = cli(*at, "--schema", "tenant.b", "db", "upgrade", known()[0], "--json")
    assert (made.code, made.json["applied"], made.json["before"], made.json["revision"]) == (0, 1, None, known()[0])
    ensure_migrations(postgres_database, schema="租户", revision=known()[1])

    shown = cli(*at, "db", "current", "--all-schemas")
    assert (shown.code, shown.err) == (0, "")
    assert f"2 schemas, 2 of them not at {HEAD}" in shown.out
    assert cli(*at, "db", "current", "--all-schemas", "--json").json["schemas"] == [
        {"schema": "tenant.b", "revision": known()[0], "error": None},
        {"schema": "租户", "revision": known()[1], "error": None},
    ]
    done = cli(*at, "db", "upgrade", known()[1], "--all-schemas")
    assert (done.code, done.err) == (0, "")
    assert "1 of 2 schemas upgraded" in done.out
    again = cli(*at, "db", "upgrade", known()[1], "--all-schemas", "--json")
    assert (again.code, again.json["failed"]) == (0, 0)
    assert [each["applied"] for each in again.json["schemas"]] == [0, 0]


def test_a_tenant_that_fails_is_told_and_makes_the_exit_code(cli: Run, postgres_database: str) -> None:
    at = ("--url", postgres_database)
    for schema in ("bad", "good"):
        ensure_migrations(postgres_database, schema=schema, revision=known()[0])
    execute(postgres_database, f"UPDATE bad.{TABLE} SET revision = '9999_later'")
    done = cli(*at, "db", "upgrade", known()[1], "--all-schemas", "--json")
    assert (done.code, done.err, done.json["failed"]) == (1, "", 1)
    bad, good = done.json["schemas"]
    assert set(bad) == {"schema", "before", "revision", "applied", "error"}
    assert "newer than this code" in bad["error"]
    assert (good["revision"], good["applied"], good["error"]) == (known()[1], 1, None)
    shown = cli(*at, "db", "upgrade", known()[1], "--all-schemas")
    assert shown.code == 1
    assert "newer" in " ".join(shown.out.split())


def test_all_schemas_and_one_schema_are_not_asked_for_at_once(cli: Run, postgres_url: str, sqlite_url: str) -> None:
    for command in ("current", "upgrade"):
        cli("--url", postgres_url, "--schema", "a", "db", command, "--all-schemas").assert_refused(4, "schema")
        cli("--url", sqlite_url, "db", command, "--all-schemas").assert_refused(4, "a file of its own")


def test_a_name_that_cannot_be_a_tenant_s_is_refused(cli: Run, postgres_url: str) -> None:
    for name in ("x" * 64, "pg_mine", "a[b]", ""):
        for arguments in (("db", "upgrade"), ("status",)):
            cli("--url", postgres_url, "--schema", name, *arguments).assert_refused(4, "schema")


def test_a_downgrade_is_told_in_json(cli: Run, url: str) -> None:
    at = ("--url", url)
    dry = cli(*at, "db", "downgrade", known()[-2], "--dry-run", "--json").json
    assert set(dry) == {"database", "before", "revision", "taken_back", "dry_run"}
    assert (dry["before"], dry["revision"], dry["taken_back"], dry["dry_run"]) == (HEAD, HEAD, [HEAD], True)
    done = cli(*at, "db", "downgrade", known()[-2], "--yes", "--json").json
    assert (done["revision"], done["taken_back"]) == (known()[-2], [HEAD])
