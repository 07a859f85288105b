"""Importing takes the same memory however much there is: what is read goes on in batches, and is not kept."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from agentos_store import Settings, Store
from agentos_store.importers import run
from agentos_store.importers.agentos.load import import_registry
from agentos_store.importers.aios.load import import_aios
from agentos_store.importers.chapter14.load import import_agent_store
from agentos_store.importers.kode.load import import_store
from agentos_store.importers.openai.load import import_transcripts
from agentos_store.testing import kode_stores
from agentos_store.testing.aios import event_line, make_aios_database
from agentos_store.testing.chapter14 import make_agent_store
from agentos_store.testing.registries import make_registry
from tests.weighing import growth

MANY = bool(os.environ.get("AGENTOS_STORE_MANY"))
SMALL, LARGE, SIZE = (400, 50_000, 3_000) if MANY else (400, 2_000, 10_000)
"""Rows of the two sources, and bytes of a row. The small one fills two batches, so that those are no news."""

MEGABYTES = 70 if MANY else 8
"""Half of what the rows of the large source take, at most."""

TEXT = "x" * SIZE


def add_rows(path: Path, rows: int, insert: str, values: str) -> None:
    """Insert so many rows; in the values ``i`` is the number of the row, and ``?`` the text."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
    with closing(sqlite3.connect(path)) as raw:
        raw.execute(f"{numbers} INSERT INTO {insert} SELECT {values} FROM n", (rows, TEXT))
        raw.commit()


def registry(path: Path, rows: int) -> None:
    """Make a registry with so many audits."""
    make_registry(path, tasks=1, flaws=False)
    values = "(SELECT task_id FROM tasks), 'info', 'NOTE', json_array(i, ?), '2026-01-10'"
    add_rows(path, rows, "task_audits (task_id, level, event_type, payload, created_at)", values)


def agent_store(path: Path, rows: int) -> None:
    """Make an agent store of chapter 14 with so many messages."""
    make_agent_store(path, sessions=1, flaws=False)
    values = "(SELECT id FROM sessions LIMIT 1), 'user', ?"
    add_rows(path, rows, "messages (session_id, role, content)", values)


def aios_database(path: Path, rows: int) -> None:
    """Make an AIOS database with so many events."""
    make_aios_database(path, rounds=1, flaws=False)
    values = "'more-' || i, 'x', 1772078400.5 + i, json_array(?)"
    add_rows(path, rows, "events (event_id, event_type, timestamp, data_json)", values)


def aios_log(path: Path, rows: int) -> None:
    """Write an AIOS log of so many lines."""
    with path.open("wb") as file:
        file.writelines(event_line(number, text=TEXT) for number in range(rows))


def transcripts(path: Path, rows: int) -> None:
    """Write so many transcripts in OpenAI's format."""
    with path.open("w") as file:
        for number in range(rows):
            file.write(json.dumps({"messages": [{"role": "user", "content": TEXT}], "n": number}) + "\n")


def kode_agents(path: Path, rows: int) -> None:
    """Make a KODE directory of agents with 20 messages each."""
    for number in range(rows // 20):
        folder = path / f"agt:01KE{number:022}"
        kode_stores.write(folder / "meta.json", kode_stores.meta(folder.name, kode_stores.START, 20))
        kode_stores.write(folder / "runtime" / "messages.json", [kode_stores.said(TEXT) for _ in range(20)])


def kode_events(path: Path, rows: int) -> None:
    """Make a KODE directory of one agent with so many events."""
    folder = path / f"agt:01KE{0:022}"
    kode_stores.write(folder / "meta.json", kode_stores.meta(folder.name, kode_stores.START, 0))
    kode_stores.write(folder / "runtime" / "messages.json", [])
    (folder / "events").mkdir()
    with (folder / "events" / "progress.log").open("w", encoding="utf-8") as file:
        for number in range(rows):
            line = kode_stores.event("progress", number, kode_stores.START + number, type="text_chunk", delta=TEXT)
            file.write(line)


Make = Callable[[Path, int], None]
SOURCES: dict[str, tuple[Make, Callable[..., Any]]] = {
    "AgentOS": (registry, import_registry),
    "chapter 14": (agent_store, import_agent_store),
    "AIOS": (aios_database, import_aios),
    "AIOS's log": (aios_log, import_aios),
    "OpenAI": (transcripts, import_transcripts),
    "KODE's agents": (kode_agents, import_store),
    "KODE's events": (kode_events, import_store),
}


def bring_in(name: str, url: str, source: str) -> None:
    """Import into the store, as a process of its own does it."""
    with Store.open(url, settings=Settings.load(durability="process_crash")) as store:
        report = SOURCES[name][1](store, source)
        assert not report.set_aside, report.set_aside[:1]


def bring_in_a_whole_list(name: str, url: str, source: str) -> None:
    """Import after reading everything."""

    def read_all(items: Iterator[Any]) -> Iterator[list[Any]]:
        everything = list(items)
        for first in range(0, len(everything), 200):
            yield everything[first : first + 200]

    with mock.patch.object(run, "batches", read_all):
        bring_in(name, url, source)


def weigh(work: Callable[[str, str, str], None], name: str, place: Path, template: Path) -> int:
    """Return the megabytes that the large source takes beyond the small one."""
    arguments = []
    for size in (SMALL, LARGE):
        source, target = place / f"source-{size}", place / f"{size}.sqlite"
        SOURCES[name][0](source, size)
        shutil.copy(template, target)
        arguments.append((name, f"sqlite:///{target}", str(source)))
    return growth(work, *arguments)


@pytest.mark.parametrize("name", SOURCES)
def test_an_import_takes_the_same_memory_however_much_there_is(
    name: str, tmp_path: Path, sqlite_template: Path
) -> None:
    assert weigh(bring_in, name, tmp_path, sqlite_template) < MEGABYTES


def test_an_import_that_reads_everything_first_is_found_out(tmp_path: Path, sqlite_template: Path) -> None:
    assert weigh(bring_in_a_whole_list, "AgentOS", tmp_path, sqlite_template) > MEGABYTES
