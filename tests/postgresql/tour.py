"""A walk through all domains: what each of them writes, and every operation that only reads."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Iterator
from typing import Any

from agentos_store import Store, StoreError
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.operation import _Operation
from agentos_store.operations.retention import Policy
from agentos_store.store.repositories import REPOSITORIES

LONG = dt.timedelta(minutes=5)

NO_TIME = dt.timedelta(0)


def work(store: Store) -> None:
    """Write something in every domain, in the ways that differ: single statements, transactions, streams, steps."""
    project = store.projects.create(path="/a")
    repo = store.projects.add_repo(project.id, "web", repo_path=".")
    first = store.tasks.create(title="t", project_id=project.id, enqueue=True, idempotency_key="k")
    second = store.tasks.create(title="u", project_id=project.id)
    store.tasks.add_dependency(second.task_id, first.task_id)
    store.tasks.set_scope(first.task_id, repo.repo_id)
    store.tasks.add_artifact(first.task_id, repo.repo_id, "commit", "9f1c2ab")
    claimed = store.tasks.claim(by="w", lease=LONG)
    assert claimed is not None
    store.tasks.heartbeat(claimed.task_id, claimed.lease_token, lease=LONG)
    store.tasks.complete(claimed.task_id, claimed.lease_token, result={"ok": True})
    store.tasks.merge_metadata(second.task_id, {"a": 1})
    store.lineage.record(first.task_id, kind="commit", ref_id="9f1c2ab")
    store.audits.record(first.task_id, event_type="commit.made", payload={"files": 3})
    store.inbox.add(first.task_id, event_type="e")
    (entry,) = store.inbox.claim(by="w", lease=LONG)
    store.inbox.complete(entry.id, entry.lease_token)
    store.verdicts.record(second.task_id, triggered_by="g", decision="warn")
    user = store.users.create(name="n", email="n@example.com")
    store.users.consume_quota(user.id, 5)
    session = store.sessions.create(user_id=user.id)
    store.agents.create("agent", session_id=session.id)
    for number in range(3):
        store.messages.append(session.id, role="user", content=f"今天天气 {number}")
    assert len(store.messages.search("天气")) == 3
    store.tool_calls.record(tool_name="t", agent_id="agent", tool_call_id="call")
    store.tool_calls.update_state("call", "approval_required", agent_id="agent")
    store.contexts.save(context_data=1, agent_id="agent")
    store.snapshots.save("agent", "snapshot")
    store.agents.fork("agent", "forked")
    store.documents.save("agent", "todos", content=[1])
    store.memory.remember("the build needs node 20", type="fact")
    source = store.kb.add_source(source_path="a.md", project_id=project.id)
    store.kb.add_chunks(source.source_id, [NewChunk("some text to be found")])
    assert store.kb.search("text")
    store.search.rebuild()
    store.events.log("x", data=1)
    assert store.events.log_many({"event_type": "y", "data": number} for number in range(1500)) == 1500
    with store.leases.hold("agent-1", ttl=LONG) as lease, store.transaction() as tx:
        tx.leases.guard(lease)
        tx.tasks.create(title="guarded")
    with store.events.subscribe(from_start=True) as live:
        assert next(live).data == 1
    store.tasks.delete(store.tasks.create(title="gone").task_id)
    assert store.audits.verify().ok
    assert store.check_consistency().ok
    store.prune([Policy(table="events", older_than=NO_TIME)], confirm=True)


def look(store: Store) -> Iterator[str]:
    """Call every operation that only reads; yield the name of each.

    What it is told that it cannot answer is an answer; that it may not is none.
    """
    task = next(iter(store.tasks.list()))
    session = next(iter(store.sessions.list()))
    given: dict[str, Any] = {
        "task_id": task.task_id,
        "session_id": session.id,
        "by": "user",
        "kind": "todos",
        "query": "text",
        "repo_id": "web",
    }
    for attribute in REPOSITORIES:
        repository = getattr(store, attribute)
        for name in dir(type(repository)):
            operation = inspect.getattr_static(type(repository), name)
            if not isinstance(operation, _Operation) or not operation.access.reads or name.startswith("_"):
                continue
            wanted = [
                each
                for each in list(inspect.signature(operation.body).parameters.values())[2:]
                if each.default is each.empty and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
            ]
            arguments = {each.name: given.get(each.name, "agent") for each in wanted}
            try:
                getattr(repository, name)(**arguments)
            except StoreError as error:
                if getattr(error, "code", None) == "42501":
                    raise
            yield f"{attribute}.{name}"
