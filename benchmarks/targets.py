"""What the library must reach, and whether a run has shown it.

A target is a ratio to the driver alone, measured in the same run, wherever that says something. Where it is told in
rows a second or in milliseconds, what the driver reached on the same machine stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks import writers
from benchmarks.measure import Line, Outcome
from benchmarks.writers import Crowd

OURS = "agentos_store"
BACKENDS = ("sqlite", "postgresql")

Result = Outcome | Crowd
Measured = Mapping[tuple[str, str], Result]
"""What came out, by the name that the command line takes and the backend."""

Figure = Literal["times", "share", "seconds", "rate", "p99", "longest", "errors"]
AT_LEAST: frozenset[Figure] = frozenset({"share", "rate"})
"""Figures of which more is better: the rate, and what part of the baseline's it is. Of the others less is."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What one figure may be at most, or must be at least."""

    figure: Figure
    """How many times the baseline's time, what share of its rate; seconds of the median operation; operations a second,
    the wait that only one in a hundred exceeds, the longest wait, and errors of many writers."""
    value: float

    def holds(self, found: float) -> bool:
        """Tell whether this figure is good enough."""
        return found >= self.value if self.figure in AT_LEAST else found <= self.value


@dataclass(frozen=True, slots=True)
class Target:
    """A row of the table."""

    title: str
    work: str
    """The name that the command line takes."""
    limits: Mapping[str, Sequence[Limit]]
    """By the backend; none for one where there is no target."""
    contestants: Sequence[str] = (OURS,)
    """Whose figures count; the worst of them."""
    beside: str = "raw driver"
    """Whom the limits are told in terms of."""

    @property
    def anchor(self) -> str:
        """Return what leads to the heading with this title in a page of Markdown."""
        kept = "".join(each for each in self.title.lower() if each.isalnum() or each in " -_")
        return kept.replace(" ", "-")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a target was reached."""

    found: Sequence[tuple[Limit, float]]
    """Empty where the run did not measure it."""
    ours: Sequence[Line | writers.Line] = ()
    """Who reached it."""
    baseline: Line | writers.Line | None = None
    """What was reached by whom the limits are told in terms of; None where that is one of our own."""

    @property
    def met(self) -> bool:
        """Tell whether it was measured, and every figure was good enough."""
        return bool(self.found) and all(limit.holds(found) for limit, found in self.found)


def _times(most: float) -> tuple[Limit, ...]:
    return (Limit("times", most),)


def _both(sqlite: float, postgresql: float) -> dict[str, Sequence[Limit]]:
    return {"sqlite": _times(sqlite), "postgresql": _times(postgresql)}


def _of_writers(rate: float, p99: float, longest: float) -> dict[str, Sequence[Limit]]:
    limits = (Limit("rate", rate), Limit("p99", p99), Limit("longest", longest), Limit("errors", 0))
    return {"sqlite": limits}


_SHARE = (Limit("share", 0.6),)

TARGETS = (
    Target("Append one message", "append", _both(1.4, 1.3)),
    Target(
        "Append one message where 10,000 and 100,000 are",
        "append-long",
        _both(1.1, 1.1),
        contestants=(f"{OURS}, 10,000 there", f"{OURS}, 100,000 there"),
        beside="the empty session",
    ),
    Target("Append 100 messages at once", "append-many", _both(1.6, 1.3)),
    Target(
        "Save a list of 100 messages, one of them new",
        "save",
        dict.fromkeys(BACKENDS, (Limit("seconds", 0.002),)),
    ),
    Target("The last 50 of 10,000 messages", "last", _both(3, 2)),
    Target("The latest 20 of a user's 5,000 sessions", "latest", _both(4, 2.5)),
    Target("Log one event", "event-log", _both(1.5, 1.4)),
    Target("Log 10,000 events at once", "event-log-many", dict.fromkeys(BACKENDS, (Limit("share", 0.7),))),
    Target("100 events by agent, type and time, of 200,000", "event-find", _both(2, 2)),
    Target("Page 1,000 of 50 events", "event-page", _both(1.1, 1.1), beside="page 1"),
    Target("16 threads append messages in one SQLite file", "append-threads", _of_writers(10_000, 0.010, 0.100)),
    Target("16 processes append messages in one SQLite file", "append-processes", _of_writers(1_700, 0.025, 0.150)),
    Target("16 threads claim tasks, none twice", "claim-threads", dict.fromkeys(BACKENDS, _SHARE)),
    Target("16 processes claim tasks, none twice", "claim-processes", dict.fromkeys(BACKENDS, _SHARE)),
    Target("The 10 best of 50,000 texts for two words", "search-words", _both(1.5, 1.5)),
    Target("The 10 best of 10,000 Chinese texts for 天气", "search-chinese", _both(1.5, 1.5)),
    Target(
        "The 10 nearest of 10,000 vectors of 384 numbers",
        "search-vectors",
        {"sqlite": _times(2)},
        beside="NumPy over a matrix in memory",
    ),
    Target(
        "Migrations, nothing to do",
        "migrations",
        _both(3, 3),
        contestants=("ensure_migrations(), a store is open",),
    ),
    Target(
        "Import the package",
        "process",
        {"sqlite": _times(1.2)},
        contestants=("import agentos_store",),
        beside="import sqlalchemy.orm",
    ),
    Target(
        "Import the package and its Store",
        "process",
        {"sqlite": _times(1.2)},
        contestants=("from agentos_store import Store",),
        beside="import sqlalchemy.orm",
    ),
)


def judge(target: Target, backend: str, measured: Measured) -> Verdict:
    """Return what a run has shown; the worst figure of the contestants counts."""
    result = measured.get((target.work, backend))
    if result is None:
        return Verdict(())
    lines = [line for line in result.lines if line.name in target.contestants]
    if len(lines) < len(target.contestants):
        return Verdict(())
    found = []
    for limit in target.limits[backend]:
        figures = [_figure(line, limit.figure) for line in lines]
        found.append((limit, min(figures) if limit.figure in AT_LEAST else max(figures)))
    baseline = result.baseline if isinstance(result, Outcome) else writers.RAW
    return Verdict(found, lines, next((line for line in result.lines if line.name == baseline), None))


def _figure(line: Line | writers.Line, figure: Figure) -> float:
    if isinstance(line, Line):
        # A rate is to another one as the times are the other way round.
        return {"times": line.ratio.middle, "share": 1 / line.ratio.middle, "seconds": line.seconds.middle}[figure]
    return {
        "share": line.ratio.middle,
        "rate": line.rate.middle,
        "p99": line.nearly_all,
        "longest": line.longest,
        "errors": float(line.errors),
    }[figure]
