"""Every filter of the lists, proved by the agents that it must leave out, on both databases side by side."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.engine.prefix import behind
from agentos_store.errors import InvalidValueError
from tests.agents.world import START, world_of

KEYS = [
    "%",
    "%a",
    "*",
    "A",
    "\\",
    "\\%",
    "_",
    "_a",
    "a",
    "a%b",
    "a*",
    "a_b",
    "aXb",
    "agt-01",
    "agt-01/fork-1",
    "agt-01/fork-1/fork-2",
    "agt-010",
    "ä",
    "~",
    "~a",
    "天气",
    "天气/一",
    "\ud7ff",
    "\ud7ffa",
    "\ue000",
    "\U0010fffe",
    "\U0010ffff",
    "\U0010ffffa",
    "\U0010ffff\U0010ffff",
    "z\U0010ffff",
    "z\U0010ffff\U0010ffffz",
    "zz",
]


@pytest.fixture(scope="module")
def lists(both: list[Store]) -> list[Any]:
    found = []
    for store in both:
        world = world_of(store)
        for number, key in enumerate(KEYS):
            world.agents.create(key, created_at=START + dt.timedelta(days=number))
        for key in ("s1", "s2"):
            world.conversation(key)
        late = START + dt.timedelta(days=1000)
        for number in range(12):
            world.agents.save(
                f"kept-{number:02}",
                template_id=f"t{number % 2}",
                state=("idle", "busy", "failed", "archived")[number % 4],
                parent_id=f"kept-{number - 3:02}" if number >= 3 else None,
                lineage=[f"kept-{each:02}" for each in range(number % 3, number, 3)],
                session_id=f"s{number % 2 + 1}",
                metadata={"n": number % 5, "tags": ["a", {"b": number}]},
                created_at=late + dt.timedelta(days=number),
            )
        world.agents.save("kept-99", template_id="t0", created_at=late)
        world.agents.delete("kept-99")
        found.append(world.agents)
    return found


@pytest.mark.parametrize(
    "prefix",
    [*KEYS, "ag", "agt-01/", "no", "\x00"[:0] + "zzz", "a" * 300, "\ud7ffb", "\U0010ffff" * 3, "%%", "__", "a\x7f"],
)
def test_a_prefix_is_what_identifiers_begin_with_and_no_pattern(lists: list[Any], prefix: str) -> None:
    wanted = sorted(key for key in KEYS if key.startswith(prefix))
    for agents in lists:
        assert [agent.agent_id for agent in agents.list(prefix=prefix)] == wanted
        assert [agent.agent_id for agent in agents.iterate(prefix=prefix, limit=1)] == wanted
        assert [agent.agent_id for agent in agents.list(prefix=prefix, order="-agent_id")] == wanted[::-1]
        assert {agent.agent_id for agent in agents.list(prefix=prefix, order="created_at")} == set(wanted)
        assert agents.count(prefix=prefix) == len(wanted)


def test_an_empty_prefix_is_none(lists: list[Any]) -> None:
    for agents in lists:
        assert agents.count(prefix="") == agents.count() == len(KEYS) + 12


@pytest.mark.parametrize("prefix", ["\0", "\ud800", 5])
def test_a_prefix_that_no_text_can_hold_is_refused(lists: list[Any], prefix: Any) -> None:
    for agents in lists:
        with pytest.raises(InvalidValueError) as caught:
            agents.list(prefix=prefix)
        assert caught.value.name == "prefix"


def test_nothing_lies_between_a_prefix_s_texts_and_what_comes_behind_them() -> None:
    assert (behind("a"), behind("a\U0010ffff"), behind("\ud7ff")) == ("b", "b", "\ue000")
    assert behind("\U0010ffff" * 2) is None
    assert behind("\U0010fffe") == "\U0010ffff"


LATE = START + dt.timedelta(days=1000)
FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({"template_id": "t1"}, lambda n: n % 2 == 1),
    ({"state": "archived"}, lambda n: n % 4 == 3),
    ({"active_only": True, "prefix": "kept-"}, lambda n: n % 4 != 3),
    ({"parent_id": "kept-04"}, lambda n: n == 7),
    ({"ancestor_id": "kept-04"}, lambda n: n in (7, 10)),
    ({"session_id": "s2"}, lambda n: n % 2 == 1),
    ({"created_after": LATE + dt.timedelta(days=3)}, lambda n: n >= 3),
    ({"created_after": LATE, "created_before": LATE + dt.timedelta(days=3)}, lambda n: n < 3),
    ({"metadata": {"n": 2}}, lambda n: n % 5 == 2),
    ({"metadata": {"tags": [{"b": 3}]}}, lambda n: n == 3),
    ({"template_id": "t1", "state": "busy", "metadata": {"n": 0}}, lambda n: n == 5),
]


@pytest.mark.parametrize(("filters", "passes"), FILTERS)
def test_a_filter_keeps_what_it_says(lists: list[Any], filters: dict[str, Any], passes: Any) -> None:
    wanted = [f"kept-{number:02}" for number in range(12) if passes(number)]
    for agents in lists:
        assert [agent.agent_id for agent in agents.list(**filters)] == wanted
        assert [agent.agent_id for agent in agents.iterate(**filters, limit=1)] == wanted
        assert [agent.agent_id for agent in agents.list(**filters, order="-created_at", limit=2)] == wanted[:-3:-1]
        assert agents.count(**filters) == len(wanted)


def test_a_deleted_agent_passes_only_where_it_is_asked_for(lists: list[Any]) -> None:
    for agents in lists:
        assert agents.count(template_id="t0") == 6
        assert agents.count(template_id="t0", include_deleted=True) == 7
        assert "kept-99" in {agent.agent_id for agent in agents.list(prefix="kept-9", include_deleted=True)}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state", "sleeping"),
        ("template_id", ""),
        ("ancestor_id", 5),
        ("metadata", [1]),
        ("created_after", dt.datetime(2026, 1, 1)),  # noqa: DTZ001
        ("order", "goal"),
        ("limit", 0),
        ("cursor", "x"),
    ],
)
def test_a_bad_filter_is_refused_by_its_name(lists: list[Any], name: str, value: Any) -> None:
    for agents in lists:
        with pytest.raises(InvalidValueError) as caught:
            agents.list(**{name: value})
        assert caught.value.name == name


def test_a_cursor_belongs_to_its_query(lists: list[Any]) -> None:
    for agents in lists:
        cursor = agents.list(prefix="a", limit=1).next
        with pytest.raises(InvalidValueError):
            agents.list(prefix="z", cursor=cursor)
        assert len(agents.list(limit=3, offset=40)) == 3
