"""A way past the library, to the database itself."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentos_store.testing.postgres import connect

Run = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def raw(url: str) -> Iterator[Run]:
    """Run a statement on the bare driver, as another program would; question marks stand for values."""
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        mark = "?"
    else:
        connection = connect(url)
        mark = "%s"

    def run(statement: str, *values: object) -> list[tuple[Any, ...]]:
        cursor = connection.execute(statement.replace("?", mark), values)
        return [] if cursor.description is None else cursor.fetchall()

    with contextlib.closing(connection):
        yield run
