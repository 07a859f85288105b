"""The events of a KODE directory come in once each, channels put together by time, and no number counts twice."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from agentos_store import Settings, Store, ensure_migrations
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.importers.kode.load import import_store
from agentos_store.models import Event
from agentos_store.operation import Blocking, F, Repository, reads
from agentos_store.testing.kode_stores import FORK, KILLED, REVIEWER, RUNNER, START, event, make_kode_store

SAMPLE = Path(__file__).parents[2].parent / "shared" / "data" / "kode-jsonstore"

DISTINCT = {
    "agt-01KQ5V3S7JZQ8M2W9T4R6X1B0C": 105,
    "agt-01KQ5V3S7JZQ8M2W9T4R6X1B0C/fork-1795240070871": 1,
    "agt-01KQ5V3T8K1N5P7D3F9H2J4M6Q": 35,
    "agt-01KQ5V3V9M2R6T8X4Z1C3E5G7J": 424,
    "agt-01KQ5V3WAN3S7V9Y5B2D4F6H8K": 39,
    "agt-01KQ5V3XBP4T8W0Z6C3E5G7J9M": 20,
}
"""Of the sample, by agent."""

_EVENTS = Event.table()
_ALL: Statement[Any] = Statement(select(_EVENTS).order_by(_EVENTS.c.position), returns=Event)


class Looking(Repository[F]):
    """Looks at all events."""

    name = "looking"

    @reads
    def all(self, session: Session) -> list[dict[str, Any]]:
        ours = {"position", "transaction_id"}
        return [
            {name: value for name, value in event.to_dict().items() if name not in ours} for event in session.all(_ALL)
        ]


def events(store: Store, agent_id: str | None = None) -> list[dict[str, Any]]:
    return [row for row in store.bind(Looking[Blocking]).all() if agent_id in (None, row["agent_id"])]


def logs(base: Path, agent_id: str, channel: str) -> Path:
    folder = base / agent_id / "events"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{channel}.log"


def moment(milliseconds: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=milliseconds)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A directory with everything in it."""
    make_kode_store(tmp_path / "kode")
    return tmp_path / "kode"


def test_events_have_their_channel_number_type_and_time(store: Store, base: Path) -> None:
    report = import_store(store, base)
    found = events(store, REVIEWER)
    assert [(row["channel"], row["seq"], row["event_type"], row["created_at"]) for row in found] == [
        ("progress", 4, "text_chunk", moment(START + 10)),
        ("progress", 5, "done", moment(START + 20)),
        ("monitor", 0, "state_changed", moment(START + 30)),
        ("monitor", 1, "state_changed", moment(START + 30)),
    ]
    assert {(row["session_id"], row["task_id"], row["severity"]) for row in found} == {(REVIEWER, None, "info")}
    assert found[0]["data"] == {
        "channel": "progress",
        "bookmark": {"seq": 4, "timestamp": START + 10},
        "type": "text_chunk",
        "delta": "Let",
    }
    counts = report.counts["events"]
    assert (counts.read, counts.imported, counts.merged, counts.repeated, counts.set_aside) == (7, 6, 1, 0, 0)
    assert report.agents[REVIEWER]["events"].merged == 1
    assert report.not_yet == {}


def test_channels_are_put_together_by_time_then_by_cursor_and_keep_their_own_order(store: Store, base: Path) -> None:
    lines = {
        # The clock of the first goes back, as when an agent was resumed on another machine.
        "progress": [(10, START + 900), (11, START + 100), (12, START + 950)],
        "control": [(20, START + 50), (13, START + 950)],
        "monitor": [(9, START + 900), (14, START + 2000)],
    }
    for channel, entries in lines.items():
        text = "".join(event(channel, number, at, type=str(number)) for number, at in entries)
        logs(base, RUNNER, channel).write_text(text)
    import_store(store, base)
    assert [row["event_type"] for row in events(store, RUNNER)] == ["20", "9", "10", "11", "12", "13", "14"]


def test_an_agent_that_uses_its_numbers_again_loses_nothing(store: Store, base: Path) -> None:
    log = logs(base, RUNNER, "progress")
    log.write_text("".join(event("progress", number, START, type="text_chunk", delta="a") for number in range(3)))
    import_store(store, base)
    with log.open("a") as file:
        file.writelines(event("progress", number, START, type="text_chunk", delta="b") for number in range(3))
    report = import_store(store, base)
    assert report.counts["events"].imported == 3
    assert [(row["seq"], row["data"]["delta"]) for row in events(store, RUNNER)] == [
        *((number, "a") for number in range(3)),
        *((number, "b") for number in range(3)),
    ]


def test_of_the_write_ahead_log_comes_what_the_log_does_not_hold(store: Store, base: Path) -> None:
    import_store(store, base)
    assert [row["seq"] for row in events(store, KILLED)] == [4, 5]
    # KODE moves the lines to the log when it starts again.
    ahead = logs(base, KILLED, "progress").with_suffix(".wal")
    logs(base, KILLED, "progress").write_bytes(ahead.read_bytes())
    ahead.unlink()
    assert import_store(store, base).imported == 0
    assert len(events(store, KILLED)) == 2


def test_equal_lines_of_two_channels_or_agents_are_events_of_their_own(store: Store, base: Path) -> None:
    line = event("monitor", 1, START, type="x")
    for agent_id, channel in ((RUNNER, "monitor"), (RUNNER, "control"), (FORK, "monitor")):
        logs(base, agent_id, channel).write_text(line)
    import_store(store, base)
    assert len(events(store, RUNNER)) == 2
    assert len(events(store, FORK)) == 1


def test_a_second_run_adds_nothing_and_a_changed_directory_adds_what_is_new(store: Store, base: Path) -> None:
    import_store(store, base)
    there = events(store)
    again = import_store(store, base)
    assert (again.imported, again.counts["events"].repeated, again.counts["events"].merged) == (0, 6, 1)
    assert events(store) == there
    with logs(base, REVIEWER, "monitor").open("a") as file:
        file.write(event("monitor", 7, START + 5000, type="agent_resumed"))
    report = import_store(store, base)
    assert {kind: counts.imported for kind, counts in report.counts.items() if counts.imported} == {"events": 1}
    assert events(store)[:-1] == there
    assert events(store)[-1]["event_type"] == "agent_resumed"


def test_a_line_that_is_no_event_costs_only_itself(store: Store, base: Path) -> None:
    good = event("progress", 1, START, type="x")
    log = logs(base, RUNNER, "progress")
    deep = f'{{"event":{{"x":{"[" * 600}{"]" * 600}}}}}\n'
    log.write_text(f'no json\n{good}[]\n{deep}\0\0\0{event("progress", 2, START, type="y")}{{"cursor":3,"bookm')
    report = import_store(store, base)
    assert [row["seq"] for row in events(store, RUNNER)] == [1, 2]
    counts = report.agents[RUNNER]["events"]
    assert (counts.read, counts.imported, counts.set_aside) == (6, 2, 4)
    assert len([note for note in report.set_aside if note.table == "events"]) == 4
    assert any(note.table == "events" and "NUL" in note.why for note in report.repairs)


def test_lines_beyond_those_that_are_listed_are_counted(store: Store, base: Path) -> None:
    logs(base, RUNNER, "progress").write_text("no json\n" * 500 + event("progress", 1, START, type="x"))
    report = import_store(store, base)
    counts = report.agents[RUNNER]["events"]
    assert (counts.read, counts.imported, counts.set_aside) == (501, 1, 500)


ODD: list[tuple[dict[str, Any], tuple[str, str, int | None]]] = [
    ({"event": {}}, ("(unknown)", "info", None)),
    ({"bookmark": None, "event": {"type": 7, "severity": ["x"]}}, ("(unknown)", "info", None)),
    ({"bookmark": {"seq": "7"}, "event": {"type": "", "severity": "dire"}}, ("(unknown)", "info", None)),
    ({"bookmark": {"seq": 2**63}, "event": {"type": "a\n\0\ud800"}}, ("a\ufffd\ufffd\ufffd", "info", None)),
    ({"bookmark": {"seq": True, "timestamp": "soon"}, "event": {"type": "x" * 300}}, ("x" * 255, "info", None)),
    ({"bookmark": {"seq": -5}, "event": {"type": "error", "severity": "warn"}}, ("error", "warning", -5)),
    (
        {"cursor": 1e308, "bookmark": {"seq": 10**400, "timestamp": 1e308}, "event": {"type": "x", "x": -0.0}},
        ("x", "info", None),
    ),
]


def test_whatever_a_line_holds_the_event_arrives_with_it(store: Store, base: Path) -> None:
    logs(base, RUNNER, "monitor").write_text("".join(json.dumps(line) + "\n" for line, _ in ODD))
    import_store(store, base)
    found = events(store, RUNNER)
    told = {repr(row["data"]): (row["event_type"], row["severity"], row["seq"]) for row in found}
    assert told == {repr(line["event"]): expected for line, expected in ODD}
    # Where they do not tell their time, the agent's counts.
    assert {row["created_at"] for row in found} == {moment(START + 600)}
    assert import_store(store, base).imported == 0


def test_events_of_an_agent_that_is_set_aside_are_too(store: Store, base: Path) -> None:
    store.agents.save(REVIEWER, role="somebody else")
    report = import_store(store, base)
    assert events(store, REVIEWER) == []
    counts = report.agents[REVIEWER]["events"]
    assert (counts.read, counts.imported, counts.set_aside, counts.merged) == (5, 0, 4, 1)


def test_an_event_that_the_store_refuses_is_set_aside_alone(url: str, base: Path) -> None:
    lines = [event("progress", number, START, type="x", delta="x" * size) for number, size in enumerate((1, 5000, 1))]
    logs(base, RUNNER, "progress").write_text("".join(lines))
    with Store.open(Settings(url=SecretStr(url), max_payload=4000)) as store:
        report = import_store(store, base)
        assert [row["seq"] for row in events(store, RUNNER)] == [0, 2]
        assert [(note.table, note.key) for note in report.set_aside] == [("events", f"{RUNNER}/events/progress 1")]


def test_more_events_than_a_batch_holds_come_in_their_order(store: Store, base: Path) -> None:
    told: list[tuple[str, int, int]] = []
    text = "".join(event("progress", number, START + 100 + number // 7, type="x") for number in range(450))
    logs(base, RUNNER, "progress").write_text(text)
    import_store(store, base, progress=lambda *news: told.append(news))
    assert [row["seq"] for row in events(store, RUNNER)] == list(range(450))
    assert ("events", 5 + 450, 5 + 450) in told


def test_two_imports_at_once_bring_every_event_once(store: Store, base: Path) -> None:
    logs(base, RUNNER, "progress").write_text("".join(event("progress", n, START, type="x") for n in range(300)))
    reports: list[Any] = []
    threads = [threading.Thread(target=lambda: reports.append(import_store(store, base))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reports) == 4
    assert sum(report.counts["events"].imported for report in reports) == len(events(store)) == 306


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample is not at hand")
def test_the_events_of_the_sample_are_known(store: Store) -> None:
    report = import_store(store, SAMPLE)
    found = events(store)
    assert len(found) == 624
    assert Counter(row["agent_id"] for row in found) == DISTINCT
    counts = report.counts["events"]
    assert (counts.read, counts.imported, counts.merged, counts.set_aside) == (652, 624, 28, 0)
    reviewer = Counter(row["channel"] for row in found if row["agent_id"] == "agt-01KQ5V3S7JZQ8M2W9T4R6X1B0C")
    assert reviewer == {"progress": 34, "control": 4, "monitor": 67}
    resumed = [row["seq"] for row in found if row["agent_id"] == "agt-01KQ5V3WAN3S7V9Y5B2D4F6H8K"]
    assert len(set(resumed)) < len(resumed)
    assert {row["severity"] for row in found} == {"info", "warning"}
    assert import_store(store, SAMPLE).imported == 0
    assert events(store) == found


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the sample is not at hand")
def test_a_sample_that_grows_adds_what_is_new(store: Store, tmp_path: Path) -> None:
    agent_id = "agt-01KQ5V3WAN3S7V9Y5B2D4F6H8K"
    grown = tmp_path / "grown"
    shutil.copytree(SAMPLE / agent_id, grown / agent_id)
    log = grown / agent_id / "events" / "progress.log"
    log.chmod(0o644)
    whole = log.read_bytes()
    log.write_bytes(b"".join(whole.splitlines(keepends=True)[:5]))
    assert import_store(store, grown).counts["events"].imported == 39 - 9
    log.write_bytes(whole)
    assert import_store(store, grown).counts["events"].imported == 9
    assert len(events(store)) == DISTINCT[agent_id]


def test_both_databases_get_equal_events(base: Path, tmp_path: Path, postgres_database: str) -> None:
    source = SAMPLE if SAMPLE.is_dir() else base
    ensure_migrations(postgres_database)
    with Store.open(f"sqlite:///{tmp_path}/other.sqlite") as sqlite, Store.open(postgres_database) as postgres:
        for store in (sqlite, postgres):
            import_store(store, source)
        assert events(sqlite) == events(postgres) != []
