from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.errors import ConflictError, InvalidValueError
from agentos_store.migrate.triggers import ERASABLE
from agentos_store.operation import Blocking, Repository, writes
from agentos_store.tasks.erasure import erase_payloads
from agentos_store.tasks.models import TaskAudit
from agentos_store.tasks.trail import GENESIS, Entry, chained

Run = Callable[..., list[tuple[Any, ...]]]


class Erasing(Repository[Blocking]):
    """Erases, as ``forget`` does."""

    name = "erasing"

    @writes
    def erase(self, session: Session, task_id: str, number: int = 100, *holding: str) -> int:
        return erase_payloads(session, task_id, number, run_id=None, holding=holding)


@pytest.fixture
def erase(store: Store) -> Callable[..., int]:
    return store.bind(Erasing).erase


@pytest.fixture
def entries(store: Store) -> list[int]:
    """The numbers of four entries, the third of which has no payload."""
    store.tasks.create(title="t", task_id="t")
    made = [store.audits.record("t", event_type="e", payload=None if n == 2 else {"n": n}) for n in range(4)]
    return [entry.audit_id for entry in made if entry is not None]


def test_a_chain_with_erased_entries_verifies_and_counts_them(
    store: Store, entries: list[int], erase: Callable[..., int]
) -> None:
    assert [erase("t", 2), erase("t", 2), erase("t", 2)] == [2, 1, 0]
    found = store.audits.verify("t")
    assert (found.ok, found.entries, found.erased) == (True, 6, 3)
    assert [store.audits.get(number).payload for number in entries] == [None] * 4
    store.audits.record("t", event_type="later", payload=1)
    assert store.audits.verify().erased == 3


def test_only_the_payloads_that_hold_a_text_are_erased(
    store: Store, entries: list[int], erase: Callable[..., int]
) -> None:
    assert erase("t", 100, '"n":1', '"n":3') == 2
    assert [store.audits.get(number).payload for number in entries] == [{"n": 0}, None, None, None]
    assert store.audits.verify("t").erased == 2


def test_what_is_left_of_an_erased_entry_cannot_be_changed_unseen(
    store: Store, erase: Callable[..., int], tamper: Run
) -> None:
    changes = ("event_type = 'x'", "level = 'error'", "repo_id = 'r'", "payload = '7'", "decision_id = 'd'")
    for number, change in enumerate(changes):
        key = f"t{number}"
        store.tasks.create(title="t", task_id=key)
        made = [store.audits.record(key, event_type="e", payload=each) for each in range(3)]
        assert made[1] is not None
        erase(key)
        tamper(f"UPDATE task_audits SET {change} WHERE audit_id = ?", made[1].audit_id)
        (fault,) = store.audits.verify(key).faults
        assert (fault.kind, fault.audit_id) == ("changed", made[1].audit_id)


def test_what_an_erased_entry_followed_cannot_be_changed_unseen(
    store: Store, entries: list[int], erase: Callable[..., int], tamper: Run
) -> None:
    erase("t", 100, '"n":1')
    first = store.audits.get(entries[0])
    said = Entry(task_id="t", event_type="e", payload={"n": 7}, created_at=first.created_at)
    row_hash = chained(first.prev_hash, said.digest())
    tamper("UPDATE task_audits SET payload = '{\"n\":7}', row_hash = ? WHERE audit_id = ?", row_hash, entries[0])
    tamper("UPDATE task_audits SET prev_hash = ? WHERE audit_id = ?", row_hash, entries[1])
    (fault,) = store.audits.verify("t").faults
    assert (fault.kind, fault.audit_id) == ("changed", entries[1])
    # Nor can it be left out.
    tamper("DELETE FROM task_audits WHERE audit_id = ?", entries[0])
    tamper("UPDATE task_audits SET prev_hash = ? WHERE audit_id = ?", GENESIS, entries[1])
    tamper("UPDATE task_audit_heads SET length = length - 1")
    assert store.audits.verify("t").faults[0].audit_id == entries[1]


def test_an_entry_that_nobody_vouches_for_is_a_fault(
    store: Store, entries: list[int], erase: Callable[..., int], tamper: Run
) -> None:
    erase("t", 1)
    tamper("UPDATE task_audits SET payload = NULL WHERE audit_id = ?", entries[1])
    found = store.audits.verify("t")
    assert [(fault.kind, fault.audit_id) for fault in found.faults] == [("changed", entries[1])]
    assert found.erased == 1


def test_who_vouches_is_held_to_the_chain_as_well(
    store: Store, entries: list[int], erase: Callable[..., int], tamper: Run
) -> None:
    erase("t", 1)
    ((text,),) = tamper("SELECT CAST(payload AS TEXT) FROM task_audits WHERE event_type = 'audit.erased'")
    tamper("UPDATE task_audits SET payload = ? WHERE event_type = 'audit.erased'", text.replace('"run"', '"ran"'))
    (fault,) = store.audits.verify("t").faults
    assert (fault.kind, fault.audit_id) == ("changed", entries[0])


def test_an_entry_that_was_changed_before_stays_a_fault(
    store: Store, entries: list[int], erase: Callable[..., int], tamper: Run
) -> None:
    tamper("UPDATE task_audits SET payload = '{\"n\":7}' WHERE audit_id = ?", entries[1])
    tamper("UPDATE task_audits SET level = 'error' WHERE audit_id = ?", entries[3])
    assert erase("t") == 3
    (fault,) = store.audits.verify("t").faults
    assert (fault.kind, fault.audit_id) == ("changed", entries[1])
    assert store.audits.get(entries[1]).payload is None


def test_the_first_fault_is_named_whoever_was_erased_before_it(
    store: Store, entries: list[int], erase: Callable[..., int], tamper: Run
) -> None:
    erase("t", 1)
    store.audits.record("t", event_type="e")
    last = store.audits.record("t", event_type="e")
    assert last is not None
    tamper("DELETE FROM task_audits WHERE audit_id = ?", last.audit_id - 1)
    (fault,) = store.audits.verify("t").faults
    assert (fault.kind, fault.audit_id) == ("missing", last.audit_id)


def test_nobody_else_records_that_something_was_erased(store: Store, entries: list[int]) -> None:
    with pytest.raises(InvalidValueError, match="erasure"):
        store.audits.record("t", event_type="audit.erased", payload={"erased": {}})


def test_an_erased_chain_can_be_pruned(store: Store, entries: list[int], erase: Callable[..., int]) -> None:
    from datetime import timedelta

    from agentos_store.operations.retention import Policy

    erase("t", 1)
    store.prune([Policy(table="task_audits", older_than=timedelta(0))], confirm=True)
    store.audits.record("t", event_type="e")
    assert store.audits.verify("t").ok


def test_the_database_passes_an_erasure_under_a_permit_and_nothing_else(
    store: Store, entries: list[int], raw: Run
) -> None:
    def refused(statement: str) -> None:
        with pytest.raises(Exception, match="append-only"):
            raw(statement)

    refused("UPDATE task_audits SET payload = NULL")
    raw("INSERT INTO audit_pruning_permits VALUES ('t')")
    for change in (
        "payload = '1'",
        "payload = NULL, event_type = 'x'",
        "payload = NULL, row_hash = 'x'",
        "level = 'error'",
    ):
        refused(f"UPDATE task_audits SET {change}")
    raw("UPDATE task_audits SET payload = NULL")
    raw("DELETE FROM audit_pruning_permits")
    refused("UPDATE task_audits SET payload = NULL")


def test_every_column_but_the_payload_is_held_fast() -> None:
    column, others = ERASABLE["task_audits"]
    assert {column, *others} == set(TaskAudit.table().columns.keys())


def test_a_chain_without_a_head_is_erased_and_stays_a_fault(
    store: Store, entries: list[int], erase: Callable[..., int], tamper: Run
) -> None:
    tamper("DELETE FROM task_audit_heads")
    assert erase("t") == 3
    (fault,) = store.audits.verify("t").faults
    assert fault.kind == "headless"
    with pytest.raises(ConflictError):
        store.audits.record("t", event_type="e")
