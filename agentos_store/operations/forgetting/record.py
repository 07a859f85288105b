"""How a forgetting is noted: on whom it is about while it lasts, and in the housekeeping for ever, without a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, func, null, select, update

from agentos_store.agents.models import Agent
from agentos_store.conversations.models import User
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, insert_into
from agentos_store.housekeeping.models import MaintenanceRun
from agentos_store.operations.forgetting.classification import FORGOTTEN
from agentos_store.operations.forgetting.report import ForgetReport, subject_of
from agentos_store.tasks.erasure import refuse_unless_permitted

KIND = "forget"
MARK = "forgetting"
"""The key, in a user's preferences and in an agent's metadata, of the run that has begun to forget it."""

Counts = Mapping[str, Mapping[str, int]]


class Beginning:
    """Marks who is forgotten, and begins a run, or takes up the one that was interrupted; returns its identifier."""

    def __init__(self, kind: str, key: str, receipt: str, by: str | None) -> None:
        self._kind = kind
        self._key = key
        self._progress = {"kind": kind, "subject": subject_of(receipt, kind, key), "by": by}
        self.counts: Counts = {}
        """What the run has counted so far."""

    def __call__(self, session: Session) -> str:
        """Begin."""
        refuse_unless_permitted(session)
        time = session.now()
        run_id = session.new_ulid()
        found = session.first(_MARK_OF[self._kind], {"key": self._key})
        marked = found[0].get(MARK) if found is not None else None
        if marked is None and session.repeated:
            marked = run_id
        run = session.first(_OPEN, {"id": marked, "kind": KIND}) if isinstance(marked, str) else None
        if run is not None:
            self.counts = run[1]
            session.execute(_RESUME, {"id": run[0], "progress": self._progress})
            return str(run[0])
        row = {"id": run_id, "kind": KIND, "started_at": time, "finished_at": None, "counts": {}, "error": None}
        session.execute(_INSERT, {**row, "progress": self._progress})
        if found is not None:
            session.execute(_MARK[self._kind], {"key": self._key, "mark": {MARK: run_id}, "now": time})
        return run_id


def is_there(session: Session, kind: str, key: str) -> bool:
    """Tell whether there is a row of who is to be forgotten."""
    return session.first(_MARK_OF[kind], {"key": key}) is not None


def resume(report: ForgetReport, counts: Counts) -> None:
    """Let a report go on from what the run has counted so far."""
    for name, numbers in counts.items():
        erased = report.of(name)
        erased.removed, erased.emptied, erased.named = (numbers[each] for each in ("removed", "emptied", "named"))


class Progress:
    """Notes how far a run is."""

    def __init__(self, report: ForgetReport, error: str | None = None) -> None:
        self._values = {"id": report.run_id, "counts": report.counts(), "error": error}

    def __call__(self, session: Session) -> None:
        """Note it."""
        session.execute(_PROGRESS, self._values)


def finish(session: Session, report: ForgetReport) -> None:
    """Note that a run has come to its end."""
    report.finished_at = session.now()
    values = {"id": report.run_id, "counts": report.counts(), "finished_at": report.finished_at, "error": None}
    session.execute(_FINISH, values)


_RUNS, _USERS, _AGENTS = MaintenanceRun.table(), User.table(), Agent.table()
_USER = _USERS.c.id == bindparam("key", type_=_USERS.c.id.type)
_AGENT = _AGENTS.c.agent_id == bindparam("key", type_=_AGENTS.c.agent_id.type)
_NOW = bindparam("now", type_=_USERS.c.updated_at.type)
_MARK_OF: Mapping[str, Statement[Any]] = {
    "user": Statement(select(_USERS.c.preferences).where(_USER)),
    "agent": Statement(select(_AGENTS.c.metadata).where(_AGENT)),
}
_MARK: Mapping[str, Statement[Any]] = {
    # The email stays to the end, for others may name them by it.
    "user": Statement(
        update(_USERS)
        .where(_USER)
        .values(
            name=FORGOTTEN,
            api_key_hash=null(),
            preferences=bindparam("mark", type_=_USERS.c.preferences.type),
            updated_at=_NOW,
        )
    ),
    "agent": Statement(
        update(_AGENTS)
        .where(_AGENT)
        .values(
            metadata=bindparam("mark", type_=_AGENTS.c.metadata.type),
            deleted_at=func.coalesce(_AGENTS.c.deleted_at, _NOW),
            version=_AGENTS.c.version + 1,
            updated_at=_NOW,
        )
    ),
}
_ID = _RUNS.c.id == bindparam("id", type_=_RUNS.c.id.type)
_OPEN: Statement[Any] = Statement(
    select(_RUNS.c.id, _RUNS.c.counts).where(
        _ID, _RUNS.c.kind == bindparam("kind", type_=_RUNS.c.kind.type), _RUNS.c.finished_at.is_(None)
    )
)
_INSERT: Statement[Any] = Statement(insert_into(MaintenanceRun))


def _set(*names: str) -> Statement[Any]:
    return Statement(update(_RUNS).where(_ID).values({n: bindparam(n, type_=_RUNS.c[n].type) for n in names}))


_RESUME, _PROGRESS = _set("progress"), _set("counts", "error")
_FINISH = _set("counts", "finished_at", "error")
