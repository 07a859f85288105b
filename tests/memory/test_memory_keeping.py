from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from agentos_store import ConflictError, InvalidValueError, NotFoundError, Store

Run = Callable[..., list[tuple[Any, ...]]]

DAY = dt.timedelta(days=1)
PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
LATE = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


def found(store: Store, query: str) -> list[str]:
    return sorted(hit.item.id for hit in store.memory.search(query))


# --- promoting and merging


def test_an_item_is_promoted_to_a_wider_scope(store: Store) -> None:
    store.projects.create(path="/p", id="p")
    store.memory.remember("x", type="fact", scope="task", scope_id="t", project_id="p", id="m")
    assert store.memory.promote("m", "agent", scope_id="a").scope_id == "a"
    assert store.memory.promote("m", "project").scope_id == "p"
    item = store.memory.promote("m", "global")
    assert (item.scope, item.scope_id, item.project_id) == ("global", None, "p")
    assert found(store, "x") == ["m"]


def test_a_promotion_must_lead_somewhere_wider(store: Store) -> None:
    store.memory.remember("x", type="fact", scope="repo", scope_id="r", id="m")
    for name, to, scope_id in (
        ("to", "task", "t"),
        ("to", "repo", "r"),
        ("to", "nowhere", None),
        ("scope_id", "project", None),
        ("scope_id", "global", "g"),
    ):
        with pytest.raises(InvalidValueError) as caught:
            store.memory.promote("m", to, scope_id=scope_id)
        assert caught.value.name == name
    with pytest.raises(NotFoundError):
        store.memory.promote("nowhere", "global")


def test_a_promotion_to_where_it_is_known_already_is_a_merger(store: Store) -> None:
    store.memory.remember("x", type="fact", tags=["wide"], confidence=0.2, id="wide")
    store.memory.remember("x", type="fact", tags=["narrow"], confidence=0.8, scope="task", scope_id="t", id="narrow")
    store.memory.touch("narrow")
    item = store.memory.promote("narrow", "global")
    assert (item.id, item.tags, item.confidence, item.use_count) == ("wide", ["wide", "narrow"], 0.8, 1)
    assert store.memory.count() == 1
    assert found(store, "narrow") == ["wide"]


def test_merging_loses_nothing(store: Store, raw: Run) -> None:
    remember = store.memory.remember
    remember("one", type="fact", tags=["a"], sources=[1], confidence=0.3, expires_at=PAST, id="m1")
    remember("two", type="rule", tags=["b", "a"], sources=[2], confidence=0.9, retention_type="temporary", id="m2")
    remember("three", type="fact", scope="task", scope_id="t", retention_type="permanent", auto_cleanup=False, id="m3")
    for key in ("m1", "m2", "m2"):
        used = store.memory.touch(key).last_used_at
    item = store.memory.merge("m1", "m3", "m2", "m3")
    assert (item.content, item.type, item.tags, item.sources) == ("one", "fact", ["a", "b"], [1, 2])
    assert (item.confidence, item.use_count, item.last_used_at) == (0.9, 3, used)
    assert (item.retention_type, item.expires_at, item.auto_cleanup) == ("permanent", None, False)
    assert store.memory.count() == 1
    assert (found(store, "b"), found(store, "two")) == (["m1"], [])
    assert raw("SELECT count(*) FROM search_documents")[0][0] == 1
    with pytest.raises(InvalidValueError):
        store.memory.merge("m1", "m1")
    with pytest.raises(NotFoundError):
        store.memory.merge("m1", "gone")


def test_what_says_the_same_is_merged_into_the_oldest(store: Store) -> None:
    for number, (content, scope) in enumerate(
        [
            ("Use PostgreSQL.", "global"),
            ("use postgresql!", "global"),
            ("ＵＳＥ PostgreSQL", "global"),
            ("Use SQLite.", "global"),
            ({"do": "Use PostgreSQL."}, "global"),
            ("Use PostgreSQL", "task"),
            ("?", "global"),
            ("!", "global"),
        ]
    ):
        store.memory.remember(
            content, type="fact", scope=scope, scope_id=None if scope == "global" else "t", id=f"m{number}"
        )
    store.memory.remember("USE POSTGRESQL", type="rule", id="rule")
    assert store.memory.merge_duplicates(type="rule") == []
    (merger,) = store.memory.merge_duplicates()
    assert (merger.kept.id, list(merger.removed)) == ("m0", ["m1", "m2"])
    assert store.memory.merge_duplicates() == []
    assert found(store, "postgresql") == ["m0", "m4", "m5", "rule"]


def test_mergers_that_race_leave_one_item_and_no_deadlock(store: Store) -> None:
    for number in range(6):
        store.memory.remember(f"Item {'!' * number}", type="fact", tags=[f"t{number}"], id=f"m{number}")
    barrier = threading.Barrier(4, timeout=60)

    def work(_: int) -> int:
        barrier.wait()
        try:
            return sum(len(merger.removed) for merger in store.memory.merge_duplicates())
        except (NotFoundError, ConflictError):
            return 0

    with ThreadPoolExecutor(4) as threads:
        removed = list(threads.map(work, range(4)))
    assert sum(removed) == 5
    item = store.memory.get("m0")
    assert item.tags == [f"t{number}" for number in range(6)]
    assert found(store, "item") == ["m0"]


# --- fading


def test_fading_daily_for_ten_days_is_fading_once_after_ten(store: Store, raw: Run) -> None:
    before = {}
    for number in range(20):
        item = store.memory.remember(f"x{number}", type="fact", confidence=(number * 37 % 101) / 101)
        before[item.id] = item
    moment = max(item.decayed_at for item in before.values())

    def faded() -> dict[str, tuple[float, dt.datetime]]:
        return {item.id: (item.confidence, item.decayed_at) for item in store.memory.list()}

    for day in range(1, 11):
        assert store.memory.decay(at=moment + day * DAY).items == 20
    daily = faded()
    for key, item in before.items():
        raw("UPDATE memory_items SET confidence = ?, decayed_at = created_at WHERE id = ?", item.confidence, key)
    assert store.memory.decay(at=moment + 10 * DAY).items == 20
    assert faded() == daily
    assert all(confidence < before[key].confidence or confidence == 0 for key, (confidence, _) in daily.items())


def test_fading_once_after_ten_days_gives_the_same(store: Store) -> None:
    item = store.memory.remember("x", type="fact", confidence=0.83)
    at = item.decayed_at + 10 * DAY + dt.timedelta(hours=13)
    decay = store.memory.decay(at=at)
    assert (decay.items, decay.more) == (1, False)
    expected = 0.83
    for _ in range(10):
        expected *= 0.5 ** (1 / 90)
    faded = store.memory.get(item.id)
    assert faded.confidence == expected
    assert faded.confidence == pytest.approx(0.83 * 0.5 ** (10 / 90))
    # The hours beyond whole days count the next time.
    assert faded.decayed_at == item.decayed_at + 10 * DAY
    assert store.memory.decay(at=at).items == 0
    assert store.memory.decay(at=at + dt.timedelta(hours=11)).items == 1


def test_half_a_life_later_it_is_half(store: Store) -> None:
    item = store.memory.remember("x", type="fact", confidence=1.0)
    store.memory.decay(half_life=7 * DAY, at=item.decayed_at + 14 * DAY)
    assert store.memory.get(item.id).confidence == pytest.approx(0.25)


def test_what_is_permanent_does_not_fade_and_what_is_confirmed_begins_anew(store: Store) -> None:
    kept = store.memory.remember("kept", type="fact", retention_type="permanent")
    item = store.memory.remember("item", type="fact", confidence=0.5)
    assert store.memory.decay(at=item.decayed_at + 100 * DAY).items == 1
    assert store.memory.get(kept.id).confidence == 0.5
    assert store.memory.decay().items == 0
    again = store.memory.remember("item", type="fact", confidence=0.5)
    assert (again.confidence, again.decayed_at) == (0.5, again.updated_at)


def test_fading_goes_in_batches(store: Store) -> None:
    items = [store.memory.remember(f"x{number}", type="fact") for number in range(7)]
    at = items[-1].decayed_at + DAY
    batches = [store.memory.decay(at=at, limit=3) for _ in range(4)]
    assert [(batch.items, batch.more) for batch in batches] == [(3, True), (3, True), (1, False), (0, False)]


def test_fading_in_parallel_fades_once(store: Store) -> None:
    items = [store.memory.remember(f"x{number}", type="fact", confidence=1.0) for number in range(40)]
    at = items[-1].decayed_at + DAY
    with ThreadPoolExecutor(4) as threads:
        done = list(threads.map(lambda _: store.memory.decay(at=at, limit=100).items, range(4)))
    assert sum(done) == 40
    assert {item.confidence for item in store.memory.list()} == {0.5 ** (1 / 90)}


BAD: list[tuple[str, dict[str, Any]]] = [
    ("half_life", {"half_life": dt.timedelta(0)}),
    ("half_life", {"half_life": 90}),
    ("at", {"at": dt.datetime(2026, 1, 1)}),  # noqa: DTZ001  that is what is refused
    ("limit", {"limit": 0}),
]


def test_a_bad_option_is_refused(store: Store) -> None:
    for name, options in BAD:
        with pytest.raises(InvalidValueError) as caught:
            store.memory.decay(**options)
        assert caught.value.name == name


# --- cleaning up


def test_cleaning_up_removes_what_has_expired_and_what_nobody_uses(store: Store, raw: Run) -> None:
    remember = store.memory.remember
    remember("expired", type="fact", expires_at=PAST, auto_cleanup=False, id="expired")
    remember("later", type="fact", expires_at=LATE, id="later")
    remember("permanent", type="fact", expires_at=PAST, retention_type="permanent", id="permanent")
    remember("unused", type="fact", retention_type="temporary", id="unused")
    remember("unused long ago", type="fact", retention_type="temporary", id="unused long ago")
    remember("kept", type="fact", retention_type="temporary", auto_cleanup=False, id="kept")
    remember("used", type="fact", retention_type="temporary", id="used")
    remember("young", type="fact", retention_type="temporary", id="young")
    remember("old", type="fact", id="old")
    store.memory.touch("used")
    old = "2026-01-01T00:00:00.000000Z"
    raw("UPDATE memory_items SET created_at = ? WHERE id <> 'young'", old)
    raw("UPDATE memory_items SET last_used_at = ? WHERE id = 'unused long ago'", old)
    cleanup = store.memory.cleanup()
    assert (cleanup.expired, cleanup.unused, cleanup.removed, cleanup.more) == (1, 2, 3, False)
    assert sorted(item.id for item in store.memory.list()) == ["kept", "later", "old", "permanent", "used", "young"]
    assert raw("SELECT count(*) FROM search_documents")[0][0] == 6
    assert store.memory.cleanup(unused_for=dt.timedelta(microseconds=1)).unused == 2
    with pytest.raises(InvalidValueError):
        store.memory.cleanup(unused_for=dt.timedelta(0))


def test_cleaning_up_goes_in_batches(store: Store) -> None:
    for number in range(7):
        store.memory.remember(f"x{number}", type="fact", expires_at=PAST)
    batches = [store.memory.cleanup(limit=3) for _ in range(4)]
    assert [(batch.expired, batch.more) for batch in batches] == [(3, True), (3, True), (1, False), (0, False)]
    assert store.memory.count() == 0
    assert store.search.check()["memory"].examples == ()
