"""Messages of an AgentOS registry come into their sessions in order and once; users are those that sessions name."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import select

from agentos_store import Settings, Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.importers.agentos.load import import_registry
from agentos_store.importers.run import one_by_one
from agentos_store.importers.writing import Outcome
from agentos_store.models import metadata
from agentos_store.operation import Blocking, F, Repository, reads_together
from agentos_store.testing.registries import make_registry

Made = tuple[Path, dict[str, Any]]
Small = Callable[..., Path]
Rows = list[dict[str, Any]]


class Dump(Repository[F]):
    """Users, sessions and messages."""

    name = "dump"

    @reads_together
    def all(self, session: Session) -> dict[str, Rows]:
        found: dict[str, Rows] = {}
        for name in ("users", "sessions", "messages"):
            table = metadata.tables[name]
            everything: Statement[Any] = Statement(select(table).order_by(*table.primary_key.columns), lasting=False)
            names = table.columns.keys()
            found[name] = [dict(zip(names, row, strict=True)) for row in session.all(everything)]
        return found


def dump(store: Store) -> dict[str, Rows]:
    return store.bind(Dump[Blocking]).all()


def source_messages(path: Path) -> dict[str, Rows]:
    """The messages by session, in the order of their rows."""
    found: dict[str, Rows] = {}
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '%_messages'")]
        for table in sorted(tables):
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY rowid"):
                found.setdefault(row["session_id"], []).append(dict(row))
    return found


def test_each_session_has_its_messages_in_their_order_and_counts_them(store: Store, made: Made) -> None:
    path, manifest = made
    first = import_registry(store, path)
    tables = dump(store)
    second = import_registry(store, path)
    assert (second.imported, dump(store)) == (0, tables)
    for report in (first, second):
        counts, expected = report.counts["messages"], manifest["expected"]["messages"]
        assert (counts.read, counts.imported + counts.repeated) == (expected["rows"], expected["imported"])
        assert (counts.set_aside, counts.repaired) == (expected["set_aside"], expected["repaired"])
    there = source_messages(path)
    kept = {row["id"]: row for row in tables["messages"]}
    for session in tables["sessions"]:
        mine = [row for row in there.get(session["id"], []) if row["message_id"] in kept]
        assert (session["message_count"], session["next_seq"]) == (len(mine), len(mine))
        assert (session["total_tokens"], session["total_cost"]) == (0, 0)
        rows = [kept[row["message_id"]] for row in mine]
        assert [row["seq"] for row in rows] == list(range(len(mine)))
        assert [row["content"] for row in rows] == [row["content"] for row in mine]
        assert [row["role"] for row in rows] == [str(row["role"]).casefold() for row in mine]
        assert all(session["updated_at"] >= row["created_at"] for row in rows)


def test_users_are_those_that_sessions_name(store: Store, small: Small) -> None:
    path = small(("UPDATE webui_sessions SET user_id = '用户' WHERE rowid = 1", ()))
    import_registry(store, path)
    tables = dump(store)
    assert [(row["id"], row["name"], row["quota_total"]) for row in tables["users"]] == [
        ("用户", "用户", 100_000),
        ("用户三", "用户三", 100_000),
    ]
    owners = [row["user_id"] for row in tables["sessions"] if row["channel"] == "webui"]
    assert owners == ["用户", "用户三"]
    assert "agentos" not in tables["sessions"][0]["metadata"]
    first = next(row for row in tables["sessions"] if row["user_id"] == "用户")
    assert tables["users"][0]["created_at"] == first["created_at"]


def test_a_user_that_can_be_none_stays_in_the_metadata(store: Store, small: Small) -> None:
    path = small(("UPDATE webui_sessions SET metadata = ?, user_id = ?", ('{"agentos": "mine"}', "two\nlines")))
    report = import_registry(store, path)
    rows = [row for row in dump(store)["sessions"] if row["channel"] == "webui"]
    assert rows
    for row in rows:
        assert (row["user_id"], row["metadata"]) == (None, {"agentos": "mine", "agentos_1": {"user_id": "two\nlines"}})
    assert len([note for note in report.repairs if "user_id" in note.why]) == len(rows)
    assert report.counts["users"].read == 0


def test_a_user_that_the_store_has_stays_as_it_is(store: Store, small: Small) -> None:
    path = small()
    import_registry(store, path)
    users = dump(store)["users"]
    report = import_registry(store, path)
    assert report.counts["users"].repeated == len(users)
    assert dump(store)["users"] == users


def test_a_registry_that_has_grown_brings_only_what_is_new(store: Store, small: Small) -> None:
    path = small()
    import_registry(store, path)
    before = dump(store)
    with closing(sqlite3.connect(path)) as source:
        session_id = source.execute("SELECT session_id FROM webui_sessions ORDER BY rowid").fetchone()[0]
        for number in range(3):
            values = (f"new-{number}", session_id, "user", f"neu {number}", f"2026-02-01T08:00:0{number}", "{}")
            source.execute("INSERT INTO webui_messages VALUES (?, ?, ?, ?, ?, ?)", values)
        source.commit()
    report = import_registry(store, path)
    assert report.imported == report.counts["messages"].imported == 3
    after = {row["id"]: row for row in dump(store)["messages"]}
    assert [after[row["id"]] for row in before["messages"]] == before["messages"]
    assert [after[f"new-{number}"]["seq"] for number in range(3)] == [4, 5, 6]


def test_a_message_whose_key_another_session_has_is_set_aside(store: Store, small: Small) -> None:
    path = small()
    import_registry(store, path)
    with closing(sqlite3.connect(path)) as source:
        ids = [row[0] for row in source.execute("SELECT session_id FROM webui_sessions ORDER BY rowid")]
        source.execute("UPDATE webui_messages SET session_id = ? WHERE rowid = 1", (ids[1],))
        source.commit()
    before = dump(store)
    report = import_registry(store, path)
    assert [note.why for note in report.set_aside] == ["another session of the store has a message with this key"]
    assert dump(store) == before


def test_a_message_that_the_store_refuses_costs_no_other(url: str, small: Small) -> None:
    path = small(("UPDATE webui_messages SET content = ? WHERE rowid = 2", ("x" * 2000,)))
    with Store.open(url, settings=Settings.load(max_payload=1024)) as store:
        report = import_registry(store, path)
        assert [(note.table, "content" in note.why) for note in report.set_aside] == [("webui_messages", True)]
        tables = dump(store)
        assert sum(row["message_count"] for row in tables["sessions"]) == len(tables["messages"])
        assert len(tables["messages"]) == report.counts["messages"].imported == report.counts["messages"].read - 1
        assert import_registry(store, path).imported == 0


def test_metadata_that_are_nested_too_deep_stay_as_text(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "source.sqlite"
    make_registry(path, flaws=False)
    with closing(sqlite3.connect(path)) as source:
        metadata_ = '{"' + "k" * 10 + '": ' + "[" * 600 + "]" * 600 + "}"
        source.execute("UPDATE webui_messages SET metadata = ? WHERE rowid = 2", (metadata_,))
        source.commit()
    report = import_registry(store, path)
    assert report.counts["messages"].repaired == 1
    assert report.set_aside == []
    kept = [row["metadata"] for row in dump(store)["messages"] if row["metadata"]]
    assert kept == [{"agentos": {"metadata": metadata_}}]


def test_a_batch_that_is_refused_is_written_one_by_one() -> None:
    class Item:
        repairs = ()

        def __init__(self, key: str) -> None:
            self.key = key

    written: list[str] = []

    def write(items: Any) -> Outcome:
        from agentos_store.errors import InvalidValueError

        if any(item.key == "bad" for item in items):
            raise InvalidValueError("content", "is bad")
        outcome = Outcome()
        outcome.imported = len(items)
        written.extend(item.key for item in items)
        return outcome

    careful = one_by_one(write, lambda item: ("messages", item.key))
    outcome = careful([Item("a"), Item("bad"), Item("b")])
    assert (outcome.imported, written) == (2, ["a", "b"])
    assert [(position, note.key) for position, note in outcome.refused.items()] == [(1, "bad")]
