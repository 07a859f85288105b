"""A small store with rows in every table, hostile values among them, to be moved."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from sqlalchemy import func, select

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.housekeeping.models import ImportLedgerEntry, MaintenanceRun
from agentos_store.models import metadata
from agentos_store.operation import Access
from agentos_store.operations.moving.copying import Comparison, compare_stores
from agentos_store.operations.moving.tables import STAYING
from tests.knowledge.shelf import shelve

HOSTILE_TEXT = 'it\'s "quoted"\\N \\ \\. \t tab\r\n\n天气 𝔘 \u2028 \x7f %s :name {x} end\\'
HOSTILE_JSON: Any = {
    "z": 1,
    "a": [1e16, -0.0, 1e-7, 5e-324, 0.1, 2**70, -1, True, None, ""],
    "nested": {"天": "气", "": [], "\\": "\\u0000 is no escape", "b": {}},
    "text": HOSTILE_TEXT,
}
EXACT_JSON: Any = {**HOSTILE_JSON, "nul": "\0", "lone": "\ud83d", "2": {"b": 1, "a": 1.0}}
EARLY = dt.datetime(1, 1, 2, tzinfo=dt.UTC)
LATE = dt.datetime(9999, 12, 30, 23, 59, 59, 999999, tzinfo=dt.UTC)
CENT = Decimal("0.000000001")


def fill_store(store: Store) -> None:
    """Put rows into every table, most of them by the library's own operations."""
    _fill_work(store)
    _fill_conversations(store)
    _fill_knowledge(store)
    _fill_the_rest(store)
    counts = counts_of(store)
    empty = {name for name, count in counts.items() if not count}
    assert empty <= {"audit_pruning_permits", "event_orders"}, empty


def counts_of(store: Store) -> dict[str, int]:
    """Return how many rows each table has."""

    def body(session: Session) -> dict[str, int]:
        return {
            table.name: session.all(Statement(select(func.count()).select_from(table), lasting=False))[0][0]
            for table in metadata.sorted_tables
        }

    found: dict[str, int] = run(store, Access.SNAPSHOT, body)
    return found


def run(store: Store, access: Access, body: Callable[[Session], Any]) -> Any:
    """Run a body on the store's database."""
    return store._backend.run(access, "test", body, repeatable=False)


def compared(source: Store, target: Store) -> Comparison:
    """Compare two open stores."""
    one, other = source._backend, target._backend
    return compare_stores(one.url, other.url, source_schema=one.schema, target_schema=other.schema)


def _fill_work(store: Store) -> None:
    store.projects.create(
        path="/srv/" + HOSTILE_TEXT.replace("\n", "").replace("\r", ""), id="web-shop", tags=["天气", 1.0, None],
        settings=HOSTILE_JSON, description=HOSTILE_TEXT, default_workdir="",
    )  # fmt: skip
    store.projects.create(path="/srv/b", id="second")
    for repo in ("front", "back"):
        store.projects.add_repo("web-shop", repo, repo_path=f"/srv/{repo}", metadata=HOSTILE_JSON, is_writable=False)
    store.projects.set_default_repo("web-shop", "back")
    store.agents.create("a-parent", metadata=HOSTILE_JSON, goal=HOSTILE_TEXT)
    # A key before its parent's.
    store.agents.create("a-child", parent_id="a-parent", lineage=["a-parent"])
    first = store.tasks.create(
        title="Refactor 天气", task_id="t-1", project_id="web-shop", agent_id="a-child", payload=EXACT_JSON,
        priority=2**40, metadata=HOSTILE_JSON, idempotency_key="once", created_by="", enqueue=True, run_after=LATE,
    )  # fmt: skip
    second = store.tasks.create(title=HOSTILE_TEXT, task_id="t-2", payload="1e16", enqueue=True)
    store.tasks.create(title="failed", task_id="t-3", route_plan=[], requirements={})
    claimed = store.tasks.claim(by="worker", lease=dt.timedelta(hours=1))
    assert claimed is not None
    store.tasks.complete("t-2", claimed.lease_token, result=[EXACT_JSON, 1e16, -0.0], duration=0.1 + 0.2)
    store.agents.save("a-parent", last_task_id="t-2")
    for task in (first, second):
        for number in range(3):
            given: Any = {"payload": EXACT_JSON, "repo_id": "back"} if number else {}
            store.audits.record(task.task_id, event_type="step", **given)
        store.lineage.record(task.task_id, kind="commit", ref_id=HOSTILE_TEXT, metadata=HOSTILE_JSON)
        store.tasks.set_scope(task.task_id, "back", "paths", path_filters=["src/**", "天"], metadata=HOSTILE_JSON)
        store.tasks.add_artifact(task.task_id, "back", "commit", f"{'9f1c2ab' * 5}{task.task_id[-1]}fabc", summary="")
        store.verdicts.record(task.task_id, triggered_by="rule", decision="warn", reasons=[HOSTILE_TEXT, 1e300])
        store.inbox.add(task.task_id, event_type="task.done", payload=HOSTILE_JSON, event_ts=EARLY)
    store.tasks.add_dependency("t-1", "t-2", reason=HOSTILE_TEXT)
    # The last number is given to a row that is gone.
    store.tasks.add_dependency("t-3", "t-1")
    store.tasks.remove_dependency("t-3", "t-1")


def _fill_conversations(store: Store) -> None:
    store.users.create(name="老王", id="u-1", preferences=HOSTILE_JSON, quota_total=1000, email="w@example.com")
    store.users.consume_quota("u-1", 10)
    store.users.reserve_quota("u-1", 5, ttl=dt.timedelta(hours=1))
    store.sessions.create(user_id="u-1", id="s-1", title=HOSTILE_TEXT, budget=Decimal("9223372036.854775807"))
    store.sessions.create(id="s-empty", metadata=HOSTILE_JSON, budget=CENT)
    store.sessions.create(id="s-gone")
    store.agents.save("a-parent", session_id="s-1")
    store.messages.append("s-1", role="user", content="今天天气怎么样?", token_count=3, cost=CENT)
    blocks = [{"type": "text", "text": "a\0b\ud83d", "more": EXACT_JSON}]
    store.messages.append("s-1", role="assistant", content=blocks, metadata=HOSTILE_JSON, cost=Decimal("0.1"))
    call = {"id": "c-1", "type": "function", "function": {"name": "weather", "arguments": '{"b": 1, "a": 1.0}'}}
    store.messages.append("s-1", role="assistant", content=None, tool_calls=[call], agent_id="a-parent")
    store.messages.append("s-1", role="tool", content=HOSTILE_TEXT, tool_call_id="c-1", idempotency_key=HOSTILE_TEXT)
    store.messages.append("s-gone", role="user", content="a word in what is gone")
    store.messages.save("s-1", [{"role": "user", "content": "今天天气怎么样?"}, {"role": "user", "content": "weather"}])
    store.sessions.delete("s-gone")
    store.tool_calls.record(
        tool_name="weather", tool_call_id="c-1", agent_id="a-parent", input=EXACT_JSON, output=None, state="completed",
        duration_ms=1e-7, error_message=HOSTILE_TEXT,
    )  # fmt: skip
    store.tool_calls.record(tool_name="other", tool_call_id="c-2", agent_id="a-parent", state="pending")
    store.agents.fork("a-parent", "a-fork")
    store.snapshots.save("a-parent", "snap", last_bookmark={"seq": 4}, metadata=HOSTILE_JSON)
    store.documents.save("a-parent", "todos", content=EXACT_JSON, metadata=HOSTILE_JSON)
    store.contexts.save("ctx", context_data=[EXACT_JSON], session_id="s-1", expires_at=LATE)


def _fill_knowledge(store: Store) -> None:
    store.memory.remember(EXACT_JSON, type="fact", confidence=0.1 + 0.2, tags=["天气", ""], sources=[HOSTILE_JSON])
    store.memory.remember("sunny weather", type="fact", scope="project", scope_id="web-shop", project_id="web-shop")
    shelve(store, "docs/weather.md", "weather is wonderful", HOSTILE_TEXT, project_id="web-shop", metadata=HOSTILE_JSON)
    chunks = [chunk.chunk_id for chunk in store.kb.iterate_chunks()]
    vectors = {key: [float(n) + 0.1, 1e-30, -3.5] for n, key in enumerate(chunks)}
    store.kb.add_embeddings("model-天", vectors)


def _fill_the_rest(store: Store) -> None:
    for number in range(5):
        store.events.log(
            "step", event_id=f"e-{number}", agent_id="a-parent", data=[None, EXACT_JSON, 1e16][number % 3],
            severity="error" if number else "info", channel="monitor", seq=number, created_at=EARLY if number else LATE,
        )  # fmt: skip
    lease = store.leases.try_acquire("agent-天", ttl=dt.timedelta(hours=1))
    assert lease is not None
    store.leases.try_acquire("expired", ttl=dt.timedelta(microseconds=1))

    def body(session: Session) -> None:
        run_ = {"id": "r-1", "kind": "import", "started_at": EARLY, "finished_at": None, "error": None}
        session.insert(MaintenanceRun, {**run_, "counts": {"rows": 2**53 + 1}, "progress": HOSTILE_JSON})
        for key in ("\\N", "\\.", HOSTILE_TEXT):
            entry = {"source": HOSTILE_TEXT, "kind": "task", "source_key": key, "our_key": "t-1", "imported_at": LATE}
            session.insert(ImportLedgerEntry, entry)

    run(store, Access.WRITE, body)


__all__ = ["EXACT_JSON", "HOSTILE_JSON", "HOSTILE_TEXT", "STAYING", "compared", "counts_of", "fill_store", "run"]
