"""Any calls in any order: SQLite and PostgreSQL answer alike, errors included, and hold the same rows at the end."""

from __future__ import annotations

import datetime as dt
import os
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.leases.models import Fence
from agentos_store.models import metadata
from agentos_store.operation import Access
from tests.store.plain import outcome, plain

EXAMPLES = int(os.environ.get("AGENTOS_STORE_EXAMPLES", "40"))
STEPS = 25

HOUR, OVER = dt.timedelta(hours=1), dt.timedelta(microseconds=1)

keys = st.sampled_from(["任务", "b", "a", "a"])
"""What is called ``a`` is there at the beginning."""
words = st.sampled_from(["x", "天气", "今天天气很好", "red green", "100%_\\", "'; --", "x" * 70]) | st.sampled_from(
    ["", "\0", "\ud800"]
)
numbers = st.integers(0, 3) | st.sampled_from([-1, 7, 2**63 - 1, 2**63, True, 1.5])
leaves = words | numbers | st.sampled_from([None, False, -0.0, 1e16, float("nan")])
json = st.recursive(
    leaves, lambda more: st.lists(more, max_size=2) | st.dictionaries(words, more, max_size=2), max_leaves=4
)
ages = st.sampled_from([HOUR, OVER])


def call(name: str, /, *args: Any, **kwargs: Any) -> st.SearchStrategy[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """Return calls of an operation; arguments whose name begins with ``may_`` are left out at times."""
    given_ = {key: value for key, value in kwargs.items() if not key.startswith("may_")}
    optional = {key.removeprefix("may_"): value for key, value in kwargs.items() if key.startswith("may_")}
    return st.tuples(st.just(name), st.tuples(*args), st.fixed_dictionaries(given_, optional=optional))


messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "?"]), "content": words | st.none() | json},
        optional={"token_count": numbers, "cost": st.sampled_from([Decimal(1), Decimal("0.5"), -1]), "metadata": json},
    ),
    max_size=4,
)
chunks = st.lists(st.builds(NewChunk, words), max_size=3)
states = st.sampled_from(["running", "pending", "running", "paused", "completed", "failed", "cancelled", "nowhere"])

CALLS = st.one_of(
    call("tasks.create", title=words, may_task_id=keys, may_priority=numbers, may_payload=json, may_metadata=json),
    call("tasks.create", title=st.just("t"), task_id=keys, enqueue=st.just(True), may_project_id=keys),
    call("tasks.update", keys, may_title=words, may_priority=numbers, may_version=numbers),
    call("tasks.merge_metadata", keys, json),
    call("tasks.transition", keys, states, may_expected=states, may_version=numbers),
    call("tasks.claim", by=st.just("w"), lease=ages),
    call("tasks.complete", keys, numbers, may_result=json),
    call("tasks.fail", keys, numbers, may_retry=st.booleans()),
    call("tasks.heartbeat", keys, numbers, lease=ages),
    call("tasks.reclaim_lapsed"),
    call("tasks.add_dependency", keys, keys),
    call("tasks.remove_dependency", keys, keys),
    call("tasks.ancestors", keys),
    call("tasks.topological_order"),
    call("tasks.delete", keys),
    call("tasks.list", may_metadata=json, may_status=states, may_limit=numbers),
    call("tasks.history", keys),
    call("audits.record", keys, event_type=words, may_payload=json, may_decision_id=keys),
    call("audits.verify"),
    call("verdicts.record", keys, triggered_by=words, decision=st.sampled_from(["allow", "warn", "deny", "block"])),
    call("inbox.add", keys, event_type=words, id=keys, may_payload=json),
    call("inbox.claim", by=st.just("w"), lease=ages, may_limit=numbers),
    call("inbox.complete", keys, numbers),
    call("inbox.fail", keys, numbers, error=words, may_max_attempts=numbers),
    call("projects.create", path=words, may_id=keys, may_tags=json),
    call("projects.delete", keys),
    call("projects.list", may_tags=json),
    call("users.create", name=words, id=keys, may_email=words, may_quota_total=numbers),
    call("users.consume_quota", keys, numbers),
    call("users.reserve_quota", keys, numbers, ttl=ages, may_id=keys),
    call("users.settle", keys, numbers),
    call("users.release", keys),
    call("users.sweep_reservations"),
    call("users.merge_preferences", keys, json),
    call("users.delete", keys),
    call("sessions.create", may_id=keys, may_user_id=keys, may_budget=st.sampled_from([Decimal(1), Decimal(-1)])),
    call("sessions.update", keys, may_title=words, may_metadata=json),
    call("sessions.pause", keys),
    call("sessions.complete", keys),
    call("sessions.delete", keys),
    call("sessions.restore", keys),
    call("sessions.purge", keys),
    call("messages.append", keys, role=st.just("user"), content=words, may_idempotency_key=keys, may_id=keys),
    call("messages.append_many", keys, messages),
    call("messages.save", keys, messages, may_expected_generation=numbers),
    call("messages.history", keys, may_last=numbers),
    call("messages.query", may_role=words, may_metadata=json, may_tool_name=words),
    call("messages.search", words, may_session_id=keys),
    call("agents.create", keys, may_state=states, may_metadata=json, may_parent_id=keys),
    call("agents.save", keys, may_version=numbers, may_role=words),
    call("agents.fork", keys, keys),
    call("agents.delete", keys),
    call("agents.purge", keys),
    call("documents.save", keys, st.sampled_from(["todos", "?"]), keys, content=json, may_version=numbers),
    call("documents.delete", keys, st.just("todos"), keys),
    call("snapshots.save", keys, keys),
    call(
        "tool_calls.record", tool_name=words, tool_call_id=keys, may_agent_id=keys, may_session_id=keys, may_input=json
    ),
    call("tool_calls.update_state", keys, st.sampled_from(["executing", "completed", "failed", "?"]), may_output=json),
    call("tool_calls.stats"),
    call("contexts.save", keys, context_data=json, may_agent_id=keys, may_session_id=keys, may_ttl=ages),
    call("contexts.list"),
    call("events.log", words, may_event_id=keys, may_data=json, may_session_id=keys),
    call("events.list", may_event_type=words),
    call("leases.try_acquire", keys, owner=keys, ttl=ages),
    call("leases.renew", st.builds(Fence, keys, st.integers(0, 3)), ttl=ages),
    call("leases.release", st.builds(Fence, keys, st.integers(0, 3))),
    call("memory.remember", words, type=st.just("fact"), may_id=keys, may_tags=json, may_confidence=numbers),
    call("memory.touch", keys),
    call("memory.delete", keys),
    call("memory.search", words, may_limit=numbers),
    call("kb.refresh", source_path=keys, content_hash=keys, chunks=chunks),
    call("kb.search", words),
)


ROOTS = (
    "tasks",
    "task_audit_heads",
    "agents",
    "sessions",
    "users",
    "projects",
    "events",
    "leases",
    "memory_items",
    "kb_sources",
    "kb_models",
    "contexts",
    "tool_call_records",
)
"""What goes takes along what hangs on it."""


_CLEAR: list[Statement[Any]] = [Statement(metadata.tables[name].delete()) for name in ROOTS]


def clear(store: Store) -> None:
    """Remove every row."""

    def body(session: Session) -> None:
        for statement in _CLEAR:
            session.execute(statement)

    store._backend.run(Access.WRITE, "clear", body, repeatable=True)
    store.search.refill()


def seed(store: Store) -> None:
    store.users.create(id="a", name="a")
    store.projects.create(id="a", path="/a")
    store.sessions.create(id="a", user_id="a")
    store.agents.create("a", session_id="a")
    store.tasks.create(task_id="a", title="a", enqueue=True)
    store.messages.append("a", role="user", content="今天天气怎么样？", id="a")
    store.tool_calls.record(tool_name="t", tool_call_id="a", session_id="a")


def make(store: Store, name: str, args: Any, kwargs: Any) -> Any:
    repository, _, operation = name.partition(".")
    return outcome(lambda: getattr(getattr(store, repository), operation)(*args, **kwargs))


@settings(
    max_examples=EXAMPLES,
    # The short form is the same each time; the long one looks elsewhere in each run.
    derandomize="AGENTOS_STORE_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)
@given(calls=st.lists(CALLS, min_size=STEPS // 2, max_size=STEPS))
def test_both_databases_answer_alike(both: list[Store], calls: Any) -> None:
    compare(both, calls)


def compare(both: list[Store], calls: Any) -> None:
    """Make the calls on both databases; raise AssertionError at the first difference."""
    for store in both:
        clear(store)
        seed(store)
    for place, (name, args, kwargs) in enumerate(calls):
        first, second = (make(store, name, args, kwargs) for store in both)
        assert first == second, (place, name, args, kwargs)
    reports = [store.check_consistency() for store in both]
    assert plain(reports[0]) == plain(reports[1])
    # A call that nobody is at work on is what its caller left behind.
    assert {finding.kind for finding in reports[0].findings} <= {"tool_calls"}
    assert all(store.audits.verify().ok for store in both)


def test_a_database_that_takes_no_notice_of_a_change_is_found_out(
    both: list[Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = [("tasks.update", ("a",), {"priority": 3}), ("tasks.list", (), {})]
    compare(both, calls)
    monkeypatch.setattr(both[1].tasks, "update", lambda key, **_: both[1].tasks.get(key))
    with pytest.raises(AssertionError, match=r"^\(0, 'tasks.update'"):
        compare(both, calls)
    # And when only the rows differ, and not the answer to the change itself.
    answers = iter([both[0].tasks.get("a")])
    monkeypatch.setattr(both[1].tasks, "update", lambda *_, **__: next(answers))
    with pytest.raises(AssertionError, match=r"^\(1, 'tasks.list'"):
        compare(both, calls)
