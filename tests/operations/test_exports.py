"""Exports: every row as plain JSON, of one moment, for whoever reads it without this library."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import stat
import struct
from pathlib import Path
from typing import Any

import pytest

from agentos_store import AlreadyExistsError, AsyncStore, InvalidValueError, Store
from agentos_store.operations.export import DOMAINS, export_lines, tables_of
from agentos_store.operations.moving.sources import snapshot
from agentos_store.operations.moving.tables import moved_table, moved_tables
from agentos_store.store.repositories import REPOSITORIES
from tests.operations.moving import EXACT_JSON, HOSTILE_TEXT, counts_of, fill_store


def read(folder: Path, table: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{table}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_table_belongs_to_one_domain_that_the_store_has() -> None:
    tables = [table for tables in DOMAINS.values() for table in tables]
    assert sorted(tables) == sorted(table.name for table in moved_tables())
    assert set(DOMAINS) - {"upkeep"} == set(REPOSITORIES) - {"search"}


def test_every_row_is_exported_as_it_is(store: Store, tmp_path: Path) -> None:
    fill_store(store)
    report = store.export(tmp_path / "out")
    counts = counts_of(store)
    assert report.rows == {table.name: counts[table.name] for table in moved_tables()}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {f"{name}.jsonl" for name in report.rows}
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o600}
    with snapshot(store._backend) as source:
        for table in moved_tables():
            found = read(tmp_path / "out", table.name)
            assert [list(row) for row in found] == [list(table.names)] * len(found)
            for row, expected in zip(found, source.rows(table), strict=True):
                assert [row[name] for name in table.names] == [
                    None if value is None else _plain(form.column_type, value)
                    for form, value in zip(table.forms, expected, strict=True)
                ]


def _plain(column_type: object, value: Any) -> object:
    if type(column_type).__name__ in {"ExactJSON", "JSONValue"}:
        return json.loads(value)
    if type(column_type).__name__ == "Float32Vector":
        packed = base64.b64decode(value)
        return list(struct.unpack(f"<{len(packed) // 4}f", packed))
    return value


def test_values_are_what_people_read(store: Store, tmp_path: Path) -> None:
    fill_store(store)
    store.export(tmp_path / "out", ["messages", "sessions", "kb_embeddings", "projects"])
    messages = read(tmp_path / "out", "messages")
    session = store.sessions.get(messages[0]["session_id"])
    assert messages[0]["cost"] == "0.000000001"
    found = next(each for each in read(tmp_path / "out", "sessions") if each["id"] == session.id)
    assert found["created_at"] == session.created_at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    assert any(EXACT_JSON in _parts(message["content"]) for message in messages)
    assert isinstance(read(tmp_path / "out", "kb_embeddings")[0]["embedding"][0], float)
    assert HOSTILE_TEXT in [each["description"] for each in read(tmp_path / "out", "projects")]


def _parts(content: Any) -> list[Any]:
    return [part.get("more") for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def test_whoever_stops_reading_gives_the_connection_back(store: Store) -> None:
    fill_store(store)
    lines = export_lines(store._backend)
    assert next(lines).startswith(b'{"table":"projects",')
    lines.close()
    store.close()


def test_lines_begin_with_their_table_and_hold_nothing_that_drives_a_terminal(sqlite_url: str) -> None:
    with Store.open(sqlite_url) as store:
        store.tasks.create(title="red \x9b31m \u202e right to left \u2028 line \x7f")
        (line,) = export_lines(store._backend, ["tasks"])
        assert line.startswith(b'{"table":"tasks",')
        assert line.decode().rstrip("\n").isprintable()
        assert json.loads(line)["title"] == store.tasks.list().items[0].title


def test_domains_and_tables_are_named_as_in_the_store() -> None:
    assert [table.name for table in tables_of(["audits", "task_audits", "leases"])] == [
        "task_audits", "task_audit_heads", "leases",
    ]  # fmt: skip
    assert {table.name for table in tables_of([])} == {table.name for table in moved_tables()}
    with pytest.raises(InvalidValueError, match="there are projects, tasks"):
        tables_of(["task"])
    # What lines begin with is no column's name.
    assert not [table.name for table in moved_tables() if "table" in table.names]


def test_a_directory_with_something_in_it_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(AlreadyExistsError):
        store.export(tmp_path / "full")
    with pytest.raises(AlreadyExistsError):
        store.export(tmp_path / "full" / "thesis.txt")
    with pytest.raises(InvalidValueError):
        store.export(tmp_path / "no" / "folder")
    (tmp_path / "empty").mkdir()
    store.export(tmp_path / "empty", ["leases"])
    assert sorted(each.name for each in tmp_path.iterdir() if "registry" not in each.name) == ["empty", "full"]


def test_an_export_that_fails_leaves_nothing(sqlite_template: Path, tmp_path: Path) -> None:
    def interrupt(table: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with Store.open(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'a.sqlite')}") as store:
        store.sessions.create(id="s")
        store.messages.append_many("s", [{"role": "user", "content": "x"}] * 1_000)
        with pytest.raises(KeyboardInterrupt):
            store.export(tmp_path / "out", progress=interrupt)
    assert [each.name for each in tmp_path.iterdir() if "out" in each.name] == []


def test_the_asynchronous_store_exports(url: str, tmp_path: Path) -> None:
    async def run() -> None:
        async with AsyncStore.open(url) as store:
            await store.tasks.create(title="t")
            report = await store.export(tmp_path / "out", ["tasks"])
            assert report.rows["tasks"] == 1

    asyncio.run(run())
    assert [each["title"] for each in read(tmp_path / "out", "tasks")] == ["t"]
    assert moved_table("tasks").name == "tasks"
