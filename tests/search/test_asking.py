"""All searches refuse the same."""

from __future__ import annotations

from typing import Any

import pytest

from agentos_store import InvalidValueError, Settings, Store


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


def test_the_limit_of_payloads_is_for_what_is_given_and_not_for_what_the_index_makes_of_it(url: str) -> None:
    with Store.open(url, settings=Settings.load(max_payload=1024)) as store:
        # Its tokens take twice the bytes.
        text = "天气很好" * 80
        session_id = store.sessions.create().id
        store.messages.append(session_id, role="user", content=text)
        store.memory.remember(text, type="decision")
        for search in (store.messages.search, store.memory.search):
            assert len(search("天气")) == 1
            assert search(" ".join(f"word{number}" for number in range(200))) == []
