"""How a forgetting is noted: on whom it is about while it lasts, and in the housekeeping for ever, without a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import bindparam, func, null, select, update

from agentos_store.agents.models import Agent
from agentos_store.conversations.models import User
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, insert_into
from agentos_store.errors import ConflictError
from agentos_store.housekeeping.models import MaintenanceRun
from agentos_store.operations.forgetting.classification import FORGOTTEN
from agentos_store.operations.forgetting.report import Counts, ForgetReport, subject_of
from agentos_store.tasks.erasure import refuse_unless_permitted

KIND = "forget"
MARK = "forgetting"
"""The key, in a user's preferences and in an agent's metadata, of the run that has begun to forget it."""


class Run:
    """A run of one call: begun by it, or taken up where an interrupted one left it. Its counts move with each step.

    Whoever takes a run up has it alone. Of two calls at once the earlier one is refused at its next step, so that what
    the run counts is what was done, and its hash belongs to the receipt of the one who ended it.
    """

    def __init__(self, kind: str, key: str, receipt: str, by: str | None) -> None:
        self.id = ""
        self._kind = kind
        self._key = key
        self._progress = {"kind": kind, "subject": subject_of(receipt, kind, key), "by": by}

    def begin(self, session: Session) -> tuple[str, Counts]:
        """Mark who is forgotten; return the run and what it has counted so far."""
        refuse_unless_permitted(session)
        time = session.now()
        run_id = session.new_ulid()
        # Held, so that of two that begin at once the later one finds the earlier one's mark.
        found = session.first(_HELD_MARK_OF[self._kind], {"key": self._key})
        marked = found[0].get(MARK) if found is not None else None
        if marked is None and session.repeated:
            marked = run_id
        open_ = session.first(_OPEN, {"id": marked, "kind": KIND}) if isinstance(marked, str) else None
        if open_ is not None:
            session.execute(_RESUME, {"id": open_[0], "progress": self._progress})
            return str(open_[0]), open_[1]
        row = {"id": run_id, "kind": KIND, "started_at": time, "finished_at": None, "counts": {}, "error": None}
        session.execute(_INSERT, {**row, "progress": self._progress})
        if found is not None:
            session.execute(_MARK[self._kind], {"key": self._key, "mark": {MARK: run_id}, "now": time})
        return run_id, {}

    def add(self, session: Session, step: ForgetReport) -> Counts:
        """Add what a step counted, in its own transaction, and return what there is in all.

        Raises ConflictError when another call has taken the run up.
        """
        held = self._hold(session)
        if held is None:
            why = "another call to forget it has taken the run up, and goes on with it"
            raise ConflictError(self._kind, self._key, why)
        total = ForgetReport(self._kind, dry_run=False)
        total.add(held)
        total.add(step.counts())
        values = {"id": self.id, "counts": total.counts(), "finished_at": step.finished_at, "error": None}
        session.execute(_PROGRESS, values)
        return total.counts()

    def fail(self, session: Session, error: str) -> None:
        """Note why the run stopped, unless it is another call's by now."""
        if self._hold(session) is not None:
            session.execute(_FAIL, {"id": self.id, "error": error})

    def _hold(self, session: Session) -> Counts | None:
        found = session.first(_HELD, {"id": self.id})
        ours = found is not None and found[0].get("subject") == self._progress["subject"]
        return found[1] if found is not None and ours else None


def is_there(session: Session, kind: str, key: str) -> bool:
    """Tell whether there is a row of who is to be forgotten."""
    return session.first(_MARK_OF[kind], {"key": key}) is not None


_RUNS, _USERS, _AGENTS = MaintenanceRun.table(), User.table(), Agent.table()
_USER = _USERS.c.id == bindparam("key", type_=_USERS.c.id.type)
_AGENT = _AGENTS.c.agent_id == bindparam("key", type_=_AGENTS.c.agent_id.type)
_NOW = bindparam("now", type_=_USERS.c.updated_at.type)
_PREFERENCES, _METADATA = select(_USERS.c.preferences).where(_USER), select(_AGENTS.c.metadata).where(_AGENT)
_MARK_OF: Mapping[str, Statement[Any]] = {"user": Statement(_PREFERENCES), "agent": Statement(_METADATA)}
_HELD_MARK_OF: Mapping[str, Statement[Any]] = {
    "user": Statement(_PREFERENCES.with_for_update()),
    "agent": Statement(_METADATA.with_for_update()),
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
_HELD: Statement[Any] = Statement(select(_RUNS.c.progress, _RUNS.c.counts).where(_ID).with_for_update())
_OPEN: Statement[Any] = Statement(
    select(_RUNS.c.id, _RUNS.c.counts)
    .where(_ID, _RUNS.c.kind == bindparam("kind", type_=_RUNS.c.kind.type), _RUNS.c.finished_at.is_(None))
    .with_for_update()
)
_INSERT: Statement[Any] = Statement(insert_into(MaintenanceRun))


def _set(*names: str) -> Statement[Any]:
    return Statement(update(_RUNS).where(_ID).values({n: bindparam(n, type_=_RUNS.c[n].type) for n in names}))


_RESUME, _PROGRESS, _FAIL = _set("progress"), _set("counts", "finished_at", "error"), _set("error")
