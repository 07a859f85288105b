"""The walk that erases: each step is a short transaction of its own."""

from __future__ import annotations

import copy
import datetime as dt
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from agentos_store.agents.models import AgentDocument
from agentos_store.conversations.sessions import SessionRepository
from agentos_store.engine.backend import Backend
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidTransitionError, NotFoundError
from agentos_store.operation import Access
from agentos_store.operations.forgetting import record
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
from agentos_store.operations.forgetting.report import ForgetReport
from agentos_store.operations.forgetting.statements import (
    DETACH_AGENT,
    EMPTY_EXECUTED,
    EMPTY_TASK,
    ROWS,
    Naming,
    Rows,
    by,
)
from agentos_store.operations.forgetting.walk import Standing, Walk, standing_of
from agentos_store.tasks.erasure import erase_payloads, tasks_holding
from agentos_store.tasks.pruning import prune_chain
from agentos_store.tasks.states import ENDED
from agentos_store.tasks.transition import Step, take

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

    def __init__(self, backend: Backend, report: ForgetReport, progress: Callable[[str, int], None] | None) -> None:
        super().__init__(backend)
        self.report = report
        self._progress = progress
        self._queued = not backend.capabilities.row_locks
        self._numbers: dict[Rows, int] = {}
        self._seconds = 0.0

    def write(self, what: str, body: Callable[[Session], Any]) -> Any:
        """Take one step."""
        step = _Timed(body)
        found = self.backend.run(Access.WRITE, f"forget {what}", step, repeatable=True)
        self.report.steps += 1
        self.report.longest = max(self.report.longest, dt.timedelta(seconds=step.seconds))
        if self._queued:
            # Who waits in the queue while a step works shall not meet the next one at once.
            time.sleep(min(step.seconds, AIM))
        self._seconds = step.seconds
        return found

    def count(self, table: str, *, removed: int = 0, emptied: int = 0, named: int = 0) -> None:
        """Count what a step did."""
        erased = self.report.of(table)
        erased.removed += removed
        erased.emptied += emptied
        erased.named += named
        if self._progress is not None:
            self._progress(table, erased.rows)

    # --- owners are closed, so that what is theirs does not grow

    def close_sessions(self, user: str) -> None:
        """Hide them, some at a time: nobody can append to what is hidden."""
        while self.write("sessions", lambda session: len(session.all(CLOSE_SOME, _now(session, user)))) == CLOSED:
            pass

    def close_session(self, key: str) -> None:
        """Hide it."""
        self.write("sessions", lambda session: session.execute(CLOSE, _now(session, key)))

    def cancel(self, key: str, standing: Standing) -> None:
        """Cancel it, whoever is at work on it."""
        if standing.status in ENDED:
            return

        self.write("tasks", lambda session: _cancel(session, key))

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
        taken: int = self.write(rows.table.name, lambda session: rows.take(session, key, number))
        if counted:
            self._count_rows(rows, taken)
        if self._seconds > AIM:
            self._numbers[rows] = max(1, min(number, round(taken * AIM / self._seconds)))
        elif taken >= number:
            # Twice as many at most, so that one quick step does not decide about the next ones.
            self._numbers[rows] = min(number * 2, LARGEST_STEP)
        return taken >= number

    def _count_rows(self, rows: Rows, taken: int) -> None:
        if taken:
            self.count(rows.table.name, **{"removed" if rows.goes else "emptied": taken})

    def _leftovers(self, session: Session, owner: Owner, key: str, report: ForgetReport) -> bool:
        """Take what there is again of an owner whose row is held; tell whether there may be more."""
        more = False
        for rows in ROWS[owner]:
            if rows.goes or rows.clears:
                taken = rows.take(session, key, FIRST_STEP)
                if rows.goes:
                    report.of(rows.table.name).removed += taken
                else:
                    report.of(rows.table.name).emptied += taken
                more = more or taken >= FIRST_STEP
        return more

    def _end(self, what: str, body: Callable[[Session, ForgetReport], bool]) -> bool:
        """Take the last step of an owner, which counts by itself, for it may be the last of the run as well."""
        counted: list[ForgetReport] = []

        def step(session: Session) -> bool:
            # The body may run more than once.
            counted[:] = [copy.deepcopy(self.report)]
            return body(session, counted[0])

        ended: bool = self.write(what, step)
        self.report.tables, self.report.finished_at = counted[0].tables, counted[0].finished_at
        if self._progress is not None:
            self._progress(what, self.report.of(what).rows)
        return ended

    def audits(self, task_id: str, *, shared: bool) -> None:
        """Erase the payloads of a chain that stays; prune one that goes from its beginning."""
        while True:
            if shared:
                done = self.write("task_audits", self._erasure(task_id))
                self.count("task_audits", emptied=done)
            else:
                done = self.write("task_audits", lambda session: prune_chain(session, task_id, EVER, ENTRIES))
                self.count("task_audits", removed=done)
            if done < ENTRIES:
                return

    def _erasure(self, task_id: str, texts: Sequence[str] = ()) -> Callable[[Session], int]:
        run_id = self.report.run_id
        return lambda session: erase_payloads(session, task_id, ENTRIES, run_id=run_id, holding=texts)

    # --- what stays

    def executed(self, task_id: str, agent_id: str) -> None:
        """Empty what the agent made of it, and the entries that name the agent."""
        texts = [text for text, _ in by([agent_id])]
        while True:
            done = self.write("task_audits", self._erasure(task_id, texts))
            self.count("task_audits", emptied=done)
            if done < ENTRIES:
                break
        self.write("tasks", lambda session: EMPTY_EXECUTED(session, task_id))
        self.count("tasks", emptied=1)

    def detach(self, agent_id: str) -> None:
        """Take its documents, which are of the conversation, and then the conversation itself."""
        (documents,) = (rows for rows in ROWS[Owner.AGENT] if rows.table is AgentDocument.table())
        while self._take(documents, agent_id):
            pass
        self.write("agents", lambda session: DETACH_AGENT(session, agent_id))
        self.count("agents", emptied=1)

    def naming(self, naming: Naming, names: Sequence[str]) -> None:
        """Put a word for nobody in the place of the names."""
        for found in self.named(naming, names):
            for start in range(0, len(found), NAMED):
                some = found[start : start + NAMED]
                done = self.write(naming.table.name, partial(naming.replace, keys=some, names=names))
                self.count(naming.table.name, named=done)

    def naming_audits(self, after: int, upto: int, texts: Sequence[str]) -> None:
        """Erase the payloads that name somebody."""
        for task_id in self.ask(lambda session: tasks_holding(session, after, upto, texts)):
            done = ENTRIES
            while done >= ENTRIES:
                done = self.write("task_audits", self._erasure(task_id, texts))
                self.count("task_audits", emptied=done)

    # --- the owners themselves

    def end_task(self, key: str, *, shared: bool) -> bool:
        """Empty the task, or remove it with the head of its chain, unless something came meanwhile."""

        return self._end("tasks", lambda session, report: self._task_ends(session, key, report, shared=shared))

    def _task_ends(self, session: Session, key: str, report: ForgetReport, *, shared: bool) -> bool:
        if session.first(HOLD_TASK, {"key": key}) is None:
            return True
        if self._leftovers(session, Owner.TASK, key, report):
            return False
        if shared:
            done = self._erasure(key)(session)
            report.of("task_audits").emptied += done
            if done >= ENTRIES:
                return False
            EMPTY_TASK(session, key)
            report.of("tasks").emptied += 1
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
            if self._erasure(task, [text for text, _ in by([key])])(session) >= ENTRIES:
                return False
            EMPTY_EXECUTED(session, task)
            report.of("tasks").emptied += 1
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
                record.finish(session, report)
            return True

        return self._end("agents", body)

    def end_session(self, key: str, *, but: str | None) -> bool:
        """Remove the conversation, unless something came meanwhile; note how far the run is."""

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
            record.Progress(report)(session)
            return True

        return self._end("sessions", body)

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
            record.finish(session, report)
            return True

        return self._end("users", body)

    def tidy(self) -> None:
        """Merge the full-text table, which keeps the words of what was removed until then."""
        if not self.backend.capabilities.full_text_table:
            return
        # Below zero it begins to merge all there is; from then on it goes on with that.
        number = -MERGED
        while self.write("search_documents", _Merge(number)):
            number = MERGED


class _Timed:
    """A step, with the time that it took."""

    def __init__(self, body: Callable[[Session], Any]) -> None:
        self._body = body
        self.seconds = 0.0

    def __call__(self, session: Session) -> Any:
        began = time.perf_counter()
        found = self._body(session)
        self.seconds = time.perf_counter() - began
        return found


class _Merge:
    """Merges some of the full-text table, and tells whether there was anything to do."""

    def __init__(self, pages: int) -> None:
        self._pages = pages

    def __call__(self, session: Session) -> bool:
        before = session.all(CHANGES)[0][0]
        session.execute(MERGE, {"pages": self._pages})
        # The command itself counts as one.
        return bool(session.all(CHANGES)[0][0] - before >= 2)


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
