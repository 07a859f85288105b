"""Searching what was said: the index is brought up to date first, and what cannot be indexed now is read."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import FromClause, Select, bindparam, func, literal, select, text

from agentos_store.conversations.drafts import MESSAGES
from agentos_store.conversations.message_index import (
    CONTENTS,
    IS_CURRENT,
    IS_MISSING,
    IS_UNINDEXED,
    OF_SESSIONS,
    SESSIONS,
    batches,
    count_waiting,
    index_some,
    is_one,
)
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.message_texts import KIND, texts_of
from agentos_store.engine.among import searched
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, row_builder
from agentos_store.errors import UnavailableError, UsageError
from agentos_store.operation import F, Repository, Steps, in_steps, reads, repeatable, writes
from agentos_store.search.asking import ask, check_look, check_page
from agentos_store.search.query import Query
from agentos_store.search.ranking import ALL, Ranking
from agentos_store.search.scanning import scanner
from agentos_store.search.snippets import MARKS, WIDTH, snippet

T = TypeVar("T")

MOST_READ = 2000
"""Messages without a document that a search reads sooner than wait for who keeps them from being indexed."""


@dataclass(frozen=True, slots=True)
class MessageHit:
    """A message that a search found."""

    message: Message
    score: float
    """The greater, the better it fits; the same on every database."""
    snippet: str
    """Where it fits: a piece of its text, with what was searched for marked."""


@dataclass(frozen=True, slots=True)
class _Search:
    """What is asked."""

    query: Query
    filters: Mapping[str, object]
    limit: int
    offset: int
    marks: tuple[str, str]
    width: int

    @property
    def session_id(self) -> Any:
        """The one session that is meant, if it is one."""
        return self.filters.get("session_id")

    def hits(self, found: Sequence[tuple[Message, float]]) -> list[MessageHit]:
        """Show each where it fits."""
        return [
            MessageHit(
                message,
                score,
                snippet(texts_of(message.content), self.query, width=self.width, marks=self.marks),
            )
            for message, score in found
        ]


@dataclass(frozen=True, slots=True)
class _First:
    """What the first look gave."""

    hits: list[MessageHit] | None
    """None where something has to be indexed before."""
    may_wait: bool = True
    """Whether no lock is held that others may wait for."""


class MessageSearch(Repository[F]):
    """The part of the messages that finds."""

    @in_steps
    def search(
        self: Any,
        query: str,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        user_id: str | None = None,
        role: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        limit: int = 20,
        offset: int = 0,
        marks: tuple[str, str] = MARKS,
        width: int = WIDTH,
    ) -> Steps[Sequence[MessageHit]]:
        """Return the messages that a query finds in what was said, the best first; ``limit`` up to 1,000.

        Searched are contents, the text and the reasoning of their blocks, and the text of tools' results, of what
        conversations consist of now; those that are deleted are left out. Plain words must all be there; ``"a
        phrase"``, ``word*`` and ``-word`` are understood, and any other character is text. A query that asks for
        nothing finds nothing. ``created_after`` is inclusive and ``created_before`` is not. ``marks`` stand before and
        after what matched in a snippet of about ``width`` characters.

        Whatever was stored when the search began is found. The index is brought up to date first, in short
        transactions of its own; where that cannot be, because only reads are allowed or a writer's transaction stays
        open, what is not indexed is read instead.
        """
        words = ask(query)
        check_page(limit, offset)
        check_look(marks, width)
        asked = _Search(
            words,
            {
                name: value
                for name, value in {
                    "session_id": session_id,
                    "agent_id": agent_id,
                    "user_id": user_id,
                    "role": role,
                    "created_after": created_after,
                    "created_before": created_before,
                }.items()
                if value is not None
            },
            limit,
            offset,
            marks,
            width,
        )
        if not asked.query:
            return []
        first: _First = yield partial(self._look, asked)
        if first.hits is not None:
            return first.hits
        return (yield from _after_indexing(self, asked, may_wait=first.may_wait))

    @reads
    def _look(self, session: Session, asked: _Search) -> _First:
        """Search, if everything is indexed."""
        if session.first(_LOOK if asked.session_id is None else _LOOK_IN, asked.filters) is None:
            return _First(asked.hits(_found(session, asked, asked.limit, asked.offset)))
        if session.capabilities.row_locks and session.in_transaction:
            # To the end of the caller's transaction nobody could write to the sessions that it indexed.
            return _First(_merged(session, asked, MOST_READ), may_wait=False)
        return _First(None)

    @reads
    def _count_waiting(self, session: Session, session_id: str | None) -> int:
        return count_waiting(session, session_id)

    @writes
    @repeatable
    def _index(self, session: Session, after: str, session_id: str | None, *, wait: bool) -> tuple[str | None, int]:
        return index_some(session, after, session_id, wait=wait)

    @reads
    def _find(self, session: Session, asked: _Search, most: int) -> list[MessageHit] | None:
        return _merged(session, asked, most)


def _after_indexing(messages: Any, asked: _Search, *, may_wait: bool) -> Steps[list[MessageHit]]:
    """Bring the index up to date and search; what is not in it then is read, be it much or little."""
    try:
        # In the second round those are waited for who are at work on what is left, if that is much.
        for wait in (False, True)[: 1 + may_wait]:
            after: str | None = ""
            # No more than there is now: who writes faster than this indexes would never be caught up with.
            left: int = yield partial(messages._count_waiting, asked.session_id)  # noqa: SLF001  a part of it
            while after is not None and left > 0:
                after, done = yield partial(messages._index, after, asked.session_id, wait=wait)  # noqa: SLF001  as above
                left -= done
            found: list[MessageHit] | None = yield partial(messages._find, asked, MOST_READ)  # noqa: SLF001  as above
            if found is not None:
                return found
            if left <= 0:
                # What is left was written meanwhile.
                break
    except (UsageError, UnavailableError):
        # Writing may be refused here, or keep waiting; if it is something else, reading will tell.
        pass
    everything: list[MessageHit] = yield partial(messages._find, asked, ALL)  # noqa: SLF001  as above
    return everything


def _merged(session: Session, asked: _Search, most: int) -> list[MessageHit] | None:
    """Search the index and read what is not in it; None where that is more than so many messages."""
    names = frozenset(asked.filters)
    # What is indexed meanwhile is in the index afterwards, so that it is found in one place at least.
    rest = [key for (key,) in session.all(_built(_RESTS, names, _rest_of), {**asked.filters, "limit_": most + 1})]
    if len(rest) > most:
        return None
    if not rest:
        return asked.hits(_found(session, asked, asked.limit, asked.offset))
    end = asked.offset + asked.limit
    scan = scanner(asked.query)
    scores: dict[str, float] = {}
    for some in batches(rest):
        scanned = [(key, scan(texts_of(content))) for key, content in session.all(CONTENTS, {"keys": some})]
        scores |= {key: score for key, score in scanned if score is not None}
        if len(scores) > 2 * end:
            scores = dict(_best(scores)[:end])
    messages = {}
    for message, score in _found(session, asked, end, 0):
        messages[message.id], scores[message.id] = message, score
    page = _best(scores)[asked.offset : end]
    for some in batches([key for key, _ in page if key not in messages]):
        messages |= {message.id: message for message in session.all(_MESSAGES, {"keys": some})}
    # One that was removed just now is none.
    return asked.hits([(messages[key], score) for key, score in page if key in messages])


def _best(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda each: (-each[1], each[0]))


def _found(session: Session, asked: _Search, limit: int, offset: int) -> list[tuple[Message, float]]:
    """Search the index."""
    ranking = _built(_SEARCHES, frozenset(asked.filters), _search_of)
    if asked.query.is_indexed:
        return list(_hits(ranking.page(session, asked.query, asked.filters, limit, offset)))
    # The index was asked as much as it should be; what it found is asked the rest.
    rows = ranking.every(session, asked.query, asked.filters)
    hits = [hit for hit in _hits(rows) if asked.query.matches(texts_of(hit[0].content))]
    return hits[offset : offset + limit]


_NAMES = tuple(MESSAGES.c.keys())


def _hits(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[Message, float]]:
    build = row_builder(Message, _NAMES)
    return ((build(row), row[-1]) for row in rows)


_IN_SESSION = SESSIONS.c.id == bindparam("session_id", type_=SESSIONS.c.id.type)
_LOOK: Statement[Any] = Statement(select(SESSIONS.c.id).where(IS_UNINDEXED).order_by(SESSIONS.c.id).limit(literal(1)))
_LOOK_IN: Statement[Any] = Statement(select(SESSIONS.c.id).where(IS_UNINDEXED, _IN_SESSION))
_MESSAGES: Statement[Message] = Statement(select(MESSAGES).where(is_one(MESSAGES.c.id)), returns=Message)
_OPEN = text(f"{SESSIONS.name}.deleted_at IS NULL")


def _unsearched(column: Any) -> Any:
    """Return the column in words that no index knows: what has the words of a query is few, and searched by its key."""
    return func.coalesce(column, column, type_=column.type)


_CONDITIONS: dict[str, Any] = {
    "session_id": _IN_SESSION,
    "agent_id": _unsearched(MESSAGES.c.agent_id) == bindparam("agent_id", type_=MESSAGES.c.agent_id.type),
    "user_id": _unsearched(SESSIONS.c.user_id) == bindparam("user_id", type_=SESSIONS.c.user_id.type),
    "role": _unsearched(MESSAGES.c.role) == bindparam("role", type_=MESSAGES.c.role.type),
    "created_after": _unsearched(MESSAGES.c.created_at) >= bindparam("created_after", type_=MESSAGES.c.created_at.type),
    "created_before": _unsearched(MESSAGES.c.created_at)
    < bindparam("created_before", type_=MESSAGES.c.created_at.type),
}
_SEARCHES: dict[frozenset[str], Ranking] = {}
_RESTS: dict[frozenset[str], Statement[Any]] = {}


def _built(there: dict[frozenset[str], T], names: frozenset[str], build: Callable[[Sequence[Any]], T]) -> T:
    made = there.get(names)
    if made is None:
        made = there[names] = build([_CONDITIONS[name] for name in sorted(names)])
    return made


def _search_of(conditions: Sequence[Any]) -> Ranking:
    def keys(found: FromClause) -> Select[Any]:
        messages = found.join(MESSAGES, searched(MESSAGES.c.id, found.c.key))
        messages = messages.join(SESSIONS, searched(SESSIONS.c.id, MESSAGES.c.session_id))
        return select(found.c.key, found.c.score).select_from(messages).where(IS_CURRENT, _OPEN, *conditions)

    def rows(best: FromClause) -> Select[Any]:
        item = MESSAGES.alias("item")
        return select(*item.c, best.c.score).select_from(best.join(item, searched(item.c.id, best.c.key)))

    return Ranking(KIND, keys, rows, filtered=bool(conditions))


def _rest_of(conditions: Sequence[Any]) -> Statement[Any]:
    query = (
        select(MESSAGES.c.id)
        .select_from(OF_SESSIONS)
        .where(IS_UNINDEXED, MESSAGES.c.seq >= SESSIONS.c.unindexed_from, IS_CURRENT, IS_MISSING, *conditions)
    )
    return Statement(query.limit(bindparam("limit_")))
