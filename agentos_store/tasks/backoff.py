"""How long a task waits after a try that failed."""

from __future__ import annotations

import datetime as dt
import random
from dataclasses import dataclass

from agentos_store.errors import InvalidValueError
from agentos_store.types import check_duration

MOST_STEPS = 100
"""So often a wait grows at most, so that no number overflows."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Jittered exponential waits: ``base`` after the first try, each further one ``factor`` times as long, to ``cap``.

    ``jitter`` is the share by which a wait is made longer or shorter by chance, so that tasks that failed together do
    not all come back together.
    """

    base: dt.timedelta = dt.timedelta(seconds=1)
    factor: float = 2.0
    cap: dt.timedelta = dt.timedelta(minutes=10)
    jitter: float = 0.2

    def __post_init__(self) -> None:
        check_duration("base", self.base, zero_too=True)
        check_duration("cap", self.cap, zero_too=True)
        _check_number("factor", self.factor, 1, 100)
        _check_number("jitter", self.jitter, 0, 1)

    def delay(self, attempts: int) -> float:
        """Return the seconds to wait after so many tries, the jitter included."""
        steps = min(max(attempts - 1, 0), MOST_STEPS)
        return min(self.cap.total_seconds(), self.base.total_seconds() * self.factor**steps) * self.chance()

    def chance(self) -> float:
        """Return the number near 1 by which the next wait is to be multiplied."""
        return 1.0 + self.jitter * (2.0 * random.random() - 1.0)


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InvalidValueError(name, f"must be a number from {low} to {high}")


DEFAULT_BACKOFF = Backoff()
