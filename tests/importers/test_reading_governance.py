"""Verdicts and the inbox, read: no decision is invented, and no event is lost or held by nobody."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import pytest

from agentos_store.importers.agentos.records import InboxRecord, VerdictRecord
from agentos_store.importers.agentos.registry import open_registry
from agentos_store.importers.problems import Problem
from agentos_store.testing.registries import make_registry

T = TypeVar("T")
Small = Callable[..., Path]

ONE_VERDICT = ("DELETE FROM guardian_verdicts WHERE rowid > 1", ())
ONE_EVENT = ("DELETE FROM supervisor_inbox WHERE rowid > 1", ())


def split(items: Iterable[T | Problem]) -> tuple[list[T], list[str]]:
    read = list(items)
    return (
        [item for item in read if not isinstance(item, Problem)],
        [item.reason for item in read if isinstance(item, Problem)],
    )


def verdicts_of(path: Path) -> tuple[list[VerdictRecord], list[str]]:
    with open_registry(path) as registry:
        return split(registry.verdicts())


def inbox_of(path: Path) -> tuple[list[InboxRecord], list[str]]:
    with open_registry(path) as registry:
        return split(registry.inbox())


@pytest.mark.parametrize(
    ("word", "decision"),
    [("PASS", "approve"), ("fail", "reject"), ("NEEDS_CHANGES", "warn"), ("NEEDS_REVIEW", None), (None, None)],
)
def test_a_decision_is_translated_or_the_verdict_is_set_aside(
    small: Small, word: str | None, decision: str | None
) -> None:
    verdicts, aside = verdicts_of(small(ONE_VERDICT, ("UPDATE guardian_verdicts SET status = ?", (word,))))
    assert [verdict.decision for verdict in verdicts] == ([decision] if decision else [])
    assert len(aside) == (decision is None)


def test_a_verdict_takes_along_why_its_guardian_was_asked(small: Small) -> None:
    body = {
        "status": "PASS",
        "flags": [{"type": "覆盖率不足"}],
        "recommendations": ["补充测试"],
        "evidence": {"checks": 3},
        "guardian_code": "another",
    }
    path = small(ONE_VERDICT, ("UPDATE guardian_verdicts SET verdict_json = ?, status = 'PASS'", (json.dumps(body),)))
    (verdict,), _ = verdicts_of(path)
    assert verdict.triggered_by == "smoke_test"
    assert verdict.reasons_json == [{"type": "覆盖率不足"}, {"recommendation": "补充测试"}]
    policy = verdict.policy_json
    assert policy["reason"] == {"findings": [{"category": "RISK_RUNTIME"}]}
    assert policy["guardian_code"] == "smoke_test"
    assert str(policy["assignment_id"]).startswith("assignment_")
    assert policy["verdict"] == {"evidence": {"checks": 3}, "guardian_code": "another"}
    assert verdict.repairs == ()


def test_a_verdict_without_its_assignment_arrives_and_says_so(small: Small) -> None:
    (verdict,), _ = verdicts_of(small(ONE_VERDICT, ("UPDATE guardian_verdicts SET assignment_id = 'gone'", ())))
    assert verdict.policy_json["assignment_id"] == "gone"
    assert "reason" not in verdict.policy_json
    assert [repair.what.split(":")[0] for repair in verdict.repairs] == ["assignment_id"]


def test_an_assignment_that_no_verdict_took_along_is_counted_as_left(small: Small) -> None:
    path = small(
        ONE_VERDICT,
        ("INSERT INTO guardian_assignments (assignment_id, task_id) VALUES ('waiting', 'x')", ()),
    )
    with open_registry(path) as registry:
        assert registry.no_place()["guardian_assignments"] == 1
        left = [
            row.values["assignment_id"]
            for row in registry.rest()
            if not isinstance(row, Problem) and row.table == "guardian_assignments"
        ]
    assert left == ["waiting"]


def test_a_verdict_text_that_is_no_object_is_kept(small: Small) -> None:
    (verdict,), _ = verdicts_of(small(ONE_VERDICT, ("UPDATE guardian_verdicts SET verdict_json = '[1]'", ())))
    assert verdict.reasons_json == []
    assert verdict.policy_json["agentos"] == {"verdict_json": [1]}


def test_a_verdict_of_the_document_comes_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    make_registry(path, shape="document", flaws=False)
    verdicts, aside = verdicts_of(path)
    assert aside == []
    assert [verdict.decision for verdict in verdicts] == ["approve", "reject", "warn"]
    assert verdicts[1].reasons_json == [{"type": "覆盖率不足"}]
    assert {verdict.policy_json["findings"][0]["category"] for verdict in verdicts} == {"RISK_RUNTIME"}  # type: ignore[index,call-overload]


@pytest.mark.parametrize(
    ("word", "status", "repaired"),
    [
        ("pending", "pending", False),
        ("processing", "pending", True),
        ("completed", "processed", False),
        ("COMPLETED", "processed", True),
        ("processed", "processed", False),
        ("failed", "failed", False),
        ("zombie", "parked", True),
        (None, "parked", True),
    ],
)
def test_each_event_has_a_status_that_somebody_acts_upon(
    small: Small, word: str | None, status: str, repaired: bool
) -> None:
    (event,), _ = inbox_of(small(ONE_EVENT, ("UPDATE supervisor_inbox SET status = ?", (word,))))
    assert (event.status, bool(event.repairs)) == (status, repaired)
    assert (event.error_message is not None) is (status == "parked")


def test_an_event_happened_when_its_payload_says(small: Small) -> None:
    received = "2026-01-10T10:00:00+00:00"
    cases = [
        ('{"ts": "2026-01-10T09:00:00+00:00"}', 9, False),
        ('{"ts": 1768035600}', 9, False),
        ('{"ts": "yesterday"}', 10, True),
        ('{"ts": null}', 10, False),
        ("[1]", 10, False),
        (None, 10, False),
    ]
    for number, (payload, hour, repaired) in enumerate(cases):
        change = ("UPDATE supervisor_inbox SET payload = ?, received_at = ?", (payload, received))
        path = small(ONE_EVENT, change)
        (event,), _ = inbox_of(path)
        assert event.created_at == dt.datetime(2026, 1, 10, 10, tzinfo=dt.UTC)
        assert (event.event_ts.hour, bool(event.repairs)) == (hour, repaired), number
        path.unlink()
        path.parent.rmdir()


@pytest.mark.parametrize(
    ("found", "attempts", "repaired"), [(3, 3, False), (None, 0, False), ("2", 2, False), (-1, 0, True), ("x", 0, True)]
)
def test_attempts_are_counted_on(small: Small, found: object, attempts: int, repaired: bool) -> None:
    (event,), _ = inbox_of(small(ONE_EVENT, ("UPDATE supervisor_inbox SET retry_count = ?", (found,))))
    assert (event.attempts, bool(event.repairs)) == (attempts, repaired)


def test_a_payload_that_is_no_json_is_kept_as_text(small: Small) -> None:
    (event,), _ = inbox_of(small(ONE_EVENT, ("UPDATE supervisor_inbox SET payload = '{\"cut'", ())))
    assert event.payload_json == {"unparsed": '{"cut'}


def test_what_has_no_room_is_set_aside(small: Small) -> None:
    for column in ("event_id", "event_type", "source"):
        path = small(ONE_EVENT, (f"UPDATE supervisor_inbox SET {column} = ?", ("x" * 256,)))
        events, aside = inbox_of(path)
        assert events == []
        assert aside == [f"its {column} is longer than 255 characters"]
        path.unlink()
        path.parent.rmdir()
