"""LISTEN, on one connection of its own for each open store on which somebody waits.

A notification reaches only a connection that is the server's own, and not one that a pooler hands on, so one that is
not is found out and given up: who waits then looks more often instead. The same holds while the connection is cut.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from agentos_store.engine.bell import PATIENCE, Bell, Watch
from agentos_store.engine.postgresql.notifying import Notifier
from agentos_store.errors import StoreError

CHANNEL = "agentos_store"

LISTENED = 1.0
"""Seconds after which who waits looks unasked while notifications come."""

UNLISTENED = 0.1
"""The same while none can come."""

SHORTEST, LONGEST = 0.1, 30.0
"""Seconds between two attempts to listen."""

CHECKED = 10.0
"""Seconds after which the thread looks whether anybody still waits, in case they were forgotten without a word."""


class PostgreSQLBell(Bell):
    """Who waits for the news of one schema."""

    def __init__(self, schema: str, connect: Callable[[], Any], notify: Callable[[str, str], object]) -> None:
        super().__init__()
        self._schema = schema
        self._connect = connect
        self._notifier = Notifier(lambda: notify(CHANNEL, schema))

    @property
    def interval(self) -> float:
        """Seconds after which who waits should look unasked."""
        watch = self._watch
        return LISTENED if isinstance(watch, Listening) and watch.active else UNLISTENED

    def _start_watch(self) -> Watch:
        return Listening(self, self._schema, self._connect)

    def _tell_others(self) -> None:
        self._notifier.tell()

    def close(self) -> None:
        """Send what is left, tell all who wait that it is over, and end the threads."""
        self._notifier.close(PATIENCE)
        super().close()


class Listening:
    """The thread that listens."""

    def __init__(self, bell: Bell, schema: str, connect: Callable[[], Any]) -> None:
        self.active = False
        """Whether notifications come."""
        self._bell = bell
        self._schema = schema
        self._connect = connect
        self._raw: psycopg.Connection[Any] | None = None
        self._stop = threading.Event()
        self._ours, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="agentos-store-listen", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._ours.close()
            self._theirs.close()
            raise

    @property
    def ended(self) -> bool:
        """Whether nobody listens any more."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Listen no more."""
        self._stop.set()
        try:
            self._ours.send(b"x")
        except OSError:
            # The thread has ended already.
            return

    def join(self, seconds: float) -> None:
        """Wait for the thread."""
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            pause = SHORTEST
            while self._bell.needs(self):
                if self._listen_once():
                    pause = SHORTEST
                # Who waits has to look more often from now on.
                self._bell.wake()
                self._stop.wait(pause)
                pause = min(pause * 2, LONGEST)
        finally:
            self._ours.close()
            self._theirs.close()

    def _listen_once(self) -> bool:
        """Listen until the connection is cut or nobody waits; tell whether notifications came at all."""
        try:
            raw = self._raw = self._connect()
        except StoreError:
            return False
        try:
            if not _is_direct(raw):
                return False
            raw.execute(f"LISTEN {CHANNEL}", prepare=False)
            self.active = True
            # For what was committed before.
            self._bell.wake()
            self._receive(raw)
        except (psycopg.Error, OSError):
            pass
        finally:
            came, self.active = self.active, False
            self._raw = None
            raw.close()
        return came

    def _receive(self, raw: psycopg.Connection[Any]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(raw.fileno(), selectors.EVENT_READ)
            selector.register(self._theirs, selectors.EVENT_READ)
            while self._bell.needs(self):
                selector.select(CHECKED)
                raw.pgconn.consume_input()
                news = False
                while (found := raw.pgconn.notifies()) is not None:
                    news = news or found.extra == self._schema.encode()
                if news:
                    self._bell.wake()


def _is_direct(raw: psycopg.Connection[Any]) -> bool:
    """Tell whether no pooler stands between: it would have named a process of its own when the connection was made."""
    found = raw.execute("SELECT pg_backend_pid()", prepare=False).fetchone()
    return found is not None and found[0] == raw.info.backend_pid
