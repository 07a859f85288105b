from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from agentos_store import AsyncStore
from agentos_store.agents.models import Agent
from agentos_store.agents.repository import AgentRepository
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.capabilities import Capabilities
from agentos_store.engine.session import Call, Session
from agentos_store.engine.statement import Prepared, Statement
from agentos_store.errors import AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError
from agentos_store.operation import Awaiting, Blocking, Repository, writes
from tests.agents.world import World, tool_call

MESSAGES, CALLS = Message.table(), ToolCallRecord.table()


def messages_of(world: World, session_id: str | None) -> list[Message]:
    query = select(MESSAGES).where(MESSAGES.c.session_id == session_id, MESSAGES.c.to_generation.is_(None))
    return world.rows.all(query.order_by(MESSAGES.c.seq), Message)


def calls_of(world: World, session_id: str | None) -> list[ToolCallRecord]:
    return world.rows.all(select(CALLS).where(CALLS.c.session_id == session_id).order_by(CALLS.c.id), ToolCallRecord)


def conversation_of(world: World, agent: Agent) -> Conversation:
    table = Conversation.table()
    (found,) = world.rows.all(select(table).where(table.c.id == agent.session_id), Conversation)
    assert isinstance(found, Conversation)
    return found


@pytest.fixture(autouse=True)
def parent(world: World) -> None:
    world.conversation("s", channel="webui", title="会话", model="m", metadata={"x": 1}, budget=5, total_cost=2)
    world.agents.save(
        "a",
        session_id="s",
        template_id="coder",
        role="r",
        state="busy",
        config_version="v",
        breakpoint="POST_TOOL",
        stats={"n": 1},
        metadata={"m": 1},
        last_sfp_index=4,
        last_bookmark={"seq": 9},
    )
    world.agents.save("b")
    world.messages("s", [0, 1, 3, 4], agent_id="a", model="gpt", cost=1, idempotency_key=None)
    world.messages("s", [2], agent_id="b", idempotency_key="key", content=["天气", {"b": 1, "a": 1e16}])
    world.messages("s", [5], role="assistant", content=[], copied_from="elsewhere")
    world.rows.resize("s", 6)
    world.calls("s.m1", "c1", "c2", agent_id="a", session_id="s")
    world.calls("s.m4", "c3", agent_id="a", state="approval_required", approval={"required": True})
    world.calls("s.m2", "c1", agent_id="b", session_id="s")
    world.calls("s.m5", "c4", session_id="s")
    world.rows.add(ToolCallRecord, [tool_call("c5", agent_id="a", session_id="s")])


def test_a_fork_goes_on_with_a_copy_of_the_conversation(world: World) -> None:
    before = [each.to_dict() for each in messages_of(world, "s")]
    fork = world.agents.fork("a", "a/fork")
    assert world.agents.get("a/fork").to_dict() == fork.to_dict()
    old, new = world.agents.get("a").to_dict(), fork.to_dict()
    assert {name for name in old if old[name] != new[name]} == {
        "agent_id",
        "state",
        "lineage",
        "parent_id",
        "session_id",
        "breakpoint",
        "stats",
        "created_at",
        "updated_at",
    }
    assert (fork.lineage, fork.parent_id, fork.state, fork.breakpoint, fork.stats) == (["a"], "a", "idle", None, {})
    copies = [each.to_dict() for each in messages_of(world, fork.session_id)]
    changed = {"id", "session_id", "agent_id", "copied_from"}
    kept = [{name: each[name] for name in each if name not in changed} for each in before]
    assert [{name: each[name] for name in each if name not in changed} for each in copies] == kept
    assert [each["agent_id"] for each in copies] == ["a/fork", "a/fork", "b", "a/fork", "a/fork", None]
    assert [each["copied_from"] for each in copies] == [f"s.m{n}" for n in range(6)]
    assert [each.to_dict() for each in messages_of(world, "s")] == before


def test_a_fork_s_conversation_is_its_parent_s_with_nothing_spent(world: World) -> None:
    session = conversation_of(world, world.agents.fork("a"))
    assert (session.message_count, session.next_seq, session.generation) == (6, 6, 0)
    assert (session.total_tokens, session.total_cost, session.budget) == (0, Decimal(0), Decimal(5))
    assert (session.channel, session.title, session.model, session.metadata_) == ("webui", "会话", "m", {"x": 1})
    assert session.status == "active"


def test_a_fork_has_the_calls_that_its_messages_made(world: World) -> None:
    fork = world.agents.fork("a", "f")
    calls = calls_of(world, fork.session_id)
    own = f"{fork.session_id}."
    assert [(each.tool_call_id, each.agent_id, each.message_id) for each in calls] == [
        ("c1", "f", f"{own}1"),
        ("c2", "f", f"{own}1"),
        ("c3", "f", f"{own}4"),
        ("c4", None, f"{own}5"),
    ]
    assert [each.id for each in calls] == [f"{own}call{n}" for n in range(1, 5)]
    assert (calls[2].state, calls[2].approval) == ("approval_required", {"required": True})
    assert world.agents.aggregate_stats("f").total_tool_calls == 3
    assert world.agents.aggregate_stats("a").total_tool_calls == 4


def test_a_fork_of_a_fork_knows_its_ancestors_oldest_first(world: World) -> None:
    first = world.agents.fork("a", "f")
    second = world.agents.fork("f", "g")
    assert (second.lineage, second.parent_id) == (["a", "f"], "f")
    copies = messages_of(world, second.session_id)
    assert [each.copied_from for each in copies] == [f"{first.session_id}.{n}" for n in range(6)]
    assert [each.tool_call_id for each in calls_of(world, second.session_id)] == ["c1", "c2", "c3", "c4"]
    assert [agent.agent_id for agent in world.agents.list(ancestor_id="a")] == ["f", "g"]


def test_parent_and_fork_share_nothing(world: World, raw: Any) -> None:
    fork = world.agents.fork("a", "f")
    world.agents.purge("a")
    raw("DELETE FROM sessions WHERE id = 's'")
    assert world.agents.get("f").parent_id is None
    assert len(messages_of(world, fork.session_id)) == 6
    assert len(calls_of(world, fork.session_id)) == 4


@pytest.mark.parametrize(("last", "sfp", "calls"), [(-1, -1, 0), (0, 0, 0), (1, 1, 2), (5, 4, 4)])
def test_a_fork_can_leave_from_behind_any_message(world: World, last: int, sfp: int, calls: int) -> None:
    fork = world.agents.fork("a", up_to_seq=last)
    assert [each.seq for each in messages_of(world, fork.session_id)] == list(range(last + 1))
    assert conversation_of(world, fork).next_seq == last + 1
    assert fork.last_sfp_index == sfp
    assert len(calls_of(world, fork.session_id)) == calls


def test_a_fork_of_a_snapshot_goes_on_from_then(world: World, raw: Any) -> None:
    world.snapshots.save("a", "x", up_to_seq=4, last_sfp_index=2, last_bookmark={"seq": 1})
    # The second message is cut out, and the fifth moves to the fourth place.
    raw("UPDATE messages SET to_generation = 1 WHERE id = 's.m1'")
    raw("UPDATE messages SET to_generation = 1 WHERE id = 's.m3'")
    world.messages("s", [4], id="s.m4@1", to_generation=1, copied_from="s.m4", content="old place")
    raw("UPDATE messages SET seq = 1, from_generation = 1 WHERE id = 's.m4'")
    raw("UPDATE messages SET to_generation = 1 WHERE id = 's.m5'")
    raw("UPDATE sessions SET generation = 1, next_seq = 3, message_count = 3 WHERE id = 's'")
    fork = world.agents.fork("a", snapshot_id="x")
    copies = messages_of(world, fork.session_id)
    assert [each.content for each in copies][3:] == ["text 3", "old place"]
    assert {(each.from_generation, each.to_generation) for each in copies} == {(0, None)}
    assert (fork.last_sfp_index, fork.last_bookmark) == (2, {"seq": 1})
    assert conversation_of(world, fork).generation == 0
    # The calls of the message that moved are with it where it was.
    calls = [(each.tool_call_id, each.message_id) for each in calls_of(world, fork.session_id)]
    own = f"{fork.session_id}."
    assert calls == [("c1", f"{own}1"), ("c2", f"{own}1"), ("c3", f"{own}4")]
    now = world.agents.fork("a")
    own = f"{now.session_id}."
    assert [each.content for each in messages_of(world, now.session_id)][:2] == ["text 0", "text 4"]
    assert [(each.tool_call_id, each.message_id) for each in calls_of(world, now.session_id)] == [("c3", f"{own}1")]


def everything(raw: Any) -> list[Any]:
    tables = ("agents", "sessions", "messages", "tool_call_records")
    return [raw(f"SELECT count(*) FROM {table}") for table in tables]


def test_what_cannot_be_forked_leaves_nothing_behind(world: World, raw: Any) -> None:
    world.snapshots.save("a", "x")
    before = everything(raw)
    with pytest.raises(AlreadyExistsError) as taken:
        world.agents.fork("a", "b")
    assert (taken.value.entity, taken.value.key) == ("agent", "b")
    with pytest.raises(ConflictError) as empty:
        world.agents.fork("b")
    assert (empty.value.entity, empty.value.key) == ("agent", "b")
    bad: list[tuple[str, Callable[[], object]]] = [
        ("up_to_seq", lambda: world.agents.fork("a", up_to_seq=6)),
        ("up_to_seq", lambda: world.agents.fork("a", up_to_seq=-2)),
        ("up_to_seq", lambda: world.agents.fork("a", up_to_seq=True)),
        ("up_to_seq", lambda: world.agents.fork("a", up_to_seq=1, snapshot_id="x")),
        ("agent_id", lambda: world.agents.fork("a", "\n")),
        ("snapshot_id", lambda: world.agents.fork("a", snapshot_id="")),
        ("n", lambda: world.agents.batch_fork("a", 0)),
        ("n", lambda: world.agents.batch_fork("a", 1001)),
        ("n", lambda: world.agents.batch_fork("a", True)),
    ]
    for name, call in bad:
        with pytest.raises(InvalidValueError) as caught:
            call()
        assert caught.value.name == name
    raw("UPDATE sessions SET deleted_at = updated_at WHERE id = 's'")
    choices: list[dict[str, Any]] = [{}, {"snapshot_id": "x"}]
    for options in choices:
        with pytest.raises(NotFoundError) as missing:
            world.agents.fork("a", **options)
        assert (missing.value.entity, missing.value.key) == ("session", "s")
    raw("UPDATE sessions SET deleted_at = NULL WHERE id = 's'")
    raw("DELETE FROM messages WHERE id = 's.m3'")
    before[2] = raw("SELECT count(*) FROM messages")
    with pytest.raises(ConflictError) as torn:
        world.agents.batch_fork("a", 2)
    assert (torn.value.entity, torn.value.key) == ("session", "s")
    assert everything(raw) == before


def test_of_eight_forks_under_one_identifier_one_is_made(world: World, raw: Any) -> None:
    def fork(_: int) -> bool:
        try:
            world.agents.fork("a", "f")
        except AlreadyExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(fork, range(8))) == 1
    assert everything(raw)[:3] == [[(3,)], [(2,)], [(12,)]]


def test_a_batch_of_forks_leaves_from_one_point(world: World) -> None:
    made = world.agents.batch_fork("a", 5, up_to_seq=3)
    assert len({agent.agent_id for agent in made} | {agent.session_id for agent in made}) == 10
    for agent in made:
        assert world.agents.get(agent.agent_id).to_dict() == agent.to_dict()
        assert [each.seq for each in messages_of(world, agent.session_id)] == [0, 1, 2, 3]
        assert [each.tool_call_id for each in calls_of(world, agent.session_id)] == ["c1", "c2"]
    assert world.agents.count(parent_id="a") == 5


class Counted:
    """A connection that counts what is sent over it."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.count = 0

    @property
    def capabilities(self) -> Capabilities:
        found: Capabilities = self.inner.capabilities
        return found

    @property
    def max_payload(self) -> int:
        return 2**30

    def prepared(self, statement: Statement[Any]) -> Prepared[Any]:
        found: Prepared[Any] = self.inner.prepared(statement)
        return found

    def execute(self, prepared: Prepared[Any], values: list[object]) -> tuple[list[Any], int]:
        self.count += 1
        found: tuple[list[Any], int] = self.inner.execute(prepared, values)
        return found

    def execute_many(self, prepared: Prepared[Any], values: Sequence[Sequence[object]]) -> int:
        self.count += 1
        return int(self.inner.execute_many(prepared, values))

    def stream(self, prepared: Prepared[Any], values: list[object]) -> Iterator[Any]:
        return iter(self.inner.stream(prepared, values))

    def begin(self) -> None:
        self.inner.begin()

    def copy(self, table: str, columns: Sequence[str], chunks: Iterable[str], *, null: str) -> int:
        self.count += 1
        return int(self.inner.copy(table, columns, chunks, null=null))


class Counter(Repository[Blocking]):
    name = "counter"

    @writes
    def statements(self, session: Session, call: Callable[[Session], object]) -> int:
        counted = Counted(session._connection)
        call(Session(counted, Call()))
        return counted.count


def test_the_number_of_statements_does_not_grow_with_messages_or_forks(world: World) -> None:
    agents: Any = AgentRepository[Blocking]
    counter = world.store.bind(Counter)
    short = counter.statements(lambda session: agents.fork(None, session, "a"))
    world.messages("s", range(6, 506), agent_id="a")
    world.rows.resize("s", 506)
    long = counter.statements(lambda session: agents.fork(None, session, "a"))
    many = counter.statements(lambda session: agents.batch_fork(None, session, "a", 10))
    assert short == long == many <= 8
    assert world.agents.count(parent_id="a") == 12
    assert len(world.rows.all(select(MESSAGES.c.id))) == 506 + 6 + 506 * 11


def test_the_asynchronous_face_does_the_same(world: World, url: str) -> None:
    async def main() -> None:
        async with AsyncStore.open(url) as store:
            agents = store.bind(AgentRepository[Awaiting])
            made = await asyncio.gather(*(agents.fork("a") for _ in range(8)))
            assert len({agent.agent_id for agent in made}) == 8
            with pytest.raises(AlreadyExistsError):
                await agents.fork("a", "b")

    asyncio.run(main())
    assert len(world.rows.all(select(MESSAGES.c.id))) == 9 * 6
