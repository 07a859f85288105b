from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from agentos_store import UnavailableError, ensure_migrations
from agentos_store.migrate.drift import Difference, find_drift
from agentos_store.migrate.target import Target

Found = set[tuple[str, str]]


def found(target: Target, *, alone: bool = True) -> Found:
    return {(difference.table, difference.what) for difference in find_drift(target, alone=alone)}


def rebuild(target: Target, table: str, old: str, new: str) -> None:
    """Give an SQLite table another definition and leave everything else as it is, as somebody might by hand."""
    assert target.path is not None
    with closing(sqlite3.connect(target.path, isolation_level=None)) as raw:
        (definition,) = raw.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        assert old in definition
        attached = raw.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE type <> 'table' AND sql IS NOT NULL"
            " AND (tbl_name = ? OR type = 'trigger')",
            (table,),
        ).fetchall()
        for kind, name, _ in attached:
            raw.execute(f"DROP {kind} {name}")
        raw.execute(definition.replace(old, new).replace(table, "rebuilt", 1))
        columns = ", ".join(
            name
            for name, hidden in raw.execute(f"SELECT name, hidden FROM pragma_table_xinfo('{table}')")
            if not hidden
        )
        raw.execute(f"INSERT INTO rebuilt ({columns}) SELECT {columns} FROM {table}")
        raw.execute(f"DROP TABLE {table}")
        raw.execute(f"ALTER TABLE rebuilt RENAME TO {table}")
        for _, _, text in attached:
            raw.execute(text)


def test_a_migrated_database_has_no_drift(target: Target) -> None:
    assert find_drift(target, alone=True) == []


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["DROP INDEX ix_tasks_created_at_task_id"], {("tasks", "index ix_tasks_created_at_task_id")}),
        (
            ["DROP INDEX ix_projects_name_id", "CREATE INDEX ix_projects_name_id ON projects (name, id DESC)"],
            {("projects", "index ix_projects_name_id")},
        ),
        (
            ["DROP INDEX ix_projects_name_id", "CREATE INDEX ix_projects_name_id ON projects (id, name)"],
            {("projects", "index ix_projects_name_id")},
        ),
        (
            ["DROP INDEX ix_projects_name_id", "CREATE UNIQUE INDEX ix_projects_name_id ON projects (name, id)"],
            {("projects", "index ix_projects_name_id")},
        ),
        (
            ["DROP INDEX uq_projects_name", "CREATE UNIQUE INDEX uq_projects_name ON projects (name) WHERE name <> ''"],
            {("projects", "index uq_projects_name")},
        ),
        (["CREATE INDEX ix_more ON tasks (title)"], {("tasks", "index ix_more")}),
        (["ALTER TABLE tasks ADD COLUMN more TEXT"], {("tasks", "column more")}),
        (["DROP TABLE import_ledger"], {("import_ledger", "table")}),
    ],
    ids=[
        "dropped index",
        "index order",
        "index columns",
        "index unique",
        "index predicate",
        "extra index",
        "column",
        "missing table",
    ],
)
def test_what_differs_is_found_on_both(
    target: Target, execute: Callable[..., Any], statements: list[str], expected: Found
) -> None:
    execute(target, *statements)
    assert found(target) == expected


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["DROP TRIGGER tr_task_audits_no_update"], {("task_audits", "trigger tr_task_audits_no_update")}),
        (
            [
                "DROP TRIGGER tr_task_audits_no_delete",
                "CREATE TRIGGER tr_task_audits_no_delete BEFORE DELETE ON task_audits BEGIN SELECT 1; END",
            ],
            {("task_audits", "trigger tr_task_audits_no_delete")},
        ),
        (["CREATE VIEW some AS SELECT title FROM tasks"], {("some", "table")}),
        (["CREATE TABLE other (id INTEGER)"], {("other", "table")}),
    ],
    ids=["dropped trigger", "changed trigger", "view", "table"],
)
def test_what_differs_is_found_on_sqlite(
    target: Target, execute: Callable[..., Any], statements: list[str], expected: Found
) -> None:
    execute(target, *statements)
    assert found(target) == expected


CHECK = ", \n\tCONSTRAINT ck_tasks_attempts_not_negative CHECK (attempts >= 0)"


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(
    ("table", "old", "new", "expected"),
    [
        ("tasks", CHECK, "", {("tasks", "check ck_tasks_attempts_not_negative")}),
        ("tasks", "attempts >= 0", "attempts >= -1", {("tasks", "check ck_tasks_attempts_not_negative")}),
        ("tasks", "title TEXT NOT NULL", "title TEXT", {("tasks", "column title")}),
        ("tasks", "title TEXT NOT NULL", "title TEXT DEFAULT 'none' NOT NULL", {("tasks", "column title")}),
        ("tasks", "title TEXT NOT NULL", "title TEXT COLLATE NOCASE NOT NULL", {("tasks", "column title")}),
        ("tasks", "title TEXT NOT NULL", "title VARCHAR(10) NOT NULL", {("tasks", "column title")}),
        (
            "tasks",
            "REFERENCES sessions (id) ON DELETE SET NULL",
            "REFERENCES sessions (id)",
            {("tasks", "foreign key fk_tasks_session_id_sessions")},
        ),
        (
            "tasks",
            "UNIQUE (task_type, idempotency_key)",
            "UNIQUE (idempotency_key)",
            {("tasks", "unique uq_tasks_task_type_idempotency_key")},
        ),
        (
            "tasks",
            "CONSTRAINT pk_tasks PRIMARY KEY",
            "CONSTRAINT pk PRIMARY KEY",
            {("tasks", "primary key pk_tasks"), ("tasks", "primary key pk")},
        ),
        ("task_lineage", " AUTOINCREMENT", "", {("task_lineage", "column lineage_id")}),
    ],
    ids=[
        "dropped check",
        "changed check",
        "nullability",
        "default",
        "collation",
        "type",
        "action",
        "unique",
        "primary key",
        "autoincrement",
    ],
)
def test_a_table_that_was_rebuilt_otherwise_is_found(
    target: Target, table: str, old: str, new: str, expected: Found
) -> None:
    rebuild(target, table, old, new)
    assert found(target) == expected


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_table_that_was_rebuilt_alike_is_no_drift(target: Target) -> None:
    # A rename puts quotes round the name, and a column that was added by ALTER TABLE moves to its place.
    rebuild(target, "agents", "agent_id TEXT NOT NULL", '"agent_id"   text NOT  NULL')
    assert find_drift(target, alone=True) == []


@pytest.mark.parametrize("backend", ["postgresql"])
@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "ALTER TABLE tasks DROP CONSTRAINT ck_tasks_attempts_not_negative",
            {("tasks", "check ck_tasks_attempts_not_negative")},
        ),
        ("ALTER TABLE tasks ALTER title DROP NOT NULL", {("tasks", "column title")}),
        ("ALTER TABLE tasks ALTER title SET DEFAULT 'none'", {("tasks", "column title")}),
        ('ALTER TABLE tasks ALTER title TYPE text COLLATE "default"', {("tasks", "column title")}),
        ('ALTER TABLE tasks ALTER exit_reason TYPE varchar(10) COLLATE "C"', {("tasks", "column exit_reason")}),
        ("ALTER TABLE task_lineage ALTER lineage_id DROP IDENTITY", {("task_lineage", "column lineage_id")}),
        (
            "ALTER TABLE tasks ALTER CONSTRAINT fk_tasks_session_id_sessions DEFERRABLE",
            {("tasks", "foreign key fk_tasks_session_id_sessions")},
        ),
        (
            "DROP TRIGGER tr_task_audits_append_only ON task_audits",
            {("task_audits", "trigger tr_task_audits_append_only")},
        ),
        (
            "ALTER TABLE task_audits DISABLE TRIGGER tr_task_audits_append_only",
            {("task_audits", "trigger tr_task_audits_append_only")},
        ),
        (
            "CREATE OR REPLACE FUNCTION task_audits_append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'",
            {("", "function task_audits_append_only()")},
        ),
        ("CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'", {("", "function one()")}),
        ("ALTER TABLE tasks SET (fillfactor = 50)", {("tasks", "table")}),
    ],
    ids=[
        "dropped check",
        "nullability",
        "default",
        "collation",
        "type",
        "identity",
        "action",
        "dropped trigger",
        "disabled trigger",
        "function",
        "extra function",
        "options",
    ],
)
def test_what_differs_is_found_on_postgresql(
    target: Target, execute: Callable[..., Any], statement: str, expected: Found
) -> None:
    execute(target, statement)
    assert found(target) == expected


def test_another_application_s_tables_are_no_drift_unless_there_is_none(
    target: Target, execute: Callable[..., Any]
) -> None:
    execute(target, "CREATE TABLE other (id INTEGER)")
    assert found(target, alone=False) == set()
    assert found(target, alone=True) == {("other", "table")}


def test_a_database_without_a_schema_lacks_every_table(empty_target: Target) -> None:
    ensure_migrations(empty_target.url, revision="0001_projects")
    assert ("tasks", "table") in found(empty_target)
    assert {what for table, what in found(empty_target) if table} == {"table"}


def test_looking_for_drift_leaves_nothing_behind(target: Target, execute: Callable[..., Any]) -> None:
    everything = "SELECT name FROM sqlite_master" if target.path else "SELECT nspname FROM pg_namespace ORDER BY 1"
    before = execute(target, everything)
    find_drift(target)
    assert execute(target, everything) == before


@pytest.mark.parametrize("backend", ["postgresql"])
def test_append_only_by_privileges_expects_no_triggers(
    empty_target: Target, monkeypatch: pytest.MonkeyPatch, execute: Callable[..., Any]
) -> None:
    monkeypatch.setenv("DATABASE_APPEND_ONLY", "privileges")
    ensure_migrations(empty_target.url)
    assert execute(empty_target, "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == []
    assert find_drift(Target.of(empty_target.url), alone=True) == []


def test_a_role_that_may_not_create_is_told_so(role: str) -> None:
    with pytest.raises(UnavailableError, match="privilege"):
        find_drift(Target.of(role))


def test_a_difference_reads_as_a_sentence() -> None:
    assert str(Difference("tasks", "table", None, "table")) == "tasks: table is missing"
    assert str(Difference("tasks", "column a", "text", None)) == "tasks: column a is in the database only"
    assert str(Difference("", "function f()", "a", "b")) == "function f() is 'a', and by the models 'b'"
