"""Four writers that log events, alone and while retention removes a million old ones."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from time import perf_counter

from agentos_store import Store
from agentos_store.operations.retention import Policy
from benchmarks.measure import NotHonestError, Spread, percentile
from benchmarks.places import Place
from benchmarks.writers import Crowd, Line, Written, write_until

EVENTS = 1_000_000
WRITERS = 4
SECONDS = 5.0
"""How long they write alone."""

_OLD = "2020-01-01"
_FILL = {
    "sqlite": f"""
        WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {EVENTS})
        INSERT INTO events (event_id, agent_id, event_type, severity, data, created_at)
        SELECT 'old-' || n, 'agent-' || (n % 100), 'tool.finished', 'info', '{{"ok": true}}',
            strftime('%Y-%m-%dT%H:%M:%S', '{_OLD}', n || ' seconds') || '.000000Z' FROM n""",
    "postgresql": f"""
        INSERT INTO events (event_id, agent_id, event_type, severity, data, created_at)
        SELECT 'old-' || n, 'agent-' || (n % 100), 'tool.finished', 'info', '{{"ok": true}}',
            timestamptz '{_OLD} 00:00Z' + n * interval '1 second' FROM generate_series(1, {EVENTS}) AS n""",
}


def retention(place: Place) -> Crowd:
    """Let the writers write alone, then beside the retention; what they wait is told."""
    url = place.database()
    with closing(place.raw(url)) as raw:
        # The same text for both drivers' execute.
        raw.connection.execute(_FILL[place.name])
    place.settle(url)
    with Store.open(url) as store:
        with writing(store) as alone:
            threading.Event().wait(SECONDS)
        began = perf_counter()
        with writing(store) as beside:
            report = store.prune([Policy(table="events", older_than=dt.timedelta(days=365))])
        took = perf_counter() - began
        if report.rows != EVENTS:
            raise NotHonestError(f"{report.rows} events went, not {EVENTS}")
        written = sum(len(each.times) for each in (*alone, *beside))
        if store.events.count() != written:
            raise NotHonestError(f"{store.events.count()} events are left, of {written} that were written")
    base = rate_of(alone, SECONDS)
    lines = (
        line_of("alone", alone, base, base),
        line_of(f"while retention removes {EVENTS:,} events in {took:.0f} s", beside, rate_of(beside, took), base),
    )
    return Crowd(f"{WRITERS} threads", "log events, beside the retention,", "events", place.name, lines)


@contextmanager
def writing(store: Store) -> Iterator[list[Written]]:
    """Let the writers write until the block ends; the list is complete then."""
    written: list[Written] = []
    over = threading.Event()

    def write(number: int) -> None:
        def log() -> object:
            return store.events.log("tool.finished", agent_id=f"writer-{number}", data={"ok": True})

        written.append(write_until(log, over.is_set))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield written
    finally:
        over.set()
        for thread in threads:
            thread.join()


def rate_of(written: list[Written], seconds: float) -> Spread:
    return Spread((sum(each.in_time for each in written) / seconds,))


def line_of(name: str, written: list[Written], rate: Spread, baseline: Spread) -> Line:
    times = sorted(time / 1e9 for each in written for time in each.times)
    errors = sum(each.errors for each in written)
    return Line(name, rate, rate.over(baseline), percentile(times, 0.5), percentile(times, 0.99), times[-1], errors)
