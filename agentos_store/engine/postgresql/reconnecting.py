"""Patience with a server that was there and is not now: it starts again, or another one takes its place."""

from __future__ import annotations

import logging
import random
import time

from agentos_store.errors import UnavailableError

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25
"""Seconds between two attempts to connect."""

log = logging.getLogger("agentos_store.postgresql")


class Outage:
    """A time without the server, which all who need it wait for together: it lasts no longer for whoever comes late."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._since: float | None = None

    def end(self) -> None:
        """Take note of a connection."""
        self._since = None

    def wait(self, tries: int, error: UnavailableError) -> bool:
        """Wait before the next attempt to connect, after so many; return False when it has lasted too long."""
        if not self._patience:
            return False
        now = time.monotonic()
        since = self._since
        if since is None:
            log.warning("waiting for the server for up to %g s: %s", self._patience, error.why)
            since = self._since = now
        pause = min(FIRST_PAUSE * 2.0**tries, LONGEST_PAUSE) * (0.5 + random.random())
        if now - since + pause > self._patience:
            return False
        time.sleep(pause)
        return True
