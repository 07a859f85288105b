"""A way past the library, to the database itself."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def tamper(raw: Run, url: str) -> Run:
    """The same, after the triggers that hold audits append-only were taken away."""
    if url.startswith("sqlite"):
        raw("PRAGMA foreign_keys=OFF")
        for (name,) in raw("SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'task_audits'"):
            raw(f"DROP TRIGGER {name}")
    else:
        raw("ALTER TABLE task_audits DISABLE TRIGGER USER")
    return raw


@pytest.fixture
def lapse(raw: Run, url: str) -> Callable[[], None]:
    """Let the leases of all who hold a task lapse, as if the time had passed."""
    past: Any = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    if url.startswith("sqlite"):
        past = "2026-01-01T00:00:00.000000Z"

    def work() -> None:
        raw("UPDATE tasks SET lease_until = ? WHERE lease_until IS NOT NULL", past)

    return work
