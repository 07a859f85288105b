"""A forgetting: from a person or an agent to all that is theirs, and last of all to themselves.

Each step is a short transaction. What belongs to an owner goes before the owner does, so whatever a killed run has left
is found again by the same way, and the next call finishes it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from agentos_store.engine.backend import Backend
from agentos_store.errors import NotFoundError, UsageError
from agentos_store.operation import Access
from agentos_store.operations.forgetting import record
from agentos_store.operations.forgetting.counting import Counting
from agentos_store.operations.forgetting.erasing import Erasing
from agentos_store.operations.forgetting.report import ForgetReport
from agentos_store.operations.forgetting.walk import Walk
from agentos_store.types import Identifier, Text

Progress = Callable[[str, int], None]
"""Told after each step: the table, and how many of its rows were dealt with so far."""


def forget(
    backend: Backend,
    *,
    user: str | None = None,
    agent: str | None = None,
    by: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ForgetReport:
    """Forget a user or an agent, and return what there was."""
    if (user is None) == (agent is None):
        raise UsageError("forget takes a user or an agent, and exactly one of them")
    kind = "user" if agent is None else "agent"
    key: str = Identifier().check(user if agent is None else agent, kind)
    if by is not None:
        Text().check(by, "by")
    if dry_run or not backend.run(Access.READ, "forget", lambda s: record.is_there(s, kind, key), repeatable=True):
        counted = _count(backend, kind, key)
        if dry_run:
            return counted
    receipt = secrets.token_hex(16)
    report = ForgetReport(kind, dry_run=False, receipt=receipt)
    run = record.Run(kind, key, receipt, by)
    run.id, counts = backend.run(Access.WRITE, "forget", run.begin, repeatable=True)
    report.run_id = run.id
    report.add(counts)
    try:
        _walk(Erasing(backend, report, run, progress), kind, key)
    except Exception as fault:
        # Its text may quote a row.
        name = type(fault).__name__
        backend.run(Access.WRITE, "forget", lambda session: run.fail(session, name), repeatable=True)
        raise
    return report


def _count(backend: Backend, kind: str, key: str) -> ForgetReport:
    """Count what would go; NotFoundError when there is neither the row nor anything that names it."""
    report = ForgetReport(kind, dry_run=True)
    _walk(Counting(backend, report), kind, key)
    if report.rows == 0:
        raise NotFoundError(kind, key)
    return report


def _walk(walk: Walk, kind: str, key: str) -> None:
    if kind == "user":
        walk.user(key)
    else:
        walk.agent(key, subject=True)
