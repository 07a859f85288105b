"""Asking the index: a table of keys and scores that a domain joins with its own.

What it filters by and how it pages are the domain's. Scores are the same on both databases, to the last bit, so that
the order is the same too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import TableValuedAlias, bindparam, column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from agentos_store.search.columns import QueryPieces, RankedTerms, WholeQuery, count_prefixes, ranked_terms
from agentos_store.search.models import KINDS, SearchDocument, family_of
from agentos_store.search.query import Query
from agentos_store.types import Float64, Identifier, Int64

_DOCUMENTS = SearchDocument.table()


class _Matching(FunctionElement[Any]):
    """The keys of the documents of a kind that a query finds, each once, with their scores."""

    inherit_cache = True
    name = "matching"

    def __init__(self, kind: str, terms: int) -> None:
        # These go into the statement's text.
        assert kind in KINDS, kind
        self.kind = kind
        self.terms = terms
        self.family, self.family_of_parts = family_of(kind, 1), family_of(kind, 2)
        super().__init__(
            bindparam("search_whole", type_=WholeQuery(self.family)),
            bindparam("search_pieces", type_=QueryPieces(self.family_of_parts)),
            bindparam("search_required", type_=Int64()),
            bindparam("search_terms", type_=RankedTerms()),
            bindparam("search_prefixes", type_=Int64()),
        )


def matching(kind: str, terms: int) -> TableValuedAlias:
    """Return the table of what a query of so many ranked terms finds: ``key`` and ``score``, the greater the better.

    Every word weighs the same, for all of them are in every document that is found; a prefix counts once.
    """
    found = _Matching(kind, terms).table_valued(column("key", Identifier()), column("score", Float64()))
    return found.alias("found")


def count_terms(query: Query) -> int:
    """Return how many terms rank what a query finds."""
    return len(ranked_terms(query.indexed))


def binds(query: Query) -> Mapping[str, object]:
    """Return the values that ``matching`` takes; the query must ask for something."""
    return {
        "search_whole": query,
        "search_pieces": query,
        "search_required": len(query.indexed.required),
        "search_terms": query,
        "search_prefixes": count_prefixes(query.indexed),
    }


# A document in parts is found when each phrase is in one of its parts and none that is excluded is in any.
_OF_PARTS = "GROUP BY key HAVING count(*) = {required} AND max(number) <= {required}"


@compiles(_Matching, "sqlite")
def _matching_sqlite(element: _Matching, compiler: Any, **options: Any) -> str:
    whole, pieces, required, terms, _ = (compiler.process(clause, **options) for clause in element.clauses)
    return f"""(
 SELECT d.key AS key, agentos_relevance(CAST(d.tokens AS BLOB), d.length, {terms}) AS score
 FROM search_index AS f CROSS JOIN search_documents AS d ON d.doc_id = f.rowid WHERE f.search_index MATCH {whole}
 UNION ALL
 SELECT long.key, agentos_relevance(CAST(group_concat(d.tokens, ' ') AS BLOB), max(d.length), {terms}) FROM (
  SELECT key FROM (
   SELECT DISTINCT d.key AS key, each.key + 1 AS number
   FROM json_each({pieces}) AS each CROSS JOIN search_index AS f CROSS JOIN search_documents AS d ON d.doc_id = f.rowid
   WHERE f.search_index MATCH each.value
  ) {_OF_PARTS.format(required=required)}
 ) AS long CROSS JOIN search_documents AS d ON d.kind = '{element.kind}' AND d.key = long.key GROUP BY long.key)"""


_MOST_OCCURRENCES = 64
"""As on SQLite, in ``engine/sqlite/relevance.py``, where the formula stands."""


def _times(term: str) -> str:
    """Return how often a term is in the tokens, made of what ``ts_rank`` gives for it.

    That is 6 / pi^2 times the sum of 1 / i^2 for i from 1 to the number, in 32 bits, and what is missing to 1 is about
    6 / pi^2 / (number + 1/2): near enough for more occurrences than a part can have.
    """
    rank = f"CAST(ts_rank('{{1,1,1,1}}', d.tokens, {term}) AS float8)"
    return f"round(float8 '0.6079271018540267' / (1 - {rank}) - float8 '0.5')"


def _weight(times: str, length: str) -> str:
    norm = f"(float8 '0.3125' + {length} * float8 '0.0078125')"
    return f"trunc(float8 '2359296' * (1 - {norm} / ({times} + {norm})))"


def _score(weights: str, length: str, prefixes: str) -> str:
    # Whole numbers, though of a type that has no others: their sum is exact, and cheaper than one of numerics.
    return f"({weights} + {prefixes} * {_weight('1', length)}) / float8 '1048576'"


@compiles(_Matching, "postgresql")
def _matching_postgresql(element: _Matching, compiler: Any, **options: Any) -> str:
    # Hidden from the planner in queries of their own: its guess is then the same for every value, so that it plans
    # once, where planning takes as long as searching; and the index is searched in any case.
    given = (f"(SELECT {compiler.process(clause, **options)})" for clause in element.clauses)
    whole, pieces, required, terms, prefixes = given
    documents = compiler.process(_DOCUMENTS, asfrom=True)
    # Term by term: a query over an array of them, run for each document, costs twice as much as counting them does.
    counted = [f"least({_times(f'{terms}[{n}]')}, {_MOST_OCCURRENCES})" for n in range(1, element.terms + 1)]
    weights = " + ".join(_weight(times, "d.length") for times in counted) or "0"
    # Within a lateral query the index is searched for each piece, whatever the planner thinks of their number.
    return f"""(
 SELECT d.key AS key, {_score(weights, "d.length", prefixes)} AS score
 FROM {documents} AS d WHERE d.family = '{element.family}' AND d.tokens @@ {whole}
 UNION ALL
 SELECT key, {_score(f"coalesce(sum({_weight('tf', 'length')}), 0)", "length", prefixes)} FROM (
  SELECT long.key AS key, long.length AS length,
   least(coalesce(sum({_times("t.term")}), 0), {_MOST_OCCURRENCES}) AS tf
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
