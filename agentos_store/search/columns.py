"""How tokens and queries are written for each database."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from agentos_store.errors import InvalidValueError
from agentos_store.search.query import Phrase, Query
from agentos_store.search.tokenizer import is_run
from agentos_store.types import Text
from agentos_store.types.gate import Decode, Encode, Gate, PostgreSQLType, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine


class Tokens(Text):
    """The tokens of a part of a document, a space between two.

    SQLite stores the text, which FTS5 splits at the spaces and nowhere else; PostgreSQL stores ``TSVECTOR``, made here
    and never by the server's own parser, with the places of the tokens.
    """

    cache_ok = True
    is_derived = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Store what the index is made of."""
        return PostgreSQLType("TSVECTOR") if dialect.name == "postgresql" else sa.TEXT()

    def writer(self, dialect: Dialect) -> Callable[[str], object] | None:
        """Write the lexemes with their places for PostgreSQL."""
        return _write_vector if dialect.name == "postgresql" else None

    def decoder(self, dialect: Dialect) -> Decode | None:
        """Put PostgreSQL's lexemes back into order."""
        return _read_vector if dialect.name == "postgresql" else None


_LEXEME = re.compile(r"'((?:[^']|'')*)':([0-9,]+)")


def _quote(term: str) -> str:
    return "'" + term.replace("\\", "\\\\").replace("'", "''") + "'"


def _write_vector(tokens: str) -> str:
    if not tokens:
        return ""
    if "'" in tokens or "\\" in tokens:
        tokens = tokens.replace("\\", "\\\\").replace("'", "''")
    # A lexeme that stands in several places is named once for each; the server puts them together in any case.
    return " ".join([f"'{term}':{place}" for place, term in enumerate(tokens.split(" "), 1)])


def _read_vector(vector: str) -> str:
    placed = [
        (int(place), term.replace("''", "'").replace("\\\\", "\\"))
        for term, places in _LEXEME.findall(vector)
        for place in places.split(",")
    ]
    return " ".join(term for _, term in sorted(placed))


class TokensOfParts(Gate[Any]):
    """The tokens of all parts of a document, for a statement that indexes them together on PostgreSQL."""

    impl = sa.Text
    cache_ok = True
    is_derived = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Cast it to an array of what is stored."""
        return PostgreSQLType("TSVECTOR[]") if dialect.name == "postgresql" else sa.TEXT()

    def strict_encoder(self, dialect: Dialect) -> Encode:
        """Write each part."""
        encode = Tokens().encoder(dialect)
        return lambda value, name: [encode(part, name) for part in cast("Sequence[str]", value)]


class _Asked(Gate[Query]):
    """A query in the database's own language; nothing in it but tokens, which hold no character that means anything."""

    impl = sa.Text
    cache_ok = True
    is_derived = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Cast it on PostgreSQL to what it is."""
        return PostgreSQLType(self.postgresql_type) if dialect.name == "postgresql" else sa.TEXT()

    postgresql_type = "TSQUERY"

    def check(self, value: object, name: str) -> Query:
        """Let a query pass that asks for something."""
        if not isinstance(value, Query) or not value:
            raise InvalidValueError(name, f"is of type {kind_of(value)}, not a query that asks for something")
        return value.indexed

    def strict_encoder(self, dialect: Dialect) -> Encode:
        """Write it in the dialect's language."""
        write = self.write_postgresql if dialect.name == "postgresql" else self.write_sqlite
        return lambda value, name: write(self.check(value, name))

    def write_sqlite(self, query: Query) -> object:
        """Return what FTS5's MATCH takes."""
        raise NotImplementedError

    def write_postgresql(self, query: Query) -> object:
        """Return a tsquery, or an array of them."""
        raise NotImplementedError


class WholeQuery(_Asked):
    """The whole query, for documents of one part; ``family`` is theirs."""

    cache_ok = True

    def __init__(self, family: str) -> None:
        super().__init__()
        self.family = family

    def write_sqlite(self, query: Query) -> object:
        """Ask for the family, all that is required and nothing that is excluded."""
        wanted = " AND ".join(map(_fts5, query.required))
        if query.excluded:
            wanted = f"({wanted}) NOT ({' OR '.join(map(_fts5, query.excluded))})"
        return _fts5_in(self.family, wanted)

    def write_postgresql(self, query: Query) -> object:
        """Ask for all that is required and nothing that is excluded."""
        return " & ".join([*map(_tsquery, query.required), *(f"!{_tsquery(each)}" for each in query.excluded)])


class RankedTerms(_Asked):
    """The tokens that a text's rank depends on, each once."""

    cache_ok = True
    postgresql_type = "TSQUERY[]"

    def write_sqlite(self, query: Query) -> object:
        """Return what ``relevance`` takes: a JSON array of the number of prefixes, and of the texts to count."""
        # A pair is in no other token: each of a run is a pair or one character, and no other has a character of runs.
        texts = [term if len(term) == 2 and is_run(term) else f" {term} " for term in ranked_terms(query)]
        return json.dumps([count_prefixes(query), *texts], ensure_ascii=False)

    def write_postgresql(self, query: Query) -> object:
        """Return an array of tsqueries."""
        return _array(map(_quote, ranked_terms(query)))


class QueryPieces(_Asked):
    """The phrases of a query one by one, the excluded ones last, for documents of many parts."""

    cache_ok = True
    postgresql_type = "TSQUERY[]"

    def __init__(self, family: str) -> None:
        super().__init__()
        self.family = family

    def write_sqlite(self, query: Query) -> object:
        """Return a JSON array of what MATCH takes."""
        return json.dumps([_fts5_in(self.family, _fts5(each)) for each in _all(query)])

    def write_postgresql(self, query: Query) -> object:
        """Return an array of tsqueries."""
        return _array(map(_tsquery, _all(query)))


MOST_RANKED = 8
"""Tokens that are counted for a text's rank."""


def ranked_terms(query: Query) -> list[str]:
    """Return the tokens that a text's rank depends on, of what an index is asked."""
    found: dict[str, None] = {}
    for phrase in query.required:
        found |= dict.fromkeys(phrase.terms[:-1] if phrase.prefix else phrase.terms)
    return list(found)[:MOST_RANKED]


def count_prefixes(query: Query) -> int:
    """Return how many beginnings of words an index is asked for."""
    return sum(phrase.prefix for phrase in query.required)


def _array(queries: Iterable[str]) -> str:
    """Return PostgreSQL's text for an array, which psycopg takes four times as long to make of a list."""
    quoted = [query.replace("\\", "\\\\").replace('"', '\\"') for query in queries]
    return "{" + ",".join([f'"{query}"' for query in quoted]) + "}"


def _all(query: Query) -> Iterable[Phrase]:
    return (*query.required, *query.excluded)


def _fts5(phrase: Phrase) -> str:
    return f'"{" ".join(phrase.terms)}"{" *" if phrase.prefix else ""}'


def _fts5_in(family: str, wanted: str) -> str:
    return f'family : "{family}" AND tokens : ({wanted})'


def _tsquery(phrase: Phrase) -> str:
    tokens = [_quote(term) for term in phrase.terms]
    if phrase.prefix:
        tokens[-1] += ":*"
    return f"({' <-> '.join(tokens)})"
