"""The repositories of agents, and a way past the library, to the database itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.agents.documents import DocumentRepository
from agentos_store.agents.repository import AgentRepository
from agentos_store.agents.snapshots import SnapshotRepository
from agentos_store.operation import Blocking
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
