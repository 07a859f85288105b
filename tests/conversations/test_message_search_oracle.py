"""Whatever was written and in whatever order: a search answers what reading every message would."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from agentos_store import NotFoundError, Store
from agentos_store.conversations import message_index, message_search
from agentos_store.conversations.message_texts import texts_of
from agentos_store.search.query import parse
from agentos_store.search.scanning import scanner

STEPS = int(os.environ.get("AGENTOS_STORE_SEARCH_STEPS", "150"))
WORDS = ["天气", "很好", "数据库", "cat", "dog", "cats", "今天", "气"]
QUERIES = [*WORDS, "天气 cat", '"cat dog"', "cat*", "-cat 天气", "今天天气", '"天气很好" dog', "气 -今天"]


def read(store: Any, query: str, filters: dict[str, Any]) -> list[tuple[str, float]]:
    """Read every message, and return what the query finds, the best first."""
    scan = scanner(parse(query))
    scored = (
        (message.id, scan(texts_of(message.content))) for message in store.messages.query(limit=10_000, **filters)
    )
    return sorted(((key, score) for key, score in scored if score is not None), key=lambda each: (-each[1], each[0]))


class Life:
    """Conversations that are written, rewritten, forked and removed at random."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store = store
        self.random = random.Random(seed)
        self.sessions = [store.sessions.create().id for _ in range(3)]
        self.agents = [store.agents.save(f"a{n}", session_id=key).agent_id for n, key in enumerate(self.sessions)]
        self.deleted: set[str] = set()

    def said(self) -> dict[str, Any]:
        text = " ".join(self.random.choices(WORDS, k=self.random.randint(1, 6)))
        content: Any = text if self.random.random() < 0.7 else [{"type": "text", "text": text}]
        agent_id = self.random.choice([None, *self.agents])
        return {"role": self.random.choice(["user", "assistant"]), "content": content, "agent_id": agent_id}

    def open_session(self) -> str:
        return self.random.choice([key for key in self.sessions if key not in self.deleted])

    def step(self, store: Any) -> None:
        steps = [self.append] * 4 + [self.append_many] * 2 + [self.save] * 4 + [self.fork, self.delete, self.restore]
        self.random.choice([*steps, self.purge])(store)

    def append(self, store: Any) -> None:
        store.messages.append(self.open_session(), **self.said())

    def append_many(self, store: Any) -> None:
        store.messages.append_many(self.open_session(), [self.said() for _ in range(self.random.randint(1, 9))])

    def save(self, store: Any) -> None:
        session_id = self.open_session()
        history = list(store.messages.iterate(session_id))
        low, high = sorted(self.random.choices(range(len(history) + 1), k=2))
        cut: list[Any] = history[low:high]
        choice = self.random.randrange(5)
        if choice == 0:
            cut = history[:high]
        elif choice == 1:
            cut = [self.said(), *history[low:]]
        elif choice == 2:
            cut = [*history[:low], self.said(), *history[high:]]
        elif choice == 3:
            cut = [*history[:low], *history[high:], self.said()]
        store.messages.save(session_id, cut)

    def fork(self, store: Any) -> None:
        held = [agent for agent in self.agents if store.agents.get(agent).session_id not in {None, *self.deleted}]
        if held and len(self.sessions) < 8:
            made = store.agents.fork(self.random.choice(held))
            self.agents.append(made.agent_id)
            self.sessions.append(made.session_id)

    def delete(self, store: Any) -> None:
        if len(self.sessions) - len(self.deleted) > 1:
            session_id = self.open_session()
            store.sessions.delete(session_id)
            self.deleted.add(session_id)

    def restore(self, store: Any) -> None:
        if self.deleted:
            store.sessions.restore(self.deleted.pop())

    def purge(self, store: Any) -> None:
        if len(self.sessions) - len(self.deleted) > 2:
            session_id = self.random.choice(self.sessions)
            store.sessions.purge(session_id)
            self.sessions.remove(session_id)
            self.deleted.discard(session_id)

    def judge(self, store: Any) -> None:
        """Search, and hold the answer against the messages themselves."""
        query = self.random.choice(QUERIES)
        filters: dict[str, Any] = {
            name: value
            for name, value in {
                "session_id": self.open_session(),
                "agent_id": self.random.choice(self.agents),
                "role": "user",
            }.items()
            if self.random.random() < 0.25
        }
        limit, offset = self.random.choice([(1000, 0), (3, 0), (2, 3)])
        hits = store.messages.search(query, limit=limit, offset=offset, **filters)
        found = [(hit.message.id, hit.score) for hit in hits]
        assert found == read(store, query, filters)[offset : offset + limit], (query, filters)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_search_answers_what_reading_would(store: Store, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    # So small that every step has several batches, and that reading gives way to indexing now and then.
    monkeypatch.setattr(message_index, "SOME", 4)
    monkeypatch.setattr(message_index, "LOOKED_AT", 6)
    monkeypatch.setattr(message_search, "MOST_READ", 5)
    life = Life(store, seed)
    for _ in range(STEPS):
        way = life.random.randrange(6)
        if way == 0:
            deleted, sessions, agents = set(life.deleted), list(life.sessions), list(life.agents)
            try:
                with store.transaction() as tx:
                    life.step(tx)
                    life.judge(tx)
                    life.step(tx)
                    if life.random.random() < 0.3:
                        tx.sessions.get("unknown")
            except NotFoundError:
                life.deleted, life.sessions, life.agents = deleted, sessions, agents
        elif way == 1:
            life.step(store)
            with store.transaction(read_only=True) as tx:
                life.judge(tx)
        else:
            life.step(store)
            if way == 2:
                life.judge(store)
                assert store.search.check("message")["message"].overdue == 0
    life.judge(store)
    store.messages.search("brings everything up to date")
    report = store.search.check("message")["message"]
    # What is not indexed is in sessions that are deleted.
    assert (report.stale, report.overdue) == (0, 0)
    assert store.search.probe()
