"""A lease that is held and renewed in the background: what its holder has in hand."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import threading
import time
from typing import Protocol

from agentos_store.leases.models import Fence, Lease

RENEWALS = 3
"""Renewals in the life of a lease, so that it outlives one that comes late and one that fails."""

TRIES = 10
"""Tries in the life of a lease once a renewal has failed."""


class Signal(Protocol):
    """What wakes those who wait for the loss."""

    def set(self) -> None:
        """Wake them."""


class Held:
    """A lease in its holder's hand.

    Whether it is lost is judged by this process too: nobody can count on a lease that was not renewed for its whole
    ``ttl``, whatever became of the renewals. The database has the last word, in ``guard``.
    """

    def __init__(self, lease: Lease, ttl: dt.timedelta, sent: float, signal: Signal) -> None:
        self.name = lease.name
        self.owner = str(lease.owner)
        self.token = lease.token
        """Grows with each acquisition of this name: the fencing token for systems that the database cannot guard."""
        self.acquired_at = lease.acquired_at
        self.ttl = ttl
        self._signal = signal
        self._process = os.getpid()
        self._is_lost = False
        self.renewed(sent)

    @property
    def is_lost(self) -> bool:
        """Whether somebody else may hold it by now. Once it is true it stays so."""
        if not self.is_own:
            return True
        if not self._is_lost and time.monotonic() >= self._end:
            self.lose()
        return self._is_lost

    @property
    def is_own(self) -> bool:
        """Whether this process acquired it: a forked child only inherits what it knows of it."""
        return self._process == os.getpid()

    @property
    def fence(self) -> Fence:
        """What it is recognised by."""
        return Fence(self.name, self.token)

    @property
    def due(self) -> float:
        """When it is to be renewed, by the monotonic clock."""
        return self._due

    def is_due(self, now: float) -> bool:
        """Tell whether it may as well be renewed now, with others that have to be."""
        return self._due <= now + self.ttl.total_seconds() / TRIES

    def renewed(self, sent: float) -> None:
        """Count from when the renewal was sent, which is before the database looked at its clock."""
        ttl = self.ttl.total_seconds()
        self._end = sent + ttl
        self._due = sent + ttl / RENEWALS

    def postpone(self) -> None:
        """Let the renewal be tried again soon."""
        self._due = time.monotonic() + self.ttl.total_seconds() / TRIES

    def lose(self) -> None:
        """Let the holder know that it is lost."""
        self._is_lost = True
        self._signal.set()

    def _remaining(self) -> float:
        return max(self._end - time.monotonic(), 0.0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name!r}, token={self.token})"


class HeldLease(Held):
    """A lease that a thread of this process renews until its block is left."""

    def __init__(self, lease: Lease, ttl: dt.timedelta, sent: float) -> None:
        self._event = threading.Event()
        super().__init__(lease, ttl, sent, self._event)

    def wait_lost(self, timeout: float | None = None) -> bool:
        """Wait until the lease is lost, for so many seconds at most; tell whether it is."""
        limit = None if timeout is None else time.monotonic() + timeout
        while not self.is_lost:
            rest = self._remaining()
            if limit is not None:
                left = limit - time.monotonic()
                if left <= 0:
                    return False
                rest = min(rest, left)
            self._event.wait(rest)
        return True


class AwaitedLease(Held):
    """A lease that a task of this event loop renews until its block is left."""

    def __init__(self, lease: Lease, ttl: dt.timedelta, sent: float) -> None:
        self._event = asyncio.Event()
        super().__init__(lease, ttl, sent, self._event)

    async def wait_lost(self) -> None:
        """Wait until the lease is lost."""
        while not self.is_lost:
            # Python 3.11's wait_for() would swallow a cancellation that meets the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._remaining()):
                    await self._event.wait()
