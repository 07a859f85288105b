"""What one caller does over and over in stores of several sizes, which take turns."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from agentos_store import Store
from benchmarks.conversations import content
from benchmarks.conversations import seeds as conversations
from benchmarks.conversations.ours import Ours
from benchmarks.events import content as of_events
from benchmarks.events import raw as events
from benchmarks.growth.fill import COMMON, FOUND, ONE_IN, QUEUED, RARE, Size, fill
from benchmarks.measure import Contest, Contestant, Line, NotHonestError, Outcome, hold
from benchmarks.places import Place
from benchmarks.queue import claims
from benchmarks.works import OURS, RAW

LARGEST = 1_000_000
"""Messages of the largest store."""
STEPS = (100, 10, 1)
"""How often the stores go into the largest."""
LEAST = 100_000
"""Messages that the largest must have, so that the smallest has as much as is asked for."""

Operations = Mapping[str, Callable[[], object]]
"""By the contestant."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What a piece of work took in stores of several sizes."""

    outcome: Outcome
    unit: str
    """What there is more of."""
    amounts: Sequence[int]
    """How many of these, in each store."""
    finds_more: bool = False
    """Whether the work itself grows, because more is found."""

    def lines(self, way: str) -> Sequence[Line]:
        """Return what somebody needed who works this way, from the smallest store to the largest; or nothing."""
        names = [_named(way, amount, self.unit) for amount in self.amounts]
        return [line for name in names for line in self.outcome.lines if line.name == name]


def _named(way: str, amount: int, unit: str) -> str:
    return f"{way}, {amount:,} {unit}"


class _Opened:
    """A store of one size, opened by the library and by the drivers."""

    def __init__(self, place: Place, size: Size, deep_page: int, stack: contextlib.ExitStack) -> None:
        self.size = size
        self.deep_page = deep_page
        url = fill(place, size)
        stack.callback(place.drop, url)
        self.ours = stack.enter_context(contextlib.closing(Ours.open(url)))
        self.store: Store = self.ours.store
        self.talks = stack.enter_context(contextlib.closing(conversations.RAW_OF[place.name].open(url)))
        self.events = stack.enter_context(contextlib.closing(events.RAW_OF[place.name].open(url)))
        self.queue = stack.enter_context(contextlib.closing(claims.RAW_OF[place.name](url)))

    def last(self) -> Operations:
        """Read the last messages of the long session."""
        return {OURS: partial(self.ours.last, content.SESSION), RAW: partial(self.talks.last, content.SESSION)}

    def latest(self) -> Operations:
        """List the sessions of a user that were in use last."""
        return {OURS: partial(self.ours.latest, content.USER), RAW: partial(self.talks.latest, content.USER)}

    def find(self) -> Operations:
        """Find the events of one agent and one type from a time on."""
        query = partial(self.store.events.query, agent_id="coder_7", event_type="type_3", limit=of_events.FOUND)
        found = query(created_after=of_events.SINCE)
        if [event.position for event in found] != [row[0] for row in self.events.find()]:
            raise NotHonestError("the two have found other events")
        if len(found) != of_events.FOUND:
            raise NotHonestError(f"there are only {len(found)} events")
        return {OURS: partial(query, created_after=of_events.SINCE), RAW: self.events.find}

    def page(self) -> Operations:
        """Read a page far into the list."""
        before = self.store.events.list(limit=1, offset=(self.deep_page - 1) * of_events.PAGE - 1)
        return {OURS: partial(self.store.events.list, limit=of_events.PAGE, cursor=before.next)}

    def search(self, words: str) -> Operations:
        """Find two words in what was said."""
        expected = FOUND if words == RARE else self.size.messages // ONE_IN
        if len(self.store.messages.search(words, limit=1000)) != min(expected, 1000):
            raise NotHonestError(f"{words} is not found {expected} times")
        return {OURS: partial(self.store.messages.search, words, limit=10)}

    def log(self) -> Operations:
        """Log one event."""
        log = partial(self.store.events.log, of_events.TYPE, agent_id=of_events.AGENT, data=of_events.DATA)
        return {OURS: log, RAW: self.events.log}

    def claim(self) -> Operations:
        """Claim a task."""
        return {
            OURS: _claimed(partial(self.store.tasks.claim, by="worker", lease=claims.LEASE)),
            RAW: _claimed(partial(self.queue.claim, "worker")),
        }

    def append(self) -> Operations:
        """Append one message to the long session."""
        return {OURS: partial(self.ours.append, content.SESSION), RAW: partial(self.talks.append, content.SESSION)}

    def counted(self) -> Mapping[str, int]:
        """Count what was written since the store was filled."""
        return {
            "log": self.store.events.count() - self.size.events,
            "claim": self.store.tasks.count(status="running"),
            "append": self.store.sessions.get(content.SESSION).message_count - self.size.long,
        }


def _claimed(claim: Callable[[], object]) -> Callable[[], object]:
    def operate() -> None:
        if claim() is None:
            raise NotHonestError(f"the {QUEUED:,} tasks that waited are claimed; take fewer seconds")

    return operate


@dataclass(frozen=True, slots=True)
class _Work:
    """A piece of work."""

    title: str
    unit: str
    operations: Callable[[_Opened], Operations]
    written: str | None = None
    """What is counted afterwards."""
    finds_more: bool = False
    warm_up: int = 30


_DEEP = f"page {{deep:,}} of {of_events.PAGE} events"
_RARE = f"the 10 best for two words that {FOUND} messages hold"
_COMMON = f"the 10 best for two words that {100 // ONE_IN} % of all messages hold"
# What is read comes first, for what is appended would have to be indexed before a search.
_WORKS = (
    _Work(f"the last {content.LAST} messages of the long session", "messages", _Opened.last),
    _Work(f"the latest {content.LATEST} sessions of a user", "messages", _Opened.latest),
    _Work(_RARE, "messages", partial(_Opened.search, words=RARE)),
    _Work(_COMMON, "messages", partial(_Opened.search, words=COMMON), finds_more=True, warm_up=3),
    _Work(f"{of_events.FOUND} events by agent, type and time", "events", _Opened.find),
    _Work(_DEEP, "events", _Opened.page),
    _Work("log one event", "events", _Opened.log, written="log"),
    _Work("claim a task", "tasks that have ended", _Opened.claim, written="claim"),
    _Work("append one message to the long session", "messages", _Opened.append, written="append"),
)


def growth(place: Place, largest: int, *, rounds: int, seconds: float) -> Iterator[Growth]:
    """Fill the stores and let them compete in each piece of work."""
    sizes = [Size(largest // step) for step in STEPS]
    with contextlib.ExitStack() as stack:
        deep = min(of_events.DEEP_PAGE, sizes[0].events // of_events.PAGE)
        stores = [_Opened(place, size, deep, stack) for size in sizes]
        for work in _WORKS:
            title = work.title.format(deep=deep)
            print(f"{place.name}: growth, {title} …", flush=True)
            amounts = [store.size.amount(work.unit) for store in stores]
            operations = [work.operations(store) for store in stores]
            contestants = [
                Contestant(_named(way, amount, work.unit), each[way], beside=_named(way, amounts[0], work.unit))
                for way in operations[0]
                for amount, each in zip(amounts, operations, strict=True)
            ]
            contest = Contest(title, place.name, contestants, contestants[0].name, warm_up=work.warm_up)
            yield Growth(hold(contest, rounds=rounds, seconds=seconds), work.unit, amounts, work.finds_more)
            if work.written is not None:
                _verify(stores, work.written, contest.operations * len(operations[0]))


def _verify(stores: Sequence[_Opened], what: str, expected: int) -> None:
    for store in stores:
        found = store.counted()[what]
        if found != expected:
            raise NotHonestError(f"{what}: there are {found}, not {expected}, in the store of {store.size}")
