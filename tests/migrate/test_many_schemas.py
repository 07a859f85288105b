"""All tenants of one database are upgraded in one go, by any number of processes at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import InvalidValueError, SchemaMismatchError, UnavailableError, ensure_migrations
from agentos_store.engine.version import HEAD, TABLE, quote_name
from agentos_store.migrate.drift import find_drift
from agentos_store.migrate.many import SchemaState, find_schemas, upgrade_schemas
from agentos_store.migrate.revisions import known
from agentos_store.migrate.target import Target

Execute = Callable[..., Any]

TENANTS = int(os.environ.get("AGENTOS_STORE_TENANTS", "3"))
"""50 in the long form, which climbs to the newest revision with twice as many processes."""

PROCESSES = 8 if "AGENTOS_STORE_TENANTS" in os.environ else 4

TO = HEAD if "AGENTOS_STORE_TENANTS" in os.environ else known()[1]

# Everything is imported before the processes are made, so that they start at once and what they do is migrating.
TOGETHER = """
import json, multiprocessing, sys
import agentos_store.migrate.environment, agentos_store.migrate.upgrade, agentos_store.engine.postgresql.backend
from agentos_store.migrate.many import upgrade_schemas

def work(barrier, answers):
    barrier.wait()
    try:
        found = upgrade_schemas(sys.argv[1], revision=sys.argv[2])
        answers.put([[each.schema, each.revision, each.applied, str(each.error or "")] for each in found])
    except BaseException as error:
        answers.put(f"{type(error).__name__}: {error}")

context = multiprocessing.get_context("fork")
barrier, answers = context.Barrier(int(sys.argv[3])), context.Queue()
processes = [context.Process(target=work, args=(barrier, answers)) for _ in range(barrier.parties)]
for process in processes:
    process.start()
found = [answers.get() for _ in processes]
for process in processes:
    process.join()
print(json.dumps(found))
"""


@pytest.fixture
def backend() -> str:
    """PostgreSQL alone: SQLite has no schemas."""
    return "postgresql"


def make(url: str, *schemas: str, at: str = known()[0]) -> None:
    for schema in schemas:
        ensure_migrations(url, schema=schema, revision=at)


def by_name(found: Any) -> dict[str, SchemaState]:
    return {each.schema: each for each in found}


def test_several_processes_apply_each_revision_once_to_each_tenant(empty_url: str, run: Callable[..., Any]) -> None:
    names = [f"tenant_{number}" for number in range(TENANTS)]
    make(empty_url, *names)
    answers = run(TOGETHER, empty_url, TO, str(PROCESSES))
    steps = known().index(TO)
    applied: Counter[str] = Counter()
    for answer in answers:
        assert [(name, revision, error) for name, revision, _, error in answer] == [
            (name, TO, "") for name in sorted(names)
        ]
        applied.update({name: count for name, _, count, _ in answer})
    assert applied == dict.fromkeys(names, steps)
    assert find_drift(Target.of(empty_url, schema=names[-1]), alone=True) == [] or TO != HEAD


def test_a_tenant_that_fails_does_not_stop_the_others(empty_url: str, execute: Execute) -> None:
    make(empty_url, "a", "b", "c", at=known()[1])
    execute(Target.of(empty_url), "CREATE TABLE b.agents (songs TEXT)")
    told: list[tuple[str, int, int]] = []
    found = by_name(
        upgrade_schemas(
            empty_url, revision=known()[3], progress=lambda state, *counts: told.append((state.schema, *counts))
        )
    )
    assert {name: (each.before, each.revision, each.applied) for name, each in found.items()} == {
        "a": (known()[1], known()[3], 2),
        "b": (known()[1], known()[1], 0),
        "c": (known()[1], known()[3], 2),
    }
    assert isinstance(found["b"].error, UnavailableError)
    assert (found["a"].error, found["c"].error) == (None, None)
    assert (sorted(name for name, _, _ in told), [counts for _, *counts in told]) == (
        ["a", "b", "c"],
        [[1, 3], [2, 3], [3, 3]],
    )
    execute(Target.of(empty_url), "DROP TABLE b.agents")
    again = by_name(upgrade_schemas(empty_url, revision=known()[3]))
    assert [again[name].applied for name in "abc"] == [0, 2, 0]
    assert {each.revision for each in again.values()} == {known()[3]}


def test_tenants_are_found_by_their_version_table_alone(empty_url: str, execute: Execute) -> None:
    target = Target.of(empty_url)
    assert find_schemas(empty_url) == upgrade_schemas(empty_url) == []
    strange = 'Mandant "ä".1'
    make(empty_url, "public", strange)
    execute(target, "CREATE SCHEMA elsewhere", "CREATE TABLE elsewhere.tasks (task_id TEXT)")
    execute(target, "CREATE SCHEMA taken_back", f"CREATE TABLE taken_back.{TABLE} (revision TEXT)")
    found = [(each.schema, each.revision, each.error) for each in find_schemas(empty_url)]
    assert found == [(strange, known()[0], None), ("public", known()[0], None), ("taken_back", None, None)]
    # Somebody took the store away there; it is not for a sweep over all to bring it back.
    done = [(each.schema, each.revision, each.applied) for each in upgrade_schemas(empty_url, revision=known()[1])]
    assert done == [(strange, known()[1], 1), ("public", known()[1], 1), ("taken_back", None, 0)]


def test_a_tenant_of_newer_code_or_a_stranger_is_told_and_left_alone(empty_url: str, execute: Execute) -> None:
    make(empty_url, "newer", "older")
    execute(
        Target.of(empty_url),
        f"UPDATE newer.{TABLE} SET revision = '9999_later'",
        'CREATE SCHEMA "not[ours"',
        f'CREATE TABLE "not[ours".{TABLE} AS SELECT revision FROM older.{TABLE}',
    )
    found = by_name(upgrade_schemas(empty_url, revision=known()[1]))
    # Nor does a name that no tenant can have stop the others.
    assert isinstance(found["not[ours"].error, InvalidValueError)
    assert isinstance(found["newer"].error, SchemaMismatchError)
    assert (found["newer"].revision, found["newer"].applied) == ("9999_later", 0)
    assert (found["older"].revision, found["older"].error) == (known()[1], None)


def test_a_tenant_that_the_role_may_not_read_is_told(role: str, postgres_database: str, execute: Execute) -> None:
    make(postgres_database, "closed", "open")
    name = quote_name(Target.of(role).url.username or "")
    execute(
        Target.of(postgres_database), f"GRANT USAGE ON SCHEMA open TO {name}", f"GRANT SELECT ON open.{TABLE} TO {name}"
    )
    found = by_name(find_schemas(role))
    assert (found["open"].revision, found["open"].error) == (known()[0], None)
    assert isinstance(found["closed"].error, UnavailableError)
    done = by_name(upgrade_schemas(role))
    assert {each: type(done[each].error) for each in done} == dict.fromkeys(("closed", "open"), UnavailableError)


def test_all_schemas_are_a_matter_of_postgresql(sqlite_url: str) -> None:
    for ask in (find_schemas, upgrade_schemas):
        with pytest.raises(InvalidValueError, match="a file of its own"):
            ask(sqlite_url)


def test_a_server_that_is_down_is_no_server_without_tenants() -> None:
    with pytest.raises(UnavailableError, match="cannot connect"):
        find_schemas("postgresql://someone@127.0.0.1:1/nothing")
