"""What does not fit together is found, named, and put right where that is possible."""

from __future__ import annotations

import asyncio
import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, update

from agentos_store import AsyncStore, Store
from agentos_store.base import Base
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.models import User
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import NotFoundError
from agentos_store.operation import Blocking, F, Repository, writes
from agentos_store.operations import consistency


class Vandal(Repository[F]):
    """Changes rows as nothing in the store does."""

    name = "vandal"

    @writes
    def change(self, session: Session, model: type[Base], key: str, values: dict[str, Any]) -> None:
        table = model.table()
        (column,) = table.primary_key
        changed = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in values}
        query = update(table).where(column == bindparam("key", type_=column.type)).values(changed)
        binds = {f"new_{name}": value for name, value in values.items()}
        session.execute(Statement(query, lasting=False), {"key": key, **binds})

    @writes
    def drop_message(self, session: Session, session_id: str, seq: int) -> None:
        table = Message.table()
        query = delete(table).where(
            table.c.session_id == bindparam("session_id", type_=table.c.session_id.type),
            table.c.seq == bindparam("seq", type_=table.c.seq.type),
        )
        session.execute(Statement(query, lasting=False), {"session_id": session_id, "seq": seq})


@pytest.fixture
def vandal(store: Store) -> Vandal[Blocking]:
    return store.bind(Vandal[Blocking])


def talk(store: Store, agent_id: str, count: int = 6) -> str:
    """Make an agent with a conversation; return the conversation."""
    session_id = store.sessions.create().id
    store.agents.save(agent_id, session_id=session_id, last_sfp_index=count - 1)
    store.messages.append_many(
        session_id,
        [{"role": "user", "content": str(n), "token_count": 2, "cost": Decimal("0.5")} for n in range(count)],
    )
    return session_id


def found(store: Store, agent_id: str | None = None) -> list[tuple[str, Any]]:
    return sorted((each.kind, each.key) for each in store.check_consistency(agent_id).findings)


def test_what_the_store_writes_fits_together(store: Store) -> None:
    session_id = talk(store, "a")
    store.snapshots.save("a", "s1")
    history = store.messages.history(session_id)
    store.messages.save(session_id, [{"role": "system", "content": "so far"}, *history[4:]])
    store.agents.save("a", last_sfp_index=2)
    store.agents.fork("a", "fork", snapshot_id="s1")
    user = store.users.create(name="Ada")
    store.users.reserve_quota(user.id, 10, ttl=dt.timedelta(hours=1))
    store.tool_calls.record(agent_id="a", tool_name="f", tool_call_id="waits", state="approval_required")
    report = store.check_consistency()
    assert report.ok, report.findings
    assert store.repair().ok


def test_counters_are_counted_anew(store: Store, vandal: Vandal[Blocking]) -> None:
    session_id = talk(store, "a")
    vandal.change(
        Conversation, session_id, {"message_count": 9, "next_seq": 9, "total_tokens": 1, "total_cost": Decimal(1)}
    )
    (finding,) = store.check_consistency().findings
    assert (finding.kind, finding.entity, finding.key) == ("counters", "session", session_id)
    assert "message_count 9" in finding.what
    assert finding.remedy is not None
    assert store.repair().counts == {"counters": 1}
    session = store.sessions.get(session_id)
    assert (session.message_count, session.next_seq, session.total_tokens) == (6, 6, 12)
    assert session.total_cost == 3
    assert store.check_consistency().ok
    # What was spent and is gone stays counted.
    vandal.change(Conversation, session_id, {"total_tokens": 100})
    assert store.check_consistency().ok


def test_a_gap_is_closed_and_snapshots_tell_what_they_lost(store: Store, vandal: Vandal[Blocking]) -> None:
    session_id = talk(store, "a")
    store.snapshots.save("a", "whole")
    store.snapshots.save("a", "first", up_to_seq=1)
    ids = [each.id for each in store.messages.iterate(session_id)]
    vandal.drop_message(session_id, 2)
    vandal.drop_message(session_id, 4)
    assert found(store) == [("counters", session_id), ("gaps", session_id), ("snapshots", ("a", "whole"))]
    assert found(store, "a") == found(store)
    repaired = store.repair("a")
    assert repaired.counts["gaps"] == 1
    rows = list(store.messages.iterate(session_id))
    assert [row.seq for row in rows] == [0, 1, 2, 3]
    assert [row.id for row in rows] == [ids[0], ids[1], ids[3], ids[5]]
    assert [row.content for row in store.snapshots.load("a", "first").messages] == ["0", "1"]
    # The bookmark stood on a message that is gone. What the snapshot lost nobody brings back.
    assert found(store) == [("snapshots", ("a", "whole"))]
    assert store.check_consistency().findings[0].remedy is None
    assert store.agents.get("a").last_sfp_index == 3
    store.messages.append(session_id, role="user", content="on it goes")
    assert store.sessions.get(session_id).message_count == 5


def test_a_snapshot_of_nothing_is_removed(store: Store, vandal: Vandal[Blocking]) -> None:
    session_id = talk(store, "a", 1)
    store.snapshots.save("a", "s1")
    empty = store.sessions.create().id
    store.agents.save("b", session_id=empty)
    store.snapshots.save("b", "of an empty conversation")
    vandal.drop_message(session_id, 0)
    kinds = {each.kind: each for each in store.check_consistency().findings}
    assert kinds["snapshots"].key == ("a", "s1")
    assert kinds["snapshots"].remedy == "remove it"
    store.repair()
    assert store.snapshots.find("a", "s1") is None
    assert store.snapshots.exists("b", "of an empty conversation")
    assert store.check_consistency().ok


def test_calls_that_nobody_is_at_work_on_are_settled(store: Store) -> None:
    session_id = talk(store, "a")
    talk(store, "busy")
    store.agents.set_state("busy", "busy")
    store.tool_calls.record(agent_id="a", tool_call_id="1", tool_name="f", state="executing")
    store.tool_calls.record(agent_id="busy", tool_call_id="1", tool_name="f", state="executing")
    store.tool_calls.record(agent_id="a", tool_call_id="2", tool_name="f", state="approval_required")
    store.tool_calls.record(agent_id="a", tool_call_id="3", tool_name="f", state="completed")
    use = {"type": "tool_use", "id": "4", "name": "g", "input": {}}
    store.messages.append(session_id, role="assistant", content=[use], agent_id="a")
    assert found(store) == [("tool_calls", ("a", "1")), ("tool_calls", ("a", "4"))]
    assert store.check_consistency("busy").ok
    store.repair()
    assert store.tool_calls.get("1", agent_id="a").state == "sealed"
    assert store.tool_calls.get("4", agent_id="a").state == "sealed"
    assert store.tool_calls.get("1", agent_id="busy").state == "executing"
    # Who waits for a person's word goes on waiting.
    assert store.tool_calls.get("2", agent_id="a").state == "approval_required"
    assert store.check_consistency().ok


def test_an_agent_that_went_back_to_work_is_left_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    talk(store, "a")
    store.tool_calls.record(agent_id="a", tool_call_id="1", tool_name="f", state="executing")
    find = consistency._find

    def meanwhile(*arguments: Any) -> Any:
        found = list(find(*arguments))
        store.agents.set_state("a", "busy")
        return found

    monkeypatch.setattr(consistency, "_find", meanwhile)
    store.repair()
    assert store.tool_calls.get("1", agent_id="a").state == "executing"


def test_what_is_removed_meanwhile_does_not_stop_the_repair(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for agent_id in ("a", "b"):
        talk(store, agent_id)
        store.tool_calls.record(agent_id=agent_id, tool_call_id="1", tool_name="f", state="executing")
    find = consistency._find

    def meanwhile(*arguments: Any) -> Any:
        found = list(find(*arguments))
        store.agents.purge("a")
        return found

    monkeypatch.setattr(consistency, "_find", meanwhile)
    store.repair()
    assert store.tool_calls.get("1", agent_id="b").state == "sealed"


def test_a_message_in_nobodys_name_is_the_busy_agents(store: Store) -> None:
    session_id = talk(store, "idle")
    store.agents.save("busy", session_id=session_id, state="busy")
    use = {"type": "tool_use", "id": "1", "name": "g", "input": {}}
    store.messages.append(session_id, role="assistant", content=[use])
    assert store.check_consistency().ok


def test_a_bookmark_beyond_the_end_is_set_to_it(store: Store) -> None:
    talk(store, "a")
    store.agents.save("a", last_sfp_index=6)
    (finding,) = store.check_consistency("a").findings
    assert (finding.kind, finding.key) == ("bookmarks", "a")
    store.repair("a")
    assert store.agents.get("a").last_sfp_index == 5
    assert store.check_consistency().ok


def test_reserved_tokens_that_nobody_holds_are_free_again(store: Store, vandal: Vandal[Blocking]) -> None:
    user = store.users.create(name="Ada", quota_total=100)
    store.users.reserve_quota(user.id, 10, ttl=dt.timedelta(hours=1))
    vandal.change(User, user.id, {"quota_reserved": 95})
    assert found(store) == [("quotas", user.id)]
    store.repair()
    assert store.users.consume_quota(user.id, 90).quota_used == 90
    assert store.check_consistency().ok


def test_more_than_a_batch_is_walked_through(store: Store, vandal: Vandal[Blocking]) -> None:
    with store.transaction() as tx:
        ids = [tx.sessions.create().id for _ in range(1_205)]
    for key in (ids[0], ids[700], ids[-1]):
        vandal.change(Conversation, key, {"message_count": 1})
    assert found(store) == sorted(("counters", key) for key in (ids[0], ids[700], ids[-1]))


def test_an_unknown_agent_is_refused(store: Store) -> None:
    for call in (store.check_consistency, store.repair):
        with pytest.raises(NotFoundError):
            call("nobody")


def test_the_asynchronous_face_says_the_same(url: str) -> None:
    async def check() -> None:
        async with AsyncStore.open(url) as store:
            session = await store.sessions.create()
            await store.agents.save("a", session_id=session.id, last_sfp_index=3)
            report = await store.check_consistency("a")
            assert [each.kind for each in report.findings] == ["bookmarks"]
            assert (await store.repair("a")).counts == {"bookmarks": 1}
            assert (await store.check_consistency()).ok

    asyncio.run(check())
