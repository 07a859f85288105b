"""What an index would answer of one document, without an index: whether a query finds it, and its score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentos_store.engine.sqlite.relevance import relevance
from agentos_store.search.columns import RankedTerms
from agentos_store.search.parts import indexed
from agentos_store.search.query import Query


def scanner(asked: Query) -> Callable[[Sequence[str]], float | None]:
    """Return a function from a document's texts to its score, the same as an index gives it; None for no hit."""
    terms = str(RankedTerms().write_sqlite(asked.indexed))

    def scan(texts: Sequence[str]) -> float | None:
        if not asked.matches(texts):
            return None
        document = indexed("", texts)
        # Tokens that two parts share count in both, as they do in an index.
        return relevance(" ".join(document.parts).encode(), document.length, terms)

    return scan
