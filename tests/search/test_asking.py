"""All searches refuse the same."""

from __future__ import annotations

from typing import Any

import pytest

from agentos_store import InvalidValueError, Store


@pytest.mark.parametrize("domain", ["memory", "kb", "messages"])
def test_what_makes_no_search_is_refused_with_its_name(store: Store, domain: str) -> None:
    search: Any = getattr(store, domain).search
    for name, value in [
        *(("query", each) for each in (5, b"a", ["a"])),
        *(("limit", each) for each in (0, 1001, True, "1", 1.0)),
        *(("offset", each) for each in (-1, 1001, None)),
        *(("width", each) for each in (0, 10_001, None)),
        *(("marks", each) for each in (None, ("",), "<>", ("a", 1), ("a", "b", "c"))),
    ]:
        with pytest.raises(InvalidValueError) as caught:
            search(**{"query": "a", name: value})
        assert caught.value.name == name
    assert search("a", marks=("", ""), limit=1000, offset=1000, width=1) == []
