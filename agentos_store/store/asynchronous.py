"""The store for event loops: every call returns a coroutine, which hops once to a thread and back.

One hop per operation cost 370–410 µs on SQLite where a driver that hops per statement cost 820–1,035 µs. A call that is
cancelled leaves a whole transaction behind: its thread goes on until it is committed or rolled back.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from sqlalchemy import URL, Engine

from agentos_store.engine.backend import Backend
from agentos_store.engine.bell import Bell
from agentos_store.engine.capabilities import Capabilities
from agentos_store.engine.fork import register
from agentos_store.engine.meter import RUN
from agentos_store.engine.retry import OnRetry, RetryPolicy, is_transient
from agentos_store.engine.session import Session
from agentos_store.errors import LockTimeoutError, TransientError, UsageError
from agentos_store.operation import Access, Awaiting, refuse_inside_body
from agentos_store.operations.health import TIMEOUT as HEALTH_TIMEOUT
from agentos_store.operations.health import Checkup, Health
from agentos_store.operations.metrics import TIMEOUT as METRICS_TIMEOUT
from agentos_store.operations.metrics import Gauges, Metrics
from agentos_store.operations.partitions import AHEAD, ROWS, PartitionReport, partition_events
from agentos_store.store.blocking import TransactionRunner
from agentos_store.store.opening import open_backend
from agentos_store.store.repositories import Repositories, import_every_domain

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

THREADS = 40
"""Operations at once. Each needs a connection for most of its time, so there is no use in many more."""

THREADS_INSIDE = 1000
"""Open transactions at once, at most; each has a connection already, so their number is small."""


class _Hop:
    """Calls functions in threads of the store's own. It belongs to no event loop."""

    def __init__(self) -> None:
        self.after_fork()
        register(self)

    def before_fork(self) -> None:
        """Nothing: the threads stay the parent's."""

    def after_fork(self) -> None:
        """Begin with new threads, which start when they are needed."""
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="agentos-store")
        # Whoever is inside a transaction must not stand in line for a thread behind those who wait for its end.
        self._inside = ThreadPoolExecutor(THREADS_INSIDE, thread_name_prefix="agentos-store-transaction")

    async def call(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Call in a thread and wait for the result; cancelled, wait no longer, while the thread goes on."""
        return await asyncio.wrap_future(_submit(self._threads, partial(function, *args, **kwargs)))

    async def obtain(self, function: Callable[[], R], give_back: Callable[[R], object]) -> R:
        """Call in a thread and wait for what it returns; cancelled, let the thread give back what nobody will use."""
        obtained = _submit(self._threads, function)
        try:
            return await asyncio.wrap_future(obtained)
        except asyncio.CancelledError:
            obtained.add_done_callback(partial(_give_back, give_back))
            raise

    async def finish(self, function: Callable[..., R], *args: Any, **kwargs: Any) -> R:
        """Call in a thread inside a transaction and wait for the result even when cancelled.

        The cancellation comes afterwards: nobody may roll back under a running statement.
        """
        future = asyncio.wrap_future(_submit(self._inside, partial(function, *args, **kwargs)))
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            # Asked for, so that asyncio does not report it as forgotten.
            future.exception()
            raise cancelled
        return future.result()

    def shut(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False)
        self._inside.shutdown(wait=False)


def _submit(threads: ThreadPoolExecutor, function: Callable[[], R]) -> Future[R]:
    try:
        return threads.submit(function)
    except RuntimeError:
        # The threads have been told to end, here or by the interpreter that is going down.
        raise UsageError("the store is closed") from None


def _give_back(give_back: Callable[[R], object], obtained: Future[R]) -> None:
    if not obtained.cancelled() and obtained.exception() is None:
        give_back(obtained.result())


class _Direct:
    """Runs each body in a transaction of its own, in a thread."""

    in_transaction = False

    def __init__(self, backend: Backend, hop: _Hop) -> None:
        self._backend = backend
        self._hop = hop

    async def call(
        self, access: Access, name: str, body: Callable[[Session], Any], *, repeatable: bool, may_lag: bool = False
    ) -> Any:
        return await self._hop.call(self._backend.run, access, name, body, repeatable=repeatable, may_lag=may_lag)

    @property
    def bell(self) -> Bell:
        return self._backend.bell


class _InTransaction:
    """Runs bodies in one open transaction, one after another, each in a thread."""

    bell = None

    in_transaction = True

    def __init__(self, runner: TransactionRunner, hop: _Hop) -> None:
        self._runner = runner
        self._hop = hop
        self._turn = asyncio.Lock()

    async def call(
        self, access: Access, name: str, body: Callable[[Session], Any], *, repeatable: bool, may_lag: bool = False
    ) -> Any:
        async with self._turn:
            return await self._hop.finish(self._runner.call, access, name, body, repeatable=repeatable, may_lag=may_lag)

    async def end(self, *, commit: bool) -> None:
        # It does not stand in line with the operations, where a cancellation could keep it from ever being sent; the
        # thread waits for the one that is running, and those behind it find that the transaction has ended.
        await self._hop.finish(self._runner.end, commit=commit)


class AsyncTransaction(Repositories[Awaiting]):
    """Several operations, one transaction: all of them are stored, or none."""

    def __init__(self, runner: _InTransaction) -> None:
        super().__init__(runner, asynchronous=True)


class _Opening:
    """What ``AsyncStore.open`` returns: to be awaited, or entered with ``async with``."""

    def __init__(self, open_it: Callable[[], Awaitable[AsyncStore]]) -> None:
        self._open = open_it
        self._store: AsyncStore | None = None

    def __await__(self) -> Generator[Any, Any, AsyncStore]:
        return self._open().__await__()

    async def __aenter__(self) -> AsyncStore:
        self._store = await self._open()
        return self._store

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._store is not None
        await self._store.close()


class AsyncStore(Repositories[Awaiting]):
    """An open database for asynchronous code. Several event loops may use it, one after another."""

    def __init__(self, backend: Backend, hop: _Hop) -> None:
        """Use ``AsyncStore.open``."""
        super().__init__(_Direct(backend, hop), asynchronous=True)
        self._backend = backend
        self._hop = hop
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
    ) -> _Opening:
        """Open a database as ``Store.open`` does; await the result, or enter it with ``async with``."""

        async def open_it() -> AsyncStore:
            refuse_inside_body()
            hop = _Hop()

            def opening() -> Backend:
                # Here in the thread: the event loop must not stand still when a domain is used for the first time.
                import_every_domain()
                return open_backend(url, schema=schema, settings=settings, engine=engine, on_retry=on_retry)

            try:
                backend = await hop.obtain(opening, lambda opened: opened.close())
            except BaseException:
                hop.shut()
                raise
            return cls(backend, hop)

        return _Opening(open_it)

    @property
    def capabilities(self) -> Capabilities:
        """What this database can do."""
        return self._backend.capabilities

    @contextlib.asynccontextmanager
    async def transaction(self, *, read_only: bool = False) -> AsyncIterator[AsyncTransaction]:
        """Put several operations into one transaction, as ``Store.transaction`` does.

        Its operations may run on different threads, one after another.
        """
        refuse_inside_body()
        runner = TransactionRunner(read_only=read_only)
        await self._hop.obtain(partial(runner.begin, self._backend), lambda _: runner.end(commit=False))
        inside = _InTransaction(runner, self._hop)
        try:
            yield AsyncTransaction(inside)
            await inside.end(commit=True)
        except BaseException:
            await inside.end(commit=False)
            raise

    async def run(self, work: Callable[[AsyncTransaction], Awaitable[R]], *, retry: RetryPolicy | None = None) -> R:
        """Run the coroutine function in a transaction; run it again after a passing fault, as ``Store.run`` does."""
        policy = retry or self._backend.policy
        attempt = 0
        while True:
            try:
                async with self.transaction() as transaction:
                    return await work(transaction)
            except (TransientError, LockTimeoutError) as error:
                if attempt == policy.retries or not is_transient(error, repeatable=False):
                    raise
                self._backend.meter.retried(RUN)
                await asyncio.sleep(policy.announce("run", error, attempt))
                attempt += 1

    async def health_check(self, timeout: float = HEALTH_TIMEOUT) -> Health:  # noqa: ASYNC109  a thread may hang
        """Look whether the database can be worked with, as ``Store.health_check`` does.

        It needs none of the threads that operations run in, so it answers in time when all of those hang.
        """
        return self._checkup.closed() if self._closed else await self._checkup.check_async(timeout)

    async def metrics(self, timeout: float = METRICS_TIMEOUT) -> Metrics:  # noqa: ASYNC109  a thread may hang
        """Return what was done since the database was opened, as ``Store.metrics`` does."""
        return await self._gauges.collect_async(timeout)

    async def status(self) -> Status:
        """Return what an operator looks at first: revision, size, counts, the oldest task that waits."""
        from agentos_store.operations.status import read_status

        return await self._hop.call(read_status, self._backend)

    async def doctor(self, *, deep: bool = False) -> Diagnosis:
        """Return what is wrong or weak with the database, as ``Store.doctor`` does."""
        from agentos_store.operations.doctor import diagnose

        return await self._hop.call(diagnose, self._backend, deep=deep)

    async def check_consistency(self, agent_id: str | None = None) -> ConsistencyReport:
        """Return what does not fit together, in the whole store or for one agent: what is wrong, where, and the remedy.

        Counters of sessions and users, gaps in the numbers of messages, tool calls that nobody is at work on, safe
        fork points behind the end, snapshots whose messages are gone. Raises NotFoundError for an unknown agent.
        """
        from agentos_store.operations import consistency

        return await self._hop.call(consistency.check_consistency, self._backend, agent_id)

    async def repair(self, agent_id: str | None = None) -> ConsistencyReport:
        """Put right what ``check_consistency`` finds and has a remedy for; return what was put right."""
        from agentos_store.operations import consistency

        return await self._hop.call(consistency.repair, self._backend, agent_id)

    async def copy_to(
        self,
        target: str | URL,
        *,
        schema: str | None = None,
        restart: bool = False,
        replace: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> MoveReport:
        """Copy everything into another database, as ``Store.copy_to`` does; it goes on when the await is cancelled."""
        from agentos_store.operations.moving.copying import copy_into

        refuse_inside_body()
        work = partial(copy_into, restart=restart, replace=replace, progress=progress)
        return await self._hop.call(work, self._backend, target, schema)

    async def prune(
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

        work = partial(prune, dry_run=dry_run, confirm=confirm, progress=progress)
        return await self._hop.call(work, self._backend, policies)

    async def forget(
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
        NotFoundError when there is nothing of them, and UnavailableError where the role may not erase audits. A call
        that is cancelled goes on in its thread.
        """
        from agentos_store.operations.forgetting import forget

        return await self._hop.call(
            forget, self._backend, user=user, agent=agent, by=by, dry_run=dry_run, progress=progress
        )

    async def vacuum(self, *, full: bool = False) -> VacuumReport:
        """Give back what deleted rows took up, as ``Store.vacuum`` does."""
        from agentos_store.operations.vacuum import vacuum

        return await self._hop.call(vacuum, self._backend, full=full)

    async def backup(
        self,
        path: str | os.PathLike[str],
        *,
        format: Literal["archive", "sqlite"] | None = None,
        replace: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> BackupReport | ArchiveReport:
        """Write what the database holds into one new file, as ``Store.backup`` does.

        ``progress`` is called in a thread. A call that is cancelled leaves its thread to make the file.
        """
        from agentos_store.operations.saving import backup

        work = partial(backup, format=format, replace=replace, progress=progress)
        return await self._hop.call(work, self._backend, path)

    async def export(
        self,
        directory: str | os.PathLike[str],
        names: Sequence[str] = (),
        *,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> ExportReport:
        """Write rows as JSON lines into a new directory, as ``Store.export`` does.

        ``progress`` is called in a thread.
        """
        from agentos_store.operations.export import export

        return await self._hop.call(partial(export, progress=progress), self._backend, directory, names)

    async def partition_events(self, *, rows: int = ROWS, ahead: int = AHEAD) -> PartitionReport:
        """Partition the events by position, as ``Store.partition_events`` does."""
        return await self._hop.call(partition_events, self._backend, rows=rows, ahead=ahead)

    async def close(self) -> None:
        """Let running operations end and give back the connections; closing twice is no error.

        LockTimeoutError says that a transaction was still open after the limit; the store then stays open too.
        """
        if not self._closed:
            self._closed = True
            # Those of other stores that share the file go on waiting.
            self._backend.bell.dismiss(self._runner)
            try:
                await self._hop.finish(self._backend.close)
            except LockTimeoutError:
                self._closed = False
                raise
            except BaseException:
                self._hop.shut()
                raise
            self._hop.shut()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
