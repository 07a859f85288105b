"""Plans of the lists and of the hot statements over leases: 20,000 rows, most of which nobody holds any more."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.leases.models import Fence
from agentos_store.leases.repository import _GUARD, LeaseRepository
from agentos_store.testing.postgres import connect
from tests.leases.moments import LONG
from tests.planned import Planner, Undone

leases: Any = LeaseRepository
none: Any = None
HELD = Fence("n10", 1)

FILL = """INSERT INTO leases (name, owner, token, acquisition_id, acquired_at, expires_at)
SELECT 'n' || n, CASE WHEN n % 10 = 0 THEN 'o' || (n % 300) END, 1, 'a' || n, @, @ FROM numbers"""


def fill(url: str) -> None:
    """Write the rows past the library, and gather statistics on them."""
    if url.startswith("sqlite"):
        numbers = "(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000) SELECT n FROM c)"
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as raw:
            raw.executescript(FILL.replace("numbers", numbers).replace("@", "'2126-01-01T00:00:00.000000Z'"))
            raw.execute("ANALYZE")
        return
    script = FILL.replace("numbers", "generate_series(1, 20000) AS n").replace("@", "timestamptz '2126-01-01'")
    with closing(connect(url)) as server:
        server.execute(script.encode())
        server.execute("VACUUM ANALYZE leases")


CALLS: dict[str, Callable[[Session], object]] = {
    "acquire what is free": lambda session: leases.try_acquire(none, session, "n1", ttl=LONG),
    "acquire what is new": lambda session: leases.try_acquire(none, session, "new", ttl=LONG),
    "acquire what is held": lambda session: leases.try_acquire(none, session, "n10", ttl=LONG),
    "look": lambda session: leases._look(none, session, "n10"),
    "renew": lambda session: leases.renew(none, session, HELD, ttl=LONG),
    "keep": lambda session: leases._keep(none, session, [HELD, Fence("n20", 1), Fence("n11", 1)], LONG),
    "release": lambda session: leases.release(none, session, HELD),
    "guard": lambda session: session.first(_GUARD, {"name": "n10", "token": 1}),
    "get": lambda session: leases.get(none, session, "n10"),
}
LISTS: dict[str, Callable[[Session], object]] = {
    "list": lambda session: leases.list(none, session),
    "holders": lambda session: leases.holders(none, session, "n1"),
    "list by owner": lambda session: leases.list(none, session, owner="o30"),
    "list by owner and prefix": lambda session: leases.list(none, session, owner="o30", prefix="n1"),
    "count": lambda session: leases.count(none, session, prefix="n1"),
    "count by owner": lambda session: leases.count(none, session, owner="o30"),
}


@pytest.fixture
def planner(store: Store, url: str) -> Planner:
    fill(url)
    return store.bind(Planner)


def plans(planner: Planner, call: Callable[[Session], object], *, listing: bool) -> str:
    with pytest.raises(Undone) as undone:
        planner.plans(call, listing=listing, generic=True)
    return "\n".join(undone.value.plans)


def check(plan: str) -> None:
    for line in plan.splitlines():
        assert "Seq Scan on leases" not in line, plan
        assert "TEMP B-TREE" not in line, plan
        assert not line.startswith("SCAN leases") or "USING" in line, plan


def test_no_call_reads_the_whole_table(planner: Planner) -> None:
    for call in CALLS.values():
        check(plans(planner, call, listing=False))


def test_no_list_sorts_or_passes_over_what_nobody_holds(planner: Planner) -> None:
    for name, call in LISTS.items():
        plan = plans(planner, call, listing=True)
        check(plan)
        assert "Sort" not in plan, plan
        assert "ix_leases_owner_name" in plan if "owner" in name else "ix_leases_held" in plan, plan
