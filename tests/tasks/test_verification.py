from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from agentos_store import Store
from agentos_store.tasks import verification
from agentos_store.tasks.verification import Fault

Run = Callable[..., list[tuple[Any, ...]]]

TASKS = ("a-before", "m-target", "z-after")
TARGET = TASKS[1]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "BATCH", 3)


@pytest.fixture
def entries(store: Store) -> list[int]:
    """The numbers of the seven entries of the target, which lie between those of others."""
    for key in TASKS:
        store.tasks.create(title="t", task_id=key)
    numbers = []
    for number in range(7):
        for key in TASKS:
            made = store.audits.record(key, event_type=f"e{number}", payload={"n": number}, repo_id="r")
            assert made is not None
            if key == TARGET:
                numbers.append(made.audit_id)
    return numbers


def fault_of(store: Store) -> Fault:
    """The one fault, which the verification of the task and that of all tasks both find."""
    every, one = store.audits.verify(), store.audits.verify(TARGET)
    assert [fault.task_id for fault in every.faults] == [TARGET]
    assert one.faults == every.faults
    assert not one.ok
    assert not every.ok
    return every.faults[0]


def test_untouched_chains_verify(store: Store, entries: list[int]) -> None:
    found = store.audits.verify()
    assert (found.ok, found.chains, found.entries, found.faults) == (True, 3, 21, ())
    found = store.audits.verify(TARGET)
    assert (found.ok, found.chains, found.entries) == (True, 1, 7)


CHANGES = {
    "payload": "'{\"n\":30}'",
    "event_type": "'e3 '",
    "level": "'error'",
    "repo_id": "NULL",
    "decision_id": "'d'",
    "verdict_id": "'v'",
    "source_event_ts": "'2026-01-01T00:00:00.000000Z'",
    "supervisor_processed_at": "'2026-01-01T00:00:00.000000Z'",
    "created_at": "'2026-01-01T00:00:00.000001Z'",
    "row_hash": "'" + "1" * 64 + "'",
}


@pytest.mark.parametrize("column", CHANGES)
def test_a_changed_column_is_found_and_named(store: Store, entries: list[int], tamper: Run, column: str) -> None:
    tamper(f"UPDATE task_audits SET {column} = {CHANGES[column]} WHERE audit_id = ?", entries[3])
    fault = fault_of(store)
    assert (fault.kind, fault.audit_id) == ("changed", entries[3])


@pytest.mark.parametrize("index", [0, 3, 6])
def test_one_changed_byte_of_a_payload_is_found(store: Store, entries: list[int], tamper: Run, index: int) -> None:
    tamper(f"UPDATE task_audits SET payload = '{{\"n\": {index}}}' WHERE audit_id = ?", entries[index])
    fault = fault_of(store)
    assert (fault.kind, fault.audit_id) == ("changed", entries[index])


@pytest.mark.parametrize("value", ["CAST(x'7bff7d' AS TEXT)", "CAST(payload AS BLOB)", "7", "NULL"])
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_what_a_column_cannot_have_is_found(store: Store, entries: list[int], tamper: Run, value: str) -> None:
    tamper(f"UPDATE task_audits SET payload = {value} WHERE audit_id = ?", entries[3])
    fault = fault_of(store)
    assert (fault.kind, fault.audit_id) == ("changed", entries[3])


@pytest.mark.parametrize("column", ["created_at", "event_type", "row_hash", "prev_hash"])
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_text_that_is_none_is_found_in_any_column(store: Store, entries: list[int], tamper: Run, column: str) -> None:
    tamper(f"UPDATE task_audits SET {column} = CAST(x'ff' AS TEXT) WHERE audit_id = ?", entries[3])
    fault = fault_of(store)
    assert fault.kind == ("missing" if column == "prev_hash" else "changed")
    assert fault.audit_id == entries[3]


def test_a_changed_link_is_found(store: Store, entries: list[int], tamper: Run) -> None:
    tamper("UPDATE task_audits SET prev_hash = ? WHERE audit_id = ?", "1" * 64, entries[3])
    fault = fault_of(store)
    assert (fault.kind, fault.audit_id) == ("missing", entries[3])


@pytest.mark.parametrize("index", [0, 3, 5])
def test_a_removed_entry_is_found_by_the_one_after_it(
    store: Store, entries: list[int], tamper: Run, index: int
) -> None:
    tamper("DELETE FROM task_audits WHERE audit_id = ?", entries[index])
    fault = fault_of(store)
    assert (fault.kind, fault.audit_id) == ("missing", entries[index + 1])


@pytest.mark.parametrize("left", [6, 3, 0])
def test_a_cut_tail_is_found(store: Store, entries: list[int], tamper: Run, left: int) -> None:
    for number in entries[left:]:
        tamper("DELETE FROM task_audits WHERE audit_id = ?", number)
    fault = fault_of(store)
    assert (fault.kind, fault.audit_id) == ("cut", None)
    assert fault.detail.startswith(f"{7 - left} entries")


def test_a_removed_head_is_found(store: Store, entries: list[int], tamper: Run) -> None:
    tamper("DELETE FROM task_audit_heads WHERE task_id = ?", TARGET)
    fault = fault_of(store)
    assert (fault.kind, fault.audit_id) == ("headless", entries[0])


def test_every_head_removed_is_found_for_every_task(store: Store, entries: list[int], tamper: Run) -> None:
    tamper("DELETE FROM task_audit_heads")
    assert [(fault.task_id, fault.kind) for fault in store.audits.verify().faults] == [
        (key, "headless") for key in TASKS
    ]


@pytest.mark.parametrize("change", ["length = length - 1", "length = length + 1", "head_hash = prev"])
def test_a_changed_head_is_found(store: Store, entries: list[int], tamper: Run, change: str) -> None:
    tamper(f"UPDATE task_audit_heads SET {change} WHERE task_id = ?".replace("= prev", "= head_prev_hash"), TARGET)
    fault = fault_of(store)
    assert (fault.kind, fault.audit_id) == ("cut", None)


COPY = (
    "INSERT INTO task_audits (audit_id, task_id, level, event_type, payload, created_at, prev_hash, row_hash)"
    "{} SELECT ?, task_id, level, event_type, payload, created_at, ?, row_hash FROM task_audits WHERE audit_id = ?"
)


@pytest.mark.parametrize("number", [-(2**63), -5, 0])
def test_an_entry_put_in_before_the_first_is_found(
    store: Store, entries: list[int], tamper: Run, backend: str, number: int
) -> None:
    overriding = "" if backend == "sqlite" else " OVERRIDING SYSTEM VALUE"
    tamper(COPY.format(overriding), number, "f" * 64, entries[2])
    fault = fault_of(store)
    assert (fault.kind, fault.audit_id) == ("missing", number)


def test_an_entry_put_in_between_is_found(store: Store, entries: list[int], tamper: Run, backend: str) -> None:
    # The entry of another task makes room for it.
    for number in range(entries[2] + 1, entries[3]):
        tamper("DELETE FROM task_audits WHERE audit_id = ?", number)
    overriding = "" if backend == "sqlite" else " OVERRIDING SYSTEM VALUE"
    tamper(COPY.format(overriding), entries[2] + 1, "f" * 64, entries[2])
    found = store.audits.verify(TARGET).faults
    assert [(fault.kind, fault.audit_id) for fault in found] == [("missing", entries[2] + 1)]


def test_an_entry_put_in_at_the_end_is_found(store: Store, entries: list[int], tamper: Run, backend: str) -> None:
    overriding = "" if backend == "sqlite" else " OVERRIDING SYSTEM VALUE"
    ((head,),) = tamper("SELECT head_hash FROM task_audit_heads WHERE task_id = ?", TARGET)
    tamper(COPY.format(overriding), 2**63 - 1, head, entries[2])
    fault = fault_of(store)
    assert (fault.kind, fault.audit_id) == ("changed", 2**63 - 1)


def test_two_entries_that_changed_places_are_found(store: Store, entries: list[int], tamper: Run) -> None:
    for old, new in ((entries[2], 10**6), (entries[3], entries[2]), (10**6, entries[3])):
        tamper("UPDATE task_audits SET audit_id = ? WHERE audit_id = ?", new, old) if "sqlite" in str(
            store._backend.capabilities.backend
        ) else tamper(
            "WITH gone AS (DELETE FROM task_audits WHERE audit_id = ? RETURNING *) INSERT INTO task_audits"
            " OVERRIDING SYSTEM VALUE SELECT ?, task_id, repo_id, level, event_type, payload, decision_id,"
            " source_event_ts, supervisor_processed_at, verdict_id, created_at, prev_hash, row_hash FROM gone",
            old,
            new,
        )
    fault = fault_of(store)
    assert (fault.kind, fault.audit_id) == ("missing", entries[2])


def test_a_chain_whose_head_is_gone_takes_no_entry(store: Store, entries: list[int], tamper: Run) -> None:
    from agentos_store.errors import ConflictError

    tamper("DELETE FROM task_audit_heads WHERE task_id = ?", TARGET)
    for decision in (None, "d"):
        with pytest.raises(ConflictError) as caught:
            store.audits.record(TARGET, event_type="e", decision_id=decision)
        assert (caught.value.entity, caught.value.key) == ("audit chain", TARGET)


REFUSED = (sqlite3.IntegrityError, psycopg.errors.IntegrityConstraintViolation)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE task_audits SET level = 'error'",
        "UPDATE task_audits SET level = level WHERE audit_id = (SELECT min(audit_id) FROM task_audits)",
        "DELETE FROM task_audits",
        "DELETE FROM task_audits WHERE audit_id = (SELECT max(audit_id) FROM task_audits)",
    ],
)
def test_the_database_refuses_changes_past_the_library(
    store: Store, entries: list[int], raw: Run, statement: str
) -> None:
    with pytest.raises(REFUSED):
        raw(statement)
    assert store.audits.verify().ok


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
@pytest.mark.parametrize("statement", ["TRUNCATE task_audits", "TRUNCATE tasks CASCADE"])
def test_the_database_refuses_truncation(store: Store, entries: list[int], raw: Run, statement: str) -> None:
    with pytest.raises(REFUSED):
        raw(statement)
    assert store.audits.verify().ok


@pytest.mark.parametrize("backend", ["postgresql"], indirect=True)
def test_the_database_refuses_an_upsert(store: Store, entries: list[int], raw: Run) -> None:
    with pytest.raises(REFUSED):
        raw(COPY.format(" OVERRIDING SYSTEM VALUE") + " ON CONFLICT (audit_id) DO UPDATE SET level = 'error'",
            entries[3], "f" * 64, entries[3])  # fmt: skip


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("verb", ["INSERT OR REPLACE", "REPLACE"])
def test_the_database_refuses_a_replacement(store: Store, entries: list[int], raw: Run, verb: str) -> None:
    with pytest.raises(REFUSED):
        raw(COPY.format("").replace("INSERT", verb, 1), entries[3], "f" * 64, entries[3])
    assert store.audits.verify().ok


def test_deleting_the_task_past_the_library_takes_its_entries_along(store: Store, entries: list[int], raw: Run) -> None:
    raw("DELETE FROM tasks WHERE task_id = ?", TARGET)
    assert store.audits.count(task_id=TARGET) == 0
    assert fault_of(store).kind == "cut"


def test_a_permit_lets_the_entries_of_its_task_be_pruned(store: Store, entries: list[int], raw: Run) -> None:
    raw("INSERT INTO audit_pruning_permits (task_id) VALUES (?)", TARGET)
    with pytest.raises(REFUSED):
        raw("DELETE FROM task_audits WHERE task_id <> ?", TARGET)
    with pytest.raises(REFUSED):
        raw("UPDATE task_audits SET level = 'error' WHERE task_id = ?", TARGET)
    ((hash_,),) = raw("SELECT row_hash FROM task_audits WHERE audit_id = ?", entries[2])
    raw("DELETE FROM task_audits WHERE task_id = ? AND audit_id <= ?", TARGET, entries[2])
    raw("UPDATE task_audit_heads SET pruned_to = 3, pruned_hash = ? WHERE task_id = ?", hash_, TARGET)
    raw("DELETE FROM audit_pruning_permits")
    found = store.audits.verify(TARGET)
    assert (found.ok, found.entries) == (True, 4)
    store.audits.record(TARGET, event_type="e")
    assert store.audits.verify().ok
    with pytest.raises(REFUSED):
        raw("DELETE FROM task_audits WHERE task_id = ?", TARGET)


@pytest.mark.parametrize("batch", [1, 2, 6, 7, 8, 21])
def test_verification_does_not_depend_on_the_batch(
    store: Store, entries: list[int], tamper: Run, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(verification, "BATCH", batch)
    assert store.audits.verify().entries == 21
    tamper("DELETE FROM task_audits WHERE audit_id = ?", entries[6])
    found = store.audits.verify()
    assert (found.entries, found.chains) == (20, 3)
    assert [(fault.task_id, fault.kind) for fault in found.faults] == [(TARGET, "cut")]
