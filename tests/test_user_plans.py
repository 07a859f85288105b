"""Plans of the lists and of the hot statements over users, quotas and usage, 20,000 rows in each table."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import literal, select

from agentos_store import Store
from agentos_store.conversations.models import User
from agentos_store.conversations.users import UserRepository
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.testing.postgres import connect
from tests.planned import Planner, Undone

ROWS = 20_000
EARLY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LATE = EARLY + dt.timedelta(minutes=5)
HOUR = dt.timedelta(hours=1)

users: Any = UserRepository
none: Any = None


FILL = """
INSERT INTO users (id, name, email, quota_total, quota_used, quota_reserved, preferences, created_at, updated_at)
SELECT 'u' || n, 'n', 'e' || n, 100, 0, 10, '{"n": ' || (n % 500) || '}', @, @ FROM numbers;
INSERT INTO quota_reservations (id, user_id, tokens, expires_at, created_at)
SELECT 'r' || n, 'u' || n, 10, %, @ FROM numbers;
INSERT INTO sessions (id, user_id, channel, status, message_count, next_seq, generation, total_tokens, total_cost,
metadata, created_at, updated_at)
SELECT 's' || n, 'u' || (n % 1000 + 1), 'api', 'active', 0, 0, 0, 0, 0, '{}', @, @ FROM numbers;
INSERT INTO agents (agent_id, session_id, state, lineage, last_sfp_index, stats, metadata, version, created_at,
updated_at)
SELECT 'a' || n, 's' || n, 'idle', '[]', -1, '{}', '{}', 1, @, @ FROM numbers;
INSERT INTO messages (id, session_id, agent_id, seq, from_generation, role, content, content_types, token_count,
metadata, created_at)
SELECT 'm' || n, 's' || n, 'a' || (n % 500 + 1), 0, 0, 'user', '""', 1, 1, '{}', @ FROM numbers;
INSERT INTO tool_call_records (id, agent_id, session_id, tool_call_id, ordinal, tool_name, state, input, has_output,
audit_trail, created_at, updated_at)
SELECT 'c' || n, 'a' || n, CASE WHEN n % 2 = 0 THEN 's' || n END, 'c' || n, 0, 'search', 'completed', '{}', ~, '[]',
@, @ FROM numbers;
"""
"""``numbers`` are 1 to 20,000, ``@`` is the first of January and as many seconds, ``%`` is long past for each second
row and far off for the others, ``~`` is false."""


def fill(url: str) -> Callable[[], None]:
    """Write the rows past the library; return what gathers statistics on them."""
    if url.startswith("sqlite"):
        import sqlite3

        path = url.removeprefix("sqlite:///")
        numbers = f"(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) SELECT n FROM c)"
        moment = "strftime('%Y-%m-%dT%H:%M:%S', '2026-01-01', n || ' seconds') || '.000000Z'"
        end = "CASE WHEN n % 2 = 0 THEN '2026-01-01T00:00:00.000000Z' ELSE '2126-01-01T00:00:00.000000Z' END"
        script = FILL.replace("numbers", f"{numbers} AS numbers").replace(", %,", f", {end},")

        def run(text: str) -> None:
            with closing(sqlite3.connect(path)) as raw:
                raw.executescript(text)

        run(f"BEGIN; {script.replace('@', moment).replace('~', '0')} COMMIT;")
        return lambda: run("ANALYZE;")
    end = "make_timestamptz(CASE WHEN n % 2 = 0 THEN 2026 ELSE 2126 END, 1, 1, 0, 0, 0)"
    script = FILL.replace("FROM numbers", f"FROM generate_series(1, {ROWS}) AS n").replace(", %,", f", {end},")
    script = script.replace("@", "timestamptz '2026-01-01 00:00Z' + n * interval '1 second'").replace("~", "false")
    preferences = """'{"n": ' || (n % 500) || '}'"""
    script = script.replace(preferences, f"({preferences})::jsonb")
    with connect(url) as server:
        for statement in script.split(";\n"):
            server.execute(statement.encode())

    def analyze() -> None:
        with connect(url) as server:
            server.execute(b"ANALYZE")

    return analyze


Case = Callable[[Session], object]


def listings() -> Iterator[tuple[str, Case]]:
    """The list with every filter that it takes, and with several together, up and down and behind a cursor."""
    filters: dict[str, Any] = {"created_after": EARLY, "created_before": LATE, "preferences": {"n": 7}}
    names = list(filters)
    choices = [(), *((name,) for name in names), *((a, b) for a in names for b in names if a < b), tuple(names)]
    for chosen in choices:
        picked = {name: filters[name] for name in chosen}
        name = f"list {' '.join(chosen)}".strip()
        yield name, page_of(limit=2, **picked)
        yield f"{name} turned round", page_of(limit=2, order="-created_at", **picked)
        yield f"{name} behind a cursor", second_page_of(**picked)


def page_of(**options: Any) -> Case:
    return lambda session: users.list(none, session, **options)


def second_page_of(**filters: Any) -> Case:
    def second(session: Session) -> object:
        first = users.list(none, session, limit=1, **filters)
        return first.next and users.list(none, session, limit=1, cursor=first.next, **filters)

    return second


def hot_statements() -> Iterator[tuple[str, Case]]:
    yield "get", lambda session: users.get(none, session, "u7")
    yield "find_by_email", lambda session: users.find_by_email(none, session, "e7")
    yield "update", lambda session: users.update(none, session, "u7", name="m")
    yield "merge_preferences", lambda session: users.merge_preferences(none, session, "u7", {"a": 1})
    yield "check_quota", lambda session: users.check_quota(none, session, "u8")
    yield "consume_quota", lambda session: users.consume_quota(none, session, "u7", 1)
    yield "consume_quota with what lapsed", lambda session: users.consume_quota(none, session, "u8", 95)
    yield "reserve_quota", lambda session: users.reserve_quota(none, session, "u7", 1, ttl=HOUR)
    yield "reserve_quota with what lapsed", lambda session: users.reserve_quota(none, session, "u8", 95, ttl=HOUR)
    yield "settle", lambda session: users.settle(none, session, "r7", 5)
    yield "settle an excess", lambda session: users.settle(none, session, "r7", 50)
    yield "release", lambda session: users.release(none, session, "r7")
    yield "usage_stats", lambda session: users.usage_stats(none, session, "u7", 36_500)
    for by in ("user", "agent", "template", "model", "tool", "day"):
        for name, value in {"user_id": "u7", "session_id": "s7", "agent_id": "a7"}.items():
            yield f"usage by {by} {name}", usage_of(by, name, value)


def usage_of(by: str, name: str, value: str) -> Case:
    filters = {name: value, "since": EARLY}
    return lambda session: users.usage(none, session, by=by, **filters)


TABLES = "users|quota_reservations|sessions|agents|messages|tool_call_records"
SCANNED = re.compile(rf"(?:^SCAN|Seq Scan on) (?:{TABLES})\b", re.MULTILINE)
SORTED = re.compile(r"TEMP B-TREE|\bSort\b")
IN_ORDER = re.compile(r"^SCAN users USING INDEX ix_users_created_at_id$", re.MULTILINE)
"""Without a range a list reads an index in order, and stops at its limit."""


def scans(name: str, plan: str) -> bool:
    return SCANNED.search(IN_ORDER.sub("", plan) if name.startswith("list") else plan) is not None


def faults(name: str, plan: str) -> bool:
    # What is summed is sorted by its sum, and PostgreSQL finds by containment in no order.
    may_sort = name.startswith("usage") or ("preferences" in name and "Bitmap" in plan)
    return scans(name, plan) or (SORTED.search(plan) is not None and not may_sort)


def unindexed(session: Session) -> object:
    table = User.table()
    query = select(table.c.id).where(table.c.quota_used == literal(1)).order_by(table.c.name).limit(2)
    return session.all(Statement(query, lasting=False))


def test_no_list_and_no_hot_statement_of_users_reads_a_whole_table_or_sorts(
    store: Store, url: str, backend: str
) -> None:
    analyze = fill(url)
    planner = store.bind(Planner)
    for with_statistics in (False, True):
        if with_statistics:
            analyze()
        # PostgreSQL takes every result for a small one, which it may sort, until it has statistics.
        found = faults if with_statistics or backend == "sqlite" else scans
        for name, call in [*hot_statements(), *listings()]:
            with pytest.raises(Undone) as caught:
                planner.plans(call)
            assert [plan for plan in caught.value.plans if found(name, plan)] == [], name
        with pytest.raises(Undone) as caught:
            planner.plans(unindexed)
        assert found("a list without an index", caught.value.plans[0])
