"""Renewals in the background: one thread, or one task of an event loop, for all leases that a store holds.

Leases that are due together are renewed by one statement, so that a thousand of them need one connection for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import logging
import threading
import time
import weakref
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from agentos_store.engine.fork import register
from agentos_store.errors import StoreError, UsageError
from agentos_store.leases.held import Held
from agentos_store.leases.models import Fence

log = logging.getLogger("agentos_store.leases")

BATCH = 500
"""Leases that one statement renews."""

LINGERING = 10.0
"""Seconds that the thread waits for another lease, for to start it costs more than a short lease does."""


class Outcome(NamedTuple):
    """What became of renewals; what is in neither is lost."""

    renewed: Collection[Fence]
    busy: Collection[Fence]
    """Held still, and not renewed, for another transaction is at work on them."""


class Watch:
    """The leases that are held, and when each has to be renewed."""

    def __init__(self) -> None:
        self.held: set[Held] = set()

    def wait(self) -> float:
        """Return the seconds until the first of them is due; there must be one."""
        return max(min(each.due for each in self.held) - time.monotonic(), 0.0)

    def due(self) -> Iterator[list[Held]]:
        """Return those that are due, or will be before long, in batches of one duration."""
        now = time.monotonic()
        due = sorted((each for each in self.held if each.is_due(now)), key=lambda each: (each.ttl, each.name))
        for _, same in groupby(due, key=lambda each: each.ttl):
            group = list(same)
            yield from (group[start : start + BATCH] for start in range(0, len(group), BATCH))

    def settle(self, batch: Iterable[Held], sent: float, outcome: Outcome) -> None:
        """Tell each lease what became of its renewal."""
        for each in batch:
            if each.is_lost:
                # Its holder knows by now, and does not count on it any more.
                self.held.discard(each)
            elif each.fence in outcome.renewed:
                each.renewed(sent)
            elif each.fence in outcome.busy:
                each.postpone()
            else:
                self.lose([each])

    def fail(self, batch: Sequence[Held], error: Exception) -> None:
        """Try again soon, unless nothing can come of it."""
        if isinstance(error, UsageError):
            # The store was closed, so the leases lapse.
            self.lose(batch)
            return
        code = getattr(error, "code", None) or type(error).__name__
        log.warning("%d leases could not be renewed: %s", len(batch), code, exc_info=not isinstance(error, StoreError))
        for each in batch:
            if each.is_lost:
                self.held.discard(each)
            else:
                each.postpone()

    def lose(self, batch: Iterable[Held]) -> None:
        """Let the holders know."""
        for each in batch:
            self.held.discard(each)
            each.lose()


class ThreadKeeper:
    """Renews in a thread, which runs while there is something to renew."""

    def __init__(self, renew: Callable[[Sequence[Fence], dt.timedelta], Outcome]) -> None:
        self._renew = renew
        self._thread: threading.Thread | None = None
        self._forget()
        register(self)

    def _forget(self) -> None:
        self._watch = Watch()
        self._changed = threading.Condition()
        self._thread = None

    def before_fork(self) -> None:
        """Nothing: the thread and the leases stay the parent's."""

    def after_fork(self) -> None:
        """Hold nothing in the child."""
        self._forget()

    def add(self, held: Held) -> None:
        """Renew the lease from now on."""
        with self._changed:
            self._watch.held.add(held)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agentos-store-leases", daemon=True)
                self._thread.start()
            self._changed.notify()

    def remove(self, held: Held) -> None:
        """Renew the lease no more."""
        with self._changed:
            self._watch.held.discard(held)

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._watch.held:
                    self._changed.wait(LINGERING)
                if not self._watch.held:
                    self._thread = None
                    return
                wait = self._watch.wait()
                if wait > 0:
                    self._changed.wait(wait)
                    continue
                batches = list(self._watch.due())
            for batch in batches:
                self._renew_batch(batch)

    def _renew_batch(self, batch: Sequence[Held]) -> None:
        sent = time.monotonic()
        try:
            outcome = self._renew([each.fence for each in batch], batch[0].ttl)
        except Exception as error:  # noqa: BLE001  the thread goes on for the other leases, and for the next try
            with self._changed:
                self._watch.fail(batch, error)
        else:
            with self._changed:
                self._watch.settle(batch, sent, outcome)


class TaskKeeper:
    """Renews in a task of each event loop that holds leases, which runs while there is something to renew."""

    def __init__(self, renew: Callable[[Sequence[Fence], dt.timedelta], Coroutine[Any, Any, Outcome]]) -> None:
        self._renew = renew
        self._rounds: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Round] = weakref.WeakKeyDictionary()

    def add(self, held: Held) -> None:
        """Renew the lease from now on."""
        loop = asyncio.get_running_loop()
        found = self._rounds.get(loop)
        if found is None or found.task.done():
            found = self._rounds[loop] = _Round(self._renew)
        found.watch.held.add(held)
        found.changed.set()

    def remove(self, held: Held) -> None:
        """Renew the lease no more."""
        found = self._rounds.get(asyncio.get_running_loop())
        if found is not None:
            found.watch.held.discard(held)
            found.changed.set()


class _Round:
    """The leases of one event loop, and the task that renews them."""

    def __init__(self, renew: Callable[[Sequence[Fence], dt.timedelta], Coroutine[Any, Any, Outcome]]) -> None:
        self.watch = Watch()
        self.changed = asyncio.Event()
        self._renew = renew
        self.task = asyncio.get_running_loop().create_task(self._run(), name="agentos-store-leases")

    async def _run(self) -> None:
        while self.watch.held:
            self.changed.clear()
            wait = self.watch.wait()
            if wait > 0:
                # Python 3.11's wait_for() would swallow a cancellation that meets the change.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self.changed.wait()
                    continue
            for batch in list(self.watch.due()):
                await self._renew_batch(batch)

    async def _renew_batch(self, batch: Sequence[Held]) -> None:
        sent = time.monotonic()
        try:
            outcome = await self._renew([each.fence for each in batch], batch[0].ttl)
        except Exception as error:  # noqa: BLE001  as in the thread
            self.watch.fail(batch, error)
        else:
            self.watch.settle(batch, sent, outcome)
