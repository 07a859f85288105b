from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentos_store import SchemaMismatchError, Store, StoreError, UnavailableError, ensure_migrations
from agentos_store.engine.version import HEAD
from agentos_store.migrate.catalogue_sqlite import read_sqlite
from agentos_store.migrate.drift import find_drift
from agentos_store.migrate.revisions import known
from agentos_store.migrate.target import Target

Revise = Callable[..., Path]
Alembic = Callable[..., None]

MORE = 'op.create_table("more", sa.Column("id", sa.Integer))'


def test_a_failing_revision_takes_all_of_its_upgrade_with_it(
    empty_target: Target, revise: Revise, alembic: Alembic, execute: Callable[..., Any]
) -> None:
    revise("9006_more", upgrade=MORE)
    folder = revise("9007_broken", upgrade='op.execute("INSERT INTO nothing VALUES (1)")')
    with pytest.raises(StoreError):
        alembic(folder, empty_target, "upgrade", "head")
    assert empty_target.revision() is None
    tables = (
        "SELECT name FROM sqlite_master"
        if empty_target.path
        else f"SELECT tablename FROM pg_tables WHERE schemaname = '{empty_target.schema}'"
    )
    assert execute(empty_target, tables) == []
    assert ensure_migrations(empty_target.url) == len(known())
    assert find_drift(empty_target, alone=True) == []


def test_a_revision_that_fails_in_python_leaves_nothing_either(
    target: Target, revise: Revise, alembic: Alembic
) -> None:
    revise("9006_more", upgrade=MORE)
    folder = revise("9007_broken", upgrade='raise ZeroDivisionError("in the middle")')
    before = target.revision()
    with pytest.raises(ZeroDivisionError):
        alembic(folder, target, "upgrade", "head")
    assert target.revision() == before
    assert find_drift(target, alone=True) == []


def test_rows_that_stand_against_a_revision_are_a_mismatch_and_stay(
    target: Target, revise: Revise, alembic: Alembic, execute: Callable[..., Any]
) -> None:
    with Store.open(target.url) as store:
        for _ in range(2):
            store.tasks.create(title="The same")
    folder = revise("9006_unique", upgrade='op.create_index("uq_title", "tasks", ["title"], unique=True)')
    with pytest.raises(SchemaMismatchError, match="rows stand against"):
        alembic(folder, target, "upgrade", "head")
    assert execute(target, "SELECT count(*) FROM tasks") == [(2,)]


REBUILD = 'op.rebuild_table("tasks", lambda batch: batch.add_column(sa.Column("more", sa.Text())))'


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_file_with_rows_is_copied_before_a_table_is_rewritten(
    target: Target, revise: Revise, alembic: Alembic
) -> None:
    with Store.open(target.url) as store:
        store.tasks.create(title="Dear")
    folder = revise("9006_rewrite", upgrade=REBUILD, rewrites=("upgrade",))
    alembic(folder, target, "upgrade", "head")
    assert target.path is not None
    copy = Path(f"{target.path}.at-{HEAD}.backup")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with Store.open(f"sqlite:///{copy}") as store:
        assert [task.title for task in store.tasks.list().items] == ["Dear"]
    with closing(sqlite3.connect(target.path)) as raw:
        assert ("tasks", "column more") in read_sqlite(raw)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_second_copy_does_not_overwrite_the_first(target: Target, revise: Revise, alembic: Alembic) -> None:
    with Store.open(target.url) as store:
        store.tasks.create(title="Dear")
    folder = revise("9006_rewrite", upgrade="pass", rewrites=("upgrade",))
    for _ in range(2):
        alembic(folder, target, "upgrade", "head")
        alembic(folder, target, "downgrade", HEAD)
    assert target.path is not None
    assert len(list(target.path.parent.glob("*.backup*"))) == 2


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize(("rows", "rewrites"), [(False, ("upgrade",)), (True, ("downgrade",)), (True, ())])
def test_nothing_is_copied_without_need(
    target: Target, revise: Revise, alembic: Alembic, *, rows: bool, rewrites: tuple[str, ...]
) -> None:
    if rows:
        with Store.open(target.url) as store:
            store.tasks.create(title="Dear")
    alembic(revise("9006_rewrite", upgrade="pass", rewrites=rewrites), target, "upgrade", "head")
    assert target.path is not None
    assert list(target.path.parent.glob("*.backup*")) == []


@pytest.mark.parametrize("backend", ["sqlite"])
def test_without_room_for_the_copy_nothing_is_rewritten(
    target: Target, revise: Revise, alembic: Alembic, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(target.url) as store:
        store.tasks.create(title="Dear")
    folder = revise("9006_rewrite", upgrade=REBUILD, rewrites=("upgrade",))
    # A name that is too long stands for a directory in which nothing can be made.
    monkeypatch.setattr("agentos_store.migrate.backup._free_name", lambda path: path.with_name("x" * 300))
    with pytest.raises(UnavailableError, match="cannot be created"):
        alembic(folder, target, "upgrade", "head")
    assert find_drift(target, alone=True) == []
