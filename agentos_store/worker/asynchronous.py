"""The worker for event loops: the same worker in a thread, whose handlers run in the loop."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

from agentos_store.errors import UsageError
from agentos_store.models import Task
from agentos_store.store.asynchronous import AsyncStore
from agentos_store.store.blocking import Store
from agentos_store.tasks.backoff import Backoff
from agentos_store.worker.context import WorkContext
from agentos_store.worker.ending import Outcome
from agentos_store.worker.worker import GRACE, LEASE, POLL, Worker

AsyncHandler = Callable[[Task, WorkContext], Coroutine[Any, Any, Any]]
"""Does the work and returns the result, which is stored as JSON."""


THREADS = 8
"""Ends of tasks that are stored at once."""
CLEANING = 5.0
"""Seconds that cancelled handlers have for what they do at their end."""


class AsyncWorker:
    """Claims tasks and runs a coroutine for each, as ``Worker`` does, until it is stopped; then it drains.

    What has not ended after the ``grace`` is given back and cancelled; ``run`` waits a few seconds for its end.
    """

    def __init__(
        self,
        store: AsyncStore,
        handler: AsyncHandler | Mapping[str, AsyncHandler],
        *,
        by: str | None = None,
        lease: dt.timedelta = LEASE,
        concurrency: int = 1,
        task_types: Sequence[str] = (),
        poll: dt.timedelta = POLL,
        grace: dt.timedelta = GRACE,
        backoff: Backoff | None = None,
    ) -> None:
        # The two stores are faces of one database, and the asynchronous one closes it.
        blocking = Store(store._backend)  # noqa: SLF001  see above
        self._worker = _InLoop(
            blocking,
            handler,
            by=by,
            lease=lease,
            concurrency=concurrency,
            task_types=task_types,
            poll=poll,
            grace=grace,
            backoff=backoff,
        )

    @property
    def by(self) -> str:
        """The name under which it claims."""
        return self._worker.by

    def stop(self) -> None:
        """Tell it to drain; a second call cuts the grace short. Does not wait."""
        self._worker.stop()

    def wake(self) -> None:
        """Tell an idle worker that there may be work."""
        self._worker.wake()

    async def run(self, *, signals: bool | None = None) -> None:
        """Work until it is stopped and drained, as ``Worker.run`` does; cancelled, it drains first.

        Signals are handled by the event loop, where it can do that and runs in the main thread.
        """
        loop = asyncio.get_running_loop()
        main = threading.current_thread() is threading.main_thread()
        if signals and not main:
            raise UsageError("signals are handled in the main thread; run the worker there")
        self._worker.loop = loop
        ended: asyncio.Future[None] = loop.create_future()

        def work() -> None:
            error: BaseException | None = None
            try:
                self._worker.run(signals=False)
            except BaseException as raised:  # noqa: BLE001  whoever awaits gets it
                error = raised
            loop.call_soon_threadsafe(_settle, ended, error)

        thread = threading.Thread(target=work, name=self.by, daemon=True)
        with self._stopped_by_signals(loop) if main and signals is not False else contextlib.nullcontext():
            thread.start()
            cancelled: asyncio.CancelledError | None = None
            while not ended.done():
                try:
                    await asyncio.wait([ended])
                except asyncio.CancelledError as error:
                    cancelled = error
                    self.stop()
        thread.join()
        if self._worker.handling:
            await asyncio.wait(self._worker.handling, timeout=CLEANING)
        ended.result()
        if cancelled is not None:
            raise cancelled

    @contextlib.contextmanager
    def _stopped_by_signals(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        installed: list[signal.Signals] = []
        with contextlib.suppress(NotImplementedError):
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
                installed.append(number)
        try:
            yield
        finally:
            for number in installed:
                loop.remove_signal_handler(number)


class _InLoop(Worker):
    """Runs handlers in an event loop; a thread only stores what came of them."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, store: Store, handler: Any, **options: Any) -> None:
        super().__init__(store, handler, **options)
        self._futures: dict[WorkContext, Future[Outcome]] = {}
        self._ended: dict[WorkContext, Outcome] = {}
        self.handling: set[asyncio.Task[Any]] = set()
        """The handlers that run; the event loop's own."""

    @property
    def _threads(self) -> int:
        return min(self._options.concurrency, THREADS)

    def _start(self, context: WorkContext) -> None:
        future = asyncio.run_coroutine_threadsafe(self._call(context), self.loop)
        self._futures[context] = future
        future.add_done_callback(lambda done: self._hand_over(context, done))

    async def _call(self, context: WorkContext) -> Outcome:
        task = asyncio.current_task()
        assert task is not None
        self.handling.add(task)
        task.add_done_callback(self.handling.discard)
        try:
            return Outcome(await self.handler_of(context.task)(context.task, context))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001  it becomes the task's, and what ends a program not the loop's
            return Outcome(error=error)

    def _hand_over(self, context: WorkContext, done: Future[Outcome]) -> None:
        try:
            self._ended[context] = done.result()
        except CancelledError as error:
            self._ended[context] = Outcome(error=error)
        self._work.put(context)

    def _serve(self) -> None:
        while (context := self._work.get()) is not None:
            self._futures.pop(context, None)
            self._finish(context, self._ended.pop(context))

    def _cancel(self, context: WorkContext) -> None:
        future = self._futures.get(context)
        if future is not None:
            future.cancel()


def _settle(ended: asyncio.Future[None], error: BaseException | None) -> None:
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)
