"""What a handler is given beside the task, and what it may raise."""

from __future__ import annotations

import datetime as dt
import threading
import time

from agentos_store.errors import LeaseLostError
from agentos_store.models import Task


class Retry(Exception):
    """Raised by a handler: the try failed, and another one may do better, as long as the task has attempts left.

    Without ``after`` the worker's backoff says when.
    """

    def __init__(self, reason: str = "retry", *, after: dt.timedelta | None = None) -> None:
        self.reason = reason
        self.after = after
        super().__init__(reason)


class GiveUp(Exception):
    """Raised by a handler: the task has failed, and another try would do no better."""

    def __init__(self, reason: str = "given up") -> None:
        self.reason = reason
        super().__init__(reason)


class WorkContext:
    """The claim under which a handler runs; it may be asked from any thread."""

    def __init__(self, task: Task, by: str, lease: dt.timedelta) -> None:
        self.task = task
        self.by = by
        """The worker's name."""
        self.token = task.lease_token
        """Shown with each step that the holder of the claim takes."""
        self._lease = lease.total_seconds()
        self._lost = threading.Event()
        self._stopping = threading.Event()
        self.renewed()

    @property
    def is_lost(self) -> bool:
        """Whether somebody else may hold the task by now: it was paused or cancelled, or no heartbeat came through."""
        if time.monotonic() >= self._until:
            self._lost.set()
        return self._lost.is_set()

    @property
    def is_stopping(self) -> bool:
        """Whether the worker drains: a handler that takes long may stop at a good place and raise ``Retry``."""
        return self._stopping.is_set()

    def check(self) -> None:
        """Raise LeaseLostError when the claim is lost; call it before each change that cannot be taken back."""
        if self.is_lost:
            raise LeaseLostError(f"task {self.task.task_id}", self.token)

    def renewed(self, since: float | None = None) -> None:
        """Count the lease from when it was asked for, which is no later than when it was given."""
        self._until = (time.monotonic() if since is None else since) + self._lease

    def lose(self) -> None:
        """Say that the claim is lost."""
        self._lost.set()

    def drain(self) -> None:
        """Say that the worker drains."""
        self._stopping.set()
