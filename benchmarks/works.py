"""What one caller does, over and over: record an audit, take a step, create, get and list tasks."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

from benchmarks import rows
from benchmarks.handwritten import ORM, Core
from benchmarks.measure import Contest, Contestant, NotHonestError
from benchmarks.ours import Ours, OursTold
from benchmarks.places import FIRST_TASK, Place, Raw, seed, verify

OURS = "agentos_store"
RAW = "raw driver"
CORE = "Core by hand"
ORMS = "ORM by hand"


class Writer(Protocol):
    """Whoever records audits and takes steps."""

    def record(self, task_id: str) -> None:
        """Record an audit."""

    def move(self, task_id: str, origin: str, to: str) -> Any:
        """Take a step."""

    def close(self) -> None:
        """Give back what is held."""


@contextlib.contextmanager
def record(place: Place) -> Iterator[Contest]:
    """Record an audit: the row, chained, and the head of its chain."""
    ways: dict[str, Callable[[str], Writer]] = {OURS: Ours.open, RAW: place.raw, CORE: Core.open, ORMS: ORM.open}
    urls = {name: place.database() for name in ways}
    with contextlib.ExitStack() as stack:
        opened = {name: stack.enter_context(contextlib.closing(ways[name](url))) for name, url in urls.items()}
        contestants = [Contestant(name, partial(writer.record, FIRST_TASK)) for name, writer in opened.items()]
        contest = Contest("record an audit", place.name, contestants)
        yield contest
    verify(urls, expected=contest.operations)


@contextlib.contextmanager
def transition(place: Place) -> Iterator[Contest]:
    """Take a step of a task's life, with its audit: pending, running, paused, pending again."""
    ways: dict[str, Callable[[str], Writer]] = {
        OURS: Ours.open,
        f"{OURS}, expected=…": OursTold.open,
        RAW: place.raw,
        CORE: Core.open,
        ORMS: ORM.open,
    }
    urls = {name: place.database() for name in ways}
    with contextlib.ExitStack() as stack:
        opened = {name: stack.enter_context(contextlib.closing(ways[name](url))) for name, url in urls.items()}
        contestants = [Contestant(name, _stepper(writer.move)) for name, writer in opened.items()]
        contest = Contest("take a step, with its audit", place.name, contestants)
        yield contest
    verify(urls, expected=contest.operations)
    for name, url in urls.items():
        with contextlib.closing(Ours.open(url)) as store:
            task = store.get(FIRST_TASK)
            if task.version != 1 + contest.operations or task.status != rows.CYCLE[contest.operations % 3][0]:
                raise NotHonestError(f"{name} has left the task {task.status} at version {task.version}")


def _stepper(move: Callable[[str, str, str], Any]) -> Callable[[], object]:
    steps = rows.steps()
    return lambda: move(FIRST_TASK, *next(steps))


@contextlib.contextmanager
def create(place: Place) -> Iterator[Contest]:
    """Create a task; each contestant is given the key."""
    urls = {name: place.database() for name in (OURS, RAW)}
    ours, raw = Ours.open(urls[OURS]), place.raw(urls[RAW])
    with contextlib.closing(ours), contextlib.closing(raw):
        contestants = [_creator(OURS, ours.create), _creator(RAW, raw.create)]
        contest = Contest("create a task", place.name, contestants)
        yield contest
    for name, url in urls.items():
        with contextlib.closing(Ours.open(url)) as store:
            found = store.store.tasks.count() - 1
            if found != contest.operations:
                raise NotHonestError(f"{name} has created {found} tasks, not {contest.operations}")


def _creator(name: str, create_one: Callable[[str], object]) -> Contestant:
    keys = rows.numbered_keys("N")
    return Contestant(name, lambda: create_one(next(keys)))


@contextlib.contextmanager
def _readers(place: Place) -> Iterator[tuple[Ours, Raw]]:
    url = seed(place)
    with contextlib.closing(Ours.open(url)) as ours, contextlib.closing(place.raw(url)) as raw:
        yield ours, raw


@contextlib.contextmanager
def get(place: Place) -> Iterator[Contest]:
    """Get a task by its key, another one each time."""
    with _readers(place) as (ours, raw):
        keys = [key for key, _ in zip(rows.numbered_keys("T"), range(1000), strict=False)]
        for key in keys[:10]:
            _same("get", [ours.get(key).task_id], raw.keys([raw.get(key)]))
        contestants = [_getter(OURS, ours.get, keys), _getter(RAW, raw.get, keys)]
        yield Contest("get a task", place.name, contestants)


def _getter(name: str, get_one: Callable[[str], object], keys: list[str]) -> Contestant:
    turns = itertools.cycle(keys)
    return Contestant(name, lambda: get_one(next(turns)))


@contextlib.contextmanager
def pages(place: Place) -> Iterator[Contest]:
    """List 50 tasks of one status: the first page, and a page far behind it."""
    deep = f"page {rows.DEEP_PAGE}"
    with _readers(place) as (ours, raw):
        cursor, key = ours.seek(rows.DEEP_PAGE), raw.seek(rows.DEEP_PAGE)
        _same("the first page", ours.keys(ours.page(None)), raw.keys(raw.page(None)))
        _same(deep, ours.keys(ours.page(cursor)), raw.keys(raw.page(key)))
        _same(f"{deep} by OFFSET", ours.keys(ours.page(cursor)), raw.keys(raw.page_by_offset(rows.DEEP_PAGE)))
        contestants = [
            Contestant(f"{OURS}, first page", partial(ours.page, None)),
            Contestant(f"{OURS}, {deep}", partial(ours.page, cursor)),
            Contestant(f"{RAW}, first page", partial(raw.page, None)),
            Contestant(f"{RAW}, {deep}", partial(raw.page, key)),
            Contestant(f"{RAW}, {deep} by OFFSET", partial(raw.page_by_offset, rows.DEEP_PAGE)),
        ]
        yield Contest(f"list {rows.PAGE} tasks by status", place.name, contestants, baseline=f"{RAW}, first page")


def _same(what: str, ours: Sequence[str], theirs: Sequence[str]) -> None:
    if ours != theirs:
        raise NotHonestError(f"{what}: the contestants have read different tasks")


WORKS = {"record": record, "transition": transition, "create": create, "get": get, "list": pages}
"""By the name that the command line takes."""
