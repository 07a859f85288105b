"""Status: the page that an operator opens first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from agentos_store.engine.backend import Backend
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.engine.version import HEAD
from agentos_store.models import metadata
from agentos_store.operation import Access
from agentos_store.tasks.models import Task

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
    oldest_pending: dt.datetime | None
    """When the task that waits longest was created."""


def read_status(backend: Backend) -> Status:
    """Ask everything at one moment."""

    def body(session: Session) -> dict[str, Any]:
        rows = {name: session.all(statement)[0][0] for name, statement in _COUNTS.items()}
        oldest = session.first(_OLDEST_PENDING)
        return {
            "rows": rows,
            "tasks_by_status": dict(session.all(_BY_STATUS)),
            "oldest_pending": oldest[0] if oldest else None,
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


_COUNTS: dict[str, Statement[Any]] = {
    table.name: Statement(select(func.count()).select_from(table)) for table in metadata.sorted_tables
}
_BY_STATUS: Statement[Any] = Statement(select(_TASKS.c.status, func.count()).group_by(_TASKS.c.status))
_OLDEST_PENDING: Statement[Any] = Statement(
    select(_TASKS.c.created_at).where(_TASKS.c.status == "pending").order_by(_TASKS.c.created_at).limit(1)
)
