"""No list of events and no step of a subscription reads the whole table, or sorts more than it is about to return."""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import literal, select

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.events import order
from agentos_store.events.bookmarks import Bookmark, Place, mark_of_event
from agentos_store.events.models import Event
from agentos_store.events.order import Filters, Look
from agentos_store.events.repository import EventRepository
from agentos_store.operation import Blocking
from agentos_store.testing.postgres import connect
from tests.planned import Planner, Undone

ROWS = 50_000
EARLY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LATE = EARLY + dt.timedelta(hours=6)

events: Any = EventRepository[Blocking]
none: Any = None

FILL = """
INSERT INTO events (transaction_id, event_id, agent_id, session_id, task_id, channel, event_type, severity, created_at)
SELECT TRANSACTION, 'e' || n, CASE WHEN n % 3 > 0 THEN 'a' || (n % 50) END,
CASE WHEN n % 3 = 1 THEN 's' || (n % 50) END, CASE WHEN n % 3 = 2 THEN 't' || (n % 50) END,
CASE n % 4 WHEN 0 THEN 'progress' WHEN 1 THEN 'monitor' END,
'type' || (n % 20), CASE WHEN n % 100 > 0 THEN 'info' WHEN n % 200 > 0 THEN 'warning' ELSE 'error' END, @ FROM numbers;
INSERT INTO event_orders (origin, order_id, first_position, created_at) SELECT 'o' || n, 'x', 0, @ FROM numbers
WHERE n <= 10;
"""
"""``numbers`` are 1 to 50,000 and ``@`` is the first of January and as many seconds, in another order."""


def fill(url: str) -> Callable[[], None]:
    """Write the rows past the library; return what gathers statistics on them."""
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        numbers = f"(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) SELECT n FROM c)"
        moment = f"strftime('%Y-%m-%dT%H:%M:%S', '2026-01-01', (n * 7919 % {ROWS}) || ' seconds') || '.000000Z'"
        script = FILL.replace("FROM numbers", f"FROM {numbers} AS numbers").replace("@", moment)

        def run(script: str) -> None:
            with closing(sqlite3.connect(path)) as raw:
                raw.executescript(script)

        run(f"BEGIN; {script.replace('TRANSACTION', '0')} COMMIT;")
        return lambda: run("ANALYZE;")
    moment = f"timestamptz '2026-01-01 00:00Z' + (n * 7919 % {ROWS}) * interval '1 second'"
    script = FILL.replace("FROM numbers", f"FROM generate_series(1, {ROWS}) AS n").replace("@", moment)
    with connect(url) as server:
        for statement in script.replace("TRANSACTION", "100 + n / 10").split(";\n"):
            server.execute(statement.encode())

    def analyze() -> None:
        with connect(url) as server:
            server.execute(b"ANALYZE")

    return analyze


Case = Callable[[Session], object]

GIVEN: dict[str, Any] = {
    "agent_id": "a7",
    "session_id": "s7",
    "task_id": "t8",
    "event_type": "type7",
    "channel": "monitor",
    "severity": "warning",
    "created_after": EARLY,
    "created_before": LATE,
}


def listings() -> Iterator[tuple[str, Case]]:
    """Every filter, and every two of them together, up, down and behind a cursor."""
    choices = [(), *((name,) for name in GIVEN), *((a, b) for a in GIVEN for b in GIVEN if a < b)]
    choices += [("agent_id", "event_type", "created_after", "created_before"), ("agent_id", "channel", "created_after")]
    for chosen in choices:
        filters = {name: GIVEN[name] for name in chosen}
        name = " ".join(chosen) or "all"
        yield name, lambda session, filters=filters: events.list(none, session, limit=2, **filters)  # type: ignore[misc]
        yield (
            f"{name}, turned round",
            lambda session, filters=filters: events.list(none, session, limit=2, order="-created_at", **filters),  # type: ignore[misc]
        )
        yield f"{name}, behind a cursor", lambda session, filters=filters: second_page(session, filters)  # type: ignore[misc]
    yield "the usual severity", lambda session: events.list(none, session, limit=2, severity="info")


def second_page(session: Session, filters: dict[str, Any]) -> object:
    first = events.list(none, session, limit=1, **filters)
    return first.next and events.list(none, session, limit=1, cursor=first.next, **filters)


IN_ORDER = {"all", "the usual severity"}
"""Read by time from one end, and stop at their limit."""


def following() -> Iterator[tuple[str, Case]]:
    bookmark = Bookmark("x", "", Place(0, 20_000), mark_of_event("e20000"))
    at = Look("x", 0, ROWS, behind=False)
    restored = Look("x", 40_000, ROWS, behind=False)
    yield "find_order", order.find_order
    yield "end", lambda session: order.end(session, at)
    yield "end of a restored one", lambda session: order.end(session, restored)
    yield "make_order", lambda session: order.make_order(session, "new", "y", EARLY)
    yield "look", lambda session: order.look(session, "o1")
    yield "behind", lambda session: order.behind(session, 20_000, at)
    yield "verify", lambda session: order.verify(session, bookmark, restored)
    for given in ({}, {"agent_id": "a7"}, {"severity": "info", "channel": "monitor"}):
        filters = Filters(given, ["type7", "type8"] if given else None)
        for place in (Place(0, 20_000), Place(2000, 19_000)):
            for now in (at, restored):
                yield (
                    f"read_next {given} {place} {now}",
                    lambda session, place=place, now=now, filters=filters: order.read_next(
                        session, place, now, filters
                    ),  # type: ignore[misc]
                )


SCANNED = re.compile(r"(?:^SCAN|Seq Scan on) events\b", re.MULTILINE)
WALKED = re.compile(r"Index (?:Only )?Scan (?:Backward )?using \w+ on events\n(?!\s+Index Cond)")
"""PostgreSQL goes through a whole index."""
SORTED = re.compile(r"TEMP B-TREE|\bSort\b")
BY_TIME = re.compile(r"^SCAN events USING INDEX ix_events_created_at_position$", re.MULTILINE)


def scans(name: str, plan: str) -> bool:
    if name.partition(",")[0] in IN_ORDER:
        return SCANNED.search(BY_TIME.sub("", plan)) is not None
    return SCANNED.search(plan) is not None or WALKED.search(f"{plan}\n") is not None


def faults(name: str, plan: str) -> bool:
    return scans(name, plan) or SORTED.search(plan) is not None


def unindexed(session: Session) -> object:
    table = Event.table()
    query = select(table.c.event_id).where(table.c.seq == literal(0)).order_by(table.c.event_id).limit(2)
    return session.all(Statement(query, lasting=False))


def test_no_list_of_events_and_no_step_of_a_subscription_reads_the_table_or_sorts(
    store: Store, url: str, backend: str
) -> None:
    analyze = fill(url)
    planner = store.bind(Planner)
    for with_statistics in (False, True):
        if with_statistics:
            analyze()
        found = faults if with_statistics or backend == "sqlite" else scans
        for name, call in [*following(), *listings()]:
            with pytest.raises(Undone) as caught:
                planner.plans(call, listing=True, generic=with_statistics)
            assert [plan for plan in caught.value.plans if found(name, plan)] == [], name
        with pytest.raises(Undone) as caught:
            planner.plans(unindexed)
        assert scans("a list without an index", caught.value.plans[0])
