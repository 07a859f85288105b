"""PostgreSQL's containment of JSON documents, for databases that have none."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import lru_cache

from agentos_store.types.json_text import on_empty_stack

# Numbers are compared as they are written: as floats, 2**53 and 2**53 + 1 would be equal.
_decode = json.JSONDecoder(parse_float=Decimal).decode


def json_contains(document_text: str | None, pattern_text: str | None) -> int | None:
    """Tell, as 1 or 0, whether the document contains the pattern as PostgreSQL's ``jsonb @>`` would; None for NULL.

    An object contains the keys of another with values that are contained; an array contains the elements of another,
    in any order and any number; scalars are equal, numbers by value. At the top level only, an array also contains a
    scalar that is one of its elements.
    """
    if document_text is None or pattern_text is None:
        return None
    try:
        return int(_contains_at_top(document_text, pattern_text))
    except RecursionError:
        return int(on_empty_stack(lambda texts: _contains_at_top(*texts), (document_text, pattern_text)))


def _contains_at_top(document_text: str, pattern_text: str) -> bool:
    document, pattern = _decode(document_text), _decode_pattern(pattern_text)
    if isinstance(document, list) and not isinstance(pattern, dict | list):
        pattern = [pattern]
    return _contains(document, pattern)


@lru_cache(maxsize=16)
def _decode_pattern(text: str) -> object:
    """Decode a pattern once for all the rows that a query looks at; the value is never changed."""
    return _decode(text)


def _contains(document: object, pattern: object) -> bool:
    # Loops, not all() and any(): a generator would cost a second level of the stack for each level of the document.
    if isinstance(pattern, dict):
        if not isinstance(document, dict):
            return False
        for key, value in pattern.items():  # noqa: SIM110
            if key not in document or not _contains(document[key], value):
                return False
        return True
    if isinstance(pattern, list):
        if not isinstance(document, list):
            return False
        for value in pattern:
            for element in document:
                if _contains(element, value):
                    break
            else:
                return False
        return True
    if isinstance(document, bool) or isinstance(pattern, bool):
        return document is pattern
    return document == pattern
