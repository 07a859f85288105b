"""What a look at an open database finds: whether it answers, its revision, whether it takes writes, its pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentos_store.engine.version import HEAD

if TYPE_CHECKING:
    from sqlalchemy.pool import Pool

    from agentos_store.engine.meter import Meter


@dataclass(slots=True)
class Vitals:
    """What a look has found so far; one that never comes back has told what it knew by then."""

    doing: str = "connecting"
    """What it is at."""
    connected: bool = False
    latency: float | None = None
    """Seconds of one small query on a connection that was there."""
    revision: str | None = None
    schema_ok: bool | None = None
    """Whether the revision is that of this code; None while it was not read."""
    writable: bool | None = None
    """None while that is not known."""
    problems: list[str] = field(default_factory=list)

    def read(self, revision: str | None) -> bool:
        """Take down which revision was read, and return whether it is that of this code."""
        self.revision, self.schema_ok = revision, revision == HEAD
        return self.schema_ok


@dataclass(frozen=True, slots=True)
class ServerState:
    """How a database server stands, which others use too."""

    connections: int
    """Of everybody, to all of its databases."""
    max_connections: int
    lock_waits: int
    """Statements of this database that are older than 100 ms and wait for a lock at this moment."""


@dataclass(frozen=True, slots=True)
class PoolState:
    """The connections of an open database, and who waits for them; on SQLite those that read."""

    size: int | None
    """Connections that are kept open; None for a pool that has no such number."""
    limit: int | None
    """Connections at once, at most."""
    in_use: int | None
    idle: int | None
    overflow: int | None
    """Of those that are open, how many are above the size."""
    waiting: int
    """Callers that are asking for a connection at this moment."""
    longest_wait: float
    """Seconds; the longest wait for a connection since the database was opened."""
    queue: int
    """Writers that wait for their turn on SQLite at this moment; 0 on PostgreSQL, where rows are locked."""
    queue_wait: float
    """Seconds that the first of them has waited."""
    longest_queue_wait: float
    """Seconds; the longest wait for a turn since the database was opened."""


def pool_state(pool: Pool, meter: Meter, *, queue: int = 0, queue_wait: float = 0.0) -> PoolState:
    """Return how a pool is; one of another kind, in somebody else's engine, may have no numbers."""

    def ask(name: str) -> int | None:
        number: Callable[[], int] | None = getattr(pool, name, None)
        return max(0, number()) if callable(number) else None

    size, most = ask("size"), getattr(pool, "_max_overflow", None)
    pool_wait, turn_wait = meter.longest_waits()
    return PoolState(
        size=size,
        limit=None if size is None or most is None or most < 0 else size + most,
        in_use=ask("checkedout"),
        idle=ask("checkedin"),
        overflow=ask("overflow"),
        waiting=len(meter.borrowing),
        longest_wait=pool_wait,
        queue=queue,
        queue_wait=queue_wait,
        longest_queue_wait=turn_wait,
    )
