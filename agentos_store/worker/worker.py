"""The worker: one thread that claims, some that run what was claimed, and one that keeps the claims alive."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import queue
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from agentos_store.errors import LeaseLostError, NotFoundError, StoreError, UnavailableError, UsageError
from agentos_store.models import Task
from agentos_store.store.blocking import Store
from agentos_store.tasks.backoff import Backoff
from agentos_store.worker.context import WorkContext
from agentos_store.worker.ending import Outcome, end, release
from agentos_store.worker.options import options

log = logging.getLogger("agentos_store.worker")

Handler = Callable[[Task, WorkContext], Any]
"""Does the work and returns the result, which is stored as JSON."""

LEASE = dt.timedelta(seconds=60)
POLL = dt.timedelta(seconds=1)
GRACE = dt.timedelta(seconds=30)

GLANCE = 0.5
"""Seconds that it waits without a look: a signal that comes just before a wait does not end it, and is handled then."""

_WAKE = "wake"
_STOP = "stop"
_DONE = "done"


class Worker:
    """Claims tasks and runs a handler for each, until it is stopped; then it drains.

    ``handler`` is one function for everything, or one for each task type. What it returns completes the task; an error
    ends the try, and the task waits for the next one while it has attempts left. ``Retry`` and ``GiveUp`` say so on
    purpose. ``concurrency`` handlers run at once, each in a thread. While a handler runs, a heartbeat every third of
    the ``lease`` keeps its claim. An idle worker looks for work every ``poll``, and when it is woken.

    Drained, it claims no more and waits up to ``grace`` for what runs. What has not ended then is given back without
    counting as an attempt: its context is lost, and whatever the handler still returns is refused.
    """

    def __init__(
        self,
        store: Store,
        handler: Handler | Mapping[str, Handler],
        *,
        by: str | None = None,
        lease: dt.timedelta = LEASE,
        concurrency: int = 1,
        task_types: Sequence[str] = (),
        poll: dt.timedelta = POLL,
        grace: dt.timedelta = GRACE,
        backoff: Backoff | None = None,
    ) -> None:
        self._handlers, self._options = options(
            handler,
            by=by,
            lease=lease,
            concurrency=concurrency,
            task_types=task_types,
            poll=poll,
            grace=grace,
            backoff=backoff,
        )
        self._handler: Any = handler
        self._store = store
        # Simple queues may be fed from a signal handler, where no lock may be taken.
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._work: queue.SimpleQueue[WorkContext | None] = queue.SimpleQueue()
        # Not by task: one that was lost may be claimed again while its first handler still runs.
        self._running: set[WorkContext] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._stops = 0
        self._is_running = False

    @property
    def by(self) -> str:
        """The name under which it claims: host, process and a random part, unless it was given."""
        return self._options.by

    def stop(self) -> None:
        """Tell it to drain, from any thread or signal handler; a second call cuts the grace short. Does not wait."""
        self._told.put(_STOP)

    def wake(self) -> None:
        """Tell an idle worker that there may be work, from any thread."""
        self._told.put(_WAKE)

    def run(self, *, signals: bool | None = None) -> None:
        """Work until it is stopped and drained; nothing of it is left claimed then.

        In the main thread SIGTERM and SIGINT stop it, a second one at once, and what was installed for them is put back
        at the end; ``signals=False`` leaves them alone. Elsewhere nothing is installed, and ``signals=True`` raises
        UsageError. A database that is away is waited for.
        """
        with self._lock:
            if self._is_running or self._over.is_set():
                raise UsageError("the worker runs, or has run, already; make another one")
            self._is_running = True
        main = threading.current_thread() is threading.main_thread()
        if signals and not main:
            raise UsageError("signals are handled in the main thread; run the worker there")
        beat = threading.Thread(target=self._keep_alive, name=f"{self.by}-heartbeat", daemon=True)
        threads = [
            threading.Thread(target=self._serve, name=f"{self.by}-{number}", daemon=True)
            for number in range(self._threads)
        ]
        with self._stopped_by_signals() if main and signals is not False else contextlib.nullcontext():
            for thread in (beat, *threads):
                thread.start()
            try:
                self._claim_until_stopped()
            finally:
                try:
                    self._drain()
                finally:
                    self._over.set()
                    for _ in threads:
                        self._work.put(None)
                    beat.join()

    # --- claiming

    def _claim_until_stopped(self) -> None:
        fruitless = 0
        while not self._stops:
            free = self._options.concurrency - len(self._running)
            taken = 0
            if free > 0:
                try:
                    taken = self._claim(free)
                    fruitless = 0
                except UnavailableError as error:
                    fruitless += 1
                    log.warning("no claim (%s); another try follows", error.code)
            if 0 < taken < free:
                # There may be more, but not so much more that nobody could stop it.
                self._listen(0)
                continue
            # Whoever ends wakes it. Of many idle workers not all come at the same time.
            self._listen(self._options.poll.total_seconds() * min(2**fruitless, 16) * random.uniform(0.75, 1.0))

    def _claim(self, free: int) -> int:
        asked = time.monotonic()
        chosen = self._options
        tasks = self._store.tasks.claim_many(by=chosen.by, lease=chosen.lease, limit=free, task_types=chosen.task_types)
        for task in tasks:
            context = WorkContext(task, chosen.by, chosen.lease)
            context.renewed(asked)
            with self._lock:
                self._running.add(context)
            self._start(context)
        return len(tasks)

    def _listen(self, seconds: float) -> None:
        """Wait until it is told something, and take in all that it was told."""
        end = time.monotonic() + seconds
        told: str | None = None
        while told is None:
            left = end - time.monotonic()
            try:
                told = self._told.get(timeout=min(max(left, 0.0), GLANCE))
            except queue.Empty:
                if left <= GLANCE:
                    return
        with contextlib.suppress(queue.Empty):
            while True:
                self._stops += told == _STOP
                told = self._told.get_nowait()

    # --- running

    @property
    def _threads(self) -> int:
        return self._options.concurrency

    def _start(self, context: WorkContext) -> None:
        """Let the handler begin; ``_finish`` follows."""
        self._work.put(context)

    def _cancel(self, context: WorkContext) -> None:
        """Tell a handler that nobody waits for it any more. A thread can only be asked: its context is lost."""

    def handler_of(self, task: Task) -> Any:
        """Return the handler for the task."""
        return self._handler if self._handlers is None else self._handlers[task.task_type]

    def _serve(self) -> None:
        while (context := self._work.get()) is not None:
            try:
                outcome = Outcome(self.handler_of(context.task)(context.task, context))
            except BaseException as error:  # noqa: BLE001  it becomes the task's
                outcome = Outcome(error=error)
            self._finish(context, outcome)

    def _finish(self, context: WorkContext, outcome: Outcome) -> None:
        """Store what came of it; afterwards there is room for another task."""
        try:
            end(self._store, context, outcome, self._options)
        finally:
            with self._lock:
                self._running.discard(context)
            self._told.put(_DONE)

    # --- keeping the claims

    def _contexts(self) -> list[WorkContext]:
        with self._lock:
            return list(self._running)

    def _keep_alive(self) -> None:
        while not self._over.wait(self._options.beat):
            for context in self._contexts():
                if not context.is_lost:
                    self._beat(context)

    def _beat(self, context: WorkContext) -> None:
        asked = time.monotonic()
        try:
            self._store.tasks.heartbeat(context.task.task_id, context.token, lease=self._options.lease)
            context.renewed(asked)
        except (LeaseLostError, NotFoundError):
            context.lose()
        except StoreError as error:
            # The next one may come through before the lease lapses; if not, the context knows.
            log.warning("task %s: no heartbeat (%s)", context.task.task_id, type(error).__name__)

    # --- draining

    def _drain(self) -> None:
        deadline = time.monotonic() + self._options.grace.total_seconds()
        for context in self._contexts():
            context.drain()
        while self._contexts() and (left := deadline - time.monotonic()) > 0 and self._stops < 2:
            self._listen(left)
        for context in self._contexts():
            release(self._store, context)
            self._cancel(context)

    @contextlib.contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        process = os.getpid()

        def stop(_number: int, _frame: object) -> None:
            # A child that was forked by a handler has inherited this.
            if os.getpid() == process:
                self.stop()

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
