"""What every search is asked in the same way: its words, which page, and how a snippet looks."""

from __future__ import annotations

from agentos_store.errors import InvalidValueError
from agentos_store.search.query import Query, parse
from agentos_store.types import check_whole

LARGEST_LIMIT = 1000
"""Hits of a page, and how far into them a page may begin."""


def ask(query: object) -> Query:
    """Return what a text asks for; any text asks for something or for nothing."""
    if not isinstance(query, str):
        raise InvalidValueError("query", "is no text")
    return parse(query)


def check_page(limit: object, offset: object) -> None:
    """Refuse a page that there is not."""
    check_whole("limit", limit, 1, LARGEST_LIMIT)
    check_whole("offset", offset, 0, LARGEST_LIMIT)


def check_look(marks: object, width: object) -> None:
    """Refuse marks and widths that make no snippet."""
    check_whole("width", width, 1, 10_000)
    if not isinstance(marks, tuple) or len(marks) != 2 or not all(isinstance(mark, str) for mark in marks):
        raise InvalidValueError("marks", "must be two texts")
