"""JSON texts of the source, read as strictly as the store will take their values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

DEPTH = 500
"""Lists and objects may be nested this deep in the store."""

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""U+0000 and lone surrogates, which no plain text of the store holds."""


def parse_json(text: str) -> tuple[JSON, bool]:
    """Return the value, and whether an object in it names a key twice, of which the last one counts.

    Raises ValueError for what is no JSON: NaN, infinities, numbers too large for a float, and nesting beyond 500 too.
    """
    repeated = False

    def build(pairs: Sequence[tuple[str, JSON]]) -> dict[str, JSON]:
        nonlocal repeated
        built = dict(pairs)
        repeated = repeated or len(built) < len(pairs)
        return built

    try:
        value: JSON = json.loads(text, object_pairs_hook=build, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if text.count("[") + text.count("{") > DEPTH and _deeper_than(value, DEPTH):
        raise ValueError("nested too deep")
    return value, repeated


def scrub(value: JSON) -> tuple[JSON, bool]:
    """Return the value with U+FFFD for each character that plain JSON refuses, and whether there was one."""
    if isinstance(value, str):
        clean = UNSTORABLE.sub("\ufffd", value)
        return clean, clean != value
    if isinstance(value, list):
        items: list[JSON] = []
        any_changed = False
        for item in value:
            clean_item, changed = scrub(item)
            items.append(clean_item)
            any_changed = any_changed or changed
        return items, any_changed
    if isinstance(value, dict):
        scrubbed: dict[str, JSON] = {}
        any_changed = False
        for key, item in value.items():
            clean_item, changed = scrub(item)
            clean_key = UNSTORABLE.sub("\ufffd", key)
            any_changed = any_changed or changed or clean_key != key
            # Two keys may become one; both values stay.
            while clean_key in scrubbed or (clean_key != key and clean_key in value):
                clean_key += "\ufffd"
            scrubbed[clean_key] = clean_item
        return scrubbed, any_changed
    return value, False


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        raise ValueError("a number that no float holds")
    return number


def _deeper_than(value: JSON, limit: int) -> bool:
    level: list[JSON] = [value]
    for _ in range(limit):
        inner: list[JSON] = []
        for holder in level:
            if isinstance(holder, dict):
                inner.extend(holder.values())
            elif isinstance(holder, list):
                inner.extend(holder)
        level = [item for item in inner if isinstance(item, (dict, list))]
        if not level:
            return False
    return True
