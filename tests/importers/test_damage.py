"""A damaged registry gives what is left of it, tells what is not, and is never made worse."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest

from agentos_store.errors import InvalidValueError, StoreError
from agentos_store.importers.agentos.registry import Registry, open_registry
from agentos_store.importers.problems import Problem
from agentos_store.testing.registry_rows import DOMAINS

Made = tuple[Path, dict[str, Any]]

PLACES = int(os.environ.get("AGENTOS_STORE_DAMAGES", "20"))
PAGE = 4096


@dataclass
class Outcome:
    """What came out of a registry."""

    records: dict[str, list[Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def read_all(path: Path) -> Outcome:
    outcome = Outcome()
    with open_registry(path) as registry:
        outcome.problems += registry.problems
        for domain, items in domains(registry):
            outcome.records[domain] = []
            for item in items:
                (outcome.problems if isinstance(item, Problem) else outcome.records[domain]).append(item)
        outcome.problems += registry.check()
        registry.no_place()
    return outcome


def domains(registry: Registry) -> Iterator[tuple[str, Iterator[Any]]]:
    for name in DOMAINS:
        yield name, getattr(registry, name)()


def assert_whole(outcome: Outcome) -> None:
    """Each key is there once, and each reference names a record."""
    records = outcome.records
    projects = [project.id for project in records["projects"]]
    repos = [(repo.project_id, repo.repo_id) for repo in records["repos"]]
    sessions = [session.id for session in records["sessions"]]
    tasks = [task.task_id for task in records["tasks"]]
    for keys in (projects, repos, sessions, tasks):
        assert len(set(keys)) == len(keys)
    assert {project for project, _ in repos} <= set(projects)
    assert {(row.id, row.default_repo_id) for row in records["projects"] if row.default_repo_id} <= set(repos)
    assert {task.session_id for task in records["tasks"] if task.session_id} <= set(sessions)
    assert {task.project_id for task in records["tasks"] if task.project_id} <= set(projects)
    about_tasks = [row for name in DOMAINS[6:13] for row in records[name]]
    assert {row.task_id for row in about_tasks} <= set(tasks)
    links = [(link.task_id, link.depends_on_task_id) for link in records["dependencies"]]
    scopes = [(scope.task_id, scope.repo_id) for scope in records["scopes"]]
    verdicts = [verdict.id for verdict in records["verdicts"]]
    events = [event.id for event in records["inbox"]]
    for each in (links, scopes, verdicts, events):
        assert len(set(each)) == len(each)
    assert {needed for _, needed in links} <= set(tasks)
    # Raises CycleError when there is a circle.
    tuple(TopologicalSorter({task: [end for start, end in links if start == task] for task, _ in links}).static_order())


def read_unharmed(path: Path) -> Outcome | None:
    """Read it all; return None for a refusal. The file stays as it is, and alone."""
    before = path.read_bytes()
    outcome: Outcome | None = None
    with suppress(StoreError):
        outcome = read_all(path)
        assert_whole(outcome)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    return outcome


@pytest.mark.parametrize("place", range(PLACES))
def test_a_flipped_bit_costs_no_more_than_it_hits(copied: Path, place: int) -> None:
    raw = bytearray(copied.read_bytes())
    chance = random.Random(place)
    # Half of them where structure is dense: in the heads of pages.
    page = chance.randrange(len(raw) // PAGE)
    offset = page * PAGE + chance.randrange(64 if place % 2 else PAGE)
    raw[offset] ^= 1 << chance.randrange(8)
    copied.write_bytes(raw)
    read_unharmed(copied)


@pytest.mark.parametrize("place", range(PLACES))
def test_a_cut_file_is_refused_or_says_what_it_lacks(copied: Path, place: int) -> None:
    raw = copied.read_bytes()
    os.truncate(copied, len(raw) * place // PLACES)
    outcome = read_unharmed(copied)
    assert outcome is None or outcome.problems


def test_a_destroyed_page_costs_its_own_rows_only(made: Made, copied: Path) -> None:
    path, manifest = made
    whole = read_all(path)
    raw = bytearray(copied.read_bytes())
    marker = whole.records["audits"][40].task_id.encode()
    page = next(
        number for number in range(2, len(raw) // PAGE) if raw[number * PAGE] == 13 and _is_audits(raw, number, marker)
    )
    raw[page * PAGE : (page + 1) * PAGE] = b"\xff" * PAGE
    copied.write_bytes(raw)
    left = read_unharmed(copied)
    assert left is not None
    lost = [problem for problem in left.problems if problem.table == "task_audits" and "unreadable" in problem.reason]
    assert lost
    kept = {audit.source_id for audit in left.records["audits"]}
    missing = {audit.source_id for audit in whole.records["audits"]} - kept
    assert 0 < len(missing) < manifest["row_counts"]["task_audits"] / 2
    assert missing <= _numbers(lost)
    assert [len(left.records[name]) for name in ("projects", "sessions", "tasks", "lineage")] == [
        len(whole.records[name]) for name in ("projects", "sessions", "tasks", "lineage")
    ]


def test_two_tables_on_one_page_are_not_read(copied: Path) -> None:
    connection = sqlite3.connect(copied)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute(
        "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master WHERE name = 'task_audits')"
        " WHERE name = 'task_lineage'"
    )
    connection.commit()
    connection.close()
    outcome = read_unharmed(copied)
    assert outcome is not None
    assert outcome.records["lineage"] == outcome.records["audits"] == []
    told = {problem.table for problem in outcome.problems if "shares its first page" in problem.reason}
    assert told == {"task_lineage", "task_audits"}


def test_a_bad_definition_of_another_table_does_not_hide_the_rest(made: Made, copied: Path) -> None:
    connection = sqlite3.connect(copied)
    connection.execute("PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_master SET sql = 'CREATE TABLE (' WHERE name = 'kb_chunks'")
    connection.commit()
    connection.close()
    outcome = read_unharmed(copied)
    assert outcome is not None
    assert len(outcome.records["tasks"]) == made[1]["expected"]["tasks"]["imported"]
    assert "kb_chunks" in {problem.table for problem in outcome.problems}


def test_a_missing_table_is_told_of(copied: Path) -> None:
    connection = sqlite3.connect(copied)
    connection.execute("DROP TABLE task_lineage")
    connection.close()
    outcome = read_unharmed(copied)
    assert outcome is not None
    assert [problem.table for problem in outcome.problems if problem.key == "*"] == ["task_lineage"]


def test_garbage_under_a_good_header_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    path.write_bytes(b"SQLite format 3\x00" + random.Random(1).randbytes(20_000))
    with pytest.raises(InvalidValueError):
        open_registry(path)


def _is_audits(raw: bytearray, page: int, marker: bytes) -> bool:
    content = bytes(raw[page * PAGE : (page + 1) * PAGE])
    return marker in content and b"STATE_TRANSITION" in content


def _numbers(problems: list[Problem]) -> set[int]:
    """The row numbers that the problems name."""
    numbers: set[int] = set()
    for problem in problems:
        words = [int(word) for word in problem.key.split() if word.isdigit()]
        if problem.key.startswith("rowid up to"):
            numbers |= set(range(1, words[0] + 1))
        elif problem.key.endswith(" on"):
            numbers |= set(range(words[0], 100_000))
        else:
            numbers |= set(range(words[0], words[-1] + 1))
    return numbers
