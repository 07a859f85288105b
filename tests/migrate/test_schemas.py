from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import InvalidValueError, Store, ensure_migrations
from agentos_store.migrate.drift import find_drift
from agentos_store.migrate.revisions import known
from agentos_store.migrate.target import Target
from agentos_store.migrate.upgrade import downgrade

STRANGE = """租户.A "ä" 'q' %s:1 \\ $1 {y}"""


@pytest.fixture
def backend() -> str:
    """PostgreSQL alone: SQLite has no schemas."""
    return "postgresql"


def test_two_schemas_do_not_touch_each_other(empty_url: str) -> None:
    one, other = Target.of(empty_url, schema="one"), Target.of(empty_url, schema=STRANGE)
    assert ensure_migrations(empty_url, schema="one") == len(known())
    assert other.revision() is None
    assert ensure_migrations(empty_url, schema=STRANGE) == len(known())
    with Store.open(empty_url, schema="one") as store:
        task = store.tasks.create(title="Only here")
        store.audits.record(task.task_id, event_type="made")
    assert downgrade(other, None) == len(known())
    assert other.revision() is None
    assert find_drift(one, alone=True) == []
    with Store.open(empty_url, schema="one") as store:
        assert store.tasks.count() == 1
    assert ensure_migrations(empty_url, schema=STRANGE) == len(known())
    assert find_drift(other, alone=True) == []


def test_a_store_works_in_a_schema_whose_name_needs_quotes(empty_url: str) -> None:
    ensure_migrations(empty_url, schema=STRANGE)
    with Store.open(empty_url, schema=STRANGE) as store:
        task = store.tasks.create(title="Quoted")
        store.audits.record(task.task_id, event_type="made")
        assert store.tasks.get(task.task_id).title == "Quoted"


def test_the_search_path_does_not_matter(empty_target: Target, execute: Callable[..., Any]) -> None:
    execute(empty_target, f"ALTER DATABASE {empty_target.url.database} SET search_path = elsewhere")
    execute(empty_target, "CREATE SCHEMA elsewhere")
    assert ensure_migrations(empty_target.url) == len(known())
    assert execute(empty_target, "SELECT 1 FROM pg_tables WHERE schemaname = 'elsewhere'") == []
    assert find_drift(empty_target, alone=True) == []
    with Store.open(empty_target.url) as store:
        task = store.tasks.create(title="Found")
        store.audits.record(task.task_id, event_type="made")
    assert downgrade(empty_target, None) == len(known())


def test_the_environment_may_name_the_schema(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_SCHEMA", "named")
    assert ensure_migrations(empty_url) == len(known())
    assert Target.of(empty_url, schema="named").revision() is not None
    assert Target.of(empty_url, schema="public").revision() is None


@pytest.mark.parametrize("schema", ["x" * 64, "天" * 22, "a\nb", "pg_mine", "information_schema", "a[b", "a]b"])
def test_a_name_that_would_not_stay_what_it_is_is_refused(
    postgres_url: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ask in (ensure_migrations, Store.open):
        with pytest.raises(InvalidValueError, match="schema"):
            ask(postgres_url, schema=schema)
    monkeypatch.setenv("DATABASE_SCHEMA", schema.replace("\n", "\x01"))
    for ask in (ensure_migrations, Store.open):
        with pytest.raises(InvalidValueError, match="schema"):
            ask(postgres_url)


def test_names_of_63_bytes_that_differ_in_the_last_are_two_schemas(empty_url: str) -> None:
    first, second = ("x" * 62 + each for each in "ab")
    assert ensure_migrations(empty_url, schema=first, revision=known()[0]) == 1
    assert Target.of(empty_url, schema=second).revision() is None


def test_a_schema_is_no_matter_for_sqlite_unless_it_is_asked_for(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidValueError, match="schema"):
        ensure_migrations(sqlite_url, schema="tenant")
    monkeypatch.setenv("DATABASE_SCHEMA", "tenant")
    assert ensure_migrations(sqlite_url) == len(known())
    assert ensure_migrations(sqlite_url) == 0
    with Store.open(sqlite_url) as store:
        assert store.tasks.count() == 0
