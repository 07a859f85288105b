"""Another try after a passing fault: how often, how long to wait, and when it is safe."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from agentos_store.errors import LockTimeoutError, StoreError, TransientError, UnavailableError

R = TypeVar("R")

log = logging.getLogger("agentos_store.retry")

OnRetry = Callable[[StoreError, int, float], None]
"""Told of each further try: the error, the number of the try that failed (from 1), the seconds until the next."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Jittered exponential backoff, as KODE SDK has it: 3 retries, at most 60 s apart, a fifth of jitter."""

    retries: int = 3
    base: float = 0.1
    """Seconds before the first retry; each further wait is twice as long."""
    cap: float = 60.0
    jitter: float = 0.2
    on_retry: OnRetry | None = None

    @classmethod
    def of(cls, settings: Any, on_retry: OnRetry | None = None) -> RetryPolicy:
        """Return the policy that the settings ask for."""
        return cls(settings.retries, settings.retry_base, settings.retry_cap, settings.retry_jitter, on_retry)

    def delay(self, attempt: int) -> float:
        """Return the seconds to wait after the try with this number, counted from 0."""
        wait = min(self.cap, self.base * 2.0**attempt)
        return wait * (1.0 + self.jitter * (2.0 * random.random() - 1.0))

    def run(self, what: str, attempt: Callable[[int], R], *, repeatable: bool = True) -> R:
        """Call until it succeeds, fails for good, or the retries are used up.

        ``repeatable`` tells whether the work may be done again although the last try may have been committed.
        """
        for number in range(self.retries + 1):
            try:
                return attempt(number)
            except (TransientError, LockTimeoutError) as error:
                if not is_transient(error, repeatable=repeatable) or number == self.retries:
                    raise
                time.sleep(self.announce(what, error, number))
        raise AssertionError("the last try returns or raises")

    def announce(self, what: str, error: UnavailableError, attempt: int) -> float:
        """Tell of the further try that follows the one with this number; return the seconds until then."""
        wait = self.delay(attempt)
        log.warning("%s: %s; try %d follows in %.2f s", what, error.code, attempt + 2, wait)
        if self.on_retry is not None:
            self.on_retry(error, attempt + 1, wait)
        return wait


def is_transient(error: StoreError, *, repeatable: bool) -> bool:
    """Tell whether another try may help and can do no harm."""
    if isinstance(error, TransientError):
        return repeatable or not error.outcome_unknown
    # PostgreSQL's lock_timeout, and a stranger on SQLite's file: nothing was stored then. Whoever waited in our own
    # queue of writers has no code: behind those who are there it would come to no turn again.
    return isinstance(error, LockTimeoutError) and (error.code or "").startswith(("55P03", "SQLITE_BUSY"))
