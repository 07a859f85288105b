"""Whatever stands in the files, the import tells of it and goes on."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.importers.kode.directory import open_store
from agentos_store.importers.kode.load import import_store
from agentos_store.testing.kode_stores import FORK, KILLED, REVIEWER, RUNNER, make_kode_store, write

ODD: list[Any] = [
    None,
    True,
    -1,
    2**63,
    10**4000,
    1e308,
    -0.0,
    "",
    "\0\ud800",
    "x" * 300,
    "\n\x1b",
    [],
    {},
    [None],
    {"": {"\0": "\udfff"}},
    1e15,
    "9999-12-31T23:59:59.999Z",
    json.loads("[" * 501 + "]" * 501),
]
FILES = [
    f"{REVIEWER}/meta.json",
    f"{REVIEWER}/runtime/messages.json",
    f"{REVIEWER}/runtime/tool-calls.json",
    f"{REVIEWER}/runtime/todos.json",
    f"{REVIEWER}/snapshots/sfp-3.json",
    f"{RUNNER}/history/windows/1795240071164.json",
    f"{KILLED}/runtime/messages.wal",
]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory with everything in it."""
    make_kode_store(tmp_path / "kode")
    return tmp_path / "kode"


def variants(value: Any, odd: Any, depth: int = 3) -> Iterator[Any]:
    """Give the value with the odd one in the place of each of its parts."""
    yield odd
    if depth and isinstance(value, dict):
        for key, inner in value.items():
            for variant in variants(inner, odd, depth - 1):
                yield {**value, key: variant}
            yield {name: each for name, each in value.items() if name != key}
    elif depth and isinstance(value, list):
        for index, inner in enumerate(value[:3]):
            for variant in variants(inner, odd, depth - 1):
                yield [*value[:index], variant, *value[index + 1 :]]


def alone(base: Path, name: str) -> Path:
    """Take away every other agent; return the file."""
    for folder in base.iterdir():
        if folder.name != name.partition("/")[0]:
            shutil.rmtree(folder)
    shutil.rmtree(base / FORK, ignore_errors=True)
    return base / name


def odd_values(name: str, value: Any, number: int) -> Iterator[Any]:
    chosen = random.Random(name)  # the same choice in every run
    for odd in ODD:
        found = list(variants(value, odd))
        yield from chosen.sample(found, min(number, len(found)))


@pytest.mark.parametrize("name", FILES)
def test_any_value_anywhere_is_read_or_told(base: Path, name: str) -> None:
    file = alone(base, name)
    for variant in odd_values(name, json.loads(file.read_bytes()), 20):
        write(file, variant)
        assert len(list(open_store(base).agents())) == 1


@pytest.mark.parametrize("name", FILES)
def test_any_value_anywhere_is_stored_or_told(store: Store, base: Path, name: str) -> None:
    file = alone(base, name)
    for variant in odd_values(name, json.loads(file.read_bytes()), 3):
        write(file, variant)
        report = import_store(store, base)
        for counts in report.counts.values():
            assert counts.read == counts.imported + counts.repeated + counts.set_aside + counts.merged


def test_bytes_that_are_changed_anywhere_break_nothing(base: Path) -> None:
    chosen = random.Random(7)
    for file in sorted(path for path in base.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for _ in range(12):
            broken = bytearray(whole[: chosen.randrange(len(whole) + 1)] if chosen.random() < 0.5 else whole)
            for _ in range(chosen.randrange(4) if broken else 0):
                broken[chosen.randrange(len(broken))] = chosen.randrange(256)
            file.write_bytes(broken)
            assert len(list(open_store(base).agents())) == 4
        file.write_bytes(whole)
