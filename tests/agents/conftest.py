"""The repositories of agents, and a way past the library, to the database itself."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.agents.documents import DocumentRepository
from agentos_store.agents.repository import AgentRepository
from agentos_store.agents.snapshots import SnapshotRepository
from agentos_store.operation import Blocking
from agentos_store.testing.postgres import connect
from tests.agents.world import World, world_of


@pytest.fixture
def world(store: Store) -> World:
    return world_of(store)


@pytest.fixture
def agents(world: World) -> AgentRepository[Blocking]:
    return world.agents


@pytest.fixture
def snapshots(world: World) -> SnapshotRepository[Blocking]:
    return world.snapshots


@pytest.fixture
def documents(world: World) -> DocumentRepository[Blocking]:
    return world.documents


Run = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def raw(url: str) -> Iterator[Run]:
    """Run a statement on the bare driver, as another program would; question marks stand for values."""
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        connection.execute("PRAGMA foreign_keys=ON")
        mark = "?"
    else:
        connection = connect(url)
        mark = "%s"

    def run(statement: str, *values: object) -> list[tuple[Any, ...]]:
        cursor = connection.execute(statement.replace("?", mark), values)
        return [] if cursor.description is None else cursor.fetchall()

    with contextlib.closing(connection):
        yield run
