"""Explicit transactions on SQLite: several operations, from any thread, one after another."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

from agentos_store.engine.bell import Bell
from agentos_store.engine.door import Door
from agentos_store.engine.session import Call, Session
from agentos_store.engine.sqlite.connection import SQLiteConnection
from agentos_store.engine.sqlite.faults import translate
from agentos_store.engine.sqlite.queue import Job, WriteQueue
from agentos_store.errors import UnavailableError
from agentos_store.operation import Access, run_body


class SQLiteTransaction:
    """An explicit transaction that holds the queue."""

    _ended = True
    """False from its begin to its end."""

    def __init__(self, queue: WriteQueue, door: Door, bell: Bell, call: Call) -> None:
        self._queue = queue
        self._door = door
        self._bell = bell
        self._announced = False
        self._job = Job(f"a transaction of thread {threading.current_thread().name}", None, call)
        self._connection: SQLiteConnection | None = None

    def begin(self) -> None:
        """Wait for the queue and begin; ``end`` must follow, whatever comes of it."""
        self._door.__enter__()
        self._ended = False
        connection = self._queue.begin(self._job)
        assert isinstance(connection, SQLiteConnection)
        self._connection = connection
        self._door.rest()

    def run(self, access: Access, body: Callable[[Session], Any]) -> Any:
        """Run a body in a savepoint, so that one that fails leaves nothing behind."""
        connection = self._connection
        assert connection is not None
        self._door.rise()
        try:
            if not connection.raw.in_transaction:
                # A savepoint would begin a new transaction now, and its release would commit it.
                raise UnavailableError("the database ended the transaction after a fault; nothing of it was stored")
            if access.reads:
                return run_body(body, Session(connection, Call(), read_only=True))
            return self._run_in_savepoint(connection, body)
        finally:
            self._door.rest()

    def _run_in_savepoint(self, connection: SQLiteConnection, body: Callable[[Session], Any]) -> Any:
        raw = connection.raw
        try:
            raw.execute("SAVEPOINT operation")
            call = Call()
            try:
                result = run_body(body, Session(connection, call))
            except BaseException:
                if raw.in_transaction:
                    raw.execute("ROLLBACK TO operation")
                    raw.execute("RELEASE operation")
                raise
            raw.execute("RELEASE operation")
            self._announced = self._announced or call.announced
        except sqlite3.Error as error:
            raise translate(error) from None
        return result

    def end(self, *, commit: bool) -> None:
        """Commit or roll back, and let the next writer begin; a second call has no effect."""
        if self._ended:
            return
        if self._connection is not None:
            self._connection = None
            self._door.rise()
        try:
            self._queue.end(self._job, commit=commit)
        finally:
            # An interrupt may have come before anything was ended.
            if not self._queue.is_held_by(self._job):
                self._ended = True
                self._door.__exit__()
        if commit and self._announced:
            self._bell.ring()

    def __del__(self) -> None:
        # It was lost between its begin and the block that would have ended it, by an interrupt or with its event loop.
        # A thread ends it, since garbage may be collected while this one holds the mutex of the queue.
        if not self._ended:
            self._ended = True
            threading.Thread(target=_end_lost, args=(self._queue, self._job, self._door)).start()


def _end_lost(queue: WriteQueue, job: Job, door: Door) -> None:
    try:
        queue.end(job, commit=False)
    finally:
        door.__exit__()


class SQLiteSnapshot:
    """An explicit transaction that only reads: everything as it was at its first read."""

    def __init__(self, snapshot: contextlib.AbstractContextManager[Session], door: Door) -> None:
        self._snapshot = snapshot
        self._door = door
        door.__enter__()
        try:
            self._session = snapshot.__enter__()
        except BaseException:
            door.__exit__()
            raise
        door.rest()

    def run(self, access: Access, body: Callable[[Session], Any]) -> Any:
        """Run a body on the snapshot."""
        del access
        self._door.rise()
        try:
            return run_body(body, self._session)
        finally:
            self._door.rest()

    def end(self, *, commit: bool) -> None:
        """Give the connection back."""
        del commit
        self._door.rise()
        try:
            self._snapshot.__exit__(None, None, None)
        finally:
            self._door.__exit__()
