from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentos_store.search.query import LONGEST_PHRASE, MOST_CLAUSES, Phrase, parse


def shown(phrase: Phrase) -> str:
    return " ".join(phrase.terms) + ("*" if phrase.prefix else "")


PARSED: dict[str, tuple[list[str], list[str]]] = {
    "": ([], []),
    "   ": ([], []),
    '"': ([], []),
    "*": ([], []),
    "-": ([], []),
    '""': ([], []),
    "-+++ +++": ([], []),
    "NOT": (["not"], []),
    "a AND": (["a", "and"], []),
    "C++": (["c"], []),
    "foo-bar": (["foo bar"], []),
    "it's": (["it s"], []),
    "a a A": (["a"], []),
    '"a b" c': (["a b", "c"], []),
    '"a b': (["a", "b"], []),
    'a"b c"d': (["a", "b c", "d"], []),
    "wor*": (["wor*"], []),
    "foo-bar*": (["foo bar*"], []),
    "wor**": (["wor"], []),
    "* wor *": (["wor"], []),
    '"wor*"': (["wor"], []),
    "-a b": (["b"], ["a"]),
    "-wor* b": (["b"], ["wor*"]),
    '-"a b" c': (["c"], ["a b"]),
    "--json": (["json"], []),
    "- a": (["a"], []),
    "a -": (["a"], []),
    "-a": ([], ["a"]),
    '-"a': (["a"], []),
    "天气": (["天气"], []),
    "天": (["天*"], []),
    "数据库": (["数据 据库"], []),
    "数据*": (["数据"], []),
    "用Python写": (["用 python 写*"], []),
    "数据库Python": (["数据 据库 库 python"], []),
    "天气，很好": (["天气 气 很好"], []),
    "-天气 好": (["好*"], ["天气"]),
    "“天气”": (["天气"], []),
    "＂a b＂": (["a", "b"], []),
    "'; DROP TABLE x; --": (["drop", "table", "x"], []),
    "a:b & !c | (d) <-> \\": (["a b", "c", "d"], []),
    "\0\ud800": ([], []),
}


@pytest.mark.parametrize("query", PARSED)
def test_a_query_asks_for_this(query: str) -> None:
    asked = parse(query)
    assert ([*map(shown, asked.required)], [*map(shown, asked.excluded)]) == PARSED[query]
    assert bool(asked) == bool(asked.required)
    assert asked.is_indexed


@settings(max_examples=500, deadline=None)
@given(st.text(st.one_of(st.sampled_from('"*- ab中文'), st.characters()), max_size=30))
@example('-"*"*-')
def test_nothing_that_is_typed_is_an_error(query: str) -> None:
    asked = parse(query)
    for phrase in (*asked.required, *asked.excluded):
        assert phrase.terms
        assert phrase.words
    assert asked.matches([query]) in {True, False}


@settings(max_examples=300, deadline=None)
@given(
    st.text(st.sampled_from("ab 中文字。x"), max_size=12), st.text(st.sampled_from("中文字"), min_size=1, max_size=4)
)
def test_a_chinese_query_finds_what_holds_it(text: str, query: str) -> None:
    assert parse(query).matches([text]) == (query in text)


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("ab c中文。"), max_size=12))
def test_a_text_finds_itself(text: str) -> None:
    phrase = text.replace('"', " ")
    assert parse(f'"{phrase}"').matches([text]) == bool(parse(text))


def test_a_phrase_does_not_reach_from_one_text_into_the_next() -> None:
    assert parse('"a b"').matches(["x a", "b", "a b"])
    assert not parse('"a b"').matches(["x a", "b y"])
    assert not parse("天气").matches(["今天", "气候"])
    assert parse("a b").matches(["a", "b"])


def test_an_index_is_asked_no_more_than_it_should_be() -> None:
    many = parse(
        " ".join(f"w{number}" for number in range(20_000)) + ' -"x y" ' + " ".join(f"-v{n}" for n in range(100))
    )
    assert (len(many.required), len(many.excluded)) == (20_000, 101)
    assert (len(many.indexed.required), len(many.indexed.excluded)) == (MOST_CLAUSES, MOST_CLAUSES)
    assert not many.is_indexed
    long = parse('"' + " ".join(f"w{number}" for number in range(20_000)) + '"')
    assert max(len(phrase.terms) for phrase in long.indexed.required) == LONGEST_PHRASE
    assert len(long.indexed.required) == MOST_CLAUSES
    assert not long.is_indexed
    assert not parse('"' + "a " * (LONGEST_PHRASE + 1) + '"').is_indexed
    assert parse('"' + "a " * LONGEST_PHRASE + '"').is_indexed


def test_long_words_match_whole_and_by_their_beginning() -> None:
    text = f"a {'x' * 300} b"
    for query in ("x" * 300, "x" * 300 + "*", "x" * 128 + "*", "x" * 200 + "*", "x*", f'"a {"x" * 300} b"'):
        assert parse(query).matches([text]), len(query)
    for query in ("x" * 128, "x" * 44, "x" * 299, "x" * 301, "x" * 301 + "*", "x" * 256):
        assert not parse(query).matches([text]), len(query)
