from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import SchemaMismatchError, Settings, Store, ensure_migrations
from agentos_store.engine.version import HEAD, TABLE
from agentos_store.migrate.drift import find_drift
from agentos_store.migrate.revisions import known
from agentos_store.migrate.target import Target


def test_on_brings_any_database_to_the_newest_revision(empty_target: Target) -> None:
    settings = Settings.load(auto_migrate="on")
    ensure_migrations(empty_target.url, revision=known()[0])
    with Store.open(empty_target.url, settings=settings) as store:
        assert store.status().revision == HEAD
    assert find_drift(empty_target, alone=True) == []


def test_on_works_on_an_empty_database(empty_target: Target) -> None:
    with Store.open(empty_target.url, settings=Settings.load(auto_migrate="on")) as store:
        assert store.tasks.create(title="First").title == "First"


def test_verify_refuses_an_older_schema_and_leaves_it(empty_target: Target) -> None:
    ensure_migrations(empty_target.url, revision=known()[0])
    with pytest.raises(SchemaMismatchError, match="ensure_migrations") as caught:
        Store.open(empty_target.url)
    assert (caught.value.found, caught.value.expected) == (known()[0], HEAD)
    assert empty_target.revision() == known()[0]


@pytest.mark.parametrize("auto_migrate", ["verify", "on"])
def test_a_newer_schema_is_refused_whatever_the_setting(
    target: Target, execute: Callable[..., Any], auto_migrate: str
) -> None:
    execute(target, f"UPDATE {TABLE} SET revision = '9999_later'")
    with pytest.raises(SchemaMismatchError, match="newer"):
        Store.open(target.url, settings=Settings.load(auto_migrate=auto_migrate))


def test_off_looks_at_nothing(target: Target, execute: Callable[..., Any]) -> None:
    execute(target, f"UPDATE {TABLE} SET revision = '9999_later'")
    with Store.open(target.url, settings=Settings.load(auto_migrate="off")) as store:
        assert store.tasks.count() == 0


@pytest.mark.parametrize("backend", ["sqlite"])
def test_verify_initialises_an_empty_file(empty_target: Target) -> None:
    with Store.open(empty_target.url) as store:
        assert store.tasks.count() == 0
    assert find_drift(empty_target, alone=True) == []


@pytest.mark.parametrize("backend", ["sqlite"])
def test_verify_touches_no_file_of_somebody_else(empty_target: Target, execute: Callable[..., Any]) -> None:
    execute(empty_target, "CREATE TABLE other (id INTEGER)")
    with pytest.raises(SchemaMismatchError, match="no schema of this store"):
        Store.open(empty_target.url)
    assert execute(empty_target, "SELECT name FROM sqlite_master") == [("other",)]


@pytest.mark.parametrize("backend", ["postgresql"])
def test_verify_initialises_no_database_of_a_server(empty_target: Target) -> None:
    with pytest.raises(SchemaMismatchError, match="no schema of this store"):
        Store.open(empty_target.url)


def test_a_database_in_memory_is_initialised_by_the_store_that_opens_it() -> None:
    with Store.open("sqlite://") as store:
        assert store.tasks.create(title="Fleeting").title == "Fleeting"


def test_an_open_store_lends_its_connection(target: Target) -> None:
    with Store.open(target.url):
        assert ensure_migrations(target.url) == 0


@pytest.mark.parametrize("backend", ["sqlite"])
def test_an_open_store_does_not_stand_in_the_way(target: Target) -> None:
    from agentos_store.migrate.upgrade import downgrade

    with Store.open(target.url) as store:
        store.tasks.create(title="Before")
        assert downgrade(target, known()[-2]) == 1
        assert ensure_migrations(target.url) == 1
        assert store.tasks.count() == 1
