"""Finding what agents remember: by words, and by what is at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import FromClause, Select, bindparam, literal_column, select, union_all

from agentos_store.engine.among import searched
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, row_builder
from agentos_store.memory.items import IS_VALID, ITEMS, PLACE
from agentos_store.memory.models import SCOPES, MemoryItem
from agentos_store.memory.texts import KIND, texts_of, tokens_of
from agentos_store.operation import F, Repository, reads
from agentos_store.search.asking import ask, check_look, check_page
from agentos_store.search.query import Query
from agentos_store.search.ranking import Ranking
from agentos_store.search.snippets import MARKS, WIDTH, snippet
from agentos_store.types import Identifier, Text, check_whole

_PLACE = Identifier()
MOST_IN_CONTEXT = 1000
"""Items of one scope that are looked at for a context."""


@dataclass(frozen=True, slots=True)
class MemoryHit:
    """An item that a search found."""

    item: MemoryItem
    score: float
    """The greater, the better it fits; the same on every database."""
    snippet: str
    """Where it fits: a piece of its text, with what was searched for marked."""


@dataclass(frozen=True, slots=True)
class MemoryContext:
    """What is worth knowing now."""

    items: Sequence[MemoryItem]
    """The most specific scope first, within a scope the surest first."""
    tokens: int
    """What their contents take of a language model's context."""


class MemoryFinding(Repository[F]):
    """The part of the memory that finds."""

    @reads
    def search(
        self,
        session: Session,
        query: str,
        *,
        scope: str | None = None,
        scope_id: str | None = None,
        type: str | None = None,
        project_id: str | None = None,
        tags: Sequence[str] | None = None,
        min_confidence: float | None = None,
        limit: int = 20,
        offset: int = 0,
        marks: tuple[str, str] = MARKS,
        width: int = WIDTH,
    ) -> Sequence[MemoryHit]:
        """Return the items that a query finds in their content and tags, the best first; ``limit`` up to 1,000.

        Plain words must all be there; ``"a phrase"``, ``word*`` and ``-word`` are understood, and any other character
        is text. A query that asks for nothing finds nothing. What has expired is not found. ``marks`` stand before
        and after what matched in a snippet of about ``width`` characters.
        """
        asked = ask(query)
        check_page(limit, offset)
        check_look(marks, width)
        values = {
            "scope": scope,
            "scope_id": scope_id,
            "type": type,
            "project_id": project_id,
            "tags": None if tags is None else list(tags),
            "min_confidence": min_confidence,
        }
        values = {name: value for name, value in values.items() if value is not None}
        if not asked:
            return []
        return [
            MemoryHit(item, score, snippet(texts_of(item.content, item.tags), asked, width=width, marks=marks))
            for item, score in _found(session, asked, values, limit, offset)
        ]

    @reads
    def context(
        self,
        session: Session,
        *,
        task_id: str | None = None,
        agent_id: str | None = None,
        repo_id: str | None = None,
        project_id: str | None = None,
        token_budget: int = 2000,
        min_confidence: float = 0.0,
        count_tokens: Callable[[Any], int] = tokens_of,
    ) -> MemoryContext:
        """Return the best items for what is at hand, and the global ones, as many as the budget holds.

        The most specific scope comes first: task, agent, repository, project, global; within it the surest item, then
        the newest. One that does not fit into what is left of the budget is passed over. ``count_tokens`` says what a
        content takes; without it, it is estimated.
        """
        check_whole("token_budget", token_budget, 0, 2**31)
        places = {"task": task_id, "agent": agent_id, "repo": repo_id, "project": project_id}
        given = {scope: _PLACE.check(place, f"{scope}_id") for scope, place in places.items() if place is not None}
        given["global"] = ""
        statement = _CONTEXTS.get(frozenset(given))
        if statement is None:
            statement = _CONTEXTS[frozenset(given)] = _context_of(given)
        values = {f"in_{scope}": place for scope, place in given.items()}
        chosen: list[MemoryItem] = []
        left = token_budget
        for item in session.all(statement, {**values, "min_confidence": min_confidence, "limit_": MOST_IN_CONTEXT}):
            tokens = count_tokens(item.content)
            if tokens <= left:
                chosen.append(item)
                left -= tokens
        return MemoryContext(chosen, token_budget - left)


_CONDITIONS: dict[str, Any] = {
    name: ITEMS.c[name] == bindparam(name, type_=ITEMS.c[name].type)
    for name in ("scope", "scope_id", "type", "project_id")
}
_CONDITIONS["min_confidence"] = ITEMS.c.confidence >= bindparam("min_confidence", type_=ITEMS.c.confidence.type)
_CONDITIONS["tags"] = MemoryItem.tags.contains(bindparam("tags", type_=ITEMS.c.tags.type))

_SEARCHES: dict[frozenset[str], Ranking] = {}
_CONTEXTS: dict[frozenset[str], Statement[MemoryItem]] = {}


def _found(
    session: Session, asked: Query, values: Mapping[str, object], limit: int, offset: int
) -> list[tuple[MemoryItem, float]]:
    names = frozenset(values)
    ranking = _SEARCHES.get(names)
    if ranking is None:
        ranking = _SEARCHES[names] = _search_of(names)
    if asked.is_indexed:
        return list(_hits(ranking.page(session, asked, values, limit, offset)))
    # The index was asked as much as it should be; what it found is asked the rest.
    hits = _hits(ranking.every(session, asked, values))
    matching_hits = (hit for hit in hits if asked.matches(texts_of(hit[0].content, hit[0].tags)))
    return list(islice(matching_hits, offset, offset + limit))


_NAMES = tuple(ITEMS.c.keys())


def _hits(rows: Iterable[Sequence[Any]]) -> Iterator[tuple[MemoryItem, float]]:
    build = row_builder(MemoryItem, _NAMES)
    return ((build(row), row[-1]) for row in rows)


def _search_of(names: frozenset[str]) -> Ranking:
    def keys(found: FromClause) -> Select[Any]:
        items = found.join(ITEMS, searched(ITEMS.c.id, found.c.key))
        conditions = (_CONDITIONS[name] for name in sorted(names))
        return select(found.c.key, found.c.score).select_from(items).where(IS_VALID, *conditions)

    def rows(best: FromClause) -> Select[Any]:
        item = ITEMS.alias("item")
        return select(*item.c, best.c.score).select_from(best.join(item, searched(item.c.id, best.c.key)))

    return Ranking(KIND, keys, rows, filtered=bool(names))


def _context_of(scopes: Mapping[str, object]) -> Statement[MemoryItem]:
    def of(scope: str) -> Select[Any]:
        best = (
            select(*ITEMS.c, literal_column(str(SCOPES.index(scope))).label("place"))
            .where(
                ITEMS.c.scope == scope,
                bindparam(f"in_{scope}", type_=Text()) == PLACE,
                _CONDITIONS["min_confidence"],
                IS_VALID,
            )
            .order_by(ITEMS.c.confidence.desc(), ITEMS.c.id.desc())
            .limit(bindparam("limit_"))
            .subquery()
        )
        return select(best)

    every = union_all(*(of(scope) for scope in SCOPES if scope in scopes)).subquery("every")
    columns = [every.c[name] for name in ITEMS.c.keys()]  # noqa: SIM118  a collection of columns
    query = select(*columns).order_by(every.c.place, every.c.confidence.desc(), every.c.id.desc())
    return Statement(query, returns=MemoryItem)
