"""Snapshots and forks of conversations that are appended to and rewritten meanwhile."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store.conversations.messages import MessageRepository
from agentos_store.operation import Blocking
from tests.agents.world import World

Messages = MessageRepository[Blocking]


@pytest.fixture
def messages(world: World) -> Messages:
    world.conversation("s")
    world.agents.save("a", session_id="s")
    return world.store.bind(MessageRepository[Blocking])


def said(rows: Any) -> list[Any]:
    return [row.content for row in rows]


@pytest.mark.parametrize("seed", range(3))
def test_every_snapshot_and_every_fork_of_it_is_what_the_conversation_was(
    world: World, messages: Messages, seed: int
) -> None:
    draw = random.Random(seed)
    was: dict[str, list[str]] = {}
    now: list[str] = []
    for step in range(25):
        if draw.random() < 0.4:
            now = [*now, f"{step}"]
            messages.append("s", role="user", content=now[-1], agent_id="a")
        else:
            first = draw.randrange(len(now) + 1)
            behind = draw.randrange(first, min(len(now), first + 3) + 1)
            now = now[:first] + [f"{step}.{n}" for n in range(draw.randrange(4))] + now[behind:]
            messages.save("s", [{"role": "user", "content": text, "agent_id": "a"} for text in now])
        snapshot = world.snapshots.save("a", f"{step}")
        assert snapshot.up_to_seq == len(now) - 1
        was[snapshot.snapshot_id] = now
    for snapshot_id, texts in was.items():
        assert said(world.snapshots.load("a", snapshot_id).messages) == texts, snapshot_id
        fork = world.agents.fork("a", snapshot_id=snapshot_id)
        assert said(messages.list(str(fork.session_id))) == texts, snapshot_id
        assert {row.agent_id for row in messages.list(str(fork.session_id))} <= {fork.agent_id}
    assert said(messages.list("s")) == now


def test_parent_and_fork_go_on_apart(world: World, messages: Messages) -> None:
    messages.append("s", role="user", content="one", idempotency_key="k", token_count=7)
    fork = world.agents.fork("a", "f")
    messages.append("s", role="user", content="parent")
    messages.append(str(fork.session_id), role="user", content="fork", token_count=1)
    assert said(messages.list("s")) == ["one", "parent"]
    assert said(messages.list(str(fork.session_id))) == ["one", "fork"]
    again = messages.append(str(fork.session_id), role="user", content="again", idempotency_key="k")
    assert (again.content, again.seq, again.token_count) == ("one", 0, 7)
    stats = world.agents.aggregate_stats("f")
    assert (stats.total_messages, stats.total_tokens) == (2, 1)


def test_forks_and_snapshots_beside_appenders_and_rewriters_are_whole(world: World, messages: Messages) -> None:
    messages.append_many("s", [{"role": "user", "content": f"{n}"} for n in range(20)])

    def append(_: int) -> None:
        for number in range(10):
            messages.append("s", role="user", content=f"{number}")

    def rewrite(number: int) -> None:
        for step in range(5):
            messages.save("s", [{"role": "user", "content": f"{number}.{step}.{n}"} for n in range(5 + step)])

    def fork(number: int) -> None:
        for step in range(5):
            made = world.agents.fork("a")
            found = messages.list(str(made.session_id), limit=1000).items
            assert [row.seq for row in found] == list(range(len(found)))
            snapshot = world.snapshots.save("a", f"{number}.{step}")
            loaded = world.snapshots.load("a", snapshot.snapshot_id).messages
            assert [row.seq for row in loaded] == list(range(snapshot.up_to_seq + 1))

    with ThreadPoolExecutor(8) as threads:
        work = [threads.submit(each, n) for n in range(3) for each in (append, rewrite, fork)]
        for each in work:
            each.result()
    assert world.agents.count(parent_id="a") == 15
