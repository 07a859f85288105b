"""Registries to read, made once; a test that changes one takes a copy."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from agentos_store.testing.registries import make_registry

Made = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="session", params=["agentos", "document"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A registry of either shape with every flaw, and its manifest."""
    shape: Literal["agentos", "document"] = request.param
    path = tmp_path_factory.mktemp(shape) / "registry.sqlite"
    return path, make_registry(path, shape=shape, tasks=24)


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """A copy of it, alone in its folder."""
    folder = tmp_path / "store"
    folder.mkdir()
    return shutil.copyfile(made[0], folder / "registry.sqlite")


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Path]:
    """Makes a registry of AgentOS's shape without flaws, changed by the statements given."""

    def make(*statements: tuple[str, tuple[object, ...]], tasks: int = 3) -> Path:
        path = tmp_path / "small" / "registry.sqlite"
        path.parent.mkdir()
        make_registry(path, tasks=tasks, flaws=False)
        connection = sqlite3.connect(path)
        for statement, values in statements:
            connection.execute(statement, values)
        connection.commit()
        connection.close()
        return path

    return make
