"""The turnstile: processes take turns at writing one SQLite file, first come, first served.

Two lock files stand beside the database. Whoever wants to write locks ``-next``, then ``-turn``, then lets go of
``-next``: so a process that has just finished cannot take ``-turn`` again before the one that waits. With a single
lock it would, and others would starve for seconds. The kernel frees both when a process dies, however it dies.

A turn of another process is dear: memory caches are cold, SQLite forgets the pages that it has read, and two threads
have to be woken. So a process that writes one thing after another is given a short run: until its end, which stands in
``-turn``, it takes the turn again without standing in line, and whoever is next sleeps so long. That is a courtesy, not
a lock: between two of its writes the holder has nothing locked, and nobody sleeps for longer than a run.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

from agentos_store.engine.sqlite.filelock import lock, try_lock, unlock
from agentos_store.errors import LockTimeoutError, UnavailableError

RUN = 0.001
"""Seconds for which a busy process may take the turn again and again."""
PAUSE = 0.0005
"""Seconds between two writes of a process, at most, for it to count as busy."""

_PID_WIDTH = 12
_UNTIL_WIDTH = 20


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
        self._pid = os.getpid()
        self._mark = b""
        """What this process wrote last into ``-turn``."""
        self._busy = False
        self._run_until = 0.0
        """When the run of this process ends, by the monotonic clock, which all processes of a machine share."""
        self._released_at = 0.0

    def acquire(self, timeout: float) -> None:
        """Wait for the turn; raise LockTimeoutError after ``timeout`` seconds. ``release`` must follow in any case."""
        asked_at = time.monotonic()
        with self._lock:
            self._busy = asked_at - self._released_at < PAUSE
            if self._waiting or not self._try(goes_on=asked_at < self._run_until):
                self._wait(timeout)

    def release(self) -> None:
        """Let the next process pass; no harm is done when the turn is not held, or was only asked for."""
        with self._lock:
            self._wanted = False
            if self._waiting:
                # Whatever the keeper gets now is for the next caller, or nobody.
                return
            self._granted = False
            unlock(self._turn)
            self._released_at = time.monotonic()
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

    def _try(self, *, goes_on: bool) -> bool:
        try:
            if goes_on and try_lock(self._turn):
                # Between two turns of a run another process may have had one, and is no holder any more.
                self._leave_mark()
                return True
            # Set first: an interrupt after the lock was taken must not hide it from ``release``.
            self._holds_next = True
            if not try_lock(self._next):
                self._holds_next = False
                return False
            if not try_lock(self._turn):
                return False
            self._sign()
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
            self._let_run()
            lock(self._turn)
            self._sign()
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
                    self._run_until = 0.0
                    unlock(self._turn)

    def _sign(self) -> None:
        """Write who has the turn and when its run ends; the next in line, who is let in after this, reads it."""
        self._run_until = time.monotonic() + RUN if self._busy else 0.0
        self._mark = f"{self._pid:<{_PID_WIDTH}}{self._run_until:<{_UNTIL_WIDTH}.6f}".encode()
        self._leave_mark()

    def _leave_mark(self) -> None:
        # A disk that is full only costs the others the name of the holder, and the holder its run.
        with contextlib.suppress(OSError):
            if os.pread(self._turn, len(self._mark), 0) != self._mark:
                os.pwrite(self._turn, self._mark, 0)

    def _let_run(self) -> None:
        """Sleep until the run of the holder is over, should it have one."""
        try:
            until = float(os.pread(self._turn, _UNTIL_WIDTH, _PID_WIDTH))
        except (OSError, ValueError):
            return
        left = until - time.monotonic()
        if 0 < left <= RUN:
            time.sleep(left)


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
