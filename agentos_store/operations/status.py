"""Status: the page that an operator opens first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import literal, select

from agentos_store.engine.backend import Backend
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.engine.version import HEAD
from agentos_store.models import metadata
from agentos_store.operation import Access
from agentos_store.operations.counting import EXACT, Count, RowCount
from agentos_store.operations.lately import (
    DayOfTokens,
    EventsLately,
    FailingTool,
    events_lately,
    failing_tools,
    tokens_by_day,
)
from agentos_store.tasks.models import TASK_STATUS, Task

_TASKS = Task.table()


@dataclass(frozen=True, slots=True)
class Status:
    """Where a database stands."""

    backend: str
    server_version: str
    location: str
    revision: str | None
    head: str
    """The revision that this code is written for."""
    size_bytes: int
    rows: Mapping[str, int]
    """By table."""
    tasks_by_status: Mapping[str, int]
    estimated: Sequence[str]
    """What of the two above is an estimate: a table's name, or ``tasks.completed`` for a status."""
    oldest_pending: dt.datetime | None
    """When the task that waits longest was created."""
    failing_tools: Sequence[FailingTool]
    """Of the last 24 hours, the most failures first."""
    tokens_by_day: Sequence[DayOfTokens]
    """Of the last 14 days in UTC, today included, the oldest first."""
    events: EventsLately
    """Of the last 24 hours."""


def read_status(backend: Backend, *, exact: int = EXACT) -> Status:
    """Ask everything at one moment; what has more than ``exact`` rows is estimated."""

    def body(session: Session) -> dict[str, Any]:
        rows = {name: count.of(session, exact=exact) for name, count in _ROWS.items()}
        statuses = {name: count.of(session, exact=exact) for name, count in _BY_STATUS.items()}
        oldest = session.first(_OLDEST_PENDING)
        return {
            "rows": {name: count.rows for name, count in rows.items()},
            "tasks_by_status": _by_status(rows[_TASKS.name], statuses, exact),
            "estimated": [
                *(name for name, count in rows.items() if count.estimated),
                *(f"{_TASKS.name}.{name}" for name, count in statuses.items() if count.estimated),
            ],
            "oldest_pending": oldest[0] if oldest else None,
            "failing_tools": failing_tools(session),
            "tokens_by_day": tokens_by_day(session),
            "events": events_lately(session),
        }

    found = backend.run(Access.SNAPSHOT, "status", body, repeatable=True)
    capabilities = backend.capabilities
    return Status(
        backend=capabilities.backend,
        server_version=capabilities.server_version,
        location=backend.describe(),
        revision=backend.revision(),
        head=HEAD,
        size_bytes=backend.size(),
        **found,
    )


def _by_status(total: Count, found: Mapping[str, Count], exact: int) -> dict[str, int]:
    """Return the tasks of each status; those that are too many to count share what the others leave of the total."""
    many = [name for name, count in found.items() if count.estimated]
    rest = total.rows - sum(count.rows for count in found.values() if not count.estimated)
    return {
        name: max(exact, rest // len(many)) if count.estimated else count.rows
        for name, count in found.items()
        if count.rows
    }


_ROWS = {table.name: RowCount(table) for table in metadata.sorted_tables}
_BY_STATUS = {
    status: RowCount(_TASKS, _TASKS.c.status == literal(status, _TASKS.c.status.type)) for status in TASK_STATUS.values
}
_OLDEST_PENDING: Statement[Any] = Statement(
    select(_TASKS.c.created_at)
    .where(_TASKS.c.status == literal("pending", _TASKS.c.status.type))
    .order_by(_TASKS.c.created_at)
    .limit(1)
)
