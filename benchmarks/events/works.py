"""What is logged and found, over and over."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from agentos_store import Store
from agentos_store.events.models import Event
from benchmarks.events import content
from benchmarks.events.raw import RAW_OF, RawPostgreSQL, RawSQLite
from benchmarks.measure import Contest, Contestant, NotHonestError
from benchmarks.places import Place
from benchmarks.works import OURS, RAW

FIRST_PAGE = "agentos_store, page 1"

Raw = RawSQLite | RawPostgreSQL


@contextlib.contextmanager
def log(place: Place) -> Iterator[Contest]:
    """Log one event."""
    with _writing(place) as (urls, store, raw):
        contestants = [
            Contestant(OURS, lambda: store.events.log(content.TYPE, agent_id=content.AGENT, data=content.DATA)),
            Contestant(RAW, raw.log),
        ]
        contest = Contest("log one event", place.name, contestants)
        yield contest
    _verify(urls, contest.operations)


@contextlib.contextmanager
def log_many(place: Place) -> Iterator[Contest]:
    """Log many events at once."""
    events = content.many()
    with _writing(place) as (urls, store, raw):
        contestants = [
            Contestant(OURS, lambda: store.events.log_many(events)),
            Contestant(RAW, lambda: raw.log_many(events)),
        ]
        contest = Contest(f"log {content.MANY:,} events at once", place.name, contestants, warm_up=1, least=2)
        yield contest
    _verify(urls, contest.operations * content.MANY)


@contextlib.contextmanager
def find(place: Place) -> Iterator[Contest]:
    """Find the events of one agent and one type from a time on."""
    url = _filled(place)
    with Store.open(url) as store, contextlib.closing(RAW_OF[place.name].open(url)) as raw:

        def ours() -> list[Event]:
            page = store.events.query(
                agent_id="coder_7", event_type="type_3", created_after=content.SINCE, limit=content.FOUND
            )
            return list(page.items)

        if [event.position for event in ours()] != [row[0] for row in raw.find()]:
            raise NotHonestError("the two have found other events")
        work = f"{content.FOUND} events by agent, type and time, of {content.STORED:,}"
        yield Contest(work, place.name, [Contestant(OURS, ours), Contestant(RAW, raw.find)])


@contextlib.contextmanager
def page(place: Place) -> Iterator[Contest]:
    """Read a page far into the list, beside the first."""
    url = _filled(place)
    with Store.open(url) as store:
        skipped = (content.DEEP_PAGE - 1) * content.PAGE
        before = store.events.list(limit=1, offset=skipped - 1)
        deep = store.events.list(limit=content.PAGE, cursor=before.next)
        if [event.data["n"] for event in deep] != [*range(skipped, skipped + content.PAGE)]:
            raise NotHonestError("that is another page")
        contestants = [
            Contestant(OURS, lambda: store.events.list(limit=content.PAGE, cursor=before.next)),
            Contestant(FIRST_PAGE, lambda: store.events.list(limit=content.PAGE)),
            Contestant("by OFFSET", lambda: store.events.list(limit=content.PAGE, offset=skipped)),
        ]
        work = f"page {content.DEEP_PAGE:,} of {content.PAGE} events, of {content.STORED:,}"
        yield Contest(work, place.name, contestants, baseline=FIRST_PAGE)


@contextlib.contextmanager
def _writing(place: Place) -> Iterator[tuple[dict[str, str], Store, Raw]]:
    urls = {OURS: place.database(), RAW: place.database()}
    with Store.open(urls[OURS]) as store, contextlib.closing(RAW_OF[place.name].open(urls[RAW])) as raw:
        yield urls, store, raw


def _verify(urls: dict[str, str], expected: int) -> None:
    for name, url in urls.items():
        with Store.open(url) as store:
            found = store.events.count()
            if found != expected:
                raise NotHonestError(f"{name} has logged {found} events, not {expected}")


def _filled(place: Place) -> str:
    url = place.database()
    with Store.open(url) as store:
        for start in range(0, content.STORED, content.MANY):
            store.events.log_many(content.stored(start, start + content.MANY))
    place.settle(url)
    return url


WORKS: dict[str, Callable[[Place], contextlib.AbstractContextManager[Contest]]] = {
    "event-log": log,
    "event-log-many": log_many,
    "event-find": find,
    "event-page": page,
}
"""By the name that the command line takes."""
