"""How a worker works."""

from __future__ import annotations

import datetime as dt
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentos_store.errors import InvalidValueError
from agentos_store.tasks.backoff import DEFAULT_BACKOFF, Backoff
from agentos_store.types import check_duration, check_whole, new_ulid

MOST_AT_ONCE = 1000
BEATS = 3
"""Heartbeats in the time of a lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the two kinds of worker have in common."""

    by: str
    lease: dt.timedelta
    concurrency: int
    task_types: tuple[str, ...]
    poll: dt.timedelta
    grace: dt.timedelta
    backoff: Backoff

    @property
    def beat(self) -> float:
        """Seconds from one heartbeat to the next."""
        return self.lease.total_seconds() / BEATS


def options(
    handler: object,
    *,
    by: str | None,
    lease: dt.timedelta,
    concurrency: int,
    task_types: Sequence[str],
    poll: dt.timedelta,
    grace: dt.timedelta,
    backoff: Backoff | None,
) -> tuple[dict[str, Any] | None, Options]:
    """Check the options of a worker; return its handlers by type, or None where one does everything."""
    by_type: dict[str, Any] | None = None
    if isinstance(handler, Mapping):
        by_type = dict(handler)
        if not by_type or not all(map(callable, by_type.values())):
            raise InvalidValueError("handler", "must be a function, or a mapping from types to functions")
        unknown = [each for each in task_types if each not in by_type]
        if unknown:
            raise InvalidValueError("task_types", f"there is no handler for {unknown[0]!r}")
        task_types = task_types or list(by_type)
    elif not callable(handler):
        raise InvalidValueError("handler", "must be a function, or a mapping from types to functions")
    return by_type, Options(
        by=f"{socket.gethostname()}-{os.getpid()}-{new_ulid()[-6:]}" if by is None else by,
        lease=check_duration("lease", lease),
        concurrency=check_whole("concurrency", concurrency, 1, MOST_AT_ONCE),
        task_types=tuple(task_types),
        poll=check_duration("poll", poll),
        grace=check_duration("grace", grace, zero_too=True),
        backoff=backoff or DEFAULT_BACKOFF,
    )
