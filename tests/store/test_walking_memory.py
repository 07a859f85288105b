"""Walking over all rows takes the memory of some pages, whatever is walked over, and however many rows there are."""

from __future__ import annotations

import inspect
import os
import sqlite3
import tracemalloc
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Table, UniqueConstraint

from agentos_store import Store
from agentos_store.operation import walks
from tests.catalogue import CALLS, repositories

ROWS = 10_000 if os.environ.get("AGENTOS_STORE_MANY") else 1_500

OF = {"messages.iterate": ("s",), "snapshots.iterate": ("a",), "documents.iterate": ("a",)}
"""Whose rows are walked over, where that has to be said."""

WALKS = sorted(
    f"{name}.{each}"
    for name, repository in repositories()
    for each in dir(repository)
    if isinstance(inspect.getattr_static(repository, each), walks)
)


def to_change(table: Table) -> set[str]:
    """Return columns enough for no two rows to be alike where they must not, but for those that say whose they are."""
    unique = [list(table.primary_key.columns)]
    unique += [list(each.columns) for each in table.constraints if isinstance(each, UniqueConstraint)]
    unique += [list(each.columns) for each in table.indexes if each.unique]
    return {([c for c in columns if not c.foreign_keys] or columns)[-1].name for columns in unique}


def multiply(raw: sqlite3.Connection, row: Any) -> None:
    """Put copies of a row beside it, which differ where they must."""
    table: Table = type(row).table()
    key = {c.name: getattr(row, c.name) for c in table.primary_key.columns}
    found = raw.execute(f"SELECT * FROM {table.name} WHERE {' AND '.join(f'{c} = :{c}' for c in key)}", key)
    first = dict(zip((column[0] for column in found.description), found.fetchone(), strict=True))
    changed = to_change(table)

    def copies() -> Iterator[dict[str, Any]]:
        for number in range(1, ROWS):
            yield first | {c: other(first[c], number) for c in changed}

    raw.executemany(f"INSERT INTO {table.name} ({', '.join(first)}) VALUES (:{', :'.join(first)})", copies())


def other(value: Any, number: int) -> Any:
    """Return another value for a column of the same kind."""
    if isinstance(value, str):
        return f"{number:026}"
    return value if value is None else value + 1_000_000 + number


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Store]:
    """A store in which each walk has as many rows before it."""
    path = tmp_path_factory.mktemp("crowded") / "registry.sqlite"
    path.write_bytes(sqlite_template.read_bytes())
    url = f"sqlite:///{path}"
    with Store.open(url) as store:
        for _, call in CALLS:
            call(store)
        rows = [next(walk(store, name)) for name in WALKS]
    with closing(sqlite3.connect(path)) as raw:
        for row in rows:
            multiply(raw, row)
        raw.commit()
    with Store.open(url) as store:
        yield store


def walk(store: Store, name: str) -> Iterator[Any]:
    repository, _, method = name.partition(".")
    found: Iterator[Any] = getattr(getattr(store, repository), method)(*OF.get(name, ()))
    return found


def weigh(items: Iterable[Any]) -> int:
    """Return the bytes that it takes at most to go through the items."""
    tracemalloc.start()
    try:
        deque(items, maxlen=0)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", WALKS)
def test_a_walk_takes_the_memory_of_some_pages(crowded: Store, name: str) -> None:
    # Statements are prepared before.
    next(walk(crowded, name))
    whole: list[Any] = []

    def gathered() -> Iterator[Any]:
        whole.extend(walk(crowded, name))
        yield from whole

    # A list of them all, which is what the scales have to tell from a walk.
    of_all = weigh(gathered())
    assert len(whole) >= ROWS
    whole.clear()
    assert weigh(walk(crowded, name)) < of_all / 3
