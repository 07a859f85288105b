"""What is rarely used is imported when it is used: who opens a store does not wait for all of the library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agentos_store import Store
from agentos_store.store import repositories

ROOMS = {"engine", "errors", "migrate", "operation", "operations", "store", "types"}
"""Below the package, what a store has to be made of before anything is done with it."""

STRANGERS = {"alembic", "numpy", "psycopg", "pydantic", "pydantic_settings", "rich", "typer"}
"""What takes long to import, of others."""


def loaded(program: str, *arguments: str) -> set[str]:
    """Return the modules that a fresh interpreter has imported at the end of a program."""
    program += "\nimport json, sys; print(json.dumps(sorted(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True)
    return set(json.loads(found.stdout))


def rooms_of(modules: set[str]) -> set[str]:
    parts = [module.split(".") for module in modules]
    return {names[1] for names in parts if names[0] == "agentos_store" and len(names) > 1}


def packages_of(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("name", ["Store", "Store, ensure_migrations"])
def test_a_store_is_imported_without_its_domains(name: str) -> None:
    modules = loaded(f"from agentos_store import {name}")
    assert rooms_of(modules) <= ROOMS
    assert not packages_of(modules) & STRANGERS
    assert "sqlalchemy.dialects.postgresql" not in modules
    operations = {module.split(".")[2] for module in modules if module.startswith("agentos_store.operations.")}
    assert operations == {"aside", "counting", "health", "metrics", "partitions"}


@pytest.fixture
def migrated_url(tmp_path: Path, sqlite_template: Path) -> str:
    """A migrated SQLite file without rows."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'registry.sqlite')}"


def test_an_open_store_has_no_domain_until_one_is_used(migrated_url: str) -> None:
    opened = "import sys; from agentos_store import Store; store = Store.open(sys.argv[1])"
    modules = loaded(opened, migrated_url)
    assert rooms_of(modules) <= ROOMS | {"settings"}
    assert packages_of(modules) & STRANGERS == {"pydantic", "pydantic_settings"}
    modules = loaded(f"{opened}; store.tasks", migrated_url)
    # With their models, of which the tables are one whole, and not the rest of the other domains.
    assert "agentos_store.models" in modules
    assert "agentos_store.tasks.repository" in modules
    assert not {"agentos_store.agents.repository", "agentos_store.knowledge.repository"} & modules


def test_a_service_that_has_nothing_to_migrate_imports_neither_alembic_nor_the_models(migrated_url: str) -> None:
    modules = loaded(
        "import sys; from agentos_store import ensure_migrations; assert not ensure_migrations(sys.argv[1])",
        migrated_url,
    )
    assert rooms_of(modules) <= {"engine", "errors", "migrate", "operation", "settings", "types"}
    assert packages_of(modules) & STRANGERS == {"pydantic", "pydantic_settings"}


def test_an_asynchronous_store_has_every_domain_when_it_is_open(migrated_url: str) -> None:
    program = """
import asyncio, sys
from agentos_store import AsyncStore
from agentos_store.store.repositories import REPOSITORIES

async def main():
    async with AsyncStore.open(sys.argv[1]) as store:
        before = set(sys.modules)
        for name in REPOSITORIES:
            getattr(store, name)
        assert set(sys.modules) == before

asyncio.run(main())
"""
    assert "agentos_store.knowledge.repository" in loaded(program, migrated_url)


def test_a_transaction_imports_nothing_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.tasks.count() == 0

    def import_again(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(repositories, "ThreadPoolExecutor", import_again)
    with store.transaction() as tx:
        assert tx.tasks.count() == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_child_forked_while_a_domain_is_imported_can_use_the_domain(migrated_url: str) -> None:
    program = """
import os, signal, sys, threading
from agentos_store import Store

importing, forking = threading.Event(), threading.Event()

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "agentos_store.tasks.repository":
            importing.set()
            forking.wait()

sys.meta_path.insert(0, Slow())
with Store.open(sys.argv[1]) as store:
    # The last to be told what to do before a fork is the first to do it.
    os.register_at_fork(before=forking.set)
    thread = threading.Thread(target=lambda: store.tasks.count())
    thread.start()
    importing.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(store.tasks.count())
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
"""
    assert "agentos_store.tasks.repository" in loaded(program, migrated_url)
