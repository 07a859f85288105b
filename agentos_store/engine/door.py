"""Who is inside: an open database counts its running operations, so that closing can let them end."""

from __future__ import annotations

import threading

from agentos_store.errors import UsageError


class Door:
    """Entered by every operation; once shut, nobody enters any more."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._shut = False

    def __enter__(self) -> None:
        with self._changed:
            if self._shut:
                raise UsageError("the store is closed")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            if self._shut and self._inside == 0:
                self._changed.notify_all()

    def shut(self, timeout: float) -> bool:
        """Let nobody in any more and wait until all have left; tell whether they have."""
        with self._changed:
            self._shut = True
            return self._changed.wait_for(lambda: self._inside == 0, timeout)
