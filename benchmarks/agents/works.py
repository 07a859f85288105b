"""What one caller does with agents and the calls of their tools, over and over."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from benchmarks import rows
from benchmarks.agents import content
from benchmarks.agents.checks import verify_agent, verify_calls
from benchmarks.agents.handwritten import ORM, Core
from benchmarks.agents.ours import Ours
from benchmarks.agents.seeds import RAW_OF, Raw, with_agents, with_calls
from benchmarks.conversations.checks import expect_equal
from benchmarks.measure import Contest, Contestant, NotHonestError
from benchmarks.places import Place
from benchmarks.works import CORE, ORMS, OURS, RAW


class Runtime(Protocol):
    """Whoever runs agents."""

    def record(self, tool_call_id: str) -> object:
        """Record a call that has ended."""

    def complete(self, tool_call_id: str) -> object:
        """End a call that is executing."""

    def save(self, number: int) -> object:
        """Save the agent with another state and another safe fork point."""

    def waiting(self) -> Sequence[Any]:
        """Return the first page of the calls that wait for approval."""

    def values(self, calls: Sequence[Any], /) -> list[tuple[Any, ...]]:
        """Return what tells calls from others."""

    def close(self) -> None:
        """Give back what is held."""


def _ways(place: Place) -> dict[str, Callable[[str], Runtime]]:
    return {OURS: Ours.open, RAW: RAW_OF[place.name].open, CORE: Core.open, ORMS: ORM.open}


@contextlib.contextmanager
def _writers(place: Place) -> Iterator[tuple[dict[str, str], dict[str, Runtime]]]:
    """Give each contestant a database of its own that holds one agent."""
    seeded = with_agents(place)
    urls = {name: place.copy(seeded) for name in _ways(place)}
    with contextlib.ExitStack() as stack:
        yield (
            urls,
            {name: stack.enter_context(contextlib.closing(way(urls[name]))) for name, way in _ways(place).items()},
        )


@contextlib.contextmanager
def record(place: Place) -> Iterator[Contest]:
    """Record a call that has ended."""
    with _writers(place) as (urls, runtimes):
        contestants = [_recorder(name, runtime) for name, runtime in runtimes.items()]
        contest = Contest("record a tool call that has ended", place.name, contestants)
        yield contest
    verify_calls(urls, expected=contest.operations, steps=["completed"])


def _recorder(name: str, runtime: Runtime) -> Contestant:
    names = rows.numbered_keys("K")
    return Contestant(name, lambda: runtime.record(next(names)))


class _Executing:
    """Ends one call after the other, each of which began to execute before the time was taken."""

    def __init__(self, runtime: Runtime, raw: Raw) -> None:
        self._runtime = runtime
        self._raw = raw
        self._names = rows.numbered_keys("K")
        self._ready: list[str] = []

    def prepare(self, number: int) -> None:
        """Begin so many calls."""
        self._ready = [next(self._names) for _ in range(number)]
        self._raw.begin(self._ready)

    def complete(self) -> None:
        """End one."""
        self._runtime.complete(self._ready.pop())


@contextlib.contextmanager
def complete(place: Place) -> Iterator[Contest]:
    """Bring a call from executing to completed, with its output."""
    with contextlib.ExitStack() as stack:
        urls, runtimes = stack.enter_context(_writers(place))
        contestants = []
        for name, runtime in runtimes.items():
            raw = stack.enter_context(contextlib.closing(RAW_OF[place.name].open(urls[name])))
            executing = _Executing(runtime, raw)
            contestants.append(Contestant(name, executing.complete, prepare=executing.prepare))
        contest = Contest("complete a tool call that is executing", place.name, contestants)
        yield contest
    verify_calls(urls, expected=contest.operations, steps=["pending", "executing", "completed"])


@contextlib.contextmanager
def save(place: Place) -> Iterator[Contest]:
    """Save an agent that is there, in another state and at another safe fork point."""
    with _writers(place) as (urls, runtimes):
        contestants = [_saver(name, runtime) for name, runtime in runtimes.items()]
        contest = Contest("save an agent", place.name, contestants)
        yield contest
    verify_agent(urls, saved=contest.operations)


def _saver(name: str, runtime: Runtime) -> Contestant:
    numbers = itertools.count(1)
    return Contestant(name, lambda: runtime.save(next(numbers)))


@contextlib.contextmanager
def approvals(place: Place) -> Iterator[Contest]:
    """List the calls that wait for approval, over all agents."""
    url = with_calls(place)
    with contextlib.ExitStack() as stack:
        runtimes = {name: stack.enter_context(contextlib.closing(way(url))) for name, way in _ways(place).items()}
        found = {name: runtime.values(runtime.waiting()) for name, runtime in runtimes.items()}
        expect_equal("the calls that wait", found)
        if len(found[OURS]) != content.PAGE:
            raise NotHonestError(f"{len(found[OURS])} calls make no page of {content.PAGE}")
        contestants = [Contestant(name, runtime.waiting) for name, runtime in runtimes.items()]
        work = f"the first {content.PAGE} of {content.WAITING:,} calls that wait, of {content.CALLS:,} in all"
        yield Contest(work, place.name, contestants)


WORKS = {"tool-record": record, "tool-update": complete, "agent-save": save, "approvals": approvals}
"""By the name that the command line takes."""
