"""What one caller does with conversations, over and over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from benchmarks import rows
from benchmarks.conversations import content
from benchmarks.conversations.checks import expect_equal, verify
from benchmarks.conversations.handwritten import ORM, Core
from benchmarks.conversations.ours import Ours
from benchmarks.conversations.seeds import RAW_OF, Raw, add_session, with_sessions, with_user
from benchmarks.measure import Contest, Contestant
from benchmarks.places import Place
from benchmarks.works import CORE, ORMS, OURS, RAW


class Speaker(Protocol):
    """Whoever writes and reads conversations."""

    def append(self, session_id: str) -> object:
        """Add a message."""

    def append_many(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> object:
        """Add many at once."""

    def save(self, session_id: str, messages: Sequence[Mapping[str, Any]]) -> None:
        """Save a whole conversation of which the end is new."""

    def last(self, session_id: str) -> list[dict[str, Any]]:
        """Return the last messages."""

    def latest(self, user_id: str) -> Sequence[Any]:
        """Return the sessions of a user that were in use last."""

    def keys(self, sessions: Sequence[Any], /) -> list[str]:
        """Return the keys of sessions."""

    def close(self) -> None:
        """Give back what is held."""


def _ways(place: Place) -> dict[str, Callable[[str], Speaker]]:
    return {OURS: Ours.open, RAW: RAW_OF[place.name].open, CORE: Core.open, ORMS: ORM.open}


@contextlib.contextmanager
def _writers(place: Place, url: str) -> Iterator[tuple[dict[str, str], dict[str, Speaker]]]:
    """Give each contestant a database that is a copy of this one."""
    urls = {name: place.copy(url) for name in _ways(place)}
    with contextlib.ExitStack() as stack:
        yield (
            urls,
            {name: stack.enter_context(contextlib.closing(way(urls[name]))) for name, way in _ways(place).items()},
        )


@contextlib.contextmanager
def _readers(place: Place, url: str) -> Iterator[dict[str, Speaker]]:
    with contextlib.ExitStack() as stack:
        yield {name: stack.enter_context(contextlib.closing(way(url))) for name, way in _ways(place).items()}


@contextlib.contextmanager
def append(place: Place) -> Iterator[Contest]:
    """Append one message to a session that is empty at the start."""
    with _writers(place, with_sessions(place, content.SESSION)) as (urls, speakers):
        contestants = [Contestant(name, partial(each.append, content.SESSION)) for name, each in speakers.items()]
        contest = Contest("append one message", place.name, contestants)
        yield contest
    verify(urls, expected={content.SESSION: contest.operations}, compared=3)


@contextlib.contextmanager
def append_to_long(place: Place) -> Iterator[Contest]:
    """Append one message where none, many and very many are: what grows with the conversation shows."""
    ways: dict[str, Callable[[str], Speaker]] = {OURS: Ours.open, RAW: RAW_OF[place.name].open}
    seeds = {
        length: with_sessions(place, content.SESSION, length=length) for length in (0, content.LONG, content.LONGEST)
    }
    urls = {(name, length): place.copy(url) for name in ways for length, url in seeds.items()}
    with contextlib.ExitStack() as stack:
        contestants = [
            Contestant(f"{name}, {length:,} there", partial(speaker.append, content.SESSION), beside=f"{name}, 0 there")
            for (name, length), url in urls.items()
            for speaker in (stack.enter_context(contextlib.closing(ways[name](url))),)
        ]
        contest = Contest("append one message to a long conversation", place.name, contestants)
        yield contest
    for length in seeds:
        of_length = {name: urls[name, length] for name in ways}
        verify(of_length, expected={content.SESSION: length + contest.operations}, compared=3)


@contextlib.contextmanager
def append_many(place: Place) -> Iterator[Contest]:
    """Append a hundred messages at once."""
    messages = content.conversation(content.MANY)
    with _writers(place, with_sessions(place, content.SESSION)) as (urls, speakers):
        contestants = [
            Contestant(name, partial(each.append_many, content.SESSION, messages)) for name, each in speakers.items()
        ]
        contest = Contest(f"append {content.MANY} messages at once", place.name, contestants, warm_up=10)
        yield contest
    verify(urls, expected={content.SESSION: content.MANY * contest.operations}, compared=2 * content.MANY)


class _Savers:
    """Saves one list after the other, each into a session of its own where all but the last message are."""

    def __init__(self, speaker: Speaker, raw: Raw) -> None:
        self._speaker = speaker
        self._raw = raw
        self._keys = rows.numbered_keys("C")
        self._ready: list[str] = []
        self._messages = content.conversation(content.MANY)

    def prepare(self, number: int) -> None:
        """Make so many sessions."""
        self._ready = [next(self._keys) for _ in range(number)]
        for key in self._ready:
            add_session(self._raw, key, content.MANY - 1)

    def save(self) -> None:
        """Save the list."""
        self._speaker.save(self._ready.pop(), self._messages)


@contextlib.contextmanager
def save(place: Place) -> Iterator[Contest]:
    """Save a list of a hundred messages of which one is new."""
    with contextlib.ExitStack() as stack:
        urls, speakers = stack.enter_context(_writers(place, with_sessions(place, content.SESSION, length=0)))
        contestants = []
        for name, speaker in speakers.items():
            savers = _Savers(speaker, stack.enter_context(contextlib.closing(RAW_OF[place.name].open(urls[name]))))
            contestants.append(Contestant(name, savers.save, prepare=savers.prepare))
        work = f"save a list of {content.MANY} messages, one of them new"
        contest = Contest(work, place.name, contestants, warm_up=10)
        yield contest
    keys = [key for key, _ in zip(rows.numbered_keys("C"), range(contest.operations), strict=False)]
    verify(urls, expected={content.SESSION: 0} | dict.fromkeys(keys, content.MANY), compared=0)
    verify_ends(urls, keys)


def verify_ends(urls: Mapping[str, str], keys: Sequence[str]) -> None:
    """See that the library reads the same conversations, whoever saved them."""
    wanted = [
        content.plain(m["role"], m["content"], None, None, m.get("tool_call_id")) for m in content.conversation(100)
    ]
    for name, url in urls.items():
        with contextlib.closing(Ours.open(url)) as ours:
            for key in (keys[0], keys[-1]):
                expect_equal("the saved list", {name: ours.store.messages.history(key), "what was given": wanted})


@contextlib.contextmanager
def last(place: Place) -> Iterator[Contest]:
    """Read the last fifty messages of a long conversation."""
    with _readers(place, with_sessions(place, content.SESSION, length=content.LONG)) as speakers:
        reads = {name: partial(each.last, content.SESSION) for name, each in speakers.items()}
        expect_equal("the last messages", {name: read() for name, read in reads.items()})
        contestants = [Contestant(name, read) for name, read in reads.items()]
        yield Contest(f"the last {content.LAST} of {content.LONG:,} messages", place.name, contestants)


@contextlib.contextmanager
def latest(place: Place) -> Iterator[Contest]:
    """List the sessions of a user that were in use last."""
    with _readers(place, with_user(place)) as speakers:
        reads = {name: partial(each.latest, content.USER) for name, each in speakers.items()}
        expect_equal("the latest sessions", {name: speakers[name].keys(read()) for name, read in reads.items()})
        contestants = [Contestant(name, read) for name, read in reads.items()]
        yield Contest(f"the latest {content.LATEST} of a user's {content.SESSIONS:,} sessions", place.name, contestants)


WORKS = {
    "append": append,
    "append-long": append_to_long,
    "append-many": append_many,
    "save": save,
    "last": last,
    "latest": latest,
}
"""By the name that the command line takes."""
