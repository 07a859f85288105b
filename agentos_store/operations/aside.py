"""Questions whose answer nobody may wait for too long: one thread beside the callers, which may hang in their stead."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from time import monotonic
from typing import Any, TypeVar

from agentos_store.engine.fork import register
from agentos_store.errors import InvalidValueError

T = TypeVar("T")

LONGEST = 3600.0
"""Seconds that a caller may be willing to wait."""


class Question:
    """A question that is being asked, and since when."""

    def __init__(self, key: object) -> None:
        self.key = key
        self.answer: Future[Any] = Future()
        # So that nobody who gives up can cancel it for the others.
        self.answer.set_running_or_notify_cancel()
        self.since = monotonic()

    def ask(self, work: Callable[[], object]) -> None:
        """Do the work and keep what comes of it."""
        try:
            found = work()
        except BaseException as error:  # noqa: BLE001  whoever waits gets it
            self.answer.set_exception(error)
        else:
            self.answer.set_result(found)


class Aside:
    """Asks one question at a time in a thread of its own, which is left behind when no answer comes.

    Who asks while the same question is on its way waits for that answer; so there is never a second thread.
    """

    def __init__(self) -> None:
        self.after_fork()
        register(self)

    def before_fork(self) -> None:
        """Nothing: the thread stays the parent's."""

    def after_fork(self) -> None:
        """Forget, in the child, what the parent is asking."""
        self._lock = threading.Lock()
        self._asked: Question | None = None

    def ask(self, key: object, work: Callable[[], T], within: float) -> Future[T] | None:
        """Return what came of the work, or None when it did not end in time."""
        deadline = monotonic() + within
        while True:
            asked = self._begin(key, work)
            wait([asked.answer], max(0.0, deadline - monotonic()))
            if asked.key == key or not asked.answer.done():
                return asked.answer if asked.answer.done() else None

    async def ask_async(self, key: object, work: Callable[[], T], within: float) -> Future[T] | None:
        """Do the same without blocking the event loop."""
        deadline = monotonic() + within
        while True:
            asked = self._begin(key, work)
            waiting = asyncio.wrap_future(asked.answer)
            try:
                await asyncio.wait([waiting], timeout=max(0.0, deadline - monotonic()))
            finally:
                # Also when the loop goes on: nothing may be told to a loop that has been closed by then.
                if not waiting.done():
                    waiting.cancel()
                elif not waiting.cancelled():
                    # Asked for, so that asyncio does not report an error as forgotten.
                    waiting.exception()
            if asked.key == key or not asked.answer.done():
                return asked.answer if asked.answer.done() else None

    def waiting_for(self) -> float | None:
        """Return for how many seconds the question has been asked that has no answer yet; None when there is none."""
        asked = self._asked
        return None if asked is None or asked.answer.done() else monotonic() - asked.since

    def _begin(self, key: object, work: Callable[[], object]) -> Question:
        with self._lock:
            asked = self._asked
            if asked is None or asked.answer.done():
                asked = Question(key)
                # It is known before it starts, so that a thread that cannot start leaves an error, not a riddle.
                threading.Thread(target=asked.ask, args=(work,), name="agentos-store-aside", daemon=True).start()
                self._asked = asked
            return asked


def check_timeout(timeout: object) -> float:
    """Return the seconds; refuse what is no time to wait."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= LONGEST:
        raise InvalidValueError("timeout", f"must be a number of seconds above 0, {LONGEST:g} at most")
    return float(timeout)
