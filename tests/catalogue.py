"""A call of every operation of every repository, in an order in which each finds what it needs.

Keys are given wherever a caller may give them, so that two databases on which the calls were made can be compared.
"""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from agentos_store import Store
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.operation import Repository, _Operation, in_steps

Call = tuple[str, Callable[[Store], Any]]

MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)
LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
OVER = dt.timedelta(microseconds=1)
"""A lease that has lapsed before anybody looks."""

USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "use", "name": "shell", "input": {"a": 1.0}}]}
RESULT = {"role": "tool", "content": "done", "tool_call_id": "use"}


def operations() -> Iterator[str]:
    """Yield the name of every operation that a store has."""
    for name, repository in repositories():
        for each in dir(repository):
            if not each.startswith("_") and isinstance(inspect.getattr_static(repository, each), _Operation | in_steps):
                yield f"{name}.{each}"


def repositories() -> Iterator[tuple[str, type[Repository[Any]]]]:
    """Yield every repository by the name of its attribute."""
    from agentos_store.store.repositories import REPOSITORIES, Repositories

    class Nobody:
        in_transaction = False
        bell = None

        def call(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    nobody_s = Repositories[Any](Nobody(), asynchronous=False)
    for name in REPOSITORIES:
        yield name, type(getattr(nobody_s, name))


def only(found: Any) -> Any:
    (one,) = found
    return one


CALLS: list[Call] = [
    # --- projects
    ("projects.create", lambda s: s.projects.create(id="p", path="/p", name="P", tags=["a"])),
    ("projects.create", lambda s: s.projects.create(id="p2", path="/p2")),
    ("projects.update", lambda s: s.projects.update("p", description="d")),
    ("projects.add_repo", lambda s: s.projects.add_repo("p", "r", repo_path="/p/r")),
    ("projects.add_repo", lambda s: s.projects.add_repo("p", "r2", repo_path="/p/r2")),
    ("projects.set_default_repo", lambda s: s.projects.set_default_repo("p", "r")),
    ("projects.remove_repo", lambda s: s.projects.remove_repo("p", "r2")),
    ("projects.archive", lambda s: s.projects.archive("p")),
    ("projects.restore", lambda s: s.projects.restore("p")),
    ("projects.delete", lambda s: s.projects.delete("p2")),
    ("projects.count", lambda s: s.projects.count(status="active")),
    ("projects.exists", lambda s: s.projects.exists("p")),
    ("projects.find", lambda s: s.projects.find("none")),
    ("projects.get", lambda s: s.projects.get("p")),
    ("projects.list", lambda s: s.projects.list(tags=["a"])),
    ("projects.list_repos", lambda s: s.projects.list_repos("p")),
    # --- users, sessions, agents
    ("users.create", lambda s: s.users.create(id="u", name="李雷", email="u@example.org")),
    ("users.create", lambda s: s.users.create(id="u2", name="v")),
    ("users.update", lambda s: s.users.update("u", name="L")),
    ("users.merge_preferences", lambda s: s.users.merge_preferences("u", {"x": 1})),
    ("users.consume_quota", lambda s: s.users.consume_quota("u", 5)),
    ("users.check_quota", lambda s: s.users.check_quota("u", 5)),
    ("users.reserve_quota", lambda s: s.users.reserve_quota("u", 10, ttl=HOUR, id="res1")),
    ("users.reserve_quota", lambda s: s.users.reserve_quota("u", 10, ttl=HOUR, id="res2")),
    ("users.reserve_quota", lambda s: s.users.reserve_quota("u", 10, ttl=OVER, id="res3")),
    ("users.release", lambda s: s.users.release("res1")),
    ("users.settle", lambda s: s.users.settle("res2", 7)),
    ("users.sweep_reservations", lambda s: s.users.sweep_reservations()),
    ("users.delete", lambda s: s.users.delete("u2")),
    ("users.count", lambda s: s.users.count()),
    ("users.exists", lambda s: s.users.exists("u")),
    ("users.find", lambda s: s.users.find("none")),
    ("users.find_by_email", lambda s: s.users.find_by_email("u@example.org")),
    ("users.get", lambda s: s.users.get("u")),
    ("users.list", lambda s: s.users.list()),
    ("sessions.create", lambda s: s.sessions.create(id="s", user_id="u", title="天气", budget=Decimal(9))),
    ("sessions.create", lambda s: s.sessions.create(id="s2")),
    ("sessions.create", lambda s: s.sessions.create(id="s3")),
    ("sessions.update", lambda s: s.sessions.update("s", model="m")),
    ("sessions.merge_metadata", lambda s: s.sessions.merge_metadata("s", {"k": [1]})),
    ("sessions.pause", lambda s: s.sessions.pause("s")),
    ("sessions.resume", lambda s: s.sessions.resume("s")),
    ("sessions.complete", lambda s: s.sessions.complete("s2")),
    ("sessions.cancel", lambda s: s.sessions.cancel("s3")),
    ("agents.create", lambda s: s.agents.create("a", template_id="t", role="coder", session_id="s")),
    ("agents.create", lambda s: s.agents.create("a2")),
    ("agents.save", lambda s: s.agents.save("a", goal="g")),
    ("agents.set_state", lambda s: s.agents.set_state("a", "busy", expected="idle")),
    ("agents.merge_metadata", lambda s: s.agents.merge_metadata("a", {"k": 1})),
    ("agents.update_stats", lambda s: s.agents.update_stats("a", {"calls": 1})),
    # --- messages and what stands beside them
    ("messages.append", lambda s: s.messages.append("s", role="user", content="今天天气怎么样？", id="m0")),
    (
        "messages.append",
        lambda s: s.messages.append("s", role="user", content="once", id="m1", idempotency_key="key", cost=Decimal(1)),
    ),
    ("messages.append_many", lambda s: s.messages.append_many("s", [USE | {"id": "m2"}, RESULT | {"id": "m3"}])),
    ("messages.save", lambda s: s.messages.save("s2", [{"role": "user", "content": str(i)} for i in range(3)])),
    ("messages.save", lambda s: s.messages.save("s2", [{"role": "user", "content": str(i)} for i in (0, 2, 3)])),
    ("messages.count", lambda s: s.messages.count(session_id="s")),
    ("messages.exists", lambda s: s.messages.exists("m0")),
    ("messages.find", lambda s: s.messages.find("none")),
    ("messages.get", lambda s: s.messages.get("m0")),
    ("messages.history", lambda s: s.messages.history("s", last=2)),
    ("messages.list", lambda s: s.messages.list("s")),
    ("messages.query", lambda s: s.messages.query(role="user")),
    ("messages.search", lambda s: s.messages.search("天气")),
    ("users.usage", lambda s: s.users.usage(by="user")),
    ("users.usage_stats", lambda s: s.users.usage_stats("u")),
    ("tool_calls.record", lambda s: s.tool_calls.record(tool_name="shell", tool_call_id="c", session_id="s")),
    ("tool_calls.record", lambda s: s.tool_calls.record(tool_name="rm", tool_call_id="c2", session_id="s")),
    ("tool_calls.record", lambda s: s.tool_calls.record(tool_name="x", tool_call_id="c3", agent_id="a")),
    ("tool_calls.update_state", lambda s: s.tool_calls.update_state("c", "executing", session_id="s")),
    ("tool_calls.require_approval", lambda s: s.tool_calls.require_approval("c2", session_id="s", by="policy")),
    ("tool_calls.pending_approvals", lambda s: s.tool_calls.pending_approvals()),
    ("tool_calls.decide", lambda s: s.tool_calls.decide("c2", True, by="u", session_id="s")),
    ("tool_calls.settle_dangling", lambda s: s.tool_calls.settle_dangling("a")),
    ("tool_calls.count", lambda s: s.tool_calls.count(tool_name="rm")),
    ("tool_calls.exists", lambda s: s.tool_calls.exists("c", session_id="s")),
    ("tool_calls.find", lambda s: s.tool_calls.find("none")),
    ("tool_calls.get", lambda s: s.tool_calls.get("c", session_id="s")),
    ("tool_calls.list", lambda s: s.tool_calls.list(session_id="s")),
    ("tool_calls.query", lambda s: s.tool_calls.query(agent_id="a")),
    ("tool_calls.stats", lambda s: s.tool_calls.stats()),
    ("contexts.save", lambda s: s.contexts.save("x", context_data={"a": 1}, agent_id="a")),
    ("contexts.save", lambda s: s.contexts.save("x2", context_data=[1], session_id="s", ttl=OVER)),
    ("contexts.save", lambda s: s.contexts.save("x3", context_data=[1], session_id="s")),
    ("contexts.cleanup_expired", lambda s: s.contexts.cleanup_expired()),
    ("contexts.delete", lambda s: s.contexts.delete("x3")),
    ("contexts.count", lambda s: s.contexts.count(agent_id="a")),
    ("contexts.exists", lambda s: s.contexts.exists("x")),
    ("contexts.find", lambda s: s.contexts.find("none")),
    ("contexts.get", lambda s: s.contexts.get("x")),
    ("contexts.list", lambda s: s.contexts.list(agent_id="a")),
    ("contexts.list_by_agent", lambda s: s.contexts.list_by_agent("a")),
    # --- agents: snapshots, documents, forks
    ("snapshots.save", lambda s: s.snapshots.save("a", "snap", last_sfp_index=1)),
    ("snapshots.save", lambda s: s.snapshots.save("a", "snap2")),
    ("snapshots.delete", lambda s: s.snapshots.delete("a", "snap2")),
    ("snapshots.count", lambda s: s.snapshots.count("a")),
    ("snapshots.exists", lambda s: s.snapshots.exists("a", "snap")),
    ("snapshots.find", lambda s: s.snapshots.find("a", "none")),
    ("snapshots.get", lambda s: s.snapshots.get("a", "snap")),
    ("snapshots.list", lambda s: s.snapshots.list("a")),
    ("snapshots.load", lambda s: s.snapshots.load("a", "snap")),
    ("documents.save", lambda s: s.documents.save("a", "todos", content=[1])),
    ("documents.save", lambda s: s.documents.save("a", "todos", content=[2], version=1)),
    ("documents.save", lambda s: s.documents.save("a", "todos", "other", content=[1])),
    ("documents.delete", lambda s: s.documents.delete("a", "todos", "other")),
    ("documents.count", lambda s: s.documents.count("a")),
    ("documents.exists", lambda s: s.documents.exists("a", "todos")),
    ("documents.find", lambda s: s.documents.find("a", "compression")),
    ("documents.get", lambda s: s.documents.get("a", "todos")),
    ("documents.list", lambda s: s.documents.list("a")),
    ("agents.fork", lambda s: s.agents.fork("a", "fork", snapshot_id="snap")),
    ("agents.batch_fork", lambda s: s.agents.batch_fork("a", 2)),
    ("agents.aggregate_stats", lambda s: s.agents.aggregate_stats("a")),
    ("agents.delete", lambda s: s.agents.delete("a2")),
    ("agents.restore", lambda s: s.agents.restore("a2")),
    ("agents.purge", lambda s: s.agents.purge("a2")),
    ("agents.count", lambda s: s.agents.count()),
    ("agents.exists", lambda s: s.agents.exists("a")),
    ("agents.find", lambda s: s.agents.find("none")),
    ("agents.get", lambda s: s.agents.get("a")),
    ("agents.list", lambda s: s.agents.list(parent_id="a")),
    ("sessions.delete", lambda s: s.sessions.delete("s3")),
    ("sessions.restore", lambda s: s.sessions.restore("s3")),
    ("sessions.purge", lambda s: s.sessions.purge("s3")),
    ("sessions.count", lambda s: s.sessions.count(user_id="u")),
    ("sessions.exists", lambda s: s.sessions.exists("s")),
    ("sessions.find", lambda s: s.sessions.find("none")),
    ("sessions.get", lambda s: s.sessions.get("s")),
    ("sessions.list", lambda s: s.sessions.list(user_id="u")),
    ("sessions.query", lambda s: s.sessions.query(template_id="t")),
    # --- tasks and the queue
    *(
        ("tasks.create", lambda s, i=i: s.tasks.create(task_id=f"t{i}", title=f"T{i}", priority=100 - i, enqueue=True))
        for i in range(8)
    ),
    ("tasks.create", lambda s: s.tasks.create(task_id="q", title="Q", project_id="p", session_id="s", agent_id="a")),
    ("tasks.update", lambda s: s.tasks.update("q", title="Q2")),
    ("tasks.merge_metadata", lambda s: s.tasks.merge_metadata("q", {"k": 1})),
    ("tasks.set_routing", lambda s: s.tasks.set_routing("q", route_plan={"a": 1})),
    ("tasks.claim", lambda s: s.tasks.claim(by="w", lease=HOUR)),
    ("tasks.heartbeat", lambda s: s.tasks.heartbeat("t0", 1, lease=HOUR)),
    ("tasks.complete", lambda s: s.tasks.complete("t0", 1, result={"ok": True})),
    ("tasks.claim_many", lambda s: s.tasks.claim_many(by="w", lease=HOUR, limit=2)),
    ("tasks.fail", lambda s: s.tasks.fail("t1", 1, error_message="no", retry=False)),
    ("tasks.release", lambda s: s.tasks.release("t2", 1)),
    ("tasks.retry", lambda s: s.tasks.retry("t1")),
    ("tasks.cancel", lambda s: s.tasks.cancel("t1")),
    ("tasks.cancel", lambda s: s.tasks.cancel("t2")),
    ("tasks.claim", lambda s: s.tasks.claim(by="w", lease=OVER)),
    ("tasks.reclaim_lapsed", lambda s: s.tasks.reclaim_lapsed()),
    ("tasks.transition", lambda s: s.tasks.transition("t4", "running", by="u")),
    ("tasks.pause", lambda s: s.tasks.pause("t4")),
    ("tasks.resume", lambda s: s.tasks.resume("t4")),
    ("tasks.add_dependency", lambda s: s.tasks.add_dependency("t5", "t6")),
    ("tasks.add_dependency", lambda s: s.tasks.add_dependency("t6", "t7")),
    ("tasks.remove_dependency", lambda s: s.tasks.remove_dependency("t6", "t7")),
    ("tasks.add_artifact", lambda s: s.tasks.add_artifact("t5", "r", "file", "/x")),
    ("tasks.add_artifact", lambda s: s.tasks.add_artifact("t7", "r", "file", "/x")),
    ("tasks.infer_dependencies", lambda s: s.tasks.infer_dependencies("t7")),
    ("tasks.set_scope", lambda s: s.tasks.set_scope("q", "r", "paths", path_filters=["src/**"])),
    ("tasks.set_scope", lambda s: s.tasks.set_scope("t5", "r")),
    ("tasks.remove_scope", lambda s: s.tasks.remove_scope("t5", "r")),
    ("tasks.may_touch", lambda s: s.tasks.may_touch("q", "r", "src/a.py")),
    ("tasks.agent_stats", lambda s: s.tasks.agent_stats("a")),
    ("tasks.ancestors", lambda s: s.tasks.ancestors("t5")),
    ("tasks.descendants", lambda s: s.tasks.descendants("t6")),
    ("tasks.graph", lambda s: s.tasks.graph("t5")),
    ("tasks.project_graph", lambda s: s.tasks.project_graph("p")),
    ("tasks.topological_order", lambda s: s.tasks.topological_order()),
    ("tasks.list_artifacts", lambda s: s.tasks.list_artifacts(task_id="t5")),
    ("tasks.list_by_artifact", lambda s: s.tasks.list_by_artifact("file", "/x")),
    ("tasks.list_dependencies", lambda s: s.tasks.list_dependencies(task_id="t5")),
    ("tasks.list_scopes", lambda s: s.tasks.list_scopes(task_id="q")),
    ("tasks.history", lambda s: s.tasks.history("t0")),
    ("tasks.queue_stats", lambda s: s.tasks.queue_stats()),
    ("tasks.count", lambda s: s.tasks.count(status="pending")),
    ("tasks.exists", lambda s: s.tasks.exists("q")),
    ("tasks.find", lambda s: s.tasks.find("none")),
    ("tasks.get", lambda s: s.tasks.get("q")),
    ("tasks.list", lambda s: s.tasks.list(project_id="p")),
    ("lineage.record", lambda s: s.lineage.record("q", kind="message", ref_id="m0")),
    ("lineage.chain", lambda s: s.lineage.chain("q")),
    ("lineage.count", lambda s: s.lineage.count(task_id="q")),
    ("lineage.exists", lambda s: s.lineage.exists("q", kind="message", ref_id="m0")),
    ("lineage.find", lambda s: s.lineage.find(1_000_000)),
    ("lineage.get", lambda s: s.lineage.get(only(s.lineage.chain("q")[:1]).lineage_id)),
    ("lineage.graph", lambda s: s.lineage.graph("q")),
    ("lineage.list", lambda s: s.lineage.list(task_id="q")),
    ("lineage.trace", lambda s: s.lineage.trace("m0")),
    ("audits.record", lambda s: s.audits.record("q", event_type="e", payload={"n": 1})),
    ("audits.record", lambda s: s.audits.record("q", event_type="d", decision_id="d1", source_event_ts=LONG_AGO)),
    ("audits.count", lambda s: s.audits.count(task_id="q")),
    ("audits.decision_lag", lambda s: s.audits.decision_lag()),
    ("audits.decision_trace", lambda s: s.audits.decision_trace("q")),
    ("audits.exists", lambda s: s.audits.exists(1)),
    ("audits.find", lambda s: s.audits.find(1_000_000)),
    ("audits.get", lambda s: s.audits.get(s.audits.list(limit=1).items[0].audit_id)),
    ("audits.list", lambda s: s.audits.list(task_id="q")),
    ("audits.query", lambda s: s.audits.query(level="info")),
    ("audits.verify", lambda s: s.audits.verify()),
    ("verdicts.record", lambda s: s.verdicts.record("q", id="v", triggered_by="g", decision="warn")),
    ("verdicts.count", lambda s: s.verdicts.count(task_id="q")),
    ("verdicts.exists", lambda s: s.verdicts.exists("v")),
    ("verdicts.find", lambda s: s.verdicts.find("none")),
    ("verdicts.get", lambda s: s.verdicts.get("v")),
    ("verdicts.latest", lambda s: s.verdicts.latest("q")),
    ("verdicts.list", lambda s: s.verdicts.list(task_id="q")),
    ("verdicts.stats", lambda s: s.verdicts.stats()),
    *(
        ("inbox.add", lambda s, i=i: s.inbox.add("q", event_type="e", event_ts=LONG_AGO + i * DAY, id=f"i{i}"))
        for i in range(4)
    ),
    ("inbox.claim", lambda s: s.inbox.claim(by="w", lease=HOUR, limit=2)),
    ("inbox.complete", lambda s: s.inbox.complete("i0", 1)),
    ("inbox.fail", lambda s: s.inbox.fail("i1", 1, error="no", max_attempts=1)),
    ("inbox.unpark", lambda s: s.inbox.unpark("i1")),
    ("inbox.claim", lambda s: s.inbox.claim(by="w", lease=OVER)),
    ("inbox.reclaim_lapsed", lambda s: s.inbox.reclaim_lapsed()),
    ("inbox.cleanup", lambda s: s.inbox.cleanup(older_than=OVER)),
    ("inbox.backlog", lambda s: s.inbox.backlog()),
    ("inbox.count", lambda s: s.inbox.count(status="pending")),
    ("inbox.exists", lambda s: s.inbox.exists("i2")),
    ("inbox.find", lambda s: s.inbox.find("none")),
    ("inbox.get", lambda s: s.inbox.get("i2")),
    ("inbox.list", lambda s: s.inbox.list(task_id="q")),
    ("tasks.delete", lambda s: s.tasks.delete("t7")),
    # --- events, leases
    ("events.log", lambda s: s.events.log("e", event_id="ev", agent_id="a", data={"n": 1}, created_at=LONG_AGO)),
    (
        "events.log_many",
        lambda s: s.events.log_many([{"event_type": "f", "event_id": f"f{i}", "created_at": LONG_AGO} for i in (1, 2)]),
    ),
    ("events.count", lambda s: s.events.count(agent_id="a")),
    ("events.exists", lambda s: s.events.exists("ev")),
    ("events.find", lambda s: s.events.find("none")),
    ("events.get", lambda s: s.events.get("ev")),
    ("events.list", lambda s: s.events.list(event_type="f")),
    ("events.query", lambda s: s.events.query(agent_id="a")),
    ("events.tail", lambda s: s.events.tail(n=2)),
    ("leases.try_acquire", lambda s: s.leases.try_acquire("l", owner="o", ttl=HOUR)),
    ("leases.try_acquire", lambda s: s.leases.try_acquire("l2", owner="o", ttl=HOUR)),
    ("leases.renew", lambda s: s.leases.renew(s.leases.get("l"), ttl=HOUR)),
    ("leases.release", lambda s: s.leases.release(s.leases.get("l2"))),
    ("leases.count", lambda s: s.leases.count()),
    ("leases.exists", lambda s: s.leases.exists("l")),
    ("leases.find", lambda s: s.leases.find("none")),
    ("leases.get", lambda s: s.leases.get("l")),
    ("leases.holders", lambda s: s.leases.holders()),
    ("leases.list", lambda s: s.leases.list(prefix="l")),
    # --- memory
    ("memory.remember", lambda s: s.memory.remember("今天天气很好", type="fact", id="f", tags=["w"])),
    ("memory.remember", lambda s: s.memory.remember("今天天气不好", type="fact", id="f2")),
    ("memory.remember", lambda s: s.memory.remember("likes tea", type="fact", id="f3", scope="task", scope_id="q")),
    ("memory.remember", lambda s: s.memory.remember("likes  tea", type="fact", id="f4", scope="task", scope_id="q")),
    ("memory.remember", lambda s: s.memory.remember("old", type="fact", id="f5")),
    ("memory.update", lambda s: s.memory.update("f", confidence=0.9)),
    ("memory.touch", lambda s: s.memory.touch("f")),
    ("memory.merge", lambda s: s.memory.merge("f", "f2")),
    ("memory.merge_duplicates", lambda s: s.memory.merge_duplicates(scope="task", scope_id="q")),
    ("memory.promote", lambda s: s.memory.promote("f3", "project", scope_id="p")),
    ("memory.decay", lambda s: s.memory.decay()),
    ("memory.cleanup", lambda s: s.memory.cleanup()),
    ("memory.delete", lambda s: s.memory.delete("f5")),
    ("memory.context", lambda s: s.memory.context(task_id="q")),
    ("memory.count", lambda s: s.memory.count()),
    ("memory.exists", lambda s: s.memory.exists("f")),
    ("memory.find", lambda s: s.memory.find("none")),
    ("memory.get", lambda s: s.memory.get("f")),
    ("memory.list", lambda s: s.memory.list(tags=["w"])),
    ("memory.search", lambda s: s.memory.search("天气")),
    # --- knowledge
    ("kb.add_source", lambda s: s.kb.add_source(source_path="/a.md", project_id="p")),
    ("kb.add_chunks", lambda s: s.kb.add_chunks(source(s), [NewChunk("天气预报"), NewChunk("two")])),
    ("kb.replace_chunks", lambda s: s.kb.replace_chunks(source(s), [NewChunk("天气预报"), NewChunk("three")])),
    (
        "kb.refresh",
        lambda s: s.kb.refresh(source_path="/b.md", content_hash="h", chunks=[NewChunk("b")], project_id="p"),
    ),
    ("kb.update_chunk", lambda s: s.kb.update_chunk(chunk(s), heading="H")),
    ("kb.list_unembedded", lambda s: s.kb.list_unembedded("m")),
    ("kb.add_embeddings", lambda s: s.kb.add_embeddings("m", {chunk(s): [1.0, 2.0]})),
    ("kb.embed", lambda s: s.kb.embed("m", embedder=lambda texts: [[1.0, float(len(text))] for text in texts])),
    ("kb.add_embeddings", lambda s: s.kb.add_embeddings("m2", {chunk(s): [1.0]})),
    ("kb.delete_model", lambda s: s.kb.delete_model("m2")),
    ("kb.missing", lambda s: s.kb.missing("m")),
    ("kb.stale", lambda s: s.kb.stale()),
    ("kb.list_models", lambda s: s.kb.list_models()),
    ("kb.find_embedding", lambda s: s.kb.find_embedding(chunk(s), "m")),
    ("kb.find_chunk", lambda s: s.kb.find_chunk("none")),
    ("kb.get_chunk", lambda s: s.kb.get_chunk(chunk(s))),
    ("kb.list_chunks", lambda s: s.kb.list_chunks(source_id=source(s))),
    ("kb.count_chunks", lambda s: s.kb.count_chunks()),
    ("kb.search", lambda s: s.kb.search("天气", vector=[1.0, 2.0], model_name="m")),
    ("kb.exists", lambda s: s.kb.exists("none")),
    ("kb.find_source", lambda s: s.kb.find_source("p", "/a.md")),
    ("kb.get_source", lambda s: s.kb.get_source(source(s))),
    ("kb.list_sources", lambda s: s.kb.list_sources(project_id="p")),
    ("kb.count_sources", lambda s: s.kb.count_sources()),
    ("kb.delete_source", lambda s: s.kb.delete_source(source(s, "/b.md"))),
    # --- the index
    ("search.check", lambda s: s.search.check()),
    ("search.probe", lambda s: s.search.probe()),
    ("search.rebuild_batch", lambda s: s.search.rebuild_batch("memory")),
    ("search.refill", lambda s: s.search.refill()),
]

NOT_CALLED = {
    "kb.build_index": "it needs pgvector",
    "leases.guard": "it is called inside a transaction only",
}


def source(store: Store, path: str = "/a.md") -> str:
    """Return the key of a source."""
    found = store.kb.find_source("p", path)
    assert found is not None
    return found.source_id


def chunk(store: Store) -> str:
    """Return the key of the first chunk."""
    return store.kb.list_chunks(source_id=source(store)).items[0].chunk_id
