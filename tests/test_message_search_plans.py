"""No search for messages reads a whole table, with 50,000 messages, whatever the database knows of them."""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import literal, select

from agentos_store import Store
from agentos_store.conversations.drafts import MESSAGES
from agentos_store.conversations.message_index import SOURCE, count_waiting, index_some
from agentos_store.conversations.messages import MessageRepository
from agentos_store.conversations.sessions import SessionRepository
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.operation import Blocking
from agentos_store.search.sources import walk_indexed
from agentos_store.testing.postgres import connect
from tests.planned import Planner, Undone

ROWS = 50_000
EARLY = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LATE = EARLY + dt.timedelta(days=1)

FILL = """
INSERT INTO users (id, name, quota_total, quota_used, preferences, created_at, updated_at)
SELECT 'u' || n, 'u' || n, 0, 0, '{}', @, @ FROM numbers WHERE n <= 100;
INSERT INTO sessions (id, user_id, channel, status, message_count, next_seq, generation, total_tokens, total_cost,
metadata, unindexed_from, deleted_at, created_at, updated_at)
SELECT 's' || n, 'u' || (n % 100 + 1), 'api', 'active', 10, 10, 0, 0, 0, '{}', CASE WHEN n % 1000 = 7 THEN 5 END,
CASE n % 50 WHEN 9 THEN @ END, @, @ FROM numbers WHERE n <= 5000;
INSERT INTO messages (id, session_id, agent_id, seq, from_generation, to_generation, role, content, content_types,
token_count, metadata, created_at)
SELECT 'm' || n, 's' || (n % 5000 + 1), CASE WHEN n % 3 = 0 THEN 'a' || (n % 100 + 1) END, n / 5000, 0,
CASE n % 10 WHEN 9 THEN 1 END, CASE n % 100 WHEN 1 THEN 'system' ELSE 'user' END, '"w' || (n % 1000) || ' common"', 1,
0, '{}', @ FROM numbers;
INSERT INTO search_documents (kind, key, part, parts, family, length, text_hash, tokens)
SELECT 'message', 'm' || n, 0, 1, 'message', 3, 'h', TOKENS FROM numbers WHERE n < 25000 OR n % 5000 % 1000 <> 6;
INSERT INTO search_documents (kind, key, part, parts, family, length, text_hash, tokens)
SELECT 'memory', 'x' || n, 0, 1, 'memory', 3, 'h', TOKENS FROM numbers;
"""
"""``numbers`` are 1 to 50,000, ``@`` is the first of January and as many seconds, and each document holds a word of its
own, one of a thousand, and ``common``. Of five sessions the last five messages are not indexed."""


def fill(store: Store, url: str) -> Callable[[], None]:
    """Write the rows, most of them past the library; return what gathers statistics on them."""
    with store.transaction() as tx:
        for number in range(1, 101):
            tx.agents.save(f"a{number}")
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        numbers = f"(WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {ROWS}) SELECT n FROM c)"
        script = FILL.replace("FROM numbers", f"FROM {numbers} AS numbers")
        script = script.replace("@", "strftime('%Y-%m-%dT%H:%M:%S', '2026-01-01', n || ' seconds') || '.000000Z'")
        script = script.replace("TOKENS", "'u' || n || ' w' || (n % 1000) || ' common'")

        def run(text: str) -> None:
            with closing(sqlite3.connect(path)) as raw:
                raw.executescript(text)

        run(f"BEGIN; {script} COMMIT;")
        return lambda: run("ANALYZE;")
    script = FILL.replace("FROM numbers", f"FROM generate_series(1, {ROWS}) AS n")
    script = script.replace("@", "timestamptz '2026-01-01 00:00Z' + n * interval '1 second'")
    script = script.replace("TOKENS", "CAST('''u' || n || ''':1 ''w' || (n % 1000) || ''':2 common:3' AS tsvector)")
    script = re.sub(r"('\"w.*?common\"')", r"CAST(\1 AS json)", script)
    with connect(url) as server:
        for statement in script.split(";\n"):
            server.execute(statement.encode())

    def analyze() -> None:
        with connect(url) as server:
            server.execute(b"VACUUM ANALYZE")

    return analyze


Case = Callable[[Session], object]

messages: Any = MessageRepository[Blocking]
sessions: Any = SessionRepository[Blocking]
none: Any = None
QUERIES = ["w7", "u7 w7 common", '"w7 common"', "u199*", "w7 -u7", "气", "天气"]
OPTIONS: dict[str, Any] = {
    "session_id": "s8",
    "agent_id": "a7",
    "user_id": "u7",
    "role": "system",
    "created_after": EARLY,
    "created_before": LATE,
}


def asked(query: str, **options: Any) -> Any:
    """Return what a search asks of the database, as the operation makes it."""
    asking: Any = SimpleNamespace(_look=print)
    return next(messages.search.steps(asking, query, **options)).args[0]


def searches() -> Iterator[tuple[str, Case]]:
    filters: list[dict[str, Any]] = [{}, *({name: value} for name, value in OPTIONS.items()), OPTIONS]
    for query, options in [*((query, {}) for query in QUERIES), *(("w7 common", each) for each in filters)]:
        name = f"{query} {' '.join(options)}".strip()
        yield f"look {name}", looking(asked(query, **options))
        yield f"find {name}", finding(asked(query, **options))


def looking(search: Any) -> Case:
    return lambda session: messages._look(none, session, search)


def finding(search: Any) -> Case:
    return lambda session: messages._find(none, session, search, 100)


def others() -> Iterator[tuple[str, Case]]:
    yield "index", lambda session: index_some(session, "", None, wait=False)
    yield "index behind", lambda session: index_some(session, "s2", None, wait=False)
    yield "index and wait", lambda session: index_some(session, "", None, wait=True)
    yield "index one session", lambda session: index_some(session, "", "s1007", wait=False)
    yield "nothing to index", lambda session: index_some(session, "t", None, wait=False)
    yield "append", lambda session: messages.append(none, session, "s8", role="user", content="x")
    yield "purge", lambda session: sessions.purge(none, session, "s8")
    yield "walk", lambda session: SOURCE.batch(session, "m5", 10)
    yield "walk what is indexed", lambda session: next(walk_indexed(session, "message", 10))
    yield "orphans", lambda session: SOURCE.remove_orphans(session, "m5", "m51")


SCANNED = re.compile(
    r"(?:^SCAN|Seq Scan on) (?:messages|item|sessions|search_documents|d|d_\d+)\b"
    r"(?! USING (?:COVERING )?INDEX ix_sessions_unindexed)",
    re.MULTILINE,
)

BY_FILTER = re.compile("ix_messages_(?:role|agent|created)|ix_sessions_user")
"""What has the words is few, and is searched by its key, not each message of a role for each of these."""


def scans(plan: str) -> bool:
    return SCANNED.search(plan) is not None


def unserved(session: Session) -> object:
    query = select(MESSAGES.c.id).where(MESSAGES.c.token_count == literal(7)).limit(2)
    return session.all(Statement(query, lasting=False))


def test_no_search_for_messages_reads_a_whole_table(store: Store, url: str) -> None:
    analyze = fill(store, url)
    planner = store.bind(Planner)
    for with_statistics in (False, True):
        if with_statistics:
            analyze()
        for name, call in [*searches(), *others()]:
            is_search = name.startswith(("look", "find"))
            with pytest.raises(Undone) as caught:
                planner.plans(call, generic=True)
            found = [plan for plan in caught.value.plans if scans(plan) or (is_search and BY_FILTER.search(plan))]
            assert found == [], f"{name}\n{found[0] if found else ''}"
        with pytest.raises(Undone) as caught:
            planner.plans(unserved, generic=True)
        assert scans(caught.value.plans[0])


def test_whether_there_is_something_to_index_is_told_by_a_small_index(store: Store, url: str) -> None:
    fill(store, url)()
    look = looking(asked("u7"))
    with pytest.raises(Undone) as caught:
        store.bind(Planner).plans(look, generic=True)
    assert "ix_sessions_unindexed" in caught.value.plans[0]
    with pytest.raises(Undone) as caught:
        store.bind(Planner).plans(lambda session: count_waiting(session, None), generic=True)
    assert "ix_sessions_unindexed" in caught.value.plans[0]
    assert store.messages._count_waiting(None) == 25
    assert [hit.message.id for hit in store.messages.search("u7 w7")] == ["m7"]
    assert len(store.messages.search("w6", limit=100)) == 50
    assert store.messages._look(asked("u7")).hits is not None
