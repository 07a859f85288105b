"""The store for threads: every call returns its result."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlalchemy import URL, Engine

from agentos_store.engine.backend import Backend, OpenTransaction
from agentos_store.engine.bell import Bell
from agentos_store.engine.capabilities import Capabilities
from agentos_store.engine.retry import OnRetry, RetryPolicy
from agentos_store.engine.session import Session
from agentos_store.errors import LockTimeoutError, UsageError
from agentos_store.operation import Access, Blocking, refuse_inside_body
from agentos_store.operations import consistency, partitions
from agentos_store.operations.consistency import ConsistencyReport
from agentos_store.operations.partitions import PartitionReport
from agentos_store.operations.retention import Policy, PruneReport, prune
from agentos_store.operations.status import Status, read_status
from agentos_store.store.opening import open_backend
from agentos_store.store.repositories import Repositories

if TYPE_CHECKING:
    from agentos_store.settings import Settings

R = TypeVar("R")


class _Direct:
    """Runs each body in a transaction of its own."""

    in_transaction = False

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def call(self, access: Access, name: str, body: Callable[[Session], Any], *, repeatable: bool) -> Any:
        return self._backend.run(access, name, body, repeatable=repeatable)

    @property
    def bell(self) -> Bell:
        return self._backend.bell


class TransactionRunner:
    """Runs bodies in one open transaction, until it has ended: from any thread, one at a time."""

    bell = None

    in_transaction = True

    def __init__(self, *, read_only: bool) -> None:
        self._transaction: OpenTransaction | None = None
        self._read_only = read_only
        self._turn = threading.Lock()
        self._ended = False
        self._process = os.getpid()

    def begin(self, backend: Backend) -> None:
        """Begin; ``end`` must follow, whatever comes of it."""
        self._transaction = backend.begin(read_only=self._read_only)

    def call(self, access: Access, name: str, body: Callable[[Session], Any], *, repeatable: bool) -> Any:
        """Run the body; nothing is tried again here."""
        del repeatable
        if self._read_only and not access.reads:
            raise UsageError(f"{name}: this transaction only reads; open it without read_only to write")
        with self._turn:
            if self._ended or self._transaction is None:
                raise UsageError(f"{name}: the transaction has ended")
            if self._process != os.getpid():
                raise UsageError(f"{name}: the transaction belongs to the process that this one was forked from")
            return self._transaction.run(access, body)

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
            try:
                self._transaction.end(commit=commit)
            except Exception:
                self._ended = True
                raise
            # Not in any case: an interrupt may have come before anything was ended.
            self._ended = True


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

        def attempt(_: int) -> R:
            with self.transaction() as transaction:
                return work(transaction)

        return (retry or self._backend.policy).run("run", attempt, repeatable=False)

    def status(self) -> Status:
        """Return what an operator looks at first: revision, size, counts, the oldest task that waits."""
        return read_status(self._backend)

    def check_consistency(self, agent_id: str | None = None) -> ConsistencyReport:
        """Return what does not fit together, in the whole store or for one agent: what is wrong, where, and the remedy.

        Counters of sessions and users, gaps in the numbers of messages, tool calls that nobody is at work on, safe
        fork points behind the end, snapshots whose messages are gone. Raises NotFoundError for an unknown agent.
        """
        return consistency.check_consistency(self._backend, agent_id)

    def repair(self, agent_id: str | None = None) -> ConsistencyReport:
        """Put right what ``check_consistency`` finds and has a remedy for; return what was put right."""
        return consistency.repair(self._backend, agent_id)

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
        return prune(self._backend, policies, dry_run=dry_run, confirm=confirm, progress=progress)

    def partition_events(self, *, rows: int = partitions.ROWS, ahead: int = partitions.AHEAD) -> PartitionReport:
        """Partition the events by position, on PostgreSQL only; called again, make further partitions ahead.

        It makes the same schema, with the table as it is as the first partition: it is read once and nothing is
        copied. Writers and readers wait for hundredths of a second. ``rows`` positions are one partition, ``ahead`` of
        them wait behind the one that is written to, and a default partition catches what comes behind them all.
        ``prune`` drops partitions whole, and makes new ones ahead. An ``event_id`` is unique in its partition; the
        check for repeats looks into all of them, but two calls at the same moment on either side of a boundary pass it.
        Needs the rights of the table's owner. Raises UnavailableError on SQLite, and while views, triggers, policies or
        publications hang on the table; LockTimeoutError when somebody uses it without a pause.
        """
        return partitions.partition_events(self._backend, rows=rows, ahead=ahead)

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
