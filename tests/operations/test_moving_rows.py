"""What is moved, and in which form: told from the models, the same for both databases."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Table

from agentos_store import InvalidValueError, Store
from agentos_store.models import metadata
from agentos_store.operations.moving import rows
from agentos_store.operations.moving.facts import Era, Facts
from agentos_store.operations.moving.forms import sorted_text
from agentos_store.operations.moving.rows import Row, TableHash, in_batches, line_of, root_hash, row_of
from agentos_store.operations.moving.sources import snapshot
from agentos_store.operations.moving.tables import OF_THE_PLACE, STAYING, moved_table, moved_tables
from tests.operations.moving import fill_store

TASKS = moved_table("tasks")


def test_every_table_is_moved_or_said_to_stay() -> None:
    moved = [table.name for table in moved_tables()]
    assert sorted([*moved, *STAYING]) == sorted(metadata.tables)
    assert not {name for name, _ in OF_THE_PLACE} - set(moved)


@pytest.mark.parametrize("table", moved_tables(), ids=lambda table: table.name)
def test_every_column_is_moved_or_said_to_be_of_the_place(table: Any) -> None:
    staying = {column for name, column in OF_THE_PLACE if name == table.name}
    assert sorted([*table.names, *staying]) == sorted(column.name for column in table.table.columns)


def test_what_a_row_refers_to_is_written_before_it_or_filled_in_later() -> None:
    there: set[Table] = set()
    for table in moved_tables():
        late = {table.columns[i] for i in table.late}
        for key in table.table.foreign_key_constraints:
            assert key.referred_table in there or late & {element.parent for element in key.elements}
        there.add(table.table)


def task(**values: Any) -> list[Any]:
    """Return a row of tasks in its canonical form."""
    row: dict[str, Any] = dict.fromkeys(TASKS.names)
    return list((row | {"task_id": "t", "title": "天气", "priority": 1} | values).values())


def test_a_line_is_the_row_as_json() -> None:
    row = task(duration=1.0, metadata='{"a":1}', created_at="2026-10-21T09:30:00.000000Z")
    line = line_of(TASKS, row)
    assert line.startswith('["t","天气",null,'.encode())
    assert row_of(TASKS, line) == row


@pytest.mark.parametrize(
    "values",
    [
        {"title": 1},
        {"title": "a\0"},
        {"priority": 1.0},
        {"priority": True},
        {"priority": 2**63},
        {"duration": 1},
        {"metadata": "{"},
        {"metadata": '{"b":1,"a":1}'},
        {"metadata": '{"a": 1}'},
        {"metadata": "[" * 5000 + "]" * 5000},
        {"created_at": "2026-10-21T09:30:00Z"},
        {"created_at": "2026-13-21T09:30:00.000000Z"},
        {"created_at": 5},
    ],
    ids=lambda values: repr(values)[:30],
)
def test_a_line_with_a_value_that_the_column_cannot_have_is_refused(values: dict[str, Any]) -> None:
    line = rows._encode(task(**values)).encode()
    with pytest.raises(InvalidValueError):
        row_of(TASKS, line)


@pytest.mark.parametrize(
    "line", [b"", b"{}", b"[]", b"null", b'["t"]', b"\xff", b"[" * 100_000, b"1e999"], ids=lambda each: repr(each[:9])
)
def test_what_is_no_line_of_the_table_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidValueError):
        row_of(TASKS, line)


@pytest.mark.parametrize(
    ("table", "column", "good", "bad"),
    [
        ("sessions", "total_cost", "0.000000001", ["1e-9", "0.10", "-0", "01", "9223372036.854775808", "NaN", 1]),
        ("kb_embeddings", "embedding", "AACAPw==", ["AACAPw", "AACAPw==\n", "AAAAAA==", "", "AACA", "!!!!", 1]),
        ("memory_items", "auto_cleanup", True, [1, "true", 0]),
        ("events", "data", '{"b": 1e16}', [{"b": 1}, "\ud800", 1]),
    ],
)
def test_each_form_lets_only_its_own_way_of_writing_pass(
    table: str, column: str, good: object, bad: list[object]
) -> None:
    moved = moved_table(table)
    form = moved.forms[moved.names.index(column)]
    assert form.admit(good)
    assert [value for value in bad if form.admit(value)] == []


def test_json_of_ours_is_written_in_one_way_however_it_is_stored() -> None:
    assert (
        sorted_text('{"b": -0.0, "a": 1e16, "c": "-0.0 \\u0041"}') == '{"a":10000000000000000.0,"b":0.0,"c":"-0.0 A"}'
    )
    assert sorted_text("[-0.01,-0.0,-0.05e1]") == "[-0.01,0.0,-0.5]"
    assert sorted_text("[" * 400 + "]" * 400) == "[" * 400 + "]" * 400


def test_the_hash_of_a_table_does_not_depend_on_the_order_and_can_be_continued() -> None:
    lines = [b"a", b"b", b"c"]
    whole = TableHash().plus(lines)
    assert whole == TableHash().plus(lines[::-1]) == TableHash().plus(lines[:1]).plus(lines[1:])
    assert whole != TableHash().plus([b"a", b"b", b"d"])
    assert TableHash().plus([b"a", b"a"]) != TableHash()
    assert TableHash.of(whole.rows, whole.hex) == whole


def test_the_root_hash_depends_on_every_table() -> None:
    hashes = {table.name: TableHash() for table in moved_tables()}
    one = root_hash(hashes)
    assert root_hash(dict(reversed(hashes.items()))) == one
    assert root_hash(hashes | {"tasks": TableHash().plus([b"a"])}) != one
    assert root_hash(hashes | {"tasks": TableHash(1, 0)}) != one


def test_batches_are_bounded_in_bytes_and_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[Row]:
        while True:
            yield task(payload="x" * 10_000)

    assert len(next(in_batches(TASKS, endless())).rows) == 99
    monkeypatch.setattr(rows, "BATCH_ROWS", 7)
    assert len(next(in_batches(TASKS, endless())).rows) == 7
    monkeypatch.setattr(rows, "BATCH_BYTES", 1)
    assert len(next(in_batches(TASKS, endless())).rows) == 1


def test_rows_have_the_same_lines_on_both_databases(both: list[Store]) -> None:
    sqlite, postgresql = both
    for store in both:
        fill_store(store)
    with snapshot(sqlite._backend) as one, snapshot(postgresql._backend) as other:
        for name in ("project_repos", "users", "memory_items", "agent_documents", "contexts"):
            table = moved_table(name)
            # Keys and times are drawn.
            drawn = {
                i
                for i, column in enumerate(table.columns)
                if column.name.endswith(("_at", "until")) or (column.primary_key and name == "memory_items")
            }
            lines = [
                sorted(
                    line_of(table, [value for i, value in enumerate(row) if i not in drawn])
                    for batch in side.batches(table)
                    for row in batch.rows
                )
                for side in (one, other)
            ]
            assert lines[0] == lines[1]
            assert lines[0]


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_value_that_only_this_database_can_store_is_refused_with_its_row(store: Store, raw: Any) -> None:
    store.tasks.create(title="t", task_id="t-1")
    raw("UPDATE tasks SET duration = 9e999")
    with snapshot(store._backend) as source, pytest.raises(InvalidValueError, match=r"tasks \(t-1\)"):
        list(source.batches(TASKS))
    raw("UPDATE tasks SET duration = NULL, created_at = 'yesterday'")
    with snapshot(store._backend) as source, pytest.raises(InvalidValueError, match="tasks: time"):
        list(source.batches(TASKS))


def test_facts_come_back_from_json_and_others_are_refused() -> None:
    facts = Facts({"events": 5}, "order", (Era("sqlite", 0), Era("1/2", 3)))
    assert Facts.from_dict(facts.to_dict()) == facts
    good = facts.to_dict()
    for bad in (
        None,
        {},
        good | {"numbers": {"tasks": 1}},
        good | {"numbers": {"events": -1}},
        good | {"numbers": {"events": "1"}},
        good | {"order_id": 5},
        good | {"eras": [{"origin": "a"}]},
        good | {"eras": [5]},
    ):
        with pytest.raises(InvalidValueError):
            Facts.from_dict(bad)


def test_the_snapshot_is_of_one_moment_while_others_write(store: Store) -> None:
    store.tasks.create(title="before", task_id="a")
    with snapshot(store._backend) as source:
        batches = source.batches(TASKS)
        store.tasks.create(title="after", task_id="b")
        assert [row[0] for batch in batches for row in batch.rows] == ["a"]
        assert source.counts["tasks"] == 1


def test_amounts_and_times_travel_exactly(store: Store) -> None:
    store.sessions.create(id="s", budget=Decimal("0.000000001"))
    store.contexts.save("c", context_data=None, session_id="s", expires_at=dt.datetime(9999, 1, 1, tzinfo=dt.UTC))
    with snapshot(store._backend) as source:
        (batch,) = source.batches(moved_table("contexts"))
        assert b'"9999-01-01T00:00:00.000000Z"' in batch.lines[0]
        (batch,) = source.batches(moved_table("sessions"))
        assert b'"0.000000001"' in batch.lines[0]
