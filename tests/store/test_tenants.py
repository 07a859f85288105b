"""Two tenants in one process never meet: the same keys, the same words, the same moment, other data."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import pytest
from sqlalchemy import text

from agentos_store import InvalidValueError, LockTimeoutError, Settings, Store, ensure_migrations, shared_engine
from agentos_store.engine.bell import Waiter
from agentos_store.engine.postgresql.listening import LISTENED
from agentos_store.engine.urls import parse_url
from agentos_store.engine.version import quote_name
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.models import metadata
from agentos_store.store.repositories import REPOSITORIES
from agentos_store.testing.postgres import connect
from tests.engine.gather import threads, wait_for

TAGS = ("amber", "cobalt")
"""What each tenant writes into everything, and must never read of the other."""

MINUTE = dt.timedelta(minutes=1)

STRANGE = 'Mandant "ä".2'


class Tenant:
    """A store with one row of everything, under keys that the other tenant has too."""

    def __init__(self, store: Store, tag: str) -> None:
        self.store = store
        self.tag = tag
        self.numbers = itertools.count()
        self.spent = itertools.count()
        store.projects.create(id="shop", path="/shop", name=tag)
        store.projects.add_repo("shop", "code", repo_path=".", name=tag)
        store.users.create(id="u1", name=tag, quota_total=1_000_000)
        store.sessions.create(id="s1", user_id="u1", title=tag)
        store.agents.create("a1", goal=tag, session_id="s1")
        store.tasks.create(task_id="t0", title=tag, project_id="shop")

    def new(self, prefix: str) -> str:
        """Return a key that the other tenant uses as well."""
        return f"{prefix}{next(self.numbers)}"


def projects(tenant: Tenant) -> object:
    changed = tenant.store.projects.update("shop", name=tenant.tag, settings={"of": tenant.tag})
    return changed, list(tenant.store.projects.iterate()), tenant.store.projects.list_repos("shop").items


def tasks(tenant: Tenant) -> object:
    of = {"of": tenant.tag}
    made = tenant.store.tasks.create(
        task_id=tenant.new("task-"), title=tenant.tag, project_id="shop", payload=of, enqueue=True
    )
    tenant.store.tasks.add_dependency(made.task_id, "t0", reason=tenant.tag, dependency_type="suggests")
    claimed = tenant.store.tasks.claim(by=tenant.tag, lease=MINUTE)
    if claimed is not None:
        tenant.store.tasks.complete(claimed.task_id, claimed.lease_token, result=of)
    return made, claimed, tenant.store.tasks.list(limit=10).items


def lineage(tenant: Tenant) -> object:
    link = tenant.store.lineage.record("t0", kind="commit", ref_id=tenant.new("c"), metadata={"of": tenant.tag})
    return link, tenant.store.lineage.trace(link.ref_id), tenant.store.lineage.chain("t0")


def audits(tenant: Tenant) -> object:
    entry = tenant.store.audits.record("t0", event_type="seen", payload={"of": tenant.tag})
    return entry, tenant.store.audits.query(task_id="t0", order="-created_at", limit=5).items


def verdicts(tenant: Tenant) -> object:
    tenant.store.verdicts.record("t0", triggered_by=tenant.tag, decision="approve", reasons=[tenant.tag])
    return tenant.store.verdicts.latest("t0"), tenant.store.verdicts.stats().by_trigger


def inbox(tenant: Tenant) -> object:
    added = tenant.store.inbox.add("t0", event_type="x", payload={"of": tenant.tag}, id=tenant.new("event-"))
    claimed = tenant.store.inbox.claim(by=tenant.tag, lease=MINUTE)
    return added, claimed, [tenant.store.inbox.complete(each.id, each.lease_token) for each in claimed]


def events(tenant: Tenant) -> object:
    tenant.store.events.log("happened", data={"of": tenant.tag}, event_id=tenant.new("event-"))
    return tenant.store.events.tail(n=5)


def memory(tenant: Tenant) -> object:
    kept = tenant.store.memory.remember({"text": f"{tenant.tag} likes coffee"}, type="preference", id=tenant.new("m"))
    return kept, [hit.item for hit in tenant.store.memory.search("coffee", limit=5)]


def kb(tenant: Tenant) -> object:
    source = tenant.store.kb.add_source(source_path=f"/notes/{tenant.new('n')}.md", metadata={"of": tenant.tag})
    (chunk,) = tenant.store.kb.add_chunks(source.source_id, [NewChunk(f"{tenant.tag} coffee")])
    tenant.store.kb.embed("model", {chunk.chunk_id: [1.0, 0.5]})
    near = tenant.store.kb.search(vector=[1.0, 0.5], model_name="model", limit=5)
    return [hit.chunk for hit in (*near, *tenant.store.kb.search("coffee", limit=5))]


def search(tenant: Tenant) -> object:
    return {kind: str(found) for kind, found in tenant.store.search.check().items()}


def leases(tenant: Tenant) -> object:
    lease = tenant.store.leases.try_acquire("leader", owner=tenant.tag, ttl=MINUTE)
    held = list(tenant.store.leases.holders("leader"))
    if lease is not None:
        tenant.store.leases.release(tenant.store.leases.renew(lease, ttl=MINUTE))
    return lease, held


def users(tenant: Tenant) -> object:
    next(tenant.spent)
    return tenant.store.users.consume_quota("u1", 1), tenant.store.users.get("u1")


def sessions(tenant: Tenant) -> object:
    merged = tenant.store.sessions.merge_metadata("s1", {"of": tenant.tag})
    return merged, tenant.store.sessions.query(metadata={"of": tenant.tag}).items


def messages(tenant: Tenant) -> object:
    key = tenant.new("k")
    said = tenant.store.messages.append("s1", role="user", content=f"{tenant.tag} coffee", idempotency_key=key)
    return (
        said,
        tenant.store.messages.history("s1", last=5),
        [hit.message for hit in tenant.store.messages.search("coffee", limit=5)],
    )


def tool_calls(tenant: Tenant) -> object:
    call = tenant.store.tool_calls.record(
        tool_name="grep", tool_call_id=tenant.new("call-"), session_id="s1", input={"of": tenant.tag}
    )
    return call, tenant.store.tool_calls.list(session_id="s1", limit=5).items


def contexts(tenant: Tenant) -> object:
    tenant.store.contexts.save("c1", context_data={"of": tenant.tag}, agent_id="a1")
    return tenant.store.contexts.get("c1"), tenant.store.contexts.list_by_agent("a1")


def agents(tenant: Tenant) -> object:
    tenant.store.agents.save("a1", goal=tenant.tag, metadata={"of": tenant.tag})
    return tenant.store.agents.get("a1")


def snapshots(tenant: Tenant) -> object:
    made = tenant.store.snapshots.save("a1", tenant.new("snap-"), metadata={"of": tenant.tag})
    return made, tenant.store.snapshots.load("a1", made.snapshot_id).snapshot


def documents(tenant: Tenant) -> object:
    tenant.store.documents.save("a1", "todos", content={"of": tenant.tag})
    return tenant.store.documents.get("a1", "todos")


ACTIONS: dict[str, Callable[[Tenant], object]] = {
    each.__name__: each
    for each in (
        *(projects, tasks, lineage, audits, verdicts, inbox, events, memory, kb, search, leases, users, sessions),
        *(messages, tool_calls, contexts, agents, snapshots, documents),
    )
}
"""What is done with each repository, and what is read there."""


def plain(found: Any) -> str:
    if hasattr(found, "to_dict"):
        return json.dumps(found.to_dict(), default=str)
    if isinstance(found, list | tuple):
        return " ".join(map(plain, found))
    return str(found)


@pytest.fixture
def pair(url: str) -> Iterator[list[Tenant]]:
    """Two tenants: two schemas of one database that share an engine, or two files."""
    with ExitStack() as stack:
        if url.startswith("sqlite"):
            stores = [stack.enter_context(Store.open(each)) for each in (url, f"{url}.2")]
        else:
            ensure_migrations(url, schema=STRANGE)
            engine = shared_engine(url, settings=Settings.load(pool_size=4, max_overflow=0, lock_timeout=2))
            stack.callback(engine.dispose)
            stores = [stack.enter_context(Store.open(engine=engine, schema=each)) for each in (None, STRANGE)]
        yield [Tenant(store, tag) for store, tag in zip(stores, TAGS, strict=True)]


def listens(store: Store) -> bool:
    return store._backend.bell.interval == LISTENED


def rows_of(store: Store) -> str:
    """Return everything that is in the tenant's tables, as the driver gives it."""
    schema = store._backend.schema
    found = []
    with store._backend.raw_connection() as raw:
        for table in metadata.tables:
            name = f'"{table}"' if schema is None else f"{quote_name(schema)}.{table}"
            found.append(
                str(raw.execute(f"SELECT * FROM {name}".encode() if schema else f"SELECT * FROM {name}").fetchall())
            )
    return " ".join(found)


def test_every_repository_has_an_action() -> None:
    assert set(ACTIONS) == set(REPOSITORIES)


@pytest.mark.parametrize("seed", range(int(os.environ.get("AGENTOS_STORE_SEEDS", "1"))))
def test_no_operation_shows_one_tenant_anything_of_the_other(pair: list[Tenant], seed: int) -> None:
    barrier = threading.Barrier(4)

    def work(tenant: Tenant, other: str, chance: random.Random) -> None:
        barrier.wait()
        for _ in range(2):
            for name in chance.sample(list(ACTIONS), len(ACTIONS)):
                found = plain(ACTIONS[name](tenant))
                assert other not in found, name
                assert tenant.tag in found or name in {"leases", "search"}, name

    works: list[Callable[[], Any]] = [
        partial(work, tenant, other, random.Random(seed * 10 + number))
        for number, (tenant, other) in enumerate(zip(pair * 2, TAGS[::-1] * 2, strict=True))
    ]
    with threads(works) as outcomes:
        pass
    assert outcomes == [None] * 4
    for tenant, other in zip(pair, TAGS[::-1], strict=True):
        rows = rows_of(tenant.store)
        assert tenant.tag in rows
        assert other not in rows
        assert tenant.store.users.get("u1").quota_used == next(tenant.spent) == 4
        assert tenant.store.sessions.get("s1").message_count == 4
        assert tenant.store.audits.verify().ok
        assert tenant.store.check_consistency().ok
        with tenant.store.events.subscribe(from_start=True, timeout=0) as subscription:
            assert [event.data for event in subscription if event.event_type == "happened"] == [{"of": tenant.tag}] * 4


@pytest.mark.parametrize("backend", ["postgresql"])
def test_fifty_stores_on_one_engine_take_no_more_connections_than_its_pool_has(url: str) -> None:
    named = parse_url(url).update_query_dict({"application_name": "shared"})
    engine = shared_engine(named, settings=Settings.load(pool_size=3, max_overflow=0))

    def count(condition: str = "TRUE") -> int:
        with closing(connect(url)) as raw:
            found = raw.execute(
                f"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'shared' AND {condition}".encode()
            ).fetchone()
        assert found is not None
        return int(found[0])

    with ExitStack() as stack:
        stack.callback(engine.dispose)
        stores = [stack.enter_context(Store.open(engine=engine)) for _ in range(50)]

        def work(some: Sequence[Store]) -> None:
            for store in some:
                store.tasks.create(title="x")
                with store.transaction() as tx:
                    tx.events.log("happened")

        with threads([partial(work, stores[number::10]) for number in range(10)]) as outcomes:
            pass
        assert outcomes == [None] * 10
        assert stores[0].tasks.count() == stores[0].events.count() == 50
        assert 1 <= count() <= 3
        # Who waits for news has a connection beside the pool, and nobody else.
        with stores[0].events.subscribe(timeout=5) as subscription:
            wait_for(partial(listens, stores[0]))
            assert count("query LIKE 'LISTEN%'") == 1
            assert 2 <= count() <= 4
            stores[1].events.log("later")
            assert next(iter(subscription)).event_type == "later"
        wait_for(lambda: count("query LIKE 'LISTEN%'") == 0)


@pytest.mark.parametrize("backend", ["postgresql"])
def test_news_of_one_tenant_wake_nobody_of_the_other(pair: list[Tenant]) -> None:
    one, other = (tenant.store for tenant in pair)
    woken: list[int] = []
    waiters = [Waiter(store, partial(woken.append, number)) for number, store in enumerate((one, other))]
    for store, waiter in zip((one, other), waiters, strict=True):
        store._backend.bell.enter(waiter)
        wait_for(partial(listens, store))
    with ExitStack() as stack:
        # As another process would: its own bell, told by the server alone.
        beside = stack.enter_context(Store.open(other._backend.url, schema=STRANGE))
        wait_for(lambda: len(woken) == 2)
        woken.clear()
        beside.events.log("happened")
        wait_for(lambda: bool(woken))
        mine = stack.enter_context(Store.open(one._backend.url))
        mine.events.log("happened")
        wait_for(lambda: 0 in woken)
    assert woken == [1, 0]
    for waiter in waiters:
        waiter.leave()


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_lock_of_one_tenant_keeps_no_other_waiting(pair: list[Tenant]) -> None:
    one, other = (tenant.store for tenant in pair)
    for store in (one, other):
        store.tasks.create(task_id="t1", title="x")
    with one.transaction() as tx:
        tx.tasks.add_dependency("t0", "t1")
        # It would fail after the lock timeout otherwise.
        other.tasks.add_dependency("t1", "t0")
    assert one.tasks.list_dependencies().items[0].task_id == "t0"


@pytest.mark.parametrize("backend", ["postgresql"])
def test_a_shared_engine_has_the_limits_of_the_settings_and_serves_others_too(url: str) -> None:
    settings = Settings.load(pool_size=2, max_overflow=0, lock_timeout=0.05, retries=0)
    engine = shared_engine(url, settings=settings)
    with Store.open(engine=engine, settings=settings) as one, Store.open(engine=engine, settings=settings) as other:
        task = one.tasks.create(title="x")
        with one.transaction() as tx:
            tx.tasks.update(task.task_id, title="y")
            with pytest.raises(LockTimeoutError):
                other.tasks.update(task.task_id, title="z")
        with engine.connect() as connection:
            connection.execute(text("DELETE FROM tasks"))
            connection.rollback()
        assert other.tasks.get(task.task_id).title == "y"
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM tasks")).scalar_one() == 1
    engine.dispose()


def test_a_shared_engine_is_a_matter_of_postgresql(sqlite_url: str) -> None:
    with pytest.raises(InvalidValueError, match="SQLite"):
        shared_engine(sqlite_url)


def test_a_tenant_without_a_name_is_not_the_tenant_of_the_default(url: str) -> None:
    for ask in (Store.open, ensure_migrations):
        with pytest.raises(InvalidValueError, match="schema"):
            ask(url, schema="")
