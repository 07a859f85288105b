from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from agentos_store import SchemaMismatchError, Store
from agentos_store.migrate.drift import find_drift
from agentos_store.migrate.locked import locked_connection
from agentos_store.migrate.operations import RebuildError
from agentos_store.migrate.target import Target

Rebuild = Callable[..., None]


@pytest.fixture
def backend() -> str:
    """SQLite alone: PostgreSQL alters its tables in place."""
    return "sqlite"


@pytest.fixture
def rebuild() -> Rebuild:
    def rebuild(target: Target, table: str, change: Callable[[Any], None], **options: Any) -> None:
        with locked_connection(target) as connection:
            operations: Any = Operations(MigrationContext.configure(connection))
            operations.rebuild_table(table, change, **options)

    return rebuild


def nothing(batch: Any) -> None:
    """Change nothing; the table is copied all the same."""


@pytest.mark.parametrize("table", ["projects", "project_repos", "sessions", "agents", "tasks", "task_audits"])
def test_a_rebuilt_table_is_what_it_was(target: Target, rebuild: Rebuild, table: str) -> None:
    with Store.open(target.url) as store:
        for number in range(3):
            task = store.tasks.create(title=f"Task {number}")
            store.audits.record(task.task_id, event_type="made")
    rebuild(target, table, nothing)
    assert find_drift(target, alone=True) == []
    with Store.open(target.url) as store:
        assert store.tasks.count() == 3


def test_alembic_s_own_batch_mode_loses_the_triggers_in_silence(target: Target) -> None:
    with locked_connection(target) as connection:
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("agents", recreate="always"):
            pass
    lost = {difference.what for difference in find_drift(target)}
    assert "trigger tr_agents_metadata_json_insert" in lost


def test_alembic_s_own_batch_mode_refuses_a_table_that_another_s_trigger_names(target: Target) -> None:
    def rebuild() -> None:
        with locked_connection(target) as connection:
            operations = Operations(MigrationContext.configure(connection))
            with operations.batch_alter_table("tasks", recreate="always"):
                pass

    with pytest.raises(Exception, match=r"tr_(task_audits|guardian_verdicts)_no_delete"):
        rebuild()


def test_a_change_is_made_and_the_rest_is_kept(target: Target, rebuild: Rebuild) -> None:
    def change(batch: Any) -> None:
        batch.drop_constraint("ck_tasks_attempts_not_negative", type_="check")
        batch.add_column(sa.Column("more", sa.Text()))
        batch.create_index("ix_tasks_more", ["more"])

    rebuild(target, "tasks", change)
    assert {difference.what for difference in find_drift(target)} == {
        "check ck_tasks_attempts_not_negative",
        "column more",
        "index ix_tasks_more",
    }


def test_what_is_named_is_left_out(target: Target, rebuild: Rebuild) -> None:
    names = ["tr_agents_metadata_json_insert", "ix_agents_last_task_id"]
    rebuild(target, "agents", nothing, without=names)
    assert {difference.what.split()[1] for difference in find_drift(target)} == set(names)


def test_a_removed_last_number_is_not_used_again(target: Target, rebuild: Rebuild, execute: Callable[..., Any]) -> None:
    insert = (
        "INSERT INTO project_repos (project_id, repo_id, repo_path, role, is_writable, metadata, added_at, updated_at)"
        " VALUES ('p', '{}', '', 'code', 1, '{{}}', '', '')"
    )
    execute(target, insert.format("a"), insert.format("b"), "DELETE FROM project_repos", "DELETE FROM projects")
    rebuild(target, "project_repos", nothing)
    execute(target, insert.format("c"))
    assert execute(target, "SELECT id FROM project_repos") == [(3,)]


def test_the_order_and_the_expressions_of_indexes_are_kept(
    target: Target, rebuild: Rebuild, execute: Callable[..., Any]
) -> None:
    execute(target, "CREATE INDEX ix_order ON agents (created_at DESC, lower(role)) WHERE role <> ''")
    before = execute(target, "SELECT sql FROM sqlite_master WHERE name = 'ix_order'")
    rebuild(target, "agents", nothing)
    assert execute(target, "SELECT sql FROM sqlite_master WHERE name = 'ix_order'") == before


@pytest.mark.parametrize(
    ("column", "lost"),
    [("name TEXT COLLATE NOCASE", "column name"), ("name TEXT CHECK (name <> '')", "check without a name")],
)
def test_a_table_of_which_not_everything_would_be_kept_is_refused(
    target: Target, rebuild: Rebuild, execute: Callable[..., Any], column: str, lost: str
) -> None:
    execute(target, f"CREATE TABLE other (id INTEGER CONSTRAINT pk PRIMARY KEY, {column})")
    with pytest.raises(RebuildError, match=lost):
        rebuild(target, "other", nothing)


def test_a_trigger_that_names_a_column_that_went_stops_the_rebuild(target: Target, rebuild: Rebuild) -> None:
    def change(batch: Any) -> None:
        batch.drop_column("metadata")

    with pytest.raises(RebuildError, match="names what is no longer there"):
        rebuild(target, "agents", change)
    assert find_drift(target, alone=True) == []


def test_children_survive_the_rebuild_of_their_parent(target: Target, rebuild: Rebuild) -> None:
    with Store.open(target.url) as store:
        task = store.tasks.create(title="Parent")
        store.lineage.record(task.task_id, kind="commit", ref_id="abc")
    rebuild(target, "tasks", nothing)
    with Store.open(target.url) as store:
        assert len(store.lineage.list(task_id=task.task_id).items) == 1


def test_rows_without_their_parent_stop_the_commit(target: Target, execute: Callable[..., Any]) -> None:
    def migrate() -> None:
        with locked_connection(target) as connection:
            connection.exec_driver_sql(
                "INSERT INTO task_audits (task_id, level, event_type, created_at, prev_hash, row_hash)"
                " VALUES ('nobody', 'info', 'made', '', '', '')"
            )

    with pytest.raises(SchemaMismatchError, match="task_audits"):
        migrate()
    assert execute(target, "SELECT count(*) FROM task_audits") == [(0,)]


def test_only_sqlite_rebuilds_and_never_as_text() -> None:
    for dialect, as_text in (("postgresql", False), ("sqlite", True)):
        options = {"as_sql": as_text}
        operations: Any = Operations(MigrationContext.configure(dialect_name=dialect, opts=options))
        with pytest.raises(RebuildError):
            operations.rebuild_table("tasks", nothing)
