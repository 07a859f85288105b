"""Asking the index: a table of keys and scores that a domain joins with its own.

What it filters by and how it pages are the domain's. Scores are the same on both databases, to the last bit, so that
the order is the same too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import TableValuedAlias, bindparam, column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from agentos_store.search.columns import QueryPieces, RankedTerms, WholeQuery
from agentos_store.search.models import KINDS, SearchDocument, family_of
from agentos_store.search.query import Query
from agentos_store.types import Float64, Identifier, Int64

_DOCUMENTS = SearchDocument.table()


class _Matching(FunctionElement[Any]):
    """The keys of the documents of a kind that a query finds, each once, with their scores."""

    inherit_cache = True
    name = "matching"

    def __init__(self, kind: str) -> None:
        # These go into the statement's text.
        assert kind in KINDS, kind
        self.kind = kind
        self.family, self.family_of_parts = family_of(kind, 1), family_of(kind, 2)
        super().__init__(
            bindparam("search_whole", type_=WholeQuery(self.family)),
            bindparam("search_pieces", type_=QueryPieces(self.family_of_parts)),
            bindparam("search_required", type_=Int64()),
            bindparam("search_terms", type_=RankedTerms()),
            bindparam("search_prefixes", type_=Int64()),
        )


def matching(kind: str) -> TableValuedAlias:
    """Return the table of what a query finds: ``key`` and ``score``, the greater the better.

    Every word weighs the same, for all of them are in every document that is found; a prefix counts once.
    """
    found = _Matching(kind).table_valued(column("key", Identifier()), column("score", Float64()))
    return found.alias("found")


def binds(query: Query) -> Mapping[str, object]:
    """Return the values that ``matching`` takes; the query must ask for something."""
    required = query.indexed.required
    return {
        "search_whole": query,
        "search_pieces": query,
        "search_required": len(required),
        "search_terms": query,
        "search_prefixes": sum(phrase.prefix for phrase in required),
    }


# A document in parts is found when each phrase is in one of its parts and none that is excluded is in any.
_OF_PARTS = "GROUP BY key HAVING count(*) = {required} AND max(number) <= {required}"


@compiles(_Matching, "sqlite")
def _matching_sqlite(element: _Matching, compiler: Any, **options: Any) -> str:
    whole, pieces, required, terms, prefixes = (compiler.process(clause, **options) for clause in element.clauses)
    return f"""(
 SELECT d.key AS key, agentos_relevance(d.tokens, d.length, {terms}, {prefixes}) AS score
 FROM search_index AS f CROSS JOIN search_documents AS d ON d.doc_id = f.rowid WHERE f.search_index MATCH {whole}
 UNION ALL
 SELECT long.key, agentos_relevance(group_concat(d.tokens, ' '), max(d.length), {terms}, {prefixes}) FROM (
  SELECT key FROM (
   SELECT DISTINCT d.key AS key, each.key + 1 AS number
   FROM json_each({pieces}) AS each CROSS JOIN search_index AS f CROSS JOIN search_documents AS d ON d.doc_id = f.rowid
   WHERE f.search_index MATCH each.value
  ) {_OF_PARTS.format(required=required)}
 ) AS long CROSS JOIN search_documents AS d ON d.kind = '{element.kind}' AND d.key = long.key GROUP BY long.key)"""


_MOST_OCCURRENCES = 64
"""As on SQLite, in ``engine/sqlite/relevance.py``, where the formula stands."""


def _bounds() -> Iterator[float]:
    """Yield the bounds between what ``ts_rank`` gives for 0, 1, 2, … occurrences of a lexeme."""
    rank = 0.0
    for times in range(1, _MOST_OCCURRENCES + 1):
        step = 6 / math.pi**2 / times**2
        yield rank + step / 2
        rank += step


_TIMES = (
    "width_bucket(CAST(ts_rank('{1,1,1,1}', d.tokens, t.term) AS double precision),"
    f" CAST('{{{','.join(map(repr, _bounds()))}}}' AS double precision[]))"
)
"""How often the term is in the tokens, as far as it makes a difference."""


def _weight(times: str, length: str) -> str:
    norm = f"(CAST(0.3125 AS double precision) + {length} * CAST(0.0078125 AS double precision))"
    return f"trunc(CAST(2359296.0 AS double precision) * {times} / ({times} + {norm}))"


def _score(weights: str, length: str, prefixes: str) -> str:
    # Whole numbers, though of a type that has no others: their sum is exact, and cheaper than one of numerics.
    return f"(coalesce({weights}, 0) + {prefixes} * {_weight('1', length)}) / CAST(1048576.0 AS double precision)"


@compiles(_Matching, "postgresql")
def _matching_postgresql(element: _Matching, compiler: Any, **options: Any) -> str:
    whole, pieces, required, terms, prefixes = (compiler.process(clause, **options) for clause in element.clauses)
    documents = compiler.process(_DOCUMENTS, asfrom=True)
    weights = f"(SELECT sum({_weight(_TIMES, 'd.length')}) FROM unnest({terms}) AS t (term))"
    # Within a lateral query the index is searched for each piece, whatever the planner thinks of their number.
    return f"""(
 SELECT d.key AS key, {_score(weights, "d.length", prefixes)} AS score
 FROM {documents} AS d WHERE d.family = '{element.family}' AND d.tokens @@ {whole}
 UNION ALL
 SELECT key, {_score(f"sum({_weight('tf', 'length')})", "length", prefixes)} FROM (
  SELECT long.key AS key, long.length AS length, least(coalesce(sum({_TIMES}), 0), {_MOST_OCCURRENCES}) AS tf
  FROM (
   SELECT key, max(length) AS length FROM (
    SELECT DISTINCT p.key AS key, p.length AS length, q.number AS number
    FROM unnest({pieces}) WITH ORDINALITY AS q (query, number) CROSS JOIN LATERAL (
     SELECT d.key AS key, d.length AS length FROM {documents} AS d
     WHERE d.family = '{element.family_of_parts}' AND d.tokens @@ q.query OFFSET 0
    ) AS p
   ) AS found {_OF_PARTS.format(required=required)}
  ) AS long CROSS JOIN LATERAL (
   SELECT d.tokens AS tokens FROM {documents} AS d WHERE d.kind = '{element.kind}' AND d.key = long.key OFFSET 0
  ) AS d LEFT JOIN unnest({terms}) WITH ORDINALITY AS t (term, number) ON true GROUP BY long.key, long.length, t.number
 ) AS counted GROUP BY key, length)"""
