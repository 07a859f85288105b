"""What other processes commit to an SQLite file, noticed by its data version.

SQLite tells nobody. But ``PRAGMA data_version`` gives another number on a connection after each commit of another one,
for 5 µs and without a look into the file; a thread that looks 50 times a second takes less than a percent of a
processor, however many wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from agentos_store.engine.bell import Bell, Watch
from agentos_store.errors import StoreError, UsageError

INTERVAL = 0.02
"""Seconds between two looks, and so the longest that news from another process take."""

UNASKED = 5.0
"""Seconds; the watch misses nothing, so this is only for the day on which it does."""

UNWATCHED = 0.1
"""The same where there could be no thread that watches."""


class SQLiteBell(Bell):
    """Who waits for the news of one SQLite file."""

    def __init__(self, data_version: Callable[[], object]) -> None:
        super().__init__()
        self._data_version = data_version

    @property
    def interval(self) -> float:
        """Seconds after which who waits should look unasked."""
        return UNASKED if self.is_watched else UNWATCHED

    def _start_watch(self) -> Watch:
        return Watching(self, self._data_version)


class Watching:
    """The thread that looks."""

    def __init__(self, bell: Bell, data_version: Callable[[], object]) -> None:
        self._bell = bell
        self._data_version = data_version
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="agentos-store-watch", daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether nobody looks any more."""
        return not self._thread.is_alive()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def join(self, seconds: float) -> None:
        """Wait for the thread."""
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _run(self) -> None:
        seen: object = None
        while self._bell.needs(self):
            try:
                found = self._data_version()
            except UsageError:
                # The store was closed.
                return
            except StoreError:
                found = None
            if found != seen:
                seen = found
                self._bell.wake()
            self._stop.wait(INTERVAL)
