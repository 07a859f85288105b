"""What the tests of the write path share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentos_store import Store
from tests.engine.gather import open_file


@pytest.fixture
def path(tmp_path: Path, sqlite_template: Path) -> Path:
    """A migrated SQLite file without rows."""
    return Path(shutil.copy(sqlite_template, tmp_path / "registry.sqlite"))


@pytest.fixture
def sqlite(path: Path) -> Iterator[Store]:
    """An open store on the file, whose writers wait for one second."""
    with open_file(path) as store:
        yield store
