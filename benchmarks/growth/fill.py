"""Stores of several sizes, filled by SQL into the same tables and indexes, in batches.

The keys of the rows grow with their times, as those that the library draws do. The library itself would write the same
rows in four times the time; only the index of the search is made by it, at the first search.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from agentos_store import Store
from benchmarks import rows
from benchmarks.conversations import content
from benchmarks.places import Place

EVENTS_PER_MESSAGE = 10
MESSAGES_PER_TASK = 10
QUEUED = 40_000
"""Tasks that wait, whatever the size: more than are claimed."""
MESSAGES_OF_A_SESSION = 20
OTHER_USER = "01USER00000000000000000001"

SPAN = 200_000
"""Seconds over which the rows of a store are spread, however many they are."""
RARE, FOUND = "rare pair", 100
"""Two words, and the messages that hold both, whatever the size."""
COMMON, ONE_IN = "common phrase", 100
"""Two words, and of how many messages one holds both."""

BATCH = 500_000
"""Rows of one statement."""

BYTES_PER_MESSAGE = 8_000
"""On the disk, with the events and tasks that come with a message, their indexes and the logs of the databases."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is in a store."""

    messages: int

    @property
    def long(self) -> int:
        """Messages of the one long session; the others have twenty each."""
        return self.messages // 10

    @property
    def sessions(self) -> int:
        """Sessions beside the long one."""
        return (self.messages - self.long) // MESSAGES_OF_A_SESSION

    @property
    def events(self) -> int:
        """Events."""
        return self.messages * EVENTS_PER_MESSAGE

    @property
    def tasks(self) -> int:
        """Tasks that have ended."""
        return self.messages // MESSAGES_PER_TASK

    def amount(self, unit: str) -> int:
        """Return how many of something there are."""
        return {"messages": self.messages, "events": self.events}.get(unit, self.tasks)


# What the two databases write differently. The numbers of keys have ten digits, so that the keys grow with them.
_DIALECT = {
    "sqlite": {
        "at": f"strftime('%Y-%m-%dT%H:%M:%f', '2026-11-01', (n * {SPAN}.0 / {{of}}) || ' seconds') || '000Z'",
        "json": "{0}",
    },
    "postgresql": {
        "at": f"timestamptz '2026-11-01 00:00Z' + n * {SPAN}.0 / {{of}} * interval '1 second'",
        "json": "CAST({0} AS json)",
    },
}
_NUMBERS = "WITH RECURSIVE n(n) AS (SELECT CAST({first} AS bigint) UNION ALL SELECT n + 1 FROM n WHERE n + 1 < {end}) "
_WORDS = " || ' ' || ".join(
    f"'w' || (n * {step} % {count})"
    for step, count in ((7919, 5003), (104729, 2003), (1299709, 997), (15485863, 503), (611953, 251), (350377, 5009))
)
_EVENTS = """
    INSERT INTO events (event_id, agent_id, event_type, severity, data, created_at)
    SELECT 'E' || (1000000000 + n), 'coder_' || (n % 10), 'type_' || (n / 10 % 5), 'info', {data}, {at} FROM n"""
_SESSIONS = """
    INSERT INTO sessions (id, user_id, channel, title, status, message_count, next_seq, generation, total_tokens,
        total_cost, metadata, created_at, updated_at, unindexed_from)
    SELECT {id}, {user}, 'api', 'The parser', 'active', {count}, {count}, 0, {count} * 8, 0, '{{}}', {at}, {at}, 0
    FROM n"""
_MESSAGES = """
    INSERT INTO messages (id, session_id, seq, from_generation, role, content, content_types, token_count, metadata,
        created_at)
    SELECT 'M' || (1000000000 + n),
        CASE WHEN n < {long} THEN '{session}' ELSE 'S' || (1000000000 + (n - {long}) / {count}) END,
        CASE WHEN n < {long} THEN n ELSE (n - {long}) % {count} END,
        0, 'user', {content}, 1, 8, '{{}}', {at} FROM n"""
_TASKS = """
    INSERT INTO tasks (task_id, title, status, task_type, priority, payload, attempts, max_attempts, lease_token,
        version, metadata, created_at, updated_at)
    SELECT '{prefix}' || (1000000000 + n), 'Refactor the parser', '{status}', '', n % 3, {payload}, 0, 3, 0, 1, '{{}}',
        {at}, {at} FROM n"""


def fill(place: Place, size: Size) -> str:
    """Return the URL of a new store of this size, which a search has indexed."""
    started = perf_counter()
    url = place.database()
    with Store.open(url) as store:
        for user in (content.USER, OTHER_USER):
            store.users.create(id=user, name="Somebody")
    with contextlib.closing(place.raw(url)) as raw:
        if place.name == "sqlite":
            # It is filled once and measured under another connection's settings.
            raw.connection.execute("PRAGMA synchronous=OFF")
            raw.connection.execute("PRAGMA cache_size=-500000")
        _fill(raw.connection, _DIALECT[place.name], size)
    filled = perf_counter()
    with Store.open(url) as store:
        store.messages.search(RARE)
    indexed = perf_counter()
    place.settle(url)
    print(
        f"  {size.messages:,} messages, {size.events:,} events: filled in {filled - started:.0f} s,"
        f" indexed in {indexed - filled:.0f} s, settled in {perf_counter() - indexed:.0f} s",
        file=sys.stderr,
        flush=True,
    )
    return url


def _fill(connection: Any, dialect: dict[str, str], size: Size) -> None:
    json = dialect["json"].format

    def add(statement: str, number: int, **values: object) -> None:
        at = dialect["at"].format(of=number)
        for first in range(0, number, BATCH):
            numbers = _NUMBERS.format(first=first, end=min(first + BATCH, number))
            connection.execute(numbers + statement.format(at=at, **values))

    owner = f"CASE WHEN n % 2 = 0 THEN '{content.USER}' ELSE '{OTHER_USER}' END"
    add(_SESSIONS, size.sessions, id="'S' || (1000000000 + n)", user=owner, count=MESSAGES_OF_A_SESSION)
    add(_SESSIONS, 1, id=f"'{content.SESSION}'", user=f"'{content.USER}'", count=size.long)
    rare = f"CASE WHEN n % {size.messages // FOUND} = 0 THEN ' {RARE}' ELSE '' END"
    common = f"CASE WHEN n % {ONE_IN} = 1 THEN ' {COMMON}' ELSE '' END"
    text = json(f"""('"' || {_WORDS} || {rare} || {common} || '"')""")
    add(_MESSAGES, size.messages, content=text, long=size.long, session=content.SESSION, count=MESSAGES_OF_A_SESSION)
    data = json("""('{"task_id":"task_' || n || '","seconds":12.5,"summary":"全部通过"}')""")
    add(_EVENTS, size.events, data=data)
    payload = json(f"'{rows.compact(rows.PAYLOAD)}'")
    add(_TASKS, size.tasks, prefix="T", status="completed", payload=payload)
    add(_TASKS, QUEUED, prefix="Q", status="pending", payload=payload)
