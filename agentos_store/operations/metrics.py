"""Metrics: what an open database has done, how fast, how much is in it, and who waits."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from agentos_store.engine.backend import Backend
from agentos_store.engine.meter import Kind, Latency, OperationCount
from agentos_store.engine.vitals import PoolState, ServerState
from agentos_store.operations.aside import Aside, check_timeout
from agentos_store.operations.counting import Count

TIMEOUT = 2.0
"""Seconds that the database is asked for what only it knows."""


@dataclass(frozen=True, slots=True)
class Storage:
    """How much is in a database."""

    agents: Count
    """Those that are not softly deleted."""
    messages: Count
    """Rows, those of earlier generations included."""
    size_bytes: int
    """On disk: of the file and its log, or of the schema's tables and their indexes."""
    server: ServerState | None
    """None on SQLite, which has no server."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """What an open database has done since it was opened; stores of one process that share an SQLite file share it."""

    saves: int
    loads: int
    queries: int
    deletes: int
    other: int
    operations: Mapping[str, OperationCount]
    """By name: ``tasks.claim``."""
    latency: Mapping[Kind, Latency]
    overall: Latency
    """The latency of all kinds together."""
    lock_waits: int
    """Calls that waited for longer than 100 ms for their turn to write on SQLite, or for a lock in vain."""
    slow: int
    """Calls that took longer than the setting says, logged or not."""
    pool: PoolState
    storage: Storage | None
    """None when the database did not answer in time."""
    collected_at: dt.datetime


class Gauges:
    """Collects the metrics of one open database."""

    def __init__(self, backend: Backend) -> None:
        self._aside = Aside()
        self._backend = backend

    def collect(self, seconds: float) -> Metrics:
        """Return what was counted; the database is asked for so long at most."""
        return self._metrics(self._aside.ask(self._ask, check_timeout(seconds)))

    async def collect_async(self, seconds: float) -> Metrics:
        """Do the same without blocking the event loop."""
        return self._metrics(await self._aside.ask_async(self._ask, check_timeout(seconds)))

    def _ask(self) -> Storage:
        from agentos_store.operations.storage import read_storage

        return read_storage(self._backend)

    def _metrics(self, answer: Future[Storage] | None) -> Metrics:
        figures, pool = self._backend.meter.figures(), self._backend.pool_state()
        counts = {kind: latency.count for kind, latency in figures.latency.items()}
        return Metrics(
            saves=counts[Kind.SAVES],
            loads=counts[Kind.LOADS],
            queries=counts[Kind.QUERIES],
            deletes=counts[Kind.DELETES],
            other=counts[Kind.OTHER],
            operations=figures.operations,
            latency=figures.latency,
            overall=figures.overall,
            lock_waits=figures.lock_waits,
            slow=figures.slow,
            pool=pool,
            storage=None if answer is None or answer.exception() is not None else answer.result(),
            collected_at=dt.datetime.now(dt.UTC),
        )
