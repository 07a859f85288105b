"""The turnstile: processes take turns at writing one SQLite file, first come, first served.

Two lock files stand beside the database. Whoever wants to write locks ``-next``, then ``-turn``, then lets go of
``-next``: so a process that has just finished cannot take ``-turn`` again before the one that waits. With a single
lock it would, and others would starve for seconds. The kernel frees both when a process dies, however it dies.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

from agentos_store.engine.sqlite.filelock import lock, try_lock, unlock
from agentos_store.errors import LockTimeoutError, UnavailableError

_PID_WIDTH = 12


class Turnstile:
    """The place in the queue between processes. Within a process one thread at a time may hold it."""

    def __init__(self, database: Path) -> None:
        self._name = str(database)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._wanted = False
        self._granted = False
        self._waiting = False
        """Whether the keeper thread is waiting in the kernel for the lock."""
        self._holds_next = False
        self._wake = threading.Semaphore(0)
        self._keeper: threading.Thread | None = None
        self._closed = False
        self._next = _open_lock(database, "-next")
        self._turn = _open_lock(database, "-turn")
        self._mark = f"{os.getpid():<{_PID_WIDTH}}".encode()

    def acquire(self, timeout: float) -> None:
        """Wait for the turn; raise LockTimeoutError after ``timeout`` seconds. ``release`` must follow in any case."""
        with self._lock:
            if self._waiting or not self._try():
                self._wait(timeout)
        if os.pread(self._turn, _PID_WIDTH, 0) != self._mark:
            # A disk that is full only costs the others the name of the holder.
            with contextlib.suppress(OSError):
                os.pwrite(self._turn, self._mark, 0)

    def release(self) -> None:
        """Let the next process pass; no harm is done when the turn is not held, or was only asked for."""
        with self._lock:
            self._wanted = False
            if self._waiting:
                # Whatever the keeper gets now is for the next caller, or nobody.
                return
            self._granted = False
            unlock(self._turn)
            if self._holds_next:
                unlock(self._next)
                self._holds_next = False

    def holder(self) -> str | None:
        """Return who had the turn last."""
        try:
            pid = int(os.pread(self._turn, _PID_WIDTH, 0) or b"0")
        except (OSError, ValueError):
            return None
        return f"process {pid}" if pid else None

    def close(self) -> None:
        """Let go of the files. The turn must not be held."""
        with self._lock:
            self._closed = True
            if self._waiting:
                # The keeper is in the kernel for an unknown time; it closes the files when it comes back.
                return
        if self._keeper is not None:
            self._wake.release()
            self._keeper.join()
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptors; those that a forked child inherited leave the parent's locks alone."""
        os.close(self._next)
        os.close(self._turn)

    def _try(self) -> bool:
        try:
            # Set first: an interrupt after the lock was taken must not hide it from ``release``.
            self._holds_next = True
            if not try_lock(self._next):
                self._holds_next = False
                return False
            if not try_lock(self._turn):
                return False
            unlock(self._next)
            self._holds_next = False
        except OSError as error:
            raise UnavailableError(f"the lock files of {self._name} cannot be locked: {error.strerror}") from error
        return True

    def _wait(self, timeout: float) -> None:
        if not self._waiting:
            if self._keeper is None or not self._keeper.is_alive():
                self._keeper = threading.Thread(target=self._keep, name="agentos-store-turnstile", daemon=True)
                self._keeper.start()
            self._wake.release()
            self._waiting = True
        # Otherwise an earlier caller gave up while the keeper was waiting: its place in the queue is taken over.
        self._wanted = True
        started = time.monotonic()
        if not self._changed.wait_for(lambda: self._granted, timeout):
            self._wanted = False
            raise LockTimeoutError(self._name, waited=time.monotonic() - started, holder=self.holder())

    def _keep(self) -> None:
        """Wait in the kernel, which has no time limit, on behalf of callers who have one."""
        while True:
            self._wake.acquire()
            if self._closed and not self._waiting:
                return
            if not self._holds_next:
                lock(self._next)
            lock(self._turn)
            unlock(self._next)
            with self._lock:
                self._holds_next = False
                self._waiting = False
                if self._closed:
                    self.abandon()
                    return
                if self._wanted:
                    self._granted = True
                    self._changed.notify()
                else:
                    unlock(self._turn)


def _open_lock(database: Path, suffix: str) -> int:
    """Open a lock file; a new one gets the mode of the database and from root also its owner, like SQLite's log."""
    path = f"{database}{suffix}"
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    status = database.stat()
    os.fchmod(descriptor, status.st_mode & 0o666)
    if os.geteuid() == 0:
        os.fchown(descriptor, status.st_uid, status.st_gid)
    return descriptor
