"""The bell of an open database: it wakes those who wait for something new.

Whoever commits something that others wait for rings it. Who waits in the same process is woken at once; what reaches
other processes is the business of the dialects' rooms, and is never a part of the writer's transaction. Being woken is
no promise that there is something: who waits looks, and looks from time to time unasked, for a writer may die between
its commit and the ring.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol

from agentos_store.errors import UsageError


class Waiter:
    """Somebody who waits, in a thread of its own or in an event loop."""

    def __init__(self, owner: object, on_wake: Callable[[], None] | None = None) -> None:
        self.owner = owner
        """Whose end is the waiter's too: a store's runner."""
        self.dismissed = False
        """Whether there is nothing more to wait for."""
        self.bell: Bell | None = None
        # A queue, for it can be put to by whoever interrupts the one that waits: a handler of signals.
        self._rings: SimpleQueue[None] = SimpleQueue()
        self._on_wake = on_wake

    def wake(self) -> None:
        """Let it look again."""
        if self._rings.empty():
            self._rings.put(None)
        if self._on_wake is not None:
            self._on_wake()

    @property
    def is_woken(self) -> bool:
        """Whether it was woken since it last cleared that away."""
        return not self._rings.empty()

    def renew(self) -> None:
        """Forget what a fork may have left locked."""
        self._rings = SimpleQueue()

    def clear(self) -> None:
        """Forget the rings until now; to be called before looking, so that none is missed."""
        with contextlib.suppress(Empty):
            while True:
                self._rings.get_nowait()

    def wait(self, seconds: float | None) -> None:
        """Wait for the next ring, for so many seconds at most."""
        with contextlib.suppress(Empty):
            self._rings.get(timeout=seconds)

    def leave(self) -> None:
        """Wait no more."""
        self.dismissed = True
        bell, self.bell = self.bell, None
        if bell is not None:
            bell.leave(self)
        self.wake()


class Watch(Protocol):
    """A thread that wakes those who wait here for what other processes commit, while the bell needs it."""

    @property
    def ended(self) -> bool:
        """Whether its thread is no more."""

    def stop(self) -> None:
        """Let it end soon."""

    def join(self, seconds: float) -> None:
        """Wait until it has ended."""


PATIENCE = 2.0
"""Seconds that closing waits for a thread of ours; it is a daemon, which the end of the process does not wait for."""


class Bell:
    """Who waits for the news of one open database."""

    def __init__(self) -> None:
        # A handler of signals may close a subscription while its thread is in here.
        self._lock = threading.RLock()
        self._waiters: weakref.WeakSet[Waiter] = weakref.WeakSet()
        self._watch: Watch | None = None
        self._dismissed: list[Watch] = []
        """Watches that were told to stop."""
        self._closed = False

    @property
    def interval(self) -> float:
        """Seconds after which who waits should look unasked."""
        return 1.0

    def _start_watch(self) -> Watch | None:
        """Begin to watch for what other processes commit."""
        return None

    def _tell_others(self) -> None:
        """Let other processes know."""

    def ring(self) -> None:
        """Something was committed here: wake all who wait, here and elsewhere. Nothing of it can fail the caller."""
        if self._waiters:
            self.wake()
        self._tell_others()

    def wake(self) -> None:
        """Wake all who wait here."""
        with self._lock:
            waiters = list(self._waiters)
        for waiter in waiters:
            waiter.wake()

    def needs(self, watch: Watch) -> bool:
        """Tell a watch whether to go on; one that is told otherwise ends, and the next who waits starts another."""
        with self._lock:
            if self._watch is watch and not self._waiters:
                # Those who waited were forgotten without a word.
                self._dismiss_watch()
            return self._watch is watch

    @property
    def is_watched(self) -> bool:
        """Whether a thread watches for what other processes commit."""
        watch = self._watch
        return watch is not None and not watch.ended

    def enter(self, waiter: Waiter) -> None:
        """Wake this one too, from now on."""
        with self._lock:
            if self._closed:
                raise UsageError("the store is closed")
            if waiter.bell is not None:
                waiter.renew()
            waiter.bell = self
            self._waiters.add(waiter)
            if not self.is_watched:
                try:
                    self._watch = self._start_watch()
                except (OSError, RuntimeError):
                    # There can be no more threads or files now. Whoever waits looks more often instead.
                    self._watch = None
        if waiter.dismissed:
            # By another thread, which did not find it in here yet.
            waiter.leave()

    def leave(self, waiter: Waiter) -> None:
        """Wake this one no more."""
        with self._lock:
            self._waiters.discard(waiter)
            if not self._waiters:
                self._dismiss_watch()

    def _dismiss_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()
            self._dismissed = [*(each for each in self._dismissed if not each.ended), watch]

    def dismiss(self, owner: object) -> None:
        """Tell those who wait on behalf of this owner that there is nothing more to wait for."""
        with self._lock:
            waiters = [waiter for waiter in self._waiters if waiter.owner is owner]
        for waiter in waiters:
            waiter.leave()

    def close(self) -> None:
        """Tell all who wait that there is nothing more to wait for, and end the threads."""
        with self._lock:
            self._closed = True
            waiters = list(self._waiters)
            self._dismiss_watch()
        for waiter in waiters:
            waiter.leave()
        deadline = time.monotonic() + PATIENCE
        for watch in self._dismissed:
            watch.join(max(deadline - time.monotonic(), 0.0))

    def abandon(self) -> list[Watch]:
        """Know nobody any more, in a forked child; return the watches, whose files are still the parent's too."""
        inherited = [*self._dismissed, *([self._watch] if self._watch else [])]
        self._lock = threading.RLock()
        self._waiters = weakref.WeakSet()
        self._watch, self._dismissed = None, []
        return inherited
