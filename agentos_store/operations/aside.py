"""Questions whose answer nobody may wait for too long: one thread beside the callers, which may hang in their stead."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from time import monotonic
from typing import Any, TypeVar

from agentos_store.engine.fork import register
from agentos_store.errors import InvalidValueError, UnavailableError

T = TypeVar("T")

LONGEST = 3600.0
"""Seconds that a caller may be willing to wait."""


class Question:
    """A question that is being asked, and since when."""

    def __init__(self) -> None:
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
    """Asks a question in a thread of its own, which is left behind when no answer comes.

    Who asks while a question is on its way waits for that answer, so there is never a second thread: whatever is asked
    here asks the same.
    """

    def __init__(self) -> None:
        self.after_fork()
        register(self)

    def before_fork(self) -> None:
        """Nothing: the thread stays the parent's."""

    def after_fork(self) -> None:
        """Forget, in the child, what the parent is asking."""
        # Reentrant, for a handler of signals may ask while this thread is inside.
        self._lock = threading.RLock()
        self._asked: Question | None = None

    def ask(self, work: Callable[[], T], within: float) -> Future[T] | None:
        """Return what came of the work, or None when it did not end in time."""
        answer = self._begin(work)
        wait([answer], within)
        return answer if answer.done() else None

    async def ask_async(self, work: Callable[[], T], within: float) -> Future[T] | None:
        """Do the same without blocking the event loop."""
        answer = self._begin(work)
        waiting = asyncio.wrap_future(answer)
        try:
            await asyncio.wait([waiting], timeout=within)
        finally:
            # Also when the loop goes on: nothing may be told to a loop that has been closed by then.
            if not waiting.done():
                waiting.cancel()
            elif not waiting.cancelled():
                # Asked for, so that asyncio does not report an error as forgotten.
                waiting.exception()
        return answer if answer.done() else None

    def waiting_for(self) -> float | None:
        """Return for how many seconds the question has been asked that has no answer yet; None when there is none."""
        asked = self._asked
        return None if asked is None or asked.answer.done() else monotonic() - asked.since

    def _begin(self, work: Callable[[], object]) -> Future[Any]:
        with self._lock:
            asked = self._asked
            if asked is None or asked.answer.done():
                asked = Question()
                try:
                    threading.Thread(target=asked.ask, args=(work,), name="agentos-store-aside", daemon=True).start()
                except RuntimeError:
                    asked.answer.set_exception(UnavailableError("no thread could be started"))
                self._asked = asked
            return asked.answer


def check_timeout(timeout: object) -> float:
    """Return the seconds; refuse what is no time to wait."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= LONGEST:
        raise InvalidValueError("timeout", f"must be a number of seconds above 0, {LONGEST:g} at most")
    return float(timeout)
