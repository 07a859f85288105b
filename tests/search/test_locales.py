"""What is found does not depend on the locale of the PostgreSQL database."""

from __future__ import annotations

import random
from contextlib import closing
from typing import Any

import pytest

from agentos_store import Store, ensure_migrations
from agentos_store.search.query import parse
from agentos_store.testing import Databases
from agentos_store.testing.postgres import connect

NAME = "agentos_test_locale"


WORDS = [
    "天气",
    "天",
    "很好",
    "图书馆",
    "데이터",
    "색",
    "データ",
    "Ёлка",
    "İ",
    "ß",
    "ﬁ",
    "ｆｏｏ",
    "c++",
    "é",
    "a",
    "ab",
    "用a写",
]


def assert_scanned(index: Any) -> None:
    """Texts and queries in all scripts: what is found is what a plain scan by the tokenizer's rules finds."""
    chance = random.Random(7)
    texts = {
        f"d{number:03}": "".join(chance.choice(WORDS) + chance.choice(["", " ", "。", "-"]) for _ in range(8))
        for number in range(60)
    }
    index.put(texts)
    asked = ["".join(chance.choices("天气很好图书馆데이터색ab", k=length)) for length in (1, 2, 3, 4, 5, 6) * 5]
    asked += [" ".join(chance.choices(WORDS, k=length)) for length in (1, 2, 3, 4, 5, 6) * 5]
    for query in [*WORDS, *asked]:
        wanted = sorted(key for key, text in texts.items() if parse(query).matches([text]))
        assert index.find(query) == wanted, query


@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "en_US.UTF-8", "tr_TR.UTF-8"])
def test_a_search_finds_the_same_under_every_locale(postgres_url: str, index_type: type[Any], locale: str) -> None:
    from sqlalchemy import make_url

    if not Databases(postgres_url).can_create():
        pytest.skip("the user may not create databases")
    url = make_url(postgres_url).set(database=f"{NAME}_{locale.partition('.')[0].lower()}")
    with closing(connect(postgres_url)) as server:
        server.execute(f"DROP DATABASE IF EXISTS {url.database}".encode())
        try:
            server.execute(
                f"CREATE DATABASE {url.database} TEMPLATE template0 ENCODING 'UTF8' LOCALE '{locale}'".encode()
            )
        except Exception as error:
            if "locale" not in str(error):
                raise
            pytest.skip(f"the server does not know the locale {locale}")
        try:
            shown = url.render_as_string(hide_password=False)
            ensure_migrations(shown)
            with Store.open(shown) as store:
                index = store.bind(index_type)
                index.put({"a": "今天天气很好 Ёлка İstanbul", "b": "데이터 ΣΊΣΥΦΟΣ", "c": "天 straße I", "A": "天气"})
                asked = ["天气", "天", "елка", "istanbul", "데이터", "σίσυφος", "STRASSE", "i", "好 İstanbul"]
                assert [[key for key, _ in index.ranked(query)] for query in asked] == [
                    ["A", "a"],
                    ["A", "c", "a"],
                    ["a"],
                    ["a"],
                    ["b"],
                    ["b"],
                    ["c"],
                    ["c"],
                    ["a"],
                ]
                index.remove("a", "b", "c", "A")
                assert_scanned(index)
        finally:
            server.execute(f"DROP DATABASE {url.database} WITH (FORCE)".encode())
