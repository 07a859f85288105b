"""A database of chapter 14 comes in whole, once, and grows with its source."""

from __future__ import annotations

import datetime as dt
import json
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
from sqlalchemy import bindparam, select, update

from agentos_store import Store, ensure_migrations
from agentos_store.conversations.messages import MessageRepository
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import ConflictError, InvalidValueError, NotFoundError, StoreError
from agentos_store.importers.chapter14.database import open_agent_store
from agentos_store.importers.chapter14.keys import derived_ulid
from agentos_store.importers.chapter14.load import import_agent_store
from agentos_store.importers.problems import Problem
from agentos_store.importers.report import ImportReport
from agentos_store.models import metadata
from agentos_store.operation import Blocking, F, Repository, reads_together, writes
from agentos_store.testing.chapter14 import KINDS, Manifest, make_agent_store, save_message
from tests.importers.killing import kill_at

TABLES = ("users", "sessions", "messages", "tasks", "tool_call_records")

Rows = list[dict[str, Any]]


class Dump(Repository[F]):
    """Every row of the tables that an agent store fills, and a way to delete a session softly."""

    name = "dump"

    @reads_together
    def all(self, session: Session) -> dict[str, Rows]:
        found: dict[str, Rows] = {}
        for name in TABLES:
            table = metadata.tables[name]
            everything: Statement[Any] = Statement(select(table).order_by(*table.primary_key.columns), lasting=False)
            names = table.columns.keys()
            found[name] = [dict(zip(names, row, strict=True)) for row in session.all(everything)]
        return found

    @writes
    def delete(self, session: Session, session_id: str) -> None:
        table = metadata.tables["sessions"]
        deletion: Statement[Any] = Statement(
            update(table)
            .where(table.c.id == bindparam("key", type_=table.c.id.type))
            .values(deleted_at=bindparam("now", type_=table.c.deleted_at.type)),
            lasting=False,
        )
        session.execute(deletion, {"key": session_id, "now": session.now()})


def dump(store: Store) -> dict[str, Rows]:
    return store.bind(Dump[Blocking]).all()


def history(store: Store, session_id: str) -> list[dict[str, Any]]:
    return list(store.bind(MessageRepository[Blocking]).history(session_id, last=None))


def assert_accounted(report: ImportReport) -> None:
    for counts in report.counts.values():
        assert counts.read == counts.imported + counts.repeated + counts.set_aside + counts.merged


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints=ON")
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def flawed(tmp_path: Path) -> tuple[Path, Manifest]:
    """A database with every flaw."""
    path = tmp_path / "flawed" / "agent_store.db"
    path.parent.mkdir()
    return path, make_agent_store(path)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A database without flaws."""
    path = tmp_path / "clean" / "agent_store.db"
    path.parent.mkdir()
    make_agent_store(path, flaws=False)
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
    first = import_agent_store(store, path)
    there = dump(store)
    second = import_agent_store(store, path)
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
    for kind, table in zip(KINDS, TABLES, strict=True):
        assert len(there[table]) == manifest.expected[kind].imported
    assert path.read_bytes() == raw
    assert list(path.parent.iterdir()) == [path]


def test_a_database_without_flaws_needs_no_repair_but_the_reasons_of_failed_tasks(store: Store, clean: Path) -> None:
    report = import_agent_store(store, clean)
    assert {(note.table, note.why.partition(":")[0]) for note in report.repairs} == {("tasks", "exit_reason")}
    assert report.set_aside == []


def test_counters_are_those_of_the_messages_and_times_those_of_the_source(store: Store, clean: Path) -> None:
    import_agent_store(store, clean)
    tables = dump(store)
    with closing(sqlite3.connect(clean)) as source:
        source.row_factory = sqlite3.Row
        sessions = {row["id"]: dict(row) for row in source.execute("SELECT * FROM sessions")}
        messages = [dict(row) for row in source.execute("SELECT * FROM messages ORDER BY id")]
    assert sessions
    for row in tables["sessions"]:
        there = sessions[row["id"]]
        mine = [message for message in messages if message["session_id"] == row["id"]]
        assert (row["message_count"], row["next_seq"], row["generation"]) == (len(mine), len(mine), 0)
        assert row["total_tokens"] == there["total_tokens"] == sum(message["token_count"] for message in mine)
        assert row["total_cost"] == Decimal("0.3")
        assert (row["title"], row["model"], row["status"]) == (there["title"], "gpt-4o-mini", "active")
        assert row["user_id"] == there["user_id"]
        newest = max(message["created_at"] for message in mine)
        assert row["updated_at"] == dt.datetime.fromisoformat(newest).replace(tzinfo=dt.UTC)
        assert [turn["content"] for turn in history(store, row["id"])] == [message["content"] for message in mine]
        places = sorted(message["seq"] for message in tables["messages"] if message["session_id"] == row["id"])
        assert places == list(range(len(mine)))


def test_messages_keep_their_calls_and_logs_find_their_messages(store: Store, clean: Path) -> None:
    import_agent_store(store, clean)
    tables = dump(store)
    calling = [row for row in tables["messages"] if row["tool_calls"]]
    assert [row["tool_calls"] for row in calling] == [
        [{"name": "search", "arguments": {"query": "Agent components"}}]
    ] * len(calling)
    assert {row["tool_names"][0] for row in calling} == {"search"}
    logs = {row["tool_call_id"]: row for row in tables["tool_call_records"]}
    done, failed, null = (logs[f"log-{number}"] for number in (1, 2, 3))
    assert (done["state"], done["is_error"], done["duration_ms"], done["has_output"]) == (
        "completed",
        False,
        350.5,
        True,
    )
    assert (failed["state"], failed["is_error"], failed["error_message"]) == ("failed", True, "超时")
    assert (failed["output"], failed["has_output"]) == (None, False)
    assert (null["output"], null["has_output"]) == (None, True)
    assert (done["ordinal"], failed["ordinal"]) == (0, 1)
    assert done["message_id"] == failed["message_id"] in {row["id"] for row in calling}
    assert null["message_id"] is None


def test_tasks_wait_paused_unless_their_status_is_kept(store: Store, other_store: Store, clean: Path) -> None:
    import_agent_store(store, clean)
    import_agent_store(other_store, clean, keep_status=True)
    paused, kept = ({row["task_id"]: row for row in dump(each)["tasks"]} for each in (store, other_store))
    words = {"pending": "paused", "running": "paused"}
    assert {row["status"] for row in kept.values()} == {
        *("pending", "running", "paused", "completed", "failed", "cancelled")
    }
    for key, row in kept.items():
        word, here = row["status"], paused[key]
        assert here["status"] == words.get(word, word)
        assert here["metadata"] == ({"chapter14": {"status": word}} if word in words else {})
        assert (here["task_type"], here["title"], here["payload"]) == (
            "summarize",
            f"summarize {key}",
            {"max_length": 200},
        )
        assert (here["priority"], here["max_attempts"]) == (1, 4)
        assert here["attempts"] == (0 if word in {"pending", "cancelled"} else 1)
        assert (here["exit_reason"] is None) is (word != "failed")
        assert (here["completed_at"] is None) is (word not in {"completed", "failed", "cancelled"})
        assert here["result"] == ({"summary": "本次对话"} if word == "completed" else None)
        assert here["duration"] == (7.0 if word in {"completed", "failed"} else None)


def test_users_keep_their_quotas_and_preferences(store: Store, flawed: tuple[Path, Manifest]) -> None:
    import_agent_store(store, flawed[0])
    users = {row["id"]: row for row in dump(store)["users"]}
    alice, second = users["user000000000000"], users["user000000000001"]
    assert (alice["name"], alice["email"], alice["quota_total"]) == ("Alice", "user0@example.com", 100_000)
    assert (second["email"], second["quota_used"], second["preferences"]) == (None, 1500, {"theme": "dark"})
    others = [row for row in users.values() if row["name"] == "Flawed"]
    assert {"chapter14": {"email": "user0@example.com"}} in [row["preferences"] for row in others]
    assert {"chapter14": {"preferences_json": "{'theme': 'dark'}"}} in [row["preferences"] for row in others]


def test_the_larger_of_two_token_counts_is_kept(store: Store, clean: Path) -> None:
    with open_agent_store(clean) as source:
        more, fewer, right = (item.id for item in source.sessions() if not isinstance(item, Problem))
    change(
        clean,
        f"UPDATE sessions SET total_tokens = 1000 WHERE id = '{more}'",
        f"UPDATE sessions SET total_tokens = 3 WHERE id = '{fewer}'",
    )
    report = import_agent_store(store, clean)
    found = {row["id"]: row["total_tokens"] for row in dump(store)["sessions"]}
    assert found == {more: 1000, fewer: 380, right: 380}
    assert [note.key for note in report.repairs if note.table == "sessions"] == [more, fewer]


def test_a_file_that_has_grown_brings_only_what_is_new(store: Store, clean: Path) -> None:
    import_agent_store(store, clean)
    before = dump(store)
    with closing(sqlite3.connect(clean, isolation_level=None)) as source:
        session_id = str(source.execute("SELECT id FROM sessions ORDER BY rowid").fetchone()[0])
        for number in range(3):
            save_message(source, session_id, "user", f"neu {number}", tokens=10)
    report = import_agent_store(store, clean)
    assert_accounted(report)
    assert {kind: counts.imported for kind, counts in report.counts.items()} == {
        **dict.fromkeys(KINDS, 0),
        "messages": 3,
    }
    after = dump(store)
    assert [turn["content"] for turn in history(store, session_id)][-3:] == ["neu 0", "neu 1", "neu 2"]
    (then,) = (row for row in before["sessions"] if row["id"] == session_id)
    (now,) = (row for row in after["sessions"] if row["id"] == session_id)
    assert (now["message_count"], now["next_seq"]) == (then["message_count"] + 3, then["next_seq"] + 3)
    assert now["total_tokens"] == then["total_tokens"] + 30
    assert now["updated_at"] > then["updated_at"]
    kept = {row["id"]: row for row in after["messages"]}
    assert [kept[row["id"]] for row in before["messages"]] == before["messages"]
    assert import_agent_store(store, clean).imported == 0


def test_what_people_changed_in_the_store_stays(store: Store, clean: Path) -> None:
    import_agent_store(store, clean)
    session_id = dump(store)["sessions"][0]["id"]
    store.bind(MessageRepository[Blocking]).append(session_id, role="user", content="mine")
    there = dump(store)
    assert import_agent_store(store, clean).imported == 0
    assert dump(store) == there


def test_both_databases_get_equal_rows(
    flawed: tuple[Path, Manifest], other_store: Store, postgres_database: str
) -> None:
    ensure_migrations(postgres_database)
    with Store.open(postgres_database) as postgres:
        reports = [import_agent_store(store, flawed[0]) for store in (other_store, postgres)]
        assert reports[0] == reports[1]
        assert dump(other_store) == dump(postgres)


@pytest.mark.parametrize("kind", ["sessions", "messages", "tasks"])
def test_a_killed_run_is_repeated_and_ends_as_if_nothing_had_happened(
    url: str, kind: str, clean: Path, other_store: Store
) -> None:
    kill_at(import_agent_store, url, clean, kind)
    with Store.open(url) as store:
        import_agent_store(other_store, clean)
        assert dump(store) != dump(other_store)
        import_agent_store(store, clean)
        assert dump(store) == dump(other_store)


def test_imports_at_once_leave_what_one_would_have(store: Store, url: str, clean: Path, other_store: Store) -> None:
    def run(_: int) -> int:
        with Store.open(url) as own:
            try:
                return import_agent_store(own, clean).imported
            except ConflictError:
                return 0

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(run, range(4))) > 0
    import_agent_store(store, clean)
    import_agent_store(other_store, clean)
    assert dump(store) == dump(other_store)


def test_more_messages_than_a_batch_holds_keep_their_order(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "agent_store.db"
    ids = make_agent_store(path, flaws=False, sessions=2).session_ids
    with closing(sqlite3.connect(path, isolation_level=None)) as source:
        source.execute("BEGIN")
        for number in range(450):
            save_message(source, ids[number % 2], "user", str(number), tokens=1)
        source.execute("COMMIT")
    import_agent_store(store, path)
    for place, session_id in enumerate(ids):
        said = [turn["content"] for turn in history(store, session_id)][6:]
        assert said == [str(number) for number in range(450) if number % 2 == place]


def test_messages_of_a_session_that_was_deleted_in_the_store_are_set_aside(store: Store, clean: Path) -> None:
    with open_agent_store(clean) as source:
        session_id = next(item.id for item in source.sessions() if not isinstance(item, Problem))
    import_agent_store(store, clean)
    with closing(sqlite3.connect(clean, isolation_level=None)) as source_file:
        save_message(source_file, session_id, "user", "too late")
    store.bind(Dump[Blocking]).delete(session_id)
    report = import_agent_store(store, clean)
    assert_accounted(report)
    assert [note.why for note in report.set_aside] == ["its session was set aside, or was deleted in the store"]


def test_a_full_text_index_beside_the_messages_is_passed_over(store: Store, clean: Path) -> None:
    change(
        clean,
        "CREATE VIRTUAL TABLE messages_fts USING fts5(content, content='messages', content_rowid='id')",
        "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)",
        "INSERT INTO notes (text) VALUES ('mine')",
    )
    report = import_agent_store(store, clean)
    assert (report.no_place, report.set_aside) == ({"notes": 1}, [])


def test_what_is_no_agent_store_is_refused(other_store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        import_agent_store(other_store, tmp_path / "none.db")
    text, other = tmp_path / "text.db", tmp_path / "other.db"
    text.write_text("messages: none")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE messages (id INTEGER)")
    for path in (text, other, tmp_path):
        with pytest.raises(InvalidValueError):
            import_agent_store(other_store, path)


def test_a_file_that_is_written_to_meanwhile_is_told_of(other_store: Store, clean: Path) -> None:
    def progress(kind: str, done: int, total: int) -> None:
        change(clean, "UPDATE users SET name = name || '!'")

    with pytest.raises(ConflictError):
        import_agent_store(other_store, clean, progress=progress)
    assert_accounted(import_agent_store(other_store, clean))


def test_a_log_beside_the_file_is_read_and_left_alone(other_store: Store, clean: Path) -> None:
    with closing(sqlite3.connect(clean, isolation_level=None)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("UPDATE users SET name = 'from the log' WHERE id = 'user000000000000'")
        before = {path.name: path.read_bytes() for path in clean.parent.iterdir() if not path.name.endswith("-shm")}
        assert any(name.endswith("-wal") for name in before)
        import_agent_store(other_store, clean)
        after = {path.name: path.read_bytes() for path in clean.parent.iterdir() if not path.name.endswith("-shm")}
    assert after == before
    assert dump(other_store)["users"][0]["name"] == "from the log"


def test_rows_of_a_table_without_keys_come_in_once(store: Store, clean: Path) -> None:
    change(
        clean,
        "CREATE TABLE copies AS SELECT * FROM messages UNION ALL SELECT * FROM messages WHERE id = 1",
        "DROP TABLE messages",
        "ALTER TABLE copies RENAME TO messages",
    )
    report = import_agent_store(store, clean)
    assert_accounted(report)
    assert [(note.table, note.why) for note in report.set_aside] == [("messages", "an earlier row has the same id")]


@pytest.mark.parametrize("place", range(20))
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
        assert_accounted(import_agent_store(other_store, damaged))
    assert damaged.read_bytes() == raw
    assert_accounted(import_agent_store(other_store, path))
    assert import_agent_store(other_store, path).imported == 0
    assert set(manifest.session_ids) <= {row["id"] for row in dump(other_store)["sessions"]}
    for row in dump(other_store)["sessions"]:
        assert row["message_count"] == row["next_seq"] == len(history(other_store, row["id"]))


def test_a_derived_key_is_a_ulid_of_its_time_and_of_nothing_that_changes() -> None:
    moment = dt.datetime(2026, 6, 19, 18, 27, tzinfo=dt.UTC)
    key = derived_ulid(moment, "session", "1")
    assert key == derived_ulid(moment, "session", "1")
    assert len({key, derived_ulid(moment, "session", "2"), derived_ulid(moment, "sessio", "n1")}) == 3
    assert len(key) == 26
    assert key < derived_ulid(moment + dt.timedelta(milliseconds=1), "session", "1")


def test_exactly_what_the_tool_said_comes_back(store: Store, clean: Path) -> None:
    said = '{"b": 1e16, "a": -0.0, "n": null, "z": "\\u0000\\ud83d"}'
    with closing(sqlite3.connect(clean, isolation_level=None)) as source:
        source.execute("UPDATE tool_logs SET output_json = ?, input_json = ?", (said, said))
    import_agent_store(store, clean)
    for row in dump(store)["tool_call_records"]:
        for column in ("input", "output"):
            assert json.dumps(row[column]) == json.dumps(json.loads(said))
