"""The walk that erases: each step is a short transaction of its own."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from agentos_store.agents.models import AgentDocument
from agentos_store.conversations.sessions import SessionRepository
from agentos_store.engine.backend import Backend
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidTransitionError, NotFoundError
from agentos_store.operation import Access
from agentos_store.operations.forgetting.classification import Owner
from agentos_store.operations.forgetting.owners import (
    AGENT_OF_SESSION,
    CHANGES,
    CLOSE,
    CLOSE_SOME,
    HOLD_AGENT,
    HOLD_SESSION,
    HOLD_TASK,
    HOLD_USER,
    MERGE,
    REMOVE_AGENT,
    REMOVE_HEAD,
    REMOVE_TASK,
    REMOVE_USER,
    SESSION_OF_USER,
    TASKS_OF_AGENT,
    TASKS_OF_SESSION,
)
from agentos_store.operations.forgetting.record import Run
from agentos_store.operations.forgetting.report import Counts, ForgetReport
from agentos_store.operations.forgetting.statements import (
    DETACH_AGENT,
    EMPTY_EXECUTED,
    EMPTY_TASK,
    ROWS,
    Emptying,
    Naming,
    Rows,
    by,
)
from agentos_store.operations.forgetting.walk import Standing, Walk, standing_of
from agentos_store.tasks.erasure import erase_payloads, tasks_holding
from agentos_store.tasks.pruning import prune_chain
from agentos_store.tasks.states import ENDED
from agentos_store.tasks.transition import Step, take

R = TypeVar("R")

FIRST_STEP = 50
LARGEST_STEP = 5_000
AIM = 0.04
"""Seconds that a step should work: with the commit, a writer on SQLite waits far less than 200 ms for it."""

ENTRIES = 200
"""Audit entries that one step erases, and that one entry vouches for."""

NAMED = 200
"""Rows of others that one step changes."""

EVER = -86_400.0
"""Seconds that an entry is older than, whatever the clocks of others say."""

MERGED = 64
"""Pages of the full-text table that one step merges."""


class Erasing(Walk):
    """Erases, and counts what it erases."""

    def __init__(
        self, backend: Backend, report: ForgetReport, run: Run, progress: Callable[[str, int], None] | None
    ) -> None:
        super().__init__(backend)
        self.report = report
        self._run = run
        self._progress = progress
        self._queued = not backend.capabilities.row_locks
        self._numbers: dict[Rows, int] = {}
        self._seconds = 0.0

    def write(self, what: str, body: Callable[[Session, ForgetReport], R]) -> R:
        """Take one step; what it counts is added to the run in the same transaction, and to the report."""
        step = _Step(body, self._run)
        found: R = self.backend.run(Access.WRITE, f"forget {what}", step, repeatable=True)
        self.report.steps += 1
        self.report.longest = max(self.report.longest, dt.timedelta(seconds=step.seconds))
        if self._queued:
            # Who waits in the queue while a step works shall not meet the next one at once.
            time.sleep(min(step.seconds, AIM))
        self._seconds = step.seconds
        if step.total is not None:
            self.report.tables.clear()
            self.report.add(step.total)
            self.report.finished_at = step.counted.finished_at
        if self._progress is not None:
            for name in step.counted.tables:
                self._progress(name, self.report.of(name).rows)
        return found

    # --- owners are closed, so that what is theirs does not grow

    def close_sessions(self, user: str) -> None:
        """Hide them, some at a time: nobody can append to what is hidden."""
        while self.write("sessions", lambda session, _: len(session.all(CLOSE_SOME, _now(session, user)))) == CLOSED:
            pass

    def close_session(self, key: str) -> None:
        """Hide it."""
        self.write("sessions", lambda session, _: session.execute(CLOSE, _now(session, key)))

    def cancel(self, key: str, standing: Standing) -> None:
        """Cancel it, whoever is at work on it."""
        if standing.status not in ENDED:
            self.write("tasks", lambda session, _: _cancel(session, key))

    # --- rows

    def rows(self, owner: Owner, key: str, *, stays: bool = False) -> None:
        """Take them, about so many at a time as a step should take."""
        for rows in ROWS[owner]:
            if rows.goes or rows.clears:
                # Of one who goes with all that is theirs, what is emptied now goes later.
                while self._take(rows, key, counted=rows.goes or stays):
                    pass
            elif stays:
                self._take(rows, key)

    def _take(self, rows: Rows, key: str, *, counted: bool = True) -> bool:
        """Take the next rows, and tell whether there may be more."""
        if not self.ask(partial(rows.any, key=key)):
            return False
        number = self._numbers.get(rows, FIRST_STEP)

        def body(session: Session, report: ForgetReport) -> int:
            found = rows.take(session, key, number)
            if counted:
                _count(report, rows, found)
            return found

        taken = self.write(rows.table.name, body)
        if self._seconds > AIM:
            self._numbers[rows] = max(1, min(number, round(taken * AIM / self._seconds)))
        elif taken >= number:
            # Twice as many at most, so that one quick step does not decide about the next ones.
            self._numbers[rows] = min(number * 2, LARGEST_STEP)
        return taken >= number

    def _leftovers(self, session: Session, owner: Owner, key: str, report: ForgetReport) -> bool:
        """Take what there is again of an owner whose row is held; tell whether there may be more."""
        more = False
        for rows in ROWS[owner]:
            if rows.goes or rows.clears:
                taken = rows.take(session, key, FIRST_STEP)
                _count(report, rows, taken)
                more = more or taken >= FIRST_STEP
        return more

    def audits(self, task_id: str, *, shared: bool) -> None:
        """Erase the payloads of a chain that stays; prune one that goes from its beginning."""
        if shared:
            self._erase(task_id)
            return

        def body(session: Session, report: ForgetReport) -> int:
            done = prune_chain(session, task_id, EVER, ENTRIES)
            report.of("task_audits").removed += done
            return done

        while self.write("task_audits", body) >= ENTRIES:
            pass

    def _erase(self, task_id: str, texts: Sequence[str] = ()) -> None:
        while self.write("task_audits", self._erasure(task_id, texts)) >= ENTRIES:
            pass

    def _erasure(self, task_id: str, texts: Sequence[str] = ()) -> Callable[[Session, ForgetReport], int]:
        def body(session: Session, report: ForgetReport) -> int:
            done = erase_payloads(session, task_id, ENTRIES, run_id=self._run.id, holding=texts)
            report.of("task_audits").emptied += done
            return done

        return body

    # --- what stays

    def executed(self, task_id: str, agent_id: str) -> None:
        """Empty what the agent made of it, and the entries that name the agent."""
        self._erase(task_id, [text for text, _ in by([agent_id])])
        self._empty(EMPTY_EXECUTED, task_id)

    def detach(self, agent_id: str) -> None:
        """Take its documents, which are of the conversation, and then the conversation itself."""
        (documents,) = (rows for rows in ROWS[Owner.AGENT] if rows.table is AgentDocument.table())
        while self._take(documents, agent_id):
            pass
        self._empty(DETACH_AGENT, agent_id)

    def _empty(self, emptying: Emptying, key: str) -> None:
        def body(session: Session, report: ForgetReport) -> None:
            report.of(emptying.table.name).emptied += emptying(session, key)

        self.write(emptying.table.name, body)

    def naming(self, naming: Naming, names: Sequence[str]) -> None:
        """Put a word for nobody in the place of the names."""

        def body(session: Session, report: ForgetReport, keys: Sequence[Any]) -> None:
            report.of(naming.table.name).named += naming.replace(session, keys, names)

        for found in self.named(naming, names):
            for start in range(0, len(found), NAMED):
                self.write(naming.table.name, partial(body, keys=found[start : start + NAMED]))

    def naming_audits(self, after: int, upto: int, texts: Sequence[str]) -> None:
        """Erase the payloads that name somebody."""
        for task_id in self.ask(lambda session: tasks_holding(session, after, upto, texts)):
            self._erase(task_id, texts)

    # --- the owners themselves

    def end_task(self, key: str, *, shared: bool) -> bool:
        """Empty the task, or remove it with the head of its chain, unless something came meanwhile."""
        return self.write("tasks", lambda session, report: self._task_ends(session, key, report, shared=shared))

    def _task_ends(self, session: Session, key: str, report: ForgetReport, *, shared: bool) -> bool:
        if session.first(HOLD_TASK, {"key": key}) is None:
            return True
        standing = standing_of(session, key)
        if standing is None or standing.shared != shared:
            # Somebody has given it to a project meanwhile, or has come to need it.
            return False
        if self._leftovers(session, Owner.TASK, key, report):
            return False
        if shared:
            if self._erasure(key)(session, report) >= ENTRIES:
                return False
            report.of("tasks").emptied += EMPTY_TASK(session, key)
            return True
        session.execute(REMOVE_TASK, {"key": key})
        session.execute(REMOVE_HEAD, {"key": key})
        report.of("tasks").removed += 1
        return True

    def _tasks_end(self, session: Session, tasks: Statement[Any], key: str, report: ForgetReport) -> bool:
        """End the tasks that were begun meanwhile, while their owner is held and nobody can begin another one."""
        found = [row[0] for row in session.all(tasks, {"key": key, "limit_": MEANWHILE})]
        for task in found:
            standing = standing_of(session, task)
            if standing is None:
                continue
            if standing.shared and standing.status not in ENDED:
                _cancel(session, task)
            if not self._task_ends(session, task, report, shared=standing.shared):
                return False
        return len(found) < MEANWHILE

    def _executed_end(self, session: Session, key: str, report: ForgetReport) -> bool:
        """Do the same with the tasks that others gave to an agent meanwhile."""
        found = session.all(TASKS_OF_AGENT, {"key": key, "limit_": MEANWHILE})
        for (task,) in found:
            if self._erasure(task, [text for text, _ in by([key])])(session, report) >= ENTRIES:
                return False
            report.of("tasks").emptied += EMPTY_EXECUTED(session, task)
        return len(found) < MEANWHILE

    def end_agent(self, key: str, *, subject: bool) -> bool:
        """Remove the agent, unless something came meanwhile; with the subject the run has come to its end."""

        def body(session: Session, report: ForgetReport) -> bool:
            there = session.first(HOLD_AGENT, {"key": key}) is not None
            if self._leftovers(session, Owner.AGENT, key, report):
                return False
            end = self._executed_end if subject else partial(self._tasks_end, tasks=TASKS_OF_AGENT)
            if not end(session, key=key, report=report):
                return False
            session.execute(REMOVE_AGENT, {"key": key})
            report.of("agents").removed += there
            if subject:
                report.finished_at = session.now()
            return True

        return self.write("agents", body)

    def end_session(self, key: str, *, but: str | None) -> bool:
        """Remove the conversation, unless something came meanwhile."""

        def body(session: Session, report: ForgetReport) -> bool:
            if session.first(HOLD_SESSION, {"key": key}) is None:
                return True
            held = {"key": key, "but": but or ""}
            if session.first(AGENT_OF_SESSION, held) is not None:
                return False
            if not self._tasks_end(session, TASKS_OF_SESSION, key, report):
                return False
            if self._leftovers(session, Owner.SESSION, key, report):
                return False
            SessionRepository.purge(_SESSIONS_OPERATIONS, session, key)
            report.of("sessions").removed += 1
            return True

        return self.write("sessions", body)

    def end_user(self, key: str) -> bool:
        """Remove the person, unless there is a session again; the run has come to its end."""

        def body(session: Session, report: ForgetReport) -> bool:
            there = session.first(HOLD_USER, {"key": key}) is not None
            if session.first(SESSION_OF_USER, {"key": key}) is not None:
                return False
            if self._leftovers(session, Owner.USER, key, report):
                return False
            session.execute(REMOVE_USER, {"key": key})
            report.of("users").removed += there
            report.finished_at = session.now()
            return True

        return self.write("users", body)

    def tidy(self) -> None:
        """Merge the full-text table, which keeps the words of what was removed until then."""
        if not self.backend.capabilities.full_text_table:
            return
        # Below zero it begins to merge all there is; from then on it goes on with that.
        number = -MERGED
        while self.write("search_documents", _Merge(number)):
            number = MERGED


class _Step:
    """One step: what it counted, what the run has counted with it, and the time that it took."""

    def __init__(self, body: Callable[[Session, ForgetReport], Any], run: Run) -> None:
        self._body = body
        self._run = run
        self.counted = ForgetReport("", dry_run=False)
        self.total: Counts | None = None
        self.seconds = 0.0

    def __call__(self, session: Session) -> Any:
        began = time.perf_counter()
        # The body may run more than once.
        self.counted = ForgetReport("", dry_run=False)
        found = self._body(session, self.counted)
        changes = self.counted.rows or self.counted.finished_at is not None
        self.total = self._run.add(session, self.counted) if changes else None
        self.seconds = time.perf_counter() - began
        return found


class _Merge:
    """Merges some of the full-text table, and tells whether there was anything to do."""

    def __init__(self, pages: int) -> None:
        self._pages = pages

    def __call__(self, session: Session, _: ForgetReport) -> bool:
        before = session.all(CHANGES)[0][0]
        session.execute(MERGE, {"pages": self._pages})
        # The command itself counts as one.
        return bool(session.all(CHANGES)[0][0] - before >= 2)


def _count(report: ForgetReport, rows: Rows, taken: int) -> None:
    if rows.goes:
        report.of(rows.table.name).removed += taken
    else:
        report.of(rows.table.name).emptied += taken


def _cancel(session: Session, key: str) -> None:
    try:
        take(session, Step(task_id=key, to="cancelled"))
    except (InvalidTransitionError, NotFoundError):
        # It has come to its own end meanwhile.
        return


def _now(session: Session, key: str) -> dict[str, Any]:
    return {"key": key, "now": session.now(), "limit_": CLOSED}


CLOSED = 500
"""Conversations that one step closes."""

MEANWHILE = 20
"""Tasks that may have been begun between the last look and the end of their owner."""

_SESSIONS_OPERATIONS: Any = None
"""What a body of another repository is called with: it uses nothing of it."""
