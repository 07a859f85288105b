"""The turnstile: processes take turns at writing one SQLite file, first come, first served.

Two lock files stand beside the database. Whoever wants to write locks ``-next``, then ``-turn``, then lets go of
``-next``: so a process that has just finished cannot take ``-turn`` again before the one that waits. With a single
lock it would, and others would starve for seconds. The kernel frees both when a process dies, however it dies.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from agentos_store.engine.sqlite.filelock import lock, try_lock, unlock
from agentos_store.errors import LockTimeoutError


class Turnstile:
    """The place in the queue between processes. Within a process one thread at a time may hold it."""

    def __init__(self, database: Path) -> None:
        self._paths = (Path(f"{database}-next"), Path(f"{database}-turn"))
        self._name = str(database)
        self._changed = threading.Condition()
        self._wanted = False
        self._granted = False
        self._waiting = False
        """Whether the keeper thread is waiting in the kernel for the lock."""
        self._holds_next = False
        self._wake = threading.Semaphore(0)
        self._keeper: threading.Thread | None = None
        self._closed = False
        self._next, self._turn = (os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for path in self._paths)
        self._mark = f"{os.getpid():<12}".encode()

    def acquire(self, timeout: float) -> None:
        """Wait for the turn; raise LockTimeoutError after ``timeout`` seconds."""
        with self._changed:
            if not self._waiting:
                if self._try():
                    os.pwrite(self._turn, self._mark, 0)
                    return
                self._waiting = True
                self._start_keeper()
                self._wake.release()
            # Otherwise an earlier caller gave up while the keeper was waiting: its place in the queue is taken over.
            self._wanted = True
            started = time.monotonic()
            if not self._changed.wait_for(lambda: self._granted, timeout):
                self._wanted = False
                raise LockTimeoutError(self._name, waited=time.monotonic() - started, holder=self._holder())
            self._granted = False
            self._wanted = False
        os.pwrite(self._turn, self._mark, 0)

    def release(self) -> None:
        """Let the next process pass."""
        unlock(self._turn)

    def close(self) -> None:
        """Let go of the files. The turn must not be held."""
        with self._changed:
            self._closed = True
            keeper = self._keeper
        if keeper is not None:
            self._wake.release()
            keeper.join()
        os.close(self._next)
        os.close(self._turn)

    def abandon(self) -> None:
        """Close the descriptors that a forked child inherited, which leaves the parent's locks alone."""
        os.close(self._next)
        os.close(self._turn)

    def _holder(self) -> str | None:
        try:
            pid = int(os.pread(self._turn, 12, 0) or b"0")
        except ValueError:
            return None
        return f"process {pid}" if pid else None

    def _try(self) -> bool:
        if not try_lock(self._next):
            return False
        if try_lock(self._turn):
            unlock(self._next)
            return True
        self._holds_next = True
        return False

    def _start_keeper(self) -> None:
        if self._keeper is None:
            self._keeper = threading.Thread(target=self._keep, name="agentos-store-turnstile", daemon=True)
            self._keeper.start()

    def _keep(self) -> None:
        """Wait in the kernel, which has no time limit, on behalf of callers who have one."""
        while True:
            self._wake.acquire()
            if self._closed:
                return
            if not self._holds_next:
                lock(self._next)
            lock(self._turn)
            unlock(self._next)
            with self._changed:
                self._holds_next = False
                self._waiting = False
                if self._wanted:
                    self._granted = True
                    self._changed.notify()
                else:
                    unlock(self._turn)
