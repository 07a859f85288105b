"""A page of what a query finds, with no more looked up than it takes.

To look up the row of every document that a common word is in costs many times what finding and scoring them does. So
where nothing but a row's own state can leave it out, the best few documents are looked up alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import FromClause, Select, bindparam, func, select

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.search.matching import binds, count_terms, matching
from agentos_store.search.query import Query
from agentos_store.types import Int64

SPARE = 20
"""Documents that are looked up beyond the page, in case that some are to be left out."""

FEW = 200
"""Up to so many are looked up alone."""

ALL = 2**62

Row = Sequence[Any]
Of = Callable[[FromClause], Select[Any]]


class _Statements:
    """The statements for queries of so many ranked terms."""

    def __init__(self, kind: str, keys: Of, rows: Of, terms: int) -> None:
        found = matching(kind, terms)
        self.keys: Statement[Any] = Statement(_page(keys(found), found))
        """The keys of a page, with their scores."""
        best = _page(keys(found), found).subquery("best")
        self.whole: Statement[Any] = Statement(_ordered(rows(best), best))
        """The rows of a page."""
        few = select(found.c.key, found.c.score).order_by(found.c.score.desc(), found.c.key)
        first = few.limit(_hidden("window_")).cte("few")
        best = _page(keys(first), first).subquery("best")
        seen = select(func.count()).select_from(first).scalar_subquery().label("seen")
        self.first: Statement[Any] = Statement(_ordered(rows(best), best).add_columns(seen))
        """The rows of a page that is among the first few documents, and how many these are."""


class Ranking:
    """Statements for pages of what a query finds in one table.

    ``keys`` selects the key and the score of what is found and passes the filters; ``rows`` the rows of such keys, with
    the score as the last column. What is handed to them has the columns ``key`` and ``score``. ``filtered`` tells
    whether there are filters that leave most out.
    """

    def __init__(self, kind: str, keys: Of, rows: Of, *, filtered: bool) -> None:
        self._kind, self._keys, self._rows = kind, keys, rows
        self._filtered = filtered
        self._statements: dict[int, _Statements] = {}

    def page(self, session: Session, query: Query, filters: Mapping[str, object], limit: int, offset: int) -> list[Row]:
        """Return the rows of a page, the best first, ties by key; each with its score at the end.

        The query must be one that the index answers by itself.
        """
        statements = self._of(query)
        values = {**filters, **binds(query), "limit_": limit, "offset_": offset}
        window = offset + limit + SPARE
        if not self._filtered and window <= FEW:
            rows = session.all(statements.first, {**values, "window_": window})
            if len(rows) == limit or (rows and rows[0][-1] < window):
                return [row[:-1] for row in rows]
        return session.all(statements.whole, values)

    def every(self, session: Session, query: Query, filters: Mapping[str, object]) -> list[Row]:
        """Return the rows of all that is found."""
        return session.all(self._of(query).whole, {**filters, **binds(query), "limit_": ALL, "offset_": 0})

    def keys(
        self, session: Session, query: Query, filters: Mapping[str, object], limit: int
    ) -> list[tuple[str, float]]:
        """Return the keys of the best documents with their scores; the index must answer the query by itself."""
        return session.all(self._of(query).keys, {**filters, **binds(query), "limit_": limit, "offset_": 0})

    def _of(self, query: Query) -> _Statements:
        terms = count_terms(query)
        made = self._statements.get(terms)
        if made is None:
            made = self._statements[terms] = _Statements(self._kind, self._keys, self._rows, terms)
        return made


def _page(keys: Select[Any], found: FromClause) -> Select[Any]:
    ranked = keys.order_by(found.c.score.desc(), found.c.key)
    return ranked.limit(_hidden("limit_")).offset(_hidden("offset_"))


def _hidden(name: str) -> Any:
    """Return the value of this name such that PostgreSQL does not plan anew for it, as in ``matching``."""
    return select(bindparam(name, type_=Int64())).scalar_subquery()


def _ordered(rows: Select[Any], best: FromClause) -> Select[Any]:
    return rows.order_by(best.c.score.desc(), best.c.key)
