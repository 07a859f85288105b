"""The queue of writers: one connection writes, whoever finds the queue empty leads, and one commit answers many.

A write outside an explicit transaction is a job: a body that is given a session. The thread that finds the queue
empty leads: it passes the turnstile between processes, begins IMMEDIATE, runs every waiting job, commits once, and only
then answers all. What arrives meanwhile forms the next group, which its first job leads.

A job that fails without having changed anything is simply left out. One that fails after a change takes the group
with it: everything is rolled back and run again, each job now in a savepoint of its own. So the savepoints, which cost
a third of a small write, are paid for only by groups that have a failure among them; a body may be run more than once.

An explicit transaction takes its place in the same queue and holds it until it ends; it belongs to nobody's thread.

An interrupt (Ctrl-C, a signal handler that exits) may come between any two lines of the main thread. So the lead is one
attribute, and whoever has entered leaves through ``_leave``, which finds out what is still to be done and may be
called again when an interrupt cut it short.
"""

from __future__ import annotations

import contextlib
import copy
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from agentos_store.engine.session import Call, Session
from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.sqlite.turnstile import Turnstile
from agentos_store.errors import LockTimeoutError, StoreError, UnavailableError, UsageError

R = TypeVar("R")

GROUP_LIMIT = 128
"""Jobs of one commit at most, so that the first of them does not wait for long."""


class Writer(Protocol):
    """The one connection that writes."""

    raw: sqlite3.Connection

    def session(self, call: Call) -> Session:
        """Return a session on the connection."""


class Job:
    """A place in the queue: a body that waits to be run and committed, or an explicit transaction."""

    __slots__ = ("begun", "body", "call", "deserted", "done", "entered", "error", "owed", "result", "wake", "what")

    def __init__(self, what: str, body: Callable[[Session], Any] | None, call: Call) -> None:
        self.what = what
        self.body = body
        """None for work that needs the queue to itself."""
        self.call = call
        self.entered = time.monotonic()
        self.begun = 0.0
        """When its body was first begun; 0 before that."""
        self.result: Any = None
        self.error: BaseException | None = None
        self.done = False
        """Whether the outcome is final: committed, or failed for good."""
        self.deserted = False
        """Whether its caller was interrupted and waits no more."""
        self.owed: Sequence[Job] = ()
        """Jobs that its leader has still to wake."""
        self.wake = threading.Lock()
        self.wake.acquire()

    def restart(self) -> None:
        """Forget an outcome that was rolled back."""
        self.error = None

    def tell(self) -> None:
        """Wake the caller; telling it twice does no harm."""
        if self.wake.locked():
            self.wake.release()

    def outcome(self) -> Any:
        """Return the result or raise the error."""
        if self.error is None:
            return self.result
        try:
            raise self.error
        finally:
            # The error's traceback holds this frame, which would hold the error.
            self.error = None


class WriteQueue:
    """The order in which the threads and transactions of this process write to one file."""

    def __init__(self, turnstile: Turnstile, connect: Callable[[], Writer], *, timeout: float) -> None:
        self._turnstile = turnstile
        self._connect = connect
        self._timeout = timeout
        self.writer: Writer | None = None
        """The connection; None until the first write, and again after ``writer`` was closed."""
        self._mutex = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._leader: Job | None = None
        self._group: list[Job] = []
        """What the leader has taken out of the queue."""
        self._committing = False
        self._since: float | None = None
        """When the leader passed the turnstile; None while it is still waiting there."""

    def run(self, what: str, body: Callable[[Session], Any], call: Call) -> Any:
        """Run the body in its turn; return its result once it is committed."""
        job = Job(what, body, call)
        try:
            self._in_turn(job, self._lead, self._timeout)
        finally:
            call.queue_wait += (job.begun or time.monotonic()) - job.entered
        return job.outcome()

    def exclusively(self, what: str, work: Callable[[Writer | None], R], *, timeout: float) -> R | None:
        """Run work in its turn but outside a transaction: a checkpoint, closing.

        When another process does not give way in time the work is done all the same.
        """

        def at_the_turnstile(job: Job) -> R:
            # Whoever keeps the turn has the file open, so that nothing is closed last here, which would checkpoint.
            with contextlib.suppress(LockTimeoutError):
                self._pass_turnstile(job.entered + timeout)
            return work(self.writer)

        return self._in_turn(Job(what, None, Call()), at_the_turnstile, timeout)

    def begin(self, job: Job) -> Writer:
        """Take the queue for an explicit transaction; whatever comes of it, ``end`` must follow."""
        try:
            self._enter(job, self._timeout)
            return self._open(job)
        finally:
            job.call.queue_wait += time.monotonic() - job.entered

    def waiting(self) -> tuple[int, float]:
        """Return how many wait for their turn at this moment, and for how many seconds the first of them has."""
        with self._mutex:
            first = self._waiting[0] if self._waiting else None
            return len(self._waiting), 0.0 if first is None else time.monotonic() - first.entered

    def end(self, job: Job, *, commit: bool) -> None:
        """Commit or roll back the explicit transaction and let the next writer begin; a second call has no effect."""
        try:
            if commit:
                if self._leader is not job or self.writer is None:
                    raise UsageError("the transaction has ended")
                self._commit(self.writer.raw)
        finally:
            try:
                self._leave(job)
            except BaseException:
                self._leave(job)
                raise

    def is_held_by(self, job: Job) -> bool:
        """Tell whether the explicit transaction has the queue."""
        return self._leader is job

    def disown(self) -> None:
        """Forget, in a forked child, whoever led or waited in the parent."""
        self._mutex = threading.Lock()
        self._waiting = deque()
        self._leader = None

    # --- the order within the process

    def _in_turn(self, job: Job, work: Callable[[Job], R], timeout: float) -> R | None:
        """Do the work when the job leads; return None when another leader has run the job."""
        try:
            return work(job) if self._enter(job, timeout) else None
        finally:
            try:
                self._leave(job)
            except BaseException:
                self._leave(job)
                raise

    def _enter(self, job: Job, timeout: float) -> bool:
        """Wait until the job leads (return True) or has been run by another leader (return False)."""
        with self._mutex:
            if self._leader is None:
                self._leader = job
                return True
            self._waiting.append(job)
        if not job.wake.acquire(timeout=timeout):
            with self._mutex:
                if job in self._waiting:
                    # Now, not later: a job whose caller was told that it failed must not be taken any more.
                    self._waiting.remove(job)
                    raise LockTimeoutError("the queue of writers", waited=timeout, holder=self._holder())
            if self._leader is not job:
                # It is being run at this moment: its outcome is only known when the commit is through.
                job.wake.acquire()
        return self._leader is job

    def _leave(self, job: Job) -> None:
        """Leave nothing of the job behind, however it went: no lead, no place in the queue, nobody who waits for it."""
        if self._leader is job:
            self._close_turn()
            self._hand_over(job)
        elif not job.done:
            with self._mutex:
                job.deserted = True
                if job in self._waiting:
                    self._waiting.remove(job)
            if self._leader is job:
                self._leave(job)
        for each in job.owed:
            each.tell()
        job.owed = ()

    def _close_turn(self) -> None:
        """End the transaction if it is still open, and let other processes pass."""
        try:
            raw = None if self.writer is None else self.writer.raw
            if raw is not None and raw.in_transaction:
                _execute(raw, "ROLLBACK")
            elif self._committing:
                for job in self._group:
                    job.done = True
        finally:
            self._turnstile.release()

    def _hand_over(self, leader: Job) -> None:
        with self._mutex:
            # What was taken and not committed, because the leader was interrupted, goes back to the head of the queue.
            for job in reversed(self._group):
                if not (job.done or job.deserted or job is leader or job in self._waiting):
                    job.restart()
                    self._waiting.appendleft(job)
            following = self._waiting[0] if self._waiting else None
            told = [] if following is None else [following]
            leader.owed = told + [job for job in self._group if job.done and job is not leader]
            # From here to the end no call lies between two assignments, so no interrupt either.
            self._group = []
            self._committing = False
            self._since = None
            self._leader = following
            if following is not None:
                self._waiting.popleft()

    def _holder(self) -> str | None:
        leader, since = self._leader, self._since
        if leader is None or since is None:
            return self._turnstile.holder()
        return f"{leader.what} for {time.monotonic() - since:.1f} s"

    # --- the lead

    def _lead(self, first: Job) -> None:
        writer = self._open(first)
        group = self._group = [first]
        job: Job | None = first
        while job is not None:
            if not self._attempt(writer, job):
                # A change has to be undone, and the changes of the jobs before it go with it.
                self._rerun(writer, group)
                break
            job = self._next(group)
        successful = [job for job in group if job.error is None]
        if successful:
            try:
                self._commit(writer.raw)
            except StoreError as error:
                for job in successful:
                    job.error = copy.copy(error)
        for job in group:
            job.done = True

    def _next(self, group: list[Job]) -> Job | None:
        """Take what waits, until the group is full or something is next that needs the queue to itself."""
        if not self._waiting or len(group) >= GROUP_LIMIT:
            return None
        with self._mutex:
            if not self._waiting or self._waiting[0].body is None:
                return None
            group.append(self._waiting[0])
            return self._waiting.popleft()

    def _attempt(self, writer: Writer, job: Job) -> bool:
        """Run one job; return False when its failure left changes behind or ended the transaction."""
        assert job.body is not None
        job.begun = job.begun or time.monotonic()
        raw = writer.raw
        before = raw.total_changes
        try:
            job.result = job.body(writer.session(job.call))
        except BaseException as error:
            if not isinstance(error, Exception) and threading.current_thread() is threading.main_thread():
                # A signal handler's, most likely, and so this thread's. In other threads it can only be the body's own.
                raise
            # Without this frame, which leads to the jobs of others.
            job.error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        else:
            if raw.in_transaction:
                return True
            job.error = UnavailableError(_ENDED)
        return raw.in_transaction and raw.total_changes == before

    def _rerun(self, writer: Writer, group: list[Job]) -> None:
        """Run the group again from its start, each job in a savepoint of its own."""
        raw = writer.raw
        todo = list(group)
        while todo:
            # Some faults (a full disk) end the whole transaction; whoever met one is out, the others start again.
            if raw.in_transaction:
                _execute(raw, "ROLLBACK")
            _execute(raw, _BEGIN)
            for job in todo:
                job.restart()
                _execute(raw, "SAVEPOINT job")
                self._attempt(writer, job)
                if not raw.in_transaction:
                    todo = [each for each in todo if each is not job]
                    break
                if job.error is not None:
                    _execute(raw, "ROLLBACK TO job")
                _execute(raw, "RELEASE job")
            else:
                return

    def _open(self, job: Job) -> Writer:
        self._pass_turnstile(job.entered + self._timeout)
        writer = self.writer
        if writer is None:
            writer = self.writer = self._connect()
        _execute(writer.raw, _BEGIN)
        return writer

    def _pass_turnstile(self, deadline: float) -> None:
        self._turnstile.acquire(max(deadline - time.monotonic(), 0.0))
        self._since = time.monotonic()

    def _commit(self, raw: sqlite3.Connection) -> None:
        if not raw.in_transaction:
            raise UnavailableError(_ENDED)
        self._committing = True
        try:
            raw.execute("COMMIT")
        except sqlite3.Error as error:
            self._committing = False
            if raw.in_transaction:
                _execute(raw, "ROLLBACK")
            raise translate(error) from None


# A deferred BEGIN would read first and find at its first write that another writer was faster.
_BEGIN = "BEGIN IMMEDIATE"

_ENDED = "the database ended the transaction before its commit; nothing was stored"


def _execute(raw: sqlite3.Connection, command: str) -> None:
    started = time.monotonic()
    try:
        raw.execute(command)
    except sqlite3.Error as error:
        raise translate(error, waited=time.monotonic() - started) from None
