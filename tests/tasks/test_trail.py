from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos_store import Store
from agentos_store.operation import Access
from agentos_store.tasks.models import TaskAudit
from agentos_store.tasks.trail import Entry, append, append_many

TIME = dt.datetime(2026, 5, 6, 7, 8, 9, 10, tzinfo=dt.UTC)


def by_hand(previous: str, entry: dict[str, Any]) -> str:
    """Compute what the documentation of the trail says, with nothing of the library."""

    def time(value: dt.datetime | None) -> str | None:
        if value is None:
            return None
        return value.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    payload = entry.get("payload")
    text = None if payload is None else json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
    fields = [
        entry["task_id"],
        entry.get("repo_id"),
        entry.get("level", "info"),
        entry["event_type"],
        text,
        entry.get("decision_id"),
        time(entry.get("source_event_ts")),
        time(entry.get("supervisor_processed_at")),
        entry.get("verdict_id"),
        time(entry["created_at"]),
    ]
    content = hashlib.sha256(json.dumps(fields).encode()).hexdigest()
    return hashlib.sha256((previous + content).encode()).hexdigest()


ENTRIES: list[dict[str, Any]] = [
    {"event_type": "plain"},
    {"event_type": "天气 \U0001f600", "payload": {"z": [1, -0.0, 1e16, 2**80], "a": "天"}, "level": "error"},
    {"event_type": "e", "payload": "\0", "repo_id": "r", "decision_id": "d", "verdict_id": "v"},
    {
        "event_type": "e",
        "payload": [],
        "source_event_ts": dt.datetime(2026, 1, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=8))),
        "supervisor_processed_at": TIME,
    },
    {"event_type": "e", "payload": {}, "source_event_ts": dt.datetime(1, 1, 2, tzinfo=dt.UTC)},
]


def one_by_one(entries: list[Entry], session: Any) -> list[TaskAudit]:
    return [append(session, entry) for entry in entries]


def together(entries: list[Entry], session: Any) -> list[TaskAudit]:
    return list(append_many(session, entries))


@pytest.mark.parametrize("add", [one_by_one, together])
def test_both_databases_hash_as_by_hand(store: Store, add: Callable[..., Any]) -> None:
    expected = []
    previous = "0" * 64
    for number, entry in enumerate(ENTRIES):
        previous = by_hand(previous, {"task_id": "t", "created_at": TIME + dt.timedelta(microseconds=number), **entry})
        expected.append(previous)
    store.tasks.create(title="t", task_id="t")
    entries = [
        Entry(task_id="t", created_at=TIME + dt.timedelta(microseconds=number), **entry)
        for number, entry in enumerate(ENTRIES)
    ]
    store._backend.run(Access.WRITE, "test", partial(add, entries), repeatable=False)
    found = store.audits.query(task_id="t").items
    assert [entry.row_hash for entry in found] == expected
    assert store.audits.verify("t").ok


def test_both_databases_hash_a_step_alike(store: Store) -> None:
    store.tasks.create(title="t", task_id="t")
    store.tasks.transition("t", "running", by="me")
    moved = store.tasks.transition("t", "failed", exit_reason="天")
    last = store.audits.query(task_id="t").items[-1]
    payload = {"from": "running", "to": "failed", "reason": "天"}
    values = {"task_id": "t", "event_type": "task.transition", "level": "warning", "payload": payload}
    assert last.row_hash == by_hand(last.prev_hash, {**values, "created_at": moved.updated_at})


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
instants = st.datetimes(
    dt.datetime(1, 1, 3),  # noqa: DTZ001  the zone comes from the strategy
    dt.datetime(9999, 12, 29),  # noqa: DTZ001  the same
    timezones=st.sampled_from([dt.UTC, dt.timezone(dt.timedelta(hours=-7))]),
)
payloads = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(event=texts, payload=payloads, source=st.none() | instants)
def test_any_entry_verifies_and_has_one_hash_on_both(
    both: list[Store], event: str, payload: Any, source: dt.datetime | None
) -> None:
    hashes = []
    for store in both:
        key = "t"
        if store.tasks.exists(key):
            store.tasks.delete(key)
            store._backend.run(Access.WRITE, "reset", _forget_heads, repeatable=True)
        store.tasks.create(title="t", task_id=key)
        entry = Entry(task_id=key, event_type=event, payload=payload, source_event_ts=source, created_at=TIME)
        made = store._backend.run(Access.WRITE, "test", partial(one_by_one, [entry]), repeatable=False)[0]
        assert store.audits.get(made.audit_id).to_dict() == made.to_dict()
        assert store.audits.verify(key).ok
        hashes.append(made.row_hash)
    assert hashes[0] == hashes[1]


def _forget_heads(session: Any) -> None:
    from sqlalchemy import delete

    from agentos_store.engine.statement import Statement
    from agentos_store.tasks.models import TaskAuditHead

    session.execute(Statement(delete(TaskAuditHead.table()), lasting=False), {})
