"""The queue of writers: one connection writes, whoever finds the queue empty leads, and one commit answers many.

A write outside an explicit transaction is a job: a body that is given a session. The thread that finds the queue
empty leads: it passes the turnstile between processes, begins IMMEDIATE, runs every waiting job, commits once, and only
then answers all. What arrives meanwhile forms the next group, which its first job leads.

A job that fails without having changed anything is simply left out. One that fails after a change takes the group
with it: everything is rolled back and run again, each job now in a savepoint of its own. So the savepoints, which cost
a third of a small write, are paid for only by groups that have a failure among them; a body may be run more than once.

An explicit transaction takes its place in the same queue and holds it until it ends; it belongs to nobody's thread.
"""

from __future__ import annotations

import copy
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

from agentos_store.engine.session import Call, Session
from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.sqlite.turnstile import Turnstile
from agentos_store.errors import LockTimeoutError, StoreError, UnavailableError

GROUP_LIMIT = 128
"""Jobs of one commit at most, so that the first of them does not wait for long."""


class _State(Enum):
    WAITING = 0
    LEADING = 1
    TAKEN = 2
    DONE = 3


class Writer(Protocol):
    """The one connection that writes."""

    raw: sqlite3.Connection

    def session(self, call: Call) -> Session:
        """Return a session on the connection."""


class Job:
    """A body that waits for its turn, then for the commit."""

    __slots__ = ("body", "call", "error", "exclusive", "result", "state", "wake", "what")

    def __init__(self, what: str, body: Callable[[Session], Any] | None, call: Call) -> None:
        self.what = what
        self.body = body
        self.call = call
        self.exclusive = body is None
        self.state = _State.WAITING
        self.result: Any = None
        self.error: BaseException | None = None
        self.wake = threading.Lock()
        self.wake.acquire()


class WriteQueue:
    """The order in which the threads and transactions of this process write to one file."""

    def __init__(self, turnstile: Turnstile, connect: Callable[[], Writer], *, timeout: float) -> None:
        self._turnstile = turnstile
        self._connect = connect
        self._writer: Writer | None = None
        self._timeout = timeout
        self._mutex = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._busy = False
        self._holder = "nobody"
        self._since = 0.0

    def run(self, what: str, body: Callable[[Session], Any], call: Call) -> Any:
        """Run the body in its turn; return its result once it is committed."""
        job = Job(what, body, call)
        if self._enter(job):
            self._lead(job)
        if job.error is not None:
            raise job.error
        return job.result

    def begin(self, what: str, call: Call) -> Session:
        """Take the queue for an explicit transaction; it must be given back with ``end``."""
        job = Job(what, None, call)
        self._enter(job)
        try:
            writer = self._open(job)
        except BaseException:
            self._pass_on()
            raise
        return writer.session(call)

    def end(self, *, commit: bool) -> None:
        """Commit or roll back the explicit transaction and let the next writer begin."""
        try:
            raw = self._raw()
            if commit:
                self._commit(raw)
            elif raw.in_transaction:
                raw.execute("ROLLBACK")
        finally:
            self._turnstile.release()
            self._pass_on()

    def exclusively(self, what: str, work: Callable[[sqlite3.Connection], Any], *, timeout: float | None = None) -> Any:
        """Run work on the writer's connection in its turn but outside a transaction: a checkpoint, closing."""
        job = Job(what, None, Call())
        self._enter(job)
        try:
            self._pass_turnstile(job, timeout)
            try:
                return work(self._raw())
            finally:
                self._turnstile.release()
        finally:
            self._pass_on()

    def forget_writer(self) -> None:
        """Open a new connection for the next write."""
        self._writer = None

    # --- the order within the process

    def _enter(self, job: Job) -> bool:
        """Wait until the job leads (return True) or has been run by another leader (return False)."""
        with self._mutex:
            if not self._busy:
                self._busy = True
                job.state = _State.LEADING
                return True
            self._waiting.append(job)
        try:
            if not job.wake.acquire(timeout=self._timeout):
                self._give_up(job)
        except BaseException:
            self._abandon(job)
            raise
        return job.state is _State.LEADING

    def _give_up(self, job: Job) -> None:
        with self._mutex:
            if job.state is _State.WAITING:
                self._waiting.remove(job)
                held = time.monotonic() - self._since
                raise LockTimeoutError(
                    "the queue of writers", waited=self._timeout, holder=f"{self._holder} for {held:.1f} s"
                )
        # The leader has taken it already: its outcome is only known when the commit is through.
        job.wake.acquire()

    def _abandon(self, job: Job) -> None:
        """The caller was interrupted: leave the queue, or pass on the lead that was just given."""
        with self._mutex:
            if job.state is _State.WAITING and job in self._waiting:
                self._waiting.remove(job)
                return
            leading = job.state is _State.LEADING
        if leading:
            self._pass_on()

    def _pass_on(self) -> None:
        with self._mutex:
            self._holder = "nobody"
            if not self._waiting:
                self._busy = False
                return
            following = self._waiting.popleft()
            following.state = _State.LEADING
        following.wake.release()

    # --- the lead

    def _lead(self, first: Job) -> None:
        group = [first]
        answered: list[Job] = []
        try:
            try:
                writer = self._open(first)
            except StoreError as error:
                first.error = error
                return
            try:
                answered = self._run_group(writer, group)
            except BaseException:
                # Interrupted: nothing was committed, so the others go back to the head of the queue.
                self._roll_back()
                with self._mutex:
                    for job in reversed(group[1:]):
                        job.state = _State.WAITING
                        job.error = None
                        self._waiting.appendleft(job)
                raise
            finally:
                self._turnstile.release()
        finally:
            self._pass_on()
            for job in answered:
                if job is not first:
                    job.wake.release()

    def _run_group(self, writer: Writer, group: list[Job]) -> list[Job]:
        for job in self._arrivals(group):
            if not self._attempt(writer, job):
                # A change has to be undone, and the changes of the jobs before it go with it.
                self._rerun(writer, group)
                break
        successful = [job for job in group if job.error is None]
        if successful:
            try:
                self._commit(writer.raw)
            except StoreError as error:
                for job in successful:
                    job.error = copy.copy(error)
        else:
            self._roll_back()
        for job in group:
            job.state = _State.DONE
        return group

    def _arrivals(self, group: list[Job]) -> Any:
        """Yield the first job, then whatever waits, until the group is full or an explicit transaction is next."""
        yield group[0]
        while len(group) < GROUP_LIMIT:
            with self._mutex:
                if not self._waiting or self._waiting[0].exclusive:
                    return
                job = self._waiting.popleft()
                job.state = _State.TAKEN
            group.append(job)
            yield job

    def _attempt(self, writer: Writer, job: Job) -> bool:
        """Run one job; return False when its failure left changes behind or ended the transaction."""
        assert job.body is not None
        session = writer.session(job.call)
        try:
            job.result = job.body(session)
        except Exception as error:
            job.error = error
            return not session.wrote and writer.raw.in_transaction
        return True

    def _rerun(self, writer: Writer, group: list[Job]) -> None:
        """Run the group again from its start, each job in a savepoint of its own."""
        raw = writer.raw
        self._roll_back()
        todo = list(group)
        while todo:
            # Some faults (a full disk) end the whole transaction; whoever met one is out, the others start again.
            self._begin(raw)
            for job in todo:
                job.error = None
                raw.execute("SAVEPOINT job")
                self._attempt(writer, job)
                if not raw.in_transaction:
                    todo = [each for each in todo if each is not job]
                    break
                if job.error is not None:
                    raw.execute("ROLLBACK TO job")
                raw.execute("RELEASE job")
            else:
                return

    def _open(self, job: Job) -> Writer:
        self._pass_turnstile(job, None)
        try:
            if self._writer is None:
                self._writer = self._connect()
            self._begin(self._writer.raw)
        except BaseException:
            self._turnstile.release()
            raise
        return self._writer

    def _pass_turnstile(self, job: Job, timeout: float | None) -> None:
        self._holder = job.what
        self._since = time.monotonic()
        self._turnstile.acquire(self._timeout if timeout is None else timeout)

    def _begin(self, raw: sqlite3.Connection) -> None:
        try:
            # A deferred BEGIN would read first and find at its first write that another writer was faster.
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise translate(error, waited=self._timeout) from error

    def _commit(self, raw: sqlite3.Connection) -> None:
        if not raw.in_transaction:
            raise UnavailableError("the database ended the transaction before its commit; nothing was stored")
        try:
            raw.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise translate(error) from error

    def _roll_back(self) -> None:
        raw = self._raw()
        if raw.in_transaction:
            raw.execute("ROLLBACK")

    def _raw(self) -> sqlite3.Connection:
        if self._writer is None:
            self._writer = self._connect()
        return self._writer.raw
