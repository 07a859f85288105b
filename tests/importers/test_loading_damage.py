"""A damaged registry is loaded as far as it goes or refused, and the intact one then completes the store."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.errors import StoreError
from agentos_store.importers.agentos.load import import_registry
from agentos_store.testing.registries import make_registry
from agentos_store.testing.registry_rows import DOMAINS

Made = tuple[Path, dict[str, Any]]

PLACES = int(os.environ.get("AGENTOS_STORE_DAMAGES", "20"))
PAGE = 4096


@pytest.fixture(scope="module")
def both_shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Made]:
    folder = tmp_path_factory.mktemp("intact")
    agentos, document = folder / "agentos.sqlite", folder / "document.sqlite"
    return (agentos, make_registry(agentos, tasks=5)), (document, make_registry(document, shape="document", tasks=5))


@pytest.fixture
def intact(both_shapes: tuple[Made, Made], place: int) -> Made:
    """The shapes by turns."""
    return both_shapes[place // 2 % 2]


@pytest.fixture
def damaged(intact: Made, tmp_path: Path) -> Path:
    return shutil.copyfile(intact[0], tmp_path / "damaged.sqlite")


@pytest.fixture
def target(sqlite_template: Path, tmp_path: Path) -> Iterator[Store]:
    """A store on SQLite; that the other database takes the same records is shown elsewhere."""
    path = shutil.copyfile(sqlite_template, tmp_path / "store.sqlite")
    with Store.open(f"sqlite:///{path}") as store:
        yield store


def load_both(target: Store, damaged: Path, intact: Made) -> None:
    before = damaged.read_bytes()
    # Anything but a report or an error of the store's own would end the test.
    with suppress(StoreError):
        report = import_registry(target, damaged)
        for counts in report.counts.values():
            assert counts.read == counts.imported + counts.repeated + counts.set_aside + counts.merged
    assert damaged.read_bytes() == before
    path, manifest = intact
    report = import_registry(target, path)
    kinds = dict(zip(report.counts, DOMAINS, strict=True))
    for kind, counts in report.counts.items():
        assert counts.read == manifest["expected"][kinds[kind]]["rows"]
        assert counts.read == counts.imported + counts.repeated + counts.set_aside + counts.merged
    assert import_registry(target, path).imported == 0
    assert target.audits.verify().ok
    tasks = {task.task_id for task in target.tasks.iterate()}
    assert set(manifest["task_ids"]) <= tasks
    assert len(target.tasks.topological_order()) == len(tasks)


@pytest.mark.parametrize("place", range(PLACES))
def test_a_flipped_bit_costs_no_more_than_it_hits(target: Store, damaged: Path, intact: Made, place: int) -> None:
    raw = bytearray(damaged.read_bytes())
    chance = random.Random(1000 + place)
    page = chance.randrange(len(raw) // PAGE)
    offset = page * PAGE + chance.randrange(64 if place % 2 else PAGE)
    raw[offset] ^= 1 << chance.randrange(8)
    damaged.write_bytes(raw)
    load_both(target, damaged, intact)


@pytest.mark.parametrize("place", range(PLACES))
def test_a_cut_file_is_loaded_as_far_as_it_goes(target: Store, damaged: Path, intact: Made, place: int) -> None:
    os.truncate(damaged, damaged.stat().st_size * place // PLACES)
    load_both(target, damaged, intact)
