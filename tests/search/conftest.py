"""A bare use of the index, without a domain: documents of a kind, and what a query finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import pytest
from sqlalchemy import select

from agentos_store import Store
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.operation import Blocking, Repository, reads, writes
from agentos_store.search.index import DOCUMENTS, put, remove
from agentos_store.search.matching import binds, count_terms, matching
from agentos_store.search.models import SearchDocument
from agentos_store.search.parts import indexed
from agentos_store.search.query import parse


@cache
def _search(kind: str, terms: int) -> Statement[Any]:
    found = matching(kind, terms)
    return Statement(select(found.c.key, found.c.score).order_by(found.c.score.desc(), found.c.key))


_ALL: Statement[SearchDocument] = Statement(
    select(DOCUMENTS).order_by(DOCUMENTS.c.key, DOCUMENTS.c.part), returns=SearchDocument
)


class Index(Repository[Blocking]):
    name = "index"

    @writes
    def put(self, session: Session, texts: Mapping[str, str | Sequence[str]], kind: str = "memory") -> None:
        put(session, kind, [indexed(key, [text] if isinstance(text, str) else text) for key, text in texts.items()])

    @writes
    def remove(self, session: Session, *keys: str, kind: str = "memory") -> None:
        remove(session, kind, keys)

    @reads
    def ranked(self, session: Session, query: str, kind: str = "memory") -> list[tuple[str, float]]:
        asked = parse(query)
        return session.all(_search(kind, count_terms(asked)), binds(asked)) if asked else []

    def find(self, query: str, kind: str = "memory") -> list[str]:
        return sorted(key for key, _ in self.ranked(query, kind))

    @reads
    def cast(self, session: Session, vector: str) -> Any:
        connection: Any = session._connection
        (found,) = connection.raw.execute("SELECT CAST(%s AS tsvector)::text", (vector,)).fetchone()
        return found

    @reads
    def rows(self, session: Session) -> list[SearchDocument]:
        return session.all(_ALL)


@pytest.fixture(scope="module")
def index_type() -> type[Index]:
    return Index


@pytest.fixture
def index(store: Store) -> Index:
    return store.bind(Index)
