"""Who is inside: an open database counts its running operations, so that closing and forking can let them end."""

from __future__ import annotations

import threading

from agentos_store.errors import UsageError


class Door:
    """Entered by every operation and every explicit transaction; once shut, nobody enters any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inside = 0
        self._resting = 0
        """Transactions that are open while none of their operations runs."""
        self._shut = False
        self._held = False

    def __enter__(self) -> None:
        with self._lock:
            if self._held:
                self._changed.wait_for(lambda: not self._held)
            if self._shut:
                raise UsageError("the store is closed")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._shut or self._held:
                self._changed.notify_all()

    @property
    def is_shut(self) -> bool:
        """Whether nobody is let in any more."""
        return self._shut

    def rest(self) -> None:
        """Stay inside without doing anything: an explicit transaction between two operations."""
        with self._lock:
            self._resting += 1
            if self._held:
                self._changed.notify_all()

    def rise(self) -> None:
        """Go on after a rest."""
        with self._lock:
            if self._held:
                self._changed.wait_for(lambda: not self._held)
            self._resting -= 1

    def shut(self, timeout: float) -> bool:
        """Let nobody in any more and wait until all have left; tell whether they have."""
        with self._lock:
            self._shut = True
            return self._changed.wait_for(lambda: self._inside == 0, timeout)

    def reopen(self) -> None:
        """Let them in again: closing did not come about."""
        with self._lock:
            self._shut = False

    def hold(self, timeout: float) -> bool:
        """Let nobody in or rise for now, and wait until whoever is inside rests; tell whether all do."""
        with self._lock:
            self._held = True
            return self._changed.wait_for(lambda: self._inside == self._resting, timeout)

    def release(self) -> None:
        """End what ``hold`` began."""
        with self._lock:
            self._held = False
            self._changed.notify_all()
