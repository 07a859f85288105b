"""Values that the types take, as hypothesis makes them."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
"""Everything that PostgreSQL's text holds."""

wild_texts = st.text(st.one_of(st.characters(), st.sampled_from("\0\ud800\udfff\\u0\"' e+16"))).filter(
    lambda text: not any("\ud800" <= a <= "\udbff" and "\udc00" <= b <= "\udfff" for a, b in zip(text, text[1:]))
)
"""Everything that exact JSON holds."""

floats = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1e15, 1e16, 1e22, 1e23, 1e308, 5e-324, -0.0, 1e-7, 0.1, 123456789012345680.0]),
)
ints = st.one_of(st.integers(), st.integers(-(10**60), 10**60), st.just(2**80))


def json_values(text: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    """Documents whose strings and keys come from the strategy."""
    scalars = st.one_of(st.none(), st.booleans(), ints, floats, text)
    return st.recursive(
        scalars,
        lambda children: st.lists(children, max_size=4) | st.dictionaries(text, children, max_size=4),
        max_leaves=12,
    )


zones = st.sampled_from([dt.UTC, *map(ZoneInfo, ("UTC", "Asia/Kathmandu", "America/New_York", "Pacific/Kiritimati"))])
instants = st.datetimes(dt.datetime(1, 1, 4), dt.datetime(9999, 12, 28), timezones=zones)  # noqa: DTZ001  the bounds


def nested(depth: int, *, objects: bool = False) -> Any:
    """Return arrays or objects within each other, built without recursion."""
    value: Any = {} if objects else []
    for _ in range(depth - 1):
        value = {"k": value} if objects else [value]
    return value


def same(left: Any, right: Any) -> bool:
    """Tell whether two documents are equal with the types of everything in them."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
