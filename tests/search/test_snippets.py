from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentos_store.search.query import parse
from agentos_store.search.snippets import snippet

MARKED = re.compile("«(.*?)»")


def shown(texts: str | list[str], query: str, **options: object) -> str:
    return snippet([texts] if isinstance(texts, str) else texts, parse(query), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "query", "expected"),
    [
        ("今天北京天气很好", "天气", "今天北京«天气»很好"),
        ("今天北京天气很好", "气", "今天北京天«气»很好"),
        ("数据库迁移，迁移数据库", "数据库", "«数据库»迁移，迁移«数据库»"),
        ("我用Python写代码", "用python写", "我«用Python写»代码"),
        ("Cafe\u0301 au lait, CAFÉ!", "café", "«Cafe\u0301» au lait, «CAFÉ»!"),
        ("ﾃﾞｰﾀﾍﾞｰｽ設計", "データ", "«ﾃﾞｰﾀ»ﾍﾞｰｽ設計"),
        ("ＰＹＴＨＯＮ Straße", "python strasse", "«ＰＹＴＨＯＮ» «Straße»"),
        ("葛\U000e0100飾区", "葛", "«葛\U000e0100»飾区"),
        ("Soft\u00adhyphen", "softhyphen", "«Soft\u00adhyphen»"),
        ("cat concat cat's", "cat", "«cat» concat «cat»'s"),
        ("foo, bar and foo bar", '"foo bar"', "«foo, bar» and «foo bar»"),
        ("preparation", "prep*", "«preparation»"),
        ("C++ code", "C++", "«C»++ code"),
        ("a a b", "a a", "«a» «a» b"),
        ("库 库存", "库存", "库 «库存»"),
        ("数据库 Python", "数据库Python", "«数据库 Python»"),
        ("数据库存Python", "库Python", "数据库存Python"),
        ("line one\n\n\tline two", "two", "line one line «two»"),
        ("nothing", "else", "nothing"),
        ("", "else", ""),
    ],
)
def test_a_match_is_marked_in_the_original(text: str, query: str, expected: str) -> None:
    assert shown(text, query) == expected


def test_marks_and_width_can_be_chosen() -> None:
    assert shown("今天天气很好", "天气", marks=("<b>", "</b>")) == "今天<b>天气</b>很好"
    assert shown("a " * 50 + "needle" + " b" * 50, "needle", width=20) == "…a «needle» b b b b…"


def test_a_long_text_is_cut_near_the_match_and_between_words() -> None:
    text = "lorem ipsum dolor " * 50 + "the needle is here " + "sit amet " * 50
    found = shown(text, "needle")
    assert found.startswith("…")
    assert found.endswith("…")
    assert "«needle» is here" in found
    assert len(found) <= 160 + 4
    assert re.sub("[«»…]", "", found) in text


def test_the_place_that_has_most_of_what_was_searched_is_shown() -> None:
    text = "alpha " + "x " * 200 + "beta " + "y " * 200 + "alpha and beta"
    assert shown(text, "beta alpha").endswith("«alpha» and «beta»")
    assert shown(["alpha", "gamma", "alpha beta"], "beta alpha") == "«alpha» «beta»"


def test_a_match_far_inside_is_found() -> None:
    text = "word。" * 100_000 + "the needle"
    assert shown(text, "needle").endswith("the «needle»")
    assert shown("é" + text, '"the needle"').endswith("«the needle»")


def test_a_phrase_where_two_looks_meet_is_found() -> None:
    for length in range(19_900, 20_040, 7):
        assert "«one two three four»" in shown("x" * length + " one two three four five", '"one two three four"')


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.sampled_from("ab 中文。éﬁ\u0301が\u3099\u00ad"), max_size=40),
    st.text(st.sampled_from("ab 中文がéfi"), max_size=4),
)
def test_what_is_found_is_marked(text: str, query: str) -> None:
    asked = parse(query)
    if not asked.matches([text]):
        return
    marked = MARKED.findall(shown(text, query))
    assert marked
    assert re.sub("[«»…]", "", shown(text, query)).strip() == re.sub(r"\s+", " ", text).strip()
    for each in marked:
        assert any(parse(word).matches([each]) for word in query.split() if parse(word)), (each, query)
