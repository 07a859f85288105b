"""Events divided by position: nothing is lost on the way, nobody meets a missing partition, old ones go whole."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import URL

from agentos_store import AsyncStore, InvalidValueError, LockTimeoutError, Store, UnavailableError, ensure_migrations
from agentos_store.cli import main
from agentos_store.engine.retry import RetryPolicy
from agentos_store.engine.urls import parse_url
from agentos_store.events import order
from agentos_store.events.bookmarks import Place
from agentos_store.events.order import Filters, Look
from agentos_store.migrate.drift import count_partitions, find_drift
from agentos_store.migrate.target import Target
from agentos_store.migrate.upgrade import downgrade
from agentos_store.operations.partitions import desk, dividing
from agentos_store.operations.retention import Policy
from agentos_store.testing.postgres import connect
from tests.engine.gather import threads, wait_for
from tests.planned import Planner, Undone
from tests.standing import owners_work

pytestmark = owners_work

Run = Callable[[str], list[tuple[Any, ...]]]

DAY = dt.timedelta(days=1)
OLD = dt.datetime.now(dt.UTC) - 10 * DAY
OLD_EVENTS = Policy(table="events", older_than=DAY)


@pytest.fixture
def backend() -> str:
    return "postgresql"


@pytest.fixture
def raw(url: str) -> Iterator[Run]:
    """Run a statement past the library, by the table's owner."""
    with connect(url) as connection:

        def run(statement: str) -> list[tuple[Any, ...]]:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

        yield run


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "RETRIES", RetryPolicy(retries=0))
    monkeypatch.setattr(desk, "PATIENCE", 0.05)
    monkeypatch.setattr(desk, "BRIEF", 0.05)


def log(store: Store, *numbers: int, **values: Any) -> None:
    store.events.log_many([{"event_type": "x", "data": n, **values} for n in numbers])


def datas(store: Store) -> list[Any]:
    return [event.data for event in store.events.subscribe(from_start=True, timeout=0)]


def bounds(store: Store) -> list[tuple[int | None, int | None]]:
    return [(part.start, part.end) for part in desk.Desk(store._backend, is_patient=True).look().partitions]


def test_the_table_becomes_the_first_partition_and_loses_nothing(store: Store, url: str) -> None:
    log(store, *range(25), agent_id="a", created_at=OLD)
    before = [event.to_dict() for event in store.events.iterate()]
    report = store.partition_events(rows=10, ahead=2)
    assert report.divided
    assert bounds(store) == [(None, 40), (40, 50), (50, 60), (None, None)]
    assert [part.name for part in report.partitions if part.name in report.made] == ["events_to_50", "events_to_60"]
    assert [event.to_dict() for event in store.events.iterate()] == before
    assert store.events.log("next").position == 26
    assert find_drift(Target.of(url), alone=True) == []
    assert count_partitions(Target.of(url)) == 4


def test_called_again_it_makes_partitions_ahead_and_no_more(store: Store) -> None:
    store.partition_events(rows=10, ahead=1)
    assert bounds(store) == [(None, 20), (20, 30), (None, None)]
    log(store, *range(15))
    again = store.partition_events(rows=100, ahead=1)
    assert (again.divided, again.made) == (False, ["events_to_100", "events_to_200", "events_to_300"])
    assert store.partition_events(rows=100, ahead=1).made == []


def test_what_comes_behind_all_partitions_is_caught_and_later_ones_begin_behind_it(store: Store) -> None:
    store.partition_events(rows=10, ahead=1)
    log(store, *range(55))
    assert datas(store) == list(range(55))
    assert store.partition_events(rows=10, ahead=1).made == ["events_to_70", "events_to_80"]
    assert bounds(store)[-3:] == [(60, 70), (70, 80), (None, None)]
    log(store, *range(55, 100))
    assert datas(store) == list(range(100))


def test_an_identifier_is_taken_whichever_partition_has_it(store: Store) -> None:
    store.partition_events(rows=10, ahead=3)
    first = store.events.log("first", event_id="e0")
    log(store, *range(40))
    assert store.events.log("again", event_id="e0").to_dict() == first.to_dict()
    few = [{"event_type": "few", "event_id": f"e{n}"} for n in range(5)]
    assert (store.events.log_many(few), store.events.log_many(few)) == (4, 0)
    many = [{"event_type": "many", "event_id": f"e{n}"} for n in (*range(60), *range(60))]
    assert (store.events.log_many(many), store.events.log_many(many)) == (55, 0)
    with store.transaction() as tx:
        assert tx.events.log_many([*many, {"event_type": "many", "event_id": "new"}]) == 1
    assert store.events.count() == 101


def test_what_is_repeated_in_one_list_is_checked_all_the_same(store: Store) -> None:
    wrong = {"event_type": "x", "event_id": "e", "severity": "fatal"}
    with pytest.raises(InvalidValueError, match="severity"):
        store.events.log_many([{"event_type": "x", "event_id": "e"}, wrong])
    assert store.events.count() == 0


def test_writers_and_subscribers_go_on_while_the_table_is_divided(store: Store, url: str) -> None:
    log(store, *range(2000), channel="monitor")
    done: list[bool] = []

    def write(writer: int) -> int:
        with Store.open(url) as own:
            written = 0
            while not done or written < 60:
                own.events.log("x", agent_id=f"w{writer}", seq=written)
                own.events.log_many([{"event_type": "x", "agent_id": f"w{writer}", "seq": written + 1}] * 30)
                written += 2
            own.events.log("end", agent_id=f"w{writer}")
            return written // 2 * 31 + 1

    def follow() -> list[int]:
        found: list[int] = []
        left = 3
        with Store.open(url) as own, own.events.subscribe(from_start=True, timeout=20) as live:
            while left:
                event = next(live)
                found.append(event.position)
                left -= event.event_type == "end"
        return found

    with threads([*(lambda n=n: write(n) for n in range(3)), follow]) as results:
        wait_for(lambda: store.events.count(agent_id="w1") > 50)
        store.partition_events(rows=500, ahead=2)
        for _ in range(3):
            store.partition_events(rows=500, ahead=2)
        done.append(True)
    *written, seen = results
    assert len(seen) == len(set(seen)) == store.events.count() == 2000 + sum(written)


def test_prune_drops_old_partitions_whole_and_the_rest_row_by_row(store: Store) -> None:
    store.partition_events(rows=10, ahead=5)
    log(store, *range(15), created_at=OLD)
    log(store, 100)
    log(store, *range(16, 45), created_at=OLD)
    # The first partition ends at 20; one event in it is new, and the one from 40 is not full yet.
    kept = bounds(store)
    bookmark = [event.bookmark for event in store.events.subscribe(from_start=True, timeout=0)][-1]
    told: list[int] = []
    report = store.prune([OLD_EVENTS], progress=lambda _, rows: told.append(rows))
    assert report.rows == 44
    assert told[:2] == [10, 20]
    assert datas(store) == [100]
    assert [each for each in kept if each not in bounds(store)] == [(20, 30), (30, 40)]
    log(store, 101)
    assert [event.data for event in store.events.subscribe(bookmark, timeout=0)] == [101]


def test_two_runs_at_once_count_each_event_once(store: Store) -> None:
    store.partition_events(rows=10, ahead=20)
    log(store, *range(195), created_at=OLD)
    log(store, 195)
    with threads([lambda: store.prune([OLD_EVENTS])] * 3) as reports:
        pass
    assert sum(report.rows for report in reports) == 195
    assert datas(store) == [195]


def test_a_limit_that_a_partition_knows_nothing_of_removes_rows(store: Store) -> None:
    store.partition_events(rows=10, ahead=2)
    log(store, *range(39), created_at=OLD)
    before = bounds(store)
    policies = [
        Policy(table="events", older_than=DAY, keep=5),
        Policy(table="events", states=["info", "error"], keep=3),
    ]
    assert [pruned.rows for pruned in store.prune(policies).tables.values()] == [34, 2]
    assert set(before) < set(bounds(store))


def test_every_run_of_prune_makes_partitions_ahead(store: Store) -> None:
    store.partition_events(rows=10, ahead=1)
    log(store, *range(15))
    store.prune([Policy(table="tasks", older_than=DAY)])
    assert bounds(store) == [(None, 20), (20, 30), (30, 40), (40, 50), (None, None)]
    assert store.prune([Policy(table="events")], dry_run=True).rows == 15


def test_what_somebody_reads_for_long_is_not_waited_for(store: Store, raw: Run, hasty: None) -> None:
    del hasty
    store.partition_events(rows=10, ahead=1)
    log(store, *range(25), created_at=OLD)
    log(store, 100)
    raw("BEGIN")
    raw("SELECT count(*) FROM events")
    with pytest.raises(LockTimeoutError, match="events"):
        store.partition_events(rows=10, ahead=10)
    assert store.prune([OLD_EVENTS]).rows == 25
    assert bounds(store)[0] == (None, 20)
    raw("ROLLBACK")
    # Empty by now, and of no use.
    store.prune([OLD_EVENTS])
    assert bounds(store)[0] == (20, 30)


def test_a_failure_on_the_way_leaves_the_table_as_it_was(
    store: Store, url: str, raw: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(store, *range(5))
    with monkeypatch.context() as patched:
        patched.setattr(dividing, "REST", "tasks")
        with pytest.raises(UnavailableError):
            store.partition_events(rows=10)
    assert raw(f"SELECT count(*) FROM pg_constraint WHERE conname = '{dividing.BOUND}'") == [(0,)]
    assert count_partitions(Target.of(url)) == 0
    # Nobody may have had the time to tidy up, either.
    raw(f"ALTER TABLE events ADD CONSTRAINT {dividing.BOUND} CHECK (position < 1000)")
    assert store.partition_events(rows=10).divided
    assert find_drift(Target.of(url), alone=True) == []


def test_two_who_divide_at_once_divide_once(store: Store) -> None:
    log(store, *range(500))
    with threads([lambda: store.partition_events(rows=100)] * 3) as reports:
        pass
    assert sorted(report.divided for report in reports) == [False, False, True]
    assert bounds(store) == [(None, 700), (700, 800), (800, 900), (None, None)]


def test_what_hangs_on_the_table_is_named_and_nothing_is_done(store: Store, url: str, raw: Run) -> None:
    raw("CREATE VIEW latest AS SELECT max(position) FROM events")
    with pytest.raises(UnavailableError, match="view latest"):
        store.partition_events()
    assert count_partitions(Target.of(url)) == 0


def test_who_may_write_may_still_do_so_and_nothing_else(store: Store, url: str, raw: Run) -> None:
    log(store, *range(25), created_at=OLD)
    raw("DROP ROLE IF EXISTS partition_guest")
    raw("CREATE ROLE partition_guest LOGIN")
    try:
        raw("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO partition_guest")
        store.partition_events(rows=10, ahead=1)
        log(store, *range(25, 50))
        guest: URL = parse_url(url).set(username="partition_guest")
        with Store.open(guest) as own:
            own.events.log("x", data=50)
            assert own.prune([OLD_EVENTS]).rows == 25
            with pytest.raises(UnavailableError, match="owner"):
                own.partition_events()
        assert datas(store) == list(range(25, 51))
        assert bounds(store)[0] == (None, 40)
    finally:
        raw("DROP OWNED BY partition_guest")
        raw("DROP ROLE partition_guest")


def test_a_partition_without_its_unique_index_is_drift(store: Store, url: str, raw: Run) -> None:
    store.partition_events(rows=10)
    raw("DROP INDEX events_rest_event_id")
    (found,) = find_drift(Target.of(url))
    assert (found.what, found.database) == ("index uq_events_event_id", None)
    raw("CREATE UNIQUE INDEX events_rest_event_id ON events_rest (event_id, position)")
    assert [each.what for each in find_drift(Target.of(url))] == ["index uq_events_event_id"]


def test_revisions_descend_and_climb_over_partitions(url: str) -> None:
    target = Target.of(url)
    with Store.open(url) as store:
        store.partition_events(rows=10)
        log(store, *range(30))
    downgrade(target, "0014_events")
    ensure_migrations(url)
    with Store.open(url) as store:
        assert datas(store) == list(range(30))
    downgrade(target, "0013_queue")
    ensure_migrations(url)
    assert (find_drift(target, alone=True), count_partitions(target)) == ([], 0)


def test_a_step_of_a_subscription_reads_no_partition_that_its_place_excludes(store: Store, raw: Run) -> None:
    store.partition_events(rows=100, ahead=10)
    log(store, *range(1050))
    raw("ANALYZE events")
    planner = store.bind(Planner)
    (now,) = raw("SELECT txid_snapshot_xmin(txid_current_snapshot())")[0]

    def plans(place: Place, at: Look, **filters: Any) -> list[str]:
        with pytest.raises(Undone) as caught:
            planner.plans(
                lambda session: order.read_next(session, place, at, Filters(filters, None)), listing=True, generic=True
            )
        return caught.value.plans

    for filters in ({}, {"agent_id": "a"}):
        restored = plans(Place(0, 850), Look("x", 2000, now, behind=False), **filters)
        assert "Subplans Removed" in restored[0]
        assert "events_to_800" not in restored[0]
        assert "events_to_900" in restored[0]
        for plan in [*restored, *plans(Place(now - 1, 850), Look("x", 0, now, behind=False), **filters)]:
            assert "Seq Scan" not in plan
            assert "Sort (" not in plan
            # By transactions each partition is asked, and one that has nothing behind the place says so at once.
            assert len(re.findall(r"Scan (?:Backward )?using", plan)) == plan.count("Index Cond")


def test_only_numbers_that_make_sense_are_taken(store: Store) -> None:
    wrong: Any
    for wrong in (0, -1, True, "10", 10**13):
        with pytest.raises(InvalidValueError, match=r"^rows: "):
            store.partition_events(rows=wrong)
        with pytest.raises(InvalidValueError, match=r"^ahead: "):
            store.partition_events(ahead=wrong)


def test_sqlite_says_why_not(sqlite_url: str) -> None:
    with Store.open(sqlite_url) as store, pytest.raises(UnavailableError, match="SQLite has no partitions"):
        store.partition_events()
    assert count_partitions(Target.of(sqlite_url)) == 0


def test_the_asynchronous_store_partitions_too(url: str) -> None:
    async def work() -> None:
        async with AsyncStore.open(url) as store:
            assert (await store.partition_events(rows=10, ahead=1)).divided
            assert not (await store.partition_events(rows=10, ahead=1)).divided

    asyncio.run(work())


def test_the_commands_say_how_events_are_divided(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["agentos-store", "--url", url, "db", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    assert "events is partitioned now" in call("partition-events", "--rows", "10")
    assert "no drift: the database is what the models say, with the events partitioned by position" in call("check")
    assert json.loads(call("check", "--json")) == []
    found = json.loads(call("partition-events", "--rows", "10", "--ahead", "3", "--json"))
    assert (found["divided"], found["made"]) == (False, ["events_to_50"])
    assert found["partitions"][0] == {"name": "events_to_20", "start": None, "end": 20}
