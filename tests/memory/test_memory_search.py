from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from agentos_store import InvalidValueError, Store

PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
LATE = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


def found(store: Store, query: str, **filters: Any) -> list[str]:
    return [hit.item.id for hit in store.memory.search(query, **filters)]


@pytest.fixture
def filled(store: Store) -> Store:
    store.projects.create(path="/p", id="p")
    with store.transaction() as tx:
        remember = tx.memory.remember
        remember({"text": "数据库迁移要先备份"}, type="decision", tags=["db", "ops"], confidence=0.9, id="a")
        remember({"text": "数据库用PostgreSQL", "n": 1}, type="constraint", scope="project", project_id="p", id="b")
        remember(["今天北京天气很好", {"more": "数据库"}], type="fact", scope="task", scope_id="t", tags=["db"], id="c")
        remember("数据库 expired", type="fact", expires_at=PAST, id="d")
        remember("数据库 later", type="fact", expires_at=LATE, confidence=0.1, id="e")
    return store


def test_a_hit_has_its_item_its_score_and_its_place(filled: Store) -> None:
    (hit,) = filled.memory.search("天气")
    assert hit.item.to_dict() == filled.memory.get("c").to_dict()
    assert hit.snippet == "今天北京«天气»很好"
    assert hit.score > 0
    (hit,) = filled.memory.search("数据库 ops")
    assert hit.snippet == "«数据库»迁移要先备份"
    (hit,) = filled.memory.search("ops", marks=("[", "]"))
    assert hit.snippet == "[ops]"


def test_what_is_found_can_be_narrowed(filled: Store) -> None:
    assert sorted(found(filled, "数据库")) == ["a", "b", "c", "e"]
    assert found(filled, "数据库", scope="task") == ["c"]
    assert found(filled, "数据库", scope="task", scope_id="u") == []
    assert found(filled, "数据库", type="constraint") == ["b"]
    assert found(filled, "数据库", project_id="p") == ["b"]
    assert found(filled, "数据库", min_confidence=0.5) == found(filled, "数据库 -later")
    assert sorted(found(filled, "数据库", tags=["db"])) == ["a", "c"]
    assert found(filled, "数据库", tags=["db", "ops"], min_confidence=0.5, type="decision", scope="global") == ["a"]
    assert found(filled, "图书馆") == []
    assert found(filled, "expired") == []


def test_hits_come_best_first_and_in_pages(filled: Store) -> None:
    hits = filled.memory.search("数据库")
    assert [(hit.score, hit.item.id) for hit in hits] == sorted(
        ((hit.score, hit.item.id) for hit in hits), key=lambda each: (-each[0], each[1])
    )
    keys = [hit.item.id for hit in hits]
    assert [found(filled, "数据库", limit=1, offset=at) for at in range(5)] == [*([key] for key in keys), []]


def test_a_query_that_asks_for_nothing_finds_nothing(filled: Store) -> None:
    for query in ("", " ", '"', "*", "-", "-数据库", "+++", "\0", "\ud800", "'", "¶"):
        assert filled.memory.search(query) == []


BAD: list[tuple[str, dict[str, Any]]] = [
    ("query", {"query": None}),
    ("limit", {"limit": 0}),
    ("limit", {"limit": 1001}),
    ("offset", {"offset": -1}),
    ("offset", {"offset": 1001}),
    ("scope", {"scope": "x"}),
    ("min_confidence", {"min_confidence": float("nan")}),
]


def test_a_bad_option_is_refused(filled: Store) -> None:
    for name, options in BAD:
        with pytest.raises(InvalidValueError) as caught:
            filled.memory.search(**{"query": "数据库", **options})
        assert caught.value.name == name


def test_a_query_of_twenty_thousand_words_is_answered(store: Store) -> None:
    words = [f"w{number}" for number in range(20_000)]
    store.memory.remember(" ".join(words), type="fact", id="all")
    store.memory.remember(" ".join(words[:-1]), type="fact", id="but one")
    store.memory.remember(" ".join(reversed(words)), type="fact", id="turned")
    assert sorted(found(store, " ".join(words))) == ["all", "turned"]
    assert found(store, f'"{" ".join(words)}"') == ["all"]
    assert sorted(found(store, f'"{" ".join(words[:-1])}"')) == ["all", "but one"]
    assert found(store, " ".join(words), limit=1, offset=1) == ["turned"]
    many = " ".join(f"-v{number}" for number in range(200))
    assert sorted(found(store, f"w1 {many}")) == ["all", "but one", "turned"]
    assert found(store, f"w1 {many} -w19999") == ["but one"]
    assert found(store, f'"{" ".join(words[5:100])}" -w19999') == ["but one"]


def test_both_databases_give_the_same_hits_in_the_same_order(both: list[Store]) -> None:
    answers = []
    for store in both:
        with store.transaction() as tx:
            for number in range(60):
                text = f"{'数据库 ' * (number % 5)}cat {'dog ' * (number % 7)}天气{'很好' * (number % 3)} {number}"
                tx.memory.remember(text, type=f"t{number % 3}", confidence=number / 100, id=f"k{number:02}")
        asked = ["cat", "dog 数据库", "天气", "气", "d*", "cat -dog", '"dog 天气很好"', "很好很", "3*", "cat dog 天 -5"]
        answers.append(
            [
                (hit.item.id, hit.score, hit.snippet)
                for query in asked
                for options in ({"limit": 7}, {"limit": 7, "offset": 7}, {"type": "t1"}, {"min_confidence": 0.3})
                for hit in store.memory.search(query, **options)
            ]
        )
    assert answers[0] == answers[1]
    assert len(answers[0]) > 200


# --- contexts


def remember(store: Store, key: str, scope: str, scope_id: str | None = None, **options: Any) -> None:
    store.memory.remember(f"{key} {'x' * 34}", scope=scope, scope_id=scope_id, id=key, **{"type": "fact", **options})


def test_a_context_has_the_most_specific_scope_first_and_within_it_the_surest(store: Store) -> None:
    remember(store, "global", "global", confidence=1.0)
    remember(store, "project", "project", "p")
    remember(store, "repo", "repo", "r")
    remember(store, "agent", "agent", "a")
    remember(store, "task1", "task", "t", confidence=0.2)
    remember(store, "task2", "task", "t", confidence=0.8)
    remember(store, "task3", "task", "t", confidence=0.8)
    remember(store, "other", "task", "u")
    remember(store, "any", "task", None)
    remember(store, "expired", "task", "t", expires_at=PAST)

    def keys(**options: Any) -> list[str]:
        return [item.id for item in store.memory.context(**options).items]

    everything = {"task_id": "t", "agent_id": "a", "repo_id": "r", "project_id": "p"}
    assert keys(**everything) == ["task3", "task2", "task1", "agent", "repo", "project", "global"]
    assert keys(task_id="t", project_id="p") == ["task3", "task2", "task1", "project", "global"]
    assert keys() == ["global"]
    assert keys(task_id="t", min_confidence=0.5) == ["task3", "task2", "global"]
    with pytest.raises(InvalidValueError):
        keys(task_id="")


def test_a_context_stays_within_its_budget_and_passes_over_what_does_not_fit(store: Store) -> None:
    store.memory.remember("短", type="fact", confidence=0.1, id="short")
    store.memory.remember("a" * 400, type="fact", confidence=0.5, id="long")
    store.memory.remember("天" * 50, type="fact", confidence=0.9, id="sure")
    for budget, keys, tokens in (
        (1000, ["sure", "long", "short"], 151),
        (60, ["sure", "short"], 51),
        (50, ["sure"], 50),
        (1, ["short"], 1),
        (0, [], 0),
    ):
        context = store.memory.context(token_budget=budget)
        assert ([item.id for item in context.items], context.tokens) == (keys, tokens)
    counted = store.memory.context(token_budget=2, count_tokens=lambda _: 1)
    assert ([item.id for item in counted.items], counted.tokens) == (["sure", "long"], 2)
