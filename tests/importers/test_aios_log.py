"""The lines of an AIOS log come in once each, in their order, whatever a crash has left behind."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, select

from agentos_store import Settings, Store, ensure_migrations
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import ConflictError, InvalidValueError, NotFoundError
from agentos_store.importers.aios.event_log import EventLog
from agentos_store.importers.aios.load import import_aios
from agentos_store.importers.problems import Problem
from agentos_store.models import Event
from agentos_store.operation import Blocking, F, Repository, reads, writes
from agentos_store.testing.aios import START, Manifest, event_line, make_event_log

_EVENTS = Event.table()
_ALL: Statement[Any] = Statement(select(_EVENTS).order_by(_EVENTS.c.position), returns=Event)
_EMPTY: Statement[Any] = Statement(delete(_EVENTS))


class Looking(Repository[F]):
    """Looks at all events, and removes them as time would."""

    name = "looking"

    @reads
    def all(self, session: Session) -> list[dict[str, Any]]:
        ours = {"position", "transaction_id"}
        return [
            {name: value for name, value in event.to_dict().items() if name not in ours} for event in session.all(_ALL)
        ]

    @writes
    def remove(self, session: Session) -> None:
        session.execute(_EMPTY)


def events(store: Store) -> list[dict[str, Any]]:
    return store.bind(Looking[Blocking]).all()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a log may be."""
    return tmp_path / "aios" / "events.jsonl"


@pytest.fixture
def flawed(log: Path) -> Manifest:
    """What is known of a log with every flaw."""
    log.parent.mkdir()
    return make_event_log(log)


@pytest.fixture
def clean(log: Path) -> Path:
    """A log without flaws."""
    log.parent.mkdir()
    make_event_log(log, flaws=False)
    return log


@pytest.fixture
def other_store(sqlite_template: Path, tmp_path: Path) -> Iterator[Store]:
    """One more empty store, on SQLite."""
    path = shutil.copy(sqlite_template, tmp_path / "other.sqlite")
    with Store.open(f"sqlite:///{path}") as opened:
        yield opened


def test_every_line_arrives_or_is_accounted_for_and_a_second_run_changes_nothing(
    store: Store, flawed: Manifest, log: Path
) -> None:
    raw = log.read_bytes()
    first = import_aios(store, log)
    there = events(store)
    second = import_aios(store, log)
    assert events(store) == there
    assert second.imported == 0
    expected = flawed.expected["events"]
    for report in (first, second):
        assert (report.shape, list(report.counts)) == ("jsonl", ["events"])
        counts = report.counts["events"]
        assert (counts.read, counts.imported + counts.repeated, counts.set_aside, counts.repaired) == (
            expected.rows,
            expected.imported,
            expected.set_aside,
            expected.repaired,
        )
    assert first.set_aside == second.set_aside
    assert len(there) == expected.imported
    assert log.read_bytes() == raw
    assert list(log.parent.iterdir()) == [log]


def test_a_line_is_an_event_with_all_that_it_says(store: Store, clean: Path) -> None:
    report = import_aios(store, clean)
    found = events(store)
    lines = [json.loads(line) for line in clean.read_bytes().splitlines()]
    assert [row["data"] for row in found] == lines
    assert [row["event_type"] for row in found] == [line["type"] for line in lines]
    assert [row["agent_id"] for row in found] == [line.get("agent_id") for line in lines]
    assert [row["severity"] for row in found] == [line.get("severity", "info") for line in lines]
    assert [row["task_id"] for row in found] == [line["task_id"] for line in lines]
    began = dt.datetime.fromtimestamp(START, dt.UTC)
    assert [row["created_at"] for row in found] == [began + dt.timedelta(seconds=place) for place in range(len(lines))]
    assert {(row["channel"], row["seq"], row["session_id"]) for row in found} == {(None, None, None)}
    assert (report.repairs, report.set_aside) == ([], [])


def test_the_torn_last_line_is_told_with_its_place_and_the_nul_bytes_too(
    store: Store, flawed: Manifest, log: Path
) -> None:
    report = import_aios(store, log)
    last = report.set_aside[-1]
    assert (last.table, last.key) == ("events", f"line {12 + 18}")
    assert last.why.startswith("the last line is torn")
    assert ("*", "NUL bytes, which a crash leaves, were dropped") in {(note.key, note.why) for note in report.repairs}
    # What is told never quotes what stands there.
    assert not [note for note in report.set_aside if "cod" in note.why]


def test_a_torn_line_that_was_completed_comes_in_with_what_follows(store: Store, clean: Path) -> None:
    whole = clean.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (1, 10, len(lines[-1]) - 2):
        clean.write_bytes(b"".join(lines[:-1]) + lines[-1][:cut])
        assert [note.why[:21] for note in import_aios(store, clean).set_aside] == ["the last line is torn"]
        assert len(events(store)) == len(lines) - 1
    clean.write_bytes(whole + event_line(99))
    assert import_aios(store, clean).imported == 2
    assert [row["data"] for row in events(store)] == [*map(json.loads, lines), json.loads(event_line(99))]


def test_a_last_line_without_an_end_is_whole_if_its_object_is(store: Store, clean: Path) -> None:
    whole = clean.read_bytes()
    clean.write_bytes(whole[:-1])
    assert import_aios(store, clean).counts["events"].imported == 12
    clean.write_bytes(whole)
    assert import_aios(store, clean).imported == 0


def test_lines_that_are_alike_are_as_many_events(store: Store, clean: Path) -> None:
    tick = b'{"type": "tick"}\n'
    clean.write_bytes(tick * 3 + event_line(0) + tick)
    assert import_aios(store, clean).imported == 5
    assert [row["event_type"] for row in events(store)] == ["tick"] * 3 + ["task_start", "tick"]
    with clean.open("ab") as file:
        file.write(tick * 2)
    assert import_aios(store, clean).imported == 2
    assert import_aios(store, clean).imported == 0
    assert len({row["event_id"] for row in events(store)}) == len(events(store)) == 7


def test_a_log_that_lost_its_oldest_lines_brings_only_what_is_new(store: Store, clean: Path) -> None:
    import_aios(store, clean)
    lines = clean.read_bytes().splitlines(keepends=True)
    moved = clean.with_name("events.1.jsonl")
    moved.write_bytes(b"".join(lines[5:]) + event_line(70))
    report = import_aios(store, moved)
    assert (report.counts["events"].imported, report.counts["events"].repeated) == (1, 7)


def test_what_was_removed_from_the_store_stays_removed(store: Store, clean: Path) -> None:
    import_aios(store, clean)
    store.bind(Looking[Blocking]).remove()
    assert import_aios(store, clean).imported == 0
    assert events(store) == []


def test_a_line_without_a_time_happened_when_its_neighbour_did(store: Store, clean: Path) -> None:
    clean.write_bytes(b'{"type": "a"}\n{"type": "b"}\n' + event_line(5) + b'{"type": "c"}\n' + event_line(9))
    import_aios(store, clean)
    seconds = [(row["created_at"] - dt.datetime.fromtimestamp(START, dt.UTC)).total_seconds() for row in events(store)]
    assert seconds == [5, 5, 5, 5, 9]


def test_a_log_without_any_time_happened_when_it_was_written(store: Store, clean: Path) -> None:
    clean.write_bytes(b'{"type": "a"}\n')
    os.utime(clean, (1_700_000_000, 1_700_000_000))
    import_aios(store, clean)
    (row,) = events(store)
    assert row["created_at"] == dt.datetime.fromtimestamp(1_700_000_000, dt.UTC)


def test_both_databases_get_equal_rows(flawed: Manifest, log: Path, other_store: Store, postgres_database: str) -> None:
    ensure_migrations(postgres_database)
    with Store.open(postgres_database) as postgres:
        reports = [import_aios(store, log) for store in (other_store, postgres)]
        assert reports[0] == reports[1]
        assert events(other_store) == events(postgres)
    assert len(events(other_store)) == flawed.expected["events"].imported


def test_imports_at_once_bring_every_line_once(store: Store, url: str, flawed: Manifest, log: Path) -> None:
    def run(_: int) -> int:
        with Store.open(url) as own:
            try:
                return import_aios(own, log).imported
            except ConflictError:
                return 0

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(run, range(4))) > 0
    import_aios(store, log)
    assert len(events(store)) == flawed.expected["events"].imported


def test_a_log_that_grows_meanwhile_comes_in_as_far_as_it_went(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    make_event_log(path, lines=500, flaws=False)
    added: list[int] = []

    def progress(kind: str, done: int, total: int) -> None:
        assert (kind, done <= total) == ("events", True)
        with path.open("ab") as file:
            file.write(event_line(1000 + done))
        added.append(done)

    report = import_aios(store, path, progress=progress)
    assert [note.why[:26] for note in report.repairs] == ["it grew while it was read;"]
    import_aios(store, path)
    assert len(events(store)) == 500 + len(added)


def test_a_log_that_is_written_over_meanwhile_is_told_of(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    make_event_log(path, lines=500, flaws=False)

    def progress(kind: str, done: int, total: int) -> None:
        path.write_bytes(event_line(1))

    with pytest.raises(ConflictError):
        import_aios(store, path, progress=progress)


def test_a_line_that_the_store_refuses_is_set_aside_alone(url: str, clean: Path) -> None:
    with clean.open("ab") as file:
        file.write(event_line(50, message="x" * 5000) + event_line(51))
    with Store.open(Settings(url=SecretStr(url), max_payload=4000)) as store:
        report = import_aios(store, clean)
        assert [(note.table, note.key) for note in report.set_aside] == [("events", "line 13")]
        assert len(events(store)) == 13
        assert import_aios(store, clean).imported == 0


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\0" * 4096])
def test_a_log_of_nothing_is_a_log(store: Store, clean: Path, content: bytes) -> None:
    clean.write_bytes(content)
    report = import_aios(store, clean)
    assert (report.counts["events"].read, report.set_aside) == (0, [])


@pytest.mark.parametrize(
    "content", [b"neither of both\n", b"[1, 2]\n", b"\xff\xfe{\0", b"SQLite format 3\0" + b"x" * 99]
)
def test_what_is_no_log_is_refused(other_store: Store, clean: Path, content: bytes) -> None:
    clean.write_bytes(content)
    with pytest.raises(InvalidValueError):
        import_aios(other_store, clean)
    with pytest.raises(NotFoundError):
        import_aios(other_store, clean.with_name("none.jsonl"))


def test_a_file_that_begins_with_damage_is_still_a_log(store: Store, clean: Path) -> None:
    clean.write_bytes(b'"message": "the end of a line"}\n' + b"\xef\xbb\xbf" + event_line(1))
    report = import_aios(store, clean)
    assert (report.imported, [note.key for note in report.set_aside]) == (1, ["line 1"])


def test_whatever_a_field_holds_the_line_arrives_with_it(store: Store, clean: Path) -> None:
    odd: list[Any] = [None, True, -1, 2**63, 1e308, -0.0, "", "\0\ud800", "x" * 300, "\n\x1b", [], {}, [[1]]]
    names = ("type", "agent_id", "severity", "timestamp", "task_id")
    cases = [(name, value) for name in names for value in odd]
    clean.write_bytes(b"".join(event_line(number, **{name: value}) for number, (name, value) in enumerate(cases)))
    assert import_aios(store, clean).imported == len(cases)
    found = events(store)
    assert [repr(row["data"][name]) for row, (name, _) in zip(found, cases, strict=True)] == [
        repr(value) for _, value in cases
    ]


def test_a_log_is_read_anew_each_time(flawed: Manifest, log: Path) -> None:
    with EventLog(log) as source:
        first, second = ([item for item in source.events() if not isinstance(item, Problem)] for _ in range(2))
    assert first == second
    assert len(first) == flawed.expected["events"].imported
