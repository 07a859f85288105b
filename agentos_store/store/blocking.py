"""The store for threads: every call returns its result."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from sqlalchemy import URL, Engine

from agentos_store.engine.backend import Backend, OpenTransaction
from agentos_store.engine.bell import Bell
from agentos_store.engine.capabilities import Capabilities
from agentos_store.engine.meter import COMMIT, ROLLBACK, RUN
from agentos_store.engine.retry import OnRetry, RetryPolicy
from agentos_store.engine.session import Session
from agentos_store.errors import LockTimeoutError, UsageError
from agentos_store.operation import Access, Blocking, refuse_inside_body
from agentos_store.operations.health import TIMEOUT as HEALTH_TIMEOUT
from agentos_store.operations.health import Checkup, Health
from agentos_store.operations.metrics import TIMEOUT as METRICS_TIMEOUT
from agentos_store.operations.metrics import Gauges, Metrics
from agentos_store.operations.partitions import AHEAD, ROWS, PartitionReport, partition_events
from agentos_store.store.opening import open_backend
from agentos_store.store.repositories import Repositories

if TYPE_CHECKING:
    from agentos_store.operations.backups import BackupReport
    from agentos_store.operations.consistency import ConsistencyReport
    from agentos_store.operations.doctor.report import Diagnosis
    from agentos_store.operations.export import ExportReport
    from agentos_store.operations.forgetting import ForgetReport
    from agentos_store.operations.moving.archive_source import ArchiveReport
    from agentos_store.operations.moving.move import MoveReport
    from agentos_store.operations.retention import Policy, PruneReport
    from agentos_store.operations.status import Status
    from agentos_store.operations.vacuum import VacuumReport
    from agentos_store.settings import Settings

R = TypeVar("R")


class _Direct:
    """Runs each body in a transaction of its own."""

    in_transaction = False

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def call(
        self, access: Access, name: str, body: Callable[[Session], Any], *, repeatable: bool, may_lag: bool = False
    ) -> Any:
        return self._backend.run(access, name, body, repeatable=repeatable, may_lag=may_lag)

    @property
    def bell(self) -> Bell:
        return self._backend.bell


class TransactionRunner:
    """Runs bodies in one open transaction, until it has ended: from any thread, one at a time."""

    bell = None

    in_transaction = True

    def __init__(self, *, read_only: bool) -> None:
        self._transaction: OpenTransaction | None = None
        self._backend: Backend | None = None
        self._read_only = read_only
        self._turn = threading.Lock()
        self._ended = False
        self._process = os.getpid()

    def begin(self, backend: Backend) -> None:
        """Begin; ``end`` must follow, whatever comes of it."""
        self._backend = backend
        self._transaction = backend.begin(read_only=self._read_only)

    def call(
        self, access: Access, name: str, body: Callable[[Session], Any], *, repeatable: bool, may_lag: bool = False
    ) -> Any:
        """Run the body; nothing is tried again here, and it is the primary's transaction."""
        del repeatable, may_lag
        if self._read_only and not access.reads:
            raise UsageError(f"{name}: this transaction only reads; open it without read_only to write")
        with self._turn:
            if self._ended or self._transaction is None:
                raise UsageError(f"{name}: the transaction has ended")
            if self._process != os.getpid():
                raise UsageError(f"{name}: the transaction belongs to the process that this one was forked from")
            assert self._backend is not None
            meter, started = self._backend.meter, perf_counter()
            try:
                found = self._transaction.run(access, body)
            except BaseException as error:
                meter.record(access, name, started, error=error)
                raise
            meter.record(access, name, started)
            return found

    def end(self, *, commit: bool) -> None:
        """End the transaction; a second call has no effect."""
        with self._turn:
            if self._ended or self._transaction is None:
                return
            if self._process != os.getpid():
                self._ended = True
                if commit:
                    raise UsageError("the transaction belongs to the process that this one was forked from")
                return
            assert self._backend is not None
            name, meter, started = COMMIT if commit else ROLLBACK, self._backend.meter, perf_counter()
            try:
                self._transaction.end(commit=commit)
            except Exception as error:
                self._ended = True
                meter.record(Access.WRITE, name, started, error=error)
                raise
            # Not in any case: an interrupt may have come before anything was ended.
            self._ended = True
            meter.record(Access.WRITE, name, started)


class Transaction(Repositories[Blocking]):
    """Several operations, one transaction: all of them are stored, or none."""

    def __init__(self, runner: TransactionRunner) -> None:
        super().__init__(runner, asynchronous=False)


class Store(Repositories[Blocking]):
    """An open database. It may be used from many threads; it is a context manager that closes itself."""

    def __init__(self, backend: Backend) -> None:
        """Use ``Store.open``."""
        super().__init__(_Direct(backend), asynchronous=False)
        self._backend = backend
        self._closed = False
        self._checkup = Checkup(backend.describe(), backend.examine, backend.pool_state)
        self._gauges = Gauges(backend)

    @classmethod
    def open(
        cls,
        url: str | URL | Settings | None = None,
        *,
        schema: str | None = None,
        settings: Settings | None = None,
        engine: Engine | None = None,
        on_retry: OnRetry | None = None,
    ) -> Self:
        """Open a database: by its URL, by settings, over an existing engine, or as the environment says.

        Without anything it is the SQLite file ``./store/registry.sqlite``. An empty SQLite file is initialised;
        anything else must be at the revision that this code knows, or SchemaMismatchError is raised. ``schema`` names
        the PostgreSQL schema. An engine that was given is not disposed of at the end. ``on_retry`` is told of each
        further try after a passing fault. Raises UnavailableError when there is no connection to be had.
        """
        refuse_inside_body()
        return cls(open_backend(url, schema=schema, settings=settings, engine=engine, on_retry=on_retry))

    @property
    def capabilities(self) -> Capabilities:
        """What this database can do."""
        return self._backend.capabilities

    @contextlib.contextmanager
    def transaction(self, *, read_only: bool = False) -> Iterator[Transaction]:
        """Put several operations into one transaction, over every repository.

        It is committed at the end of the block and rolled back by an exception that leaves it. An operation that fails
        inside leaves nothing behind, and the block may go on. On SQLite it holds the queue of writers from its start;
        ``read_only`` waits for nobody and sees one moment. Nothing is tried again: see ``run``.
        """
        refuse_inside_body()
        runner = TransactionRunner(read_only=read_only)
        try:
            runner.begin(self._backend)
            yield Transaction(runner)
            runner.end(commit=True)
        except BaseException:
            runner.end(commit=False)
            raise

    def run(self, work: Callable[[Transaction], R], *, retry: RetryPolicy | None = None) -> R:
        """Run the function in a transaction and return its result; run it again after a passing fault.

        So it must be a function that may be run more than once: it talks to the transaction and changes nothing else.
        A commit whose answer was lost is not repeated, unless it is known that nothing was stored.
        """

        def attempt(number: int) -> R:
            if number:
                self._backend.meter.retried(RUN)
            with self.transaction() as transaction:
                return work(transaction)

        return (retry or self._backend.policy).run("run", attempt, repeatable=False)

    def health_check(self, timeout: float = HEALTH_TIMEOUT) -> Health:
        """Look whether the database can be worked with at this moment; whatever it does, this ends in time.

        It answers after ``timeout`` seconds at the latest and raises nothing but InvalidValueError for a ``timeout``
        that is none. What a look finds is the schema's revision, how long a small query takes, and whether a write is
        taken: on SQLite one that changes nothing is committed. A look that hangs is left behind in its thread, and who
        asks meanwhile waits for the same one.
        """
        return self._checkup.closed() if self._closed else self._checkup.check(timeout)

    def metrics(self, timeout: float = METRICS_TIMEOUT) -> Metrics:
        """Return what was done since the database was opened, how fast, what is in it, and who waits.

        The counters are exact, whichever threads did the work; the operations of transactions count too. ``storage``
        is None when the database does not answer within ``timeout`` seconds.
        """
        return self._gauges.collect(timeout)

    def status(self) -> Status:
        """Return what an operator looks at first: revision, size, counts, the oldest task that waits."""
        from agentos_store.operations.status import read_status

        return read_status(self._backend)

    def doctor(self, *, deep: bool = False) -> Diagnosis:
        """Return what is wrong or weak with the database, what comes of it and what to do: the gravest first.

        Nothing is changed. A question takes 5 s at most, or with ``deep``, which reads everything, half an hour; one
        that fails or takes longer is a finding too. On PostgreSQL it may take hundredths of a second of the server to
        compare the schema with the models. The codes are described in docs/doctor.md.
        """
        from agentos_store.operations.doctor import diagnose

        refuse_inside_body()
        return diagnose(self._backend, deep=deep)

    def check_consistency(self, agent_id: str | None = None) -> ConsistencyReport:
        """Return what does not fit together, in the whole store or for one agent: what is wrong, where, and the remedy.

        Counters of sessions and users, gaps in the numbers of messages, tool calls that nobody is at work on, safe
        fork points behind the end, snapshots whose messages are gone. Raises NotFoundError for an unknown agent.
        """
        from agentos_store.operations import consistency

        return consistency.check_consistency(self._backend, agent_id)

    def repair(self, agent_id: str | None = None) -> ConsistencyReport:
        """Put right what ``check_consistency`` finds and has a remedy for; return what was put right."""
        from agentos_store.operations import consistency

        return consistency.repair(self._backend, agent_id)

    def copy_to(
        self,
        target: str | URL,
        *,
        schema: str | None = None,
        restart: bool = False,
        replace: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> MoveReport:
        """Copy everything into another database, on SQLite or PostgreSQL alike; return what is there then.

        It is what this store holds at one moment; what is written meanwhile is not copied. The target is made if it is
        not there, and must be empty, or hold a copy of the same rows that was stopped: that goes on where it stopped,
        if nothing has changed here since. Until all is copied, indexed and read back, no store opens the target.
        ``restart`` begins a stopped copy anew; ``replace`` removes whatever the target holds. ``progress`` is told the
        stage, how far it is, and how far it goes. Raises ConflictError when the target is not empty, when somebody else
        copies into it, or when a copy that was stopped does not fit any more.
        """
        from agentos_store.operations.moving.copying import copy_into

        refuse_inside_body()
        return copy_into(self._backend, target, schema, restart=restart, replace=replace, progress=progress)

    def prune(
        self,
        policies: Sequence[Policy],
        *,
        dry_run: bool = False,
        confirm: bool = False,
        progress: Callable[[str, int], None] | None = None,
    ) -> PruneReport:
        """Remove for good what the policies let go, and return what went: retention.

        It works in steps, each a short transaction, so that a writer on SQLite waits far less than 200 ms; what a step
        removed stays removed when a later one fails. Old audits go from the beginning of their chains, which still
        verify. A ``dry_run`` only counts. A policy that would leave nothing of its table has to be confirmed. The run
        is noted in ``maintenance_runs``. ``progress`` is told the policy's name and its rows so far, after each step.
        """
        from agentos_store.operations.retention import prune

        return prune(self._backend, policies, dry_run=dry_run, confirm=confirm, progress=progress)

    def forget(
        self,
        *,
        user: str | None = None,
        agent: str | None = None,
        by: str | None = None,
        dry_run: bool = False,
        progress: Callable[[str, int], None] | None = None,
    ) -> ForgetReport:
        """Erase a person, or an agent, with all that is theirs, for good; return what there was, as a proof.

        What is theirs alone goes: conversations, deleted ones too, with messages, calls, contexts and snapshots; the
        agents that hold those and no others; tasks, memories and events of both. What others share stays without what
        it said: tasks of a project, agents that work for others. Payloads of audits are erased, and their chains still
        verify. docs/forget.md tells what becomes of each table, and what cannot be known.

        It works in short steps; a call that was interrupted is finished by the next one. ``by`` is noted with the run
        in ``maintenance_runs``, which does not name whom it was about: the report's ``receipt`` shows that. A
        ``dry_run`` only counts. What a file or a server keeps of removed rows goes with ``vacuum``. Raises
        NotFoundError when there is nothing of them, and UnavailableError where the role may not erase audits.
        """
        from agentos_store.operations.forgetting import forget

        return forget(self._backend, user=user, agent=agent, by=by, dry_run=dry_run, progress=progress)

    def vacuum(self, *, full: bool = False) -> VacuumReport:
        """Give back what deleted rows took up, on SQLite to the file system; return the bytes before and after.

        On SQLite the file is written anew while writers wait, about a second for 100 MB; readers go on. On PostgreSQL
        it is ``VACUUM (ANALYZE)`` of each table, beside everybody; with ``full`` each table is written anew, locked
        against everybody. Tables that somebody has locked, or that the role may not vacuum, are passed over and named.
        Raises LockTimeoutError when other writers do not give way, UnavailableError when the disk is full.
        """
        from agentos_store.operations.vacuum import vacuum

        refuse_inside_body()
        return vacuum(self._backend, full=full)

    def backup(
        self,
        path: str | os.PathLike[str],
        *,
        format: Literal["archive", "sqlite"] | None = None,
        replace: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> BackupReport | ArchiveReport:
        """Write what the database holds at this moment into one new file, while others go on working with it.

        It is an archive, from which ``restore_backup`` makes a database on SQLite and PostgreSQL alike, or with
        ``format="sqlite"`` a copy of the SQLite file; without a format the ending of the name decides: ``.sqlite``,
        ``.sqlite3`` and ``.db`` are SQLite's. All that was committed before the call is in it. The file is readable by
        its owner only and gets its name when it is complete, checked and on the disk. ``replace`` lets another backup
        be replaced. ``progress`` is told the stage, how far it is, and how far it goes.

        Raises AlreadyExistsError for a name that is taken, UnavailableError for a full disk, with nothing left behind.
        """
        from agentos_store.operations.saving import backup

        refuse_inside_body()
        return backup(self._backend, path, format=format, replace=replace, progress=progress)

    def export(
        self,
        directory: str | os.PathLike[str],
        names: Sequence[str] = (),
        *,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> ExportReport:
        """Write rows as JSON lines for other programs, of one moment: a new directory with a file for each table.

        ``names`` are those of domains, as the store has them (``"tasks"``, ``"messages"``), or of tables; without any
        it is everything but what is made of the rest. A line is an object with the names of the columns: times in ISO
        8601, amounts as decimal strings, vectors as lists of numbers. The directory gets its name when it is complete;
        it and its files are for their owner only. Raises AlreadyExistsError when there is something in it.
        """
        from agentos_store.operations.export import export

        refuse_inside_body()
        return export(self._backend, directory, names, progress=progress)

    def partition_events(self, *, rows: int = ROWS, ahead: int = AHEAD) -> PartitionReport:
        """Partition the events by position, on PostgreSQL only; called again, make further partitions ahead.

        It makes the same schema, with the table as it is as the first partition: it is read once and nothing is
        copied. Writers and readers wait for hundredths of a second. ``rows`` positions are one partition, ``ahead`` of
        them wait behind the one that is written to, and a default partition catches what comes behind them all.
        ``prune`` drops partitions whole, and makes new ones ahead. An ``event_id`` is unique in its partition; the
        check for repeats looks into all of them, but two calls at the same moment on either side of a boundary pass it.
        Needs the rights of the table's owner. Raises UnavailableError on SQLite, and while views, triggers, policies or
        publications hang on the table; LockTimeoutError when somebody uses it without a pause.
        """
        return partition_events(self._backend, rows=rows, ahead=ahead)

    def close(self) -> None:
        """Let running operations end and give back the connections; closing twice is no error.

        LockTimeoutError says that a transaction was still open after the limit; the store then stays open too.
        """
        if not self._closed:
            self._closed = True
            # Those of other stores that share the file go on waiting.
            self._backend.bell.dismiss(self._runner)
            try:
                self._backend.close()
            except LockTimeoutError:
                self._closed = False
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
