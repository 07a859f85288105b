"""Lists, which AgentOS writes as JSON, and in places as Python does."""

from __future__ import annotations

import ast
from typing import Final, cast

from agentos_store.importers.jsontext import JSON, parse_json
from agentos_store.importers.row import Row

_NO_LITERAL: Final = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


def read_list(row: Row, column: str) -> list[JSON]:
    """Return a JSON array; a Python literal of one is read too, and whatever else it is becomes the only element."""
    values = _values(row, column)
    plain = [cast("JSON", value) if _is_json(value) else repr(value) for value in values]
    if plain != values:
        row.repaired(f"{column}: what was no JSON became text")
    return cast("list[JSON]", row.plain(column, plain))


def read_tags(row: Row, column: str) -> list[str]:
    """Return a JSON array of texts; a Python literal of one is read too, and whatever else it is becomes texts."""
    values = _values(row, column)
    if not all(isinstance(tag, str) for tag in values):
        row.repaired(f"{column}: what was no text became one")
    return cast("list[str]", row.plain(column, [tag if isinstance(tag, str) else repr(tag) for tag in values]))


def _values(row: Row, column: str) -> list[object]:
    text = row.text(column)
    if text is None or not text.strip():
        return []
    value: object
    try:
        value, _ = parse_json(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except _NO_LITERAL:
            row.repaired(f"{column}: it is no JSON; its text became the only one")
            return [text]
        row.repaired(f"{column}: it was a Python literal")
    if isinstance(value, (tuple, set, frozenset)):
        return sorted(value, key=repr) if isinstance(value, (set, frozenset)) else list(value)
    if not isinstance(value, list):
        row.repaired(f"{column}: it is no list; it became the only one")
        return [] if value is None else [value]
    return value


def _is_json(value: object) -> bool:
    """Tell whether a Python literal is JSON, so that it need not become text."""
    if isinstance(value, list):
        return all(map(_is_json, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(each) for key, each in value.items())
    if isinstance(value, float):
        return abs(value) < float("inf")
    return value is None or isinstance(value, (str, int))
