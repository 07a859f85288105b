"""NOTIFY, sent after the commit by a thread of its own.

A NOTIFY inside the writing transaction would take a lock at its commit that all notifying transactions of the server
share, and would fail it when the queue of notifications is full. So the writer only leaves word that there is news. A
thread sends it on another connection, once for all that was committed meanwhile, and lets a failure be: who waits looks
from time to time unasked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

GAP = 0.005
"""Seconds between two notifications of one process, at least."""

IDLE = 20.0
"""Seconds after which a thread that has nothing to send ends; the next news start another."""

log = logging.getLogger("agentos_store.notify")


class Notifier:
    """Sends that there is news, soon and seldom."""

    def __init__(self, send: Callable[[], object]) -> None:
        self._send = send
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._news = False
        self._closed = False
        self._end = threading.Event()

    def tell(self) -> None:
        """Leave word that there is news; it takes no time and cannot fail."""
        # What was left and not yet taken is sent after this commit too.
        if self._news:
            return
        with self._changed:
            if self._closed:
                return
            self._news = True
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="agentos-store-notify", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:
                    # The interpreter is going down, or there can be no more threads now.
                    self._thread, self._news = None, False
            else:
                self._changed.notify()

    def close(self, seconds: float) -> None:
        """Send what is left, and end the thread."""
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify()
        self._end.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)

    def _run(self) -> None:
        while self._take():
            try:
                self._send()
            except Exception as error:  # noqa: BLE001  nobody waits for an answer, and none of it is the writer's fault
                log.debug("NOTIFY was not sent: %s", type(error).__name__)
            self._end.wait(GAP)

    def _take(self) -> bool:
        """Wait for news; return False when there is nothing more to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._news or self._closed, IDLE)
            if not self._news:
                self._thread = None
            taken, self._news = self._news, False
            return taken
