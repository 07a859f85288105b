"""An AIOS database comes in whole, once, and grows with its source."""

from __future__ import annotations

import datetime as dt
import random
import shutil
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select

from agentos_store import Store, ensure_migrations
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import ConflictError, InvalidValueError, NotFoundError, StoreError
from agentos_store.importers.aios.database import AiosDatabase
from agentos_store.importers.aios.load import import_aios
from agentos_store.importers.problems import Problem
from agentos_store.importers.report import ImportReport
from agentos_store.models import metadata
from agentos_store.operation import Blocking, F, Repository, reads_together, writes
from agentos_store.testing.aios import KINDS, START, STATS_KEY, Manifest, insert, make_aios_database
from tests.importers.killing import kill_at

TABLES = ("agents", "tasks", "sessions", "contexts", "events")
"""By kind, in the order of the importer."""

OURS = {"position", "transaction_id"}
"""What the database draws by itself."""

Rows = list[dict[str, Any]]


class Dump(Repository[F]):
    """Every row of the tables that AIOS fills, and a way to empty one."""

    name = "dump"

    @reads_together
    def all(self, session: Session) -> dict[str, Rows]:
        found: dict[str, Rows] = {}
        for name in TABLES:
            table = metadata.tables[name]
            everything: Statement[Any] = Statement(select(table).order_by(*table.primary_key.columns), lasting=False)
            names = table.columns.keys()
            rows = [dict(zip(names, row, strict=True)) for row in session.all(everything)]
            found[name] = [{key: value for key, value in row.items() if key not in OURS} for row in rows]
        return found

    @writes
    def empty(self, session: Session, name: str) -> None:
        statement: Statement[Any] = Statement(delete(metadata.tables[name]), lasting=False)
        session.execute(statement)


def dump(store: Store) -> dict[str, Rows]:
    return store.bind(Dump[Blocking]).all()


def by_key(rows: Rows, key: str) -> dict[str, dict[str, Any]]:
    return {row[key]: row for row in rows}


def moment(seconds: float) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=round(Decimal(repr(seconds)) * 1_000_000))


def assert_accounted(report: ImportReport) -> None:
    for counts in report.counts.values():
        assert counts.read == counts.imported + counts.repeated + counts.set_aside + counts.merged


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def flawed(tmp_path: Path) -> tuple[Path, Manifest]:
    """A database with every flaw."""
    path = tmp_path / "flawed" / "aios.db"
    path.parent.mkdir()
    return path, make_aios_database(path)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A database without flaws."""
    path = tmp_path / "clean" / "aios.db"
    path.parent.mkdir()
    make_aios_database(path, flaws=False)
    return path


@pytest.fixture
def other_store(sqlite_template: Path, tmp_path: Path) -> Iterator[Store]:
    """One more empty store, on SQLite."""
    path = shutil.copy(sqlite_template, tmp_path / "other.sqlite")
    with Store.open(f"sqlite:///{path}") as opened:
        yield opened


def test_every_row_arrives_or_is_accounted_for_and_a_second_run_changes_nothing(
    store: Store, flawed: tuple[Path, Manifest]
) -> None:
    path, manifest = flawed
    raw = path.read_bytes()
    first = import_aios(store, path)
    there = dump(store)
    second = import_aios(store, path)
    assert dump(store) == there
    assert second.imported == 0
    for report in (first, second):
        assert_accounted(report)
        assert list(report.counts) == list(KINDS)
        for kind in KINDS:
            counts, expected = report.counts[kind], manifest.expected[kind]
            assert (counts.read, counts.imported + counts.repeated, counts.set_aside, counts.repaired) == (
                expected.rows,
                expected.imported,
                expected.set_aside,
                expected.repaired,
            ), kind
    assert first.set_aside == second.set_aside
    assert first.repairs == second.repairs
    for kind, table in zip(KINDS, TABLES, strict=True):
        assert len(there[table]) == manifest.expected[kind].imported
    assert path.read_bytes() == raw
    assert list(path.parent.iterdir()) == [path]


def test_a_clean_database_needs_no_repair_but_reasons_and_redaction(store: Store, clean: Path) -> None:
    report = import_aios(store, clean)
    assert {(note.table, note.why.partition(":")[0]) for note in report.repairs} == {
        ("task_history", "exit_reason"),
        ("agent_states", "stats_json"),
    }
    assert report.set_aside == []


def test_agents_keep_what_they_are_and_find_their_last_tasks(store: Store, clean: Path) -> None:
    import_aios(store, clean)
    agents = by_key(dump(store)["agents"], "agent_id")
    coder, analyst = agents["coder_1"], agents["analyst_1"]
    assert (coder["role"], coder["goal"], coder["backstory"]) == (
        "coder",
        "Write clean code",
        "Expert Python developer",
    )
    assert (coder["template_id"], coder["session_id"], coder["lineage"]) == (None, None, [])
    assert coder["stats"] == {"tasks_completed": 10, "success_rate": 0.9}
    assert coder["last_task_id"] == "task_coder_1_0_3"
    assert (analyst["goal"], analyst["last_task_id"]) == ("分析日志", None)
    assert {key: row["state"] for key, row in agents.items()} == {
        "coder_1": "idle",
        "analyst_1": "busy",
        "monitor_1": "failed",
        "old_1": "archived",
    }
    assert coder["created_at"] == moment(START + 1.000123)
    assert coder["updated_at"] == coder["created_at"] + dt.timedelta(seconds=60)


def test_secrets_in_statistics_are_redacted_unless_they_are_to_be_kept(
    store: Store, other_store: Store, clean: Path
) -> None:
    import_aios(store, clean)
    import_aios(other_store, clean, keep_secrets=True)
    redacted, kept = (by_key(dump(each)["agents"], "agent_id")["monitor_1"]["stats"] for each in (store, other_store))
    assert (redacted["api_key"], redacted["success_rate"]) == ("[redacted]", 0.9)
    assert kept["api_key"] == STATS_KEY


def test_tasks_have_their_urgency_duration_and_reason(store: Store, other_store: Store, clean: Path) -> None:
    import_aios(store, clean)
    import_aios(other_store, clean, keep_status=True)
    tasks, kept = (by_key(dump(each)["tasks"], "task_id") for each in (store, other_store))
    pending, running, completed, failed = (tasks[f"task_coder_1_0_{place}"] for place in range(4))
    assert [row["priority"] for row in (pending, running, completed, failed)] == [-10, 0, 10, 20]
    assert [row["status"] for row in (pending, running, completed, failed)] == [
        "paused",
        "paused",
        "completed",
        "failed",
    ]
    assert [row["attempts"] for row in (pending, running, completed, failed)] == [0, 1, 1, 1]
    assert [row["metadata"] for row in (pending, running, completed, failed)] == [
        {"aios": {"status": "pending"}},
        {"aios": {"status": "running"}},
        {},
        {},
    ]
    assert (completed["title"], completed["task_type"]) == ("code task_coder_1_0_2", "code")
    assert (completed["agent_id"], completed["result"], completed["duration"]) == ("coder_1", {"output": "成功"}, 10.5)
    assert (failed["error_message"], failed["exit_reason"]) == ("超时", "超时")
    assert failed["duration"] == pytest.approx(1.000123)
    silent = tasks["task_coder_1_1_3"]
    assert (silent["status"], silent["error_message"], silent["exit_reason"]) == ("failed", None, "(not recorded)")
    assert [kept[f"task_coder_1_0_{place}"]["status"] for place in range(2)] == ["pending", "running"]


def test_contexts_belong_to_their_agents_and_sessions_and_expire(store: Store, clean: Path) -> None:
    import_aios(store, clean)
    tables = dump(store)
    contexts = by_key(tables["contexts"], "context_id")
    past, ahead, forever = (contexts[f"ctx_coder_1_{key}"] for key in ("0_0", "0_1", "1_0"))
    assert past["context_data"] == {
        "current_task": "refactor",
        "variables": {"x": 1, "阈值": 1e16},
        "token": STATS_KEY,
    }
    assert (past["agent_id"], past["session_id"], past["expires_at"]) == (
        "coder_1",
        "session_coder_1_0",
        moment(START + 3600),
    )
    assert (ahead["session_id"], ahead["expires_at"]) == (None, moment(4_000_000_000.5))
    assert forever["expires_at"] is None
    shown = {context.context_id for context in store.contexts.list(agent_id="coder_1").items}
    assert shown == {"ctx_coder_1_0_1", "ctx_coder_1_1_0", "ctx_coder_1_1_1"}
    session = by_key(tables["sessions"], "id")["session_coder_1_0"]
    assert (session["channel"], session["created_at"]) == ("aios", past["created_at"])


def test_events_keep_their_keys_order_and_data(store: Store, clean: Path) -> None:
    import_aios(store, clean)
    events = dump(store)["events"]
    with closing(sqlite3.connect(clean)) as source:
        there = list(source.execute("SELECT event_id, severity, timestamp FROM events ORDER BY rowid"))
    assert [(row["event_id"], row["severity"], row["created_at"]) for row in events] == [
        (key, severity, moment(seconds)) for key, severity, seconds in there
    ]
    first = events[0]
    assert (first["event_type"], first["agent_id"], first["channel"], first["seq"]) == (
        "task_start",
        "coder_1",
        None,
        None,
    )
    assert (first["data"], first["task_id"]) == ({"task_id": "task_1", "description": "Refactor code"}, "task_1")


def test_what_hangs_on_an_agent_that_is_gone_comes_in_without_it(store: Store, flawed: tuple[Path, Manifest]) -> None:
    report = import_aios(store, flawed[0])
    tables = dump(store)
    (task,) = (row for row in tables["tasks"] if row["metadata"].get("aios", {}).get("agent_id") == "gone")
    assert task["agent_id"] is None
    assert [note.table for note in report.repairs if "'gone'" in note.why] == ["agent_states", "contexts"]
    # Events need no agent.
    assert [row["agent_id"] for row in tables["events"] if row["agent_id"] == "gone"] == ["gone"]


def test_an_agent_of_the_store_takes_in_what_names_it(store: Store, flawed: tuple[Path, Manifest]) -> None:
    store.agents.save("gone", role="was here")
    import_aios(store, flawed[0])
    tables = dump(store)
    assert len([row for row in tables["tasks"] if row["agent_id"] == "gone"]) == 1
    assert len([row for row in tables["contexts"] if row["agent_id"] == "gone"]) == 1
    assert by_key(tables["agents"], "agent_id")["gone"]["role"] == "was here"


def test_what_is_exact_comes_back_exactly(store: Store, clean: Path) -> None:
    said = '{"b": 1e16, "a": -0.0, "n": null, "z": "\\u0000\\ud83d"}'
    with closing(sqlite3.connect(clean, isolation_level=None)) as source:
        source.execute("UPDATE contexts SET context_data = ?", (said,))
        source.execute("UPDATE events SET data_json = ?", (said,))
        source.execute("UPDATE task_history SET result_json = ?", (said,))
    import_aios(store, clean)
    tables = dump(store)
    values = [row["context_data"] for row in tables["contexts"]]
    values += [row["data"] for row in tables["events"]] + [row["result"] for row in tables["tasks"]]
    assert {repr(value) for value in values} == {repr({"b": 1e16, "a": -0.0, "n": None, "z": "\0\ud83d"})}


def test_a_file_that_has_grown_brings_only_what_is_new(store: Store, clean: Path) -> None:
    import_aios(store, clean)
    before = dump(store)
    with closing(sqlite3.connect(clean, isolation_level=None)) as source:
        now = START + 5000
        insert(
            source,
            "agent_states",
            {"agent_id": "new_1", "role": "x", "state": "idle", "created_at": now, "updated_at": now}
            | {"last_task_id": "new_task"},
        )
        insert(
            source,
            "task_history",
            {"task_id": "new_task", "agent_id": "new_1", "task_type": "x", "status": "pending", "created_at": now},
        )
        insert(source, "events", {"event_id": "new_event", "event_type": "x", "timestamp": now})
        source.execute("UPDATE agent_states SET goal = 'another' WHERE agent_id = 'coder_1'")
    report = import_aios(store, clean)
    assert_accounted(report)
    assert {kind: counts.imported for kind, counts in report.counts.items()} == {
        **dict.fromkeys(KINDS, 0),
        "agents": 1,
        "tasks": 1,
        "events": 1,
    }
    after = dump(store)
    assert by_key(after["agents"], "agent_id")["new_1"]["last_task_id"] == "new_task"
    for table in TABLES:
        assert [row for row in after[table] if row in before[table]] == before[table]
    assert import_aios(store, clean).imported == 0


def test_what_people_changed_in_the_store_stays(store: Store, clean: Path) -> None:
    import_aios(store, clean)
    store.agents.save("coder_1", goal="mine", last_task_id=None)
    there = dump(store)
    assert import_aios(store, clean).imported == 0
    assert dump(store) == there


def test_both_databases_get_equal_rows(
    flawed: tuple[Path, Manifest], other_store: Store, postgres_database: str
) -> None:
    ensure_migrations(postgres_database)
    with Store.open(postgres_database) as postgres:
        reports = [import_aios(store, flawed[0]) for store in (other_store, postgres)]
        assert reports[0] == reports[1]
        assert dump(other_store) == dump(postgres)


@pytest.mark.parametrize("kind", ["tasks"])
def test_a_killed_run_is_repeated_and_ends_as_if_nothing_had_happened(
    url: str, kind: str, clean: Path, other_store: Store
) -> None:
    kill_at(import_aios, url, clean, kind)
    with Store.open(url) as store:
        import_aios(other_store, clean)
        import_aios(store, clean)
        assert dump(store) == dump(other_store)


def test_imports_at_once_leave_what_one_would_have(store: Store, url: str, clean: Path, other_store: Store) -> None:
    def run(_: int) -> int:
        with Store.open(url) as own:
            try:
                return import_aios(own, clean).imported
            except ConflictError:
                return 0

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(run, range(4))) > 0
    import_aios(store, clean)
    import_aios(other_store, clean)
    there, wanted = dump(store), dump(other_store)
    assert [sorted(there[name], key=repr) for name in TABLES] == [sorted(wanted[name], key=repr) for name in TABLES]


def test_more_events_than_a_batch_holds_keep_their_order(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "aios.db"
    make_aios_database(path, flaws=False, rounds=0)
    with closing(sqlite3.connect(path, isolation_level=None)) as source:
        source.execute("BEGIN")
        for number in range(450):
            # Its clock goes back, its order does not.
            values = {"event_id": f"e{(number * 7919) % 450}", "event_type": "x", "timestamp": START - number}
            insert(source, "events", values)
        source.execute("COMMIT")
    assert import_aios(store, path).counts["events"].imported == 450
    assert [row["event_id"] for row in dump(store)["events"]] == [f"e{(number * 7919) % 450}" for number in range(450)]


def test_tables_of_others_have_no_place(store: Store, clean: Path) -> None:
    change(clean, "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)", "INSERT INTO notes (text) VALUES ('mine')")
    report = import_aios(store, clean)
    assert (report.no_place, report.set_aside) == ({"notes": 1}, [])


def test_what_is_no_database_of_aios_is_refused(other_store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        import_aios(other_store, tmp_path / "none.db")
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE events (event_id TEXT)")
    for path in (other, tmp_path):
        with pytest.raises(InvalidValueError):
            import_aios(other_store, path)


def test_a_database_that_is_written_to_meanwhile_is_told_of(other_store: Store, clean: Path) -> None:
    def progress(kind: str, done: int, total: int) -> None:
        change(clean, "UPDATE agent_states SET goal = goal || '!'")

    with pytest.raises(ConflictError):
        import_aios(other_store, clean, progress=progress)
    assert_accounted(import_aios(other_store, clean))


def test_a_log_beside_the_database_is_read_and_left_alone(other_store: Store, clean: Path) -> None:
    with closing(sqlite3.connect(clean, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("UPDATE agent_states SET goal = 'from the log' WHERE agent_id = 'coder_1'")
        before = {path.name: path.read_bytes() for path in clean.parent.iterdir() if not path.name.endswith("-shm")}
        assert any(name.endswith("-wal") for name in before)
        import_aios(other_store, clean)
        after = {path.name: path.read_bytes() for path in clean.parent.iterdir() if not path.name.endswith("-shm")}
    assert after == before
    assert by_key(dump(other_store)["agents"], "agent_id")["coder_1"]["goal"] == "from the log"


def test_a_database_in_use_is_read_as_it_was_at_one_moment(store: Store, clean: Path) -> None:
    with closing(sqlite3.connect(clean, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("UPDATE agent_states SET goal = 'before' WHERE agent_id = 'coder_1'")

        def progress(kind: str, done: int, total: int) -> None:
            writer.execute("UPDATE agent_states SET goal = 'later'")
            insert(writer, "events", {"event_id": f"late_{kind}", "event_type": "x", "timestamp": START})

        report = import_aios(store, clean, progress=progress)
        found = dump(store)
        assert {row["goal"] for row in found["agents"]} & {"before", "later"} == {"before"}
        assert not [row for row in found["events"] if row["event_id"].startswith("late_")]
        assert report.set_aside == []
        assert import_aios(store, clean).counts["events"].imported == len(report.counts)


def test_rows_of_a_table_without_keys_come_in_once(store: Store, clean: Path) -> None:
    change(
        clean,
        "CREATE TABLE copies AS SELECT * FROM events UNION ALL SELECT * FROM events WHERE event_id = 'evt_coder_1_0_0'",
        "DROP TABLE events",
        "ALTER TABLE copies RENAME TO events",
    )
    report = import_aios(store, clean)
    assert_accounted(report)
    assert [(note.table, note.why) for note in report.set_aside] == [("events", "an earlier row has the same event_id")]


def test_a_table_that_is_gone_costs_only_itself(store: Store, clean: Path) -> None:
    change(clean, "DROP TABLE agent_states")
    report = import_aios(store, clean)
    assert [(note.table, note.key) for note in report.set_aside] == [("agent_states", "*")]
    assert {kind: counts.imported > 0 for kind, counts in report.counts.items()} == {
        **dict.fromkeys(KINDS, True),
        "agents": False,
    }


@pytest.mark.parametrize("place", range(8))
def test_a_damaged_file_is_loaded_as_far_as_it_goes_and_the_intact_one_completes_it(
    place: int, other_store: Store, flawed: tuple[Path, Manifest], tmp_path: Path
) -> None:
    path, manifest = flawed
    raw = bytearray(path.read_bytes())
    chance = random.Random(place)
    if place % 2:
        del raw[chance.randrange(100, len(raw)) :]
    else:
        for _ in range(4):
            raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(raw)
    with suppress(StoreError):
        assert_accounted(import_aios(other_store, damaged))
    assert damaged.read_bytes() == raw
    assert_accounted(import_aios(other_store, path))
    assert import_aios(other_store, path).imported == 0
    with AiosDatabase(path) as source:
        wanted = {item.task_id for item in source.tasks() if not isinstance(item, Problem)}
    found = dump(other_store)
    assert wanted <= {row["task_id"] for row in found["tasks"]}
    assert manifest.expected["events"].imported <= len(found["events"])
