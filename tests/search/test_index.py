"""Both indexes find what the scan finds, in the same order, with the same scores."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentos_store import InvalidValueError, Store
from agentos_store.engine.sqlite.relevance import MOST_OCCURRENCES, relevance
from agentos_store.search.columns import Tokens, WholeQuery
from agentos_store.search.parts import MOST_BYTES, MOST_OF_ONE, MOST_TOKENS, OVERLAP, indexed, split
from agentos_store.search.query import LONGEST_PHRASE, parse
from agentos_store.search.tokenizer import terms

Index = Any
"""The repository of ``conftest.py``."""

DOCUMENTS: dict[str, str | Sequence[str]] = {
    "weather": "今天北京天气很好",
    "migration": "数据库迁移",
    "library": "图书馆",
    "python": "我用Python写代码",
    "signs": "C++ and foo-bar, it's NOT a*b",
    "texts": ["alpha", "beta gamma", "天", "气"],
    "nothing": "。！",
    "empty": [],
}

FOUND = {
    "数据库": ["migration"],
    "天气": ["weather"],
    "图书馆": ["library"],
    "用Python写": ["python"],
    "气": ["texts", "weather"],
    "用python": ["python"],
    "C++": ["signs"],
    "foo-bar": ["signs"],
    "bar foo": ["signs"],
    '"bar foo"': [],
    "it's": ["signs"],
    "NOT": ["signs"],
    "a AND": ["signs"],
    "pyth*": ["python"],
    "pyth": [],
    '"gamma beta"': [],
    '"beta gamma"': ["texts"],
    '"alpha beta"': [],
    "alpha gamma": ["texts"],
    "alpha -gamma": [],
    "气 -天": [],
    "气 -天气": ["texts"],
    "-天气": [],
    "": [],
    '"': [],
    "*": [],
    "' OR 1=1 --": [],
    'tokens : "a"': [],
    "foo & bar | !x": [],
    "family:memory": [],
    "¶": [],
    "…": [],
}


def found(index: Index, query: str) -> list[str]:
    keys: list[str] = index.find(query)
    return keys


def test_a_query_finds_these(index: Index) -> None:
    index.put(DOCUMENTS)
    assert {query: found(index, query) for query in FOUND} == FOUND


def test_a_document_is_found_as_it_is_now_and_not_as_it_was(index: Index) -> None:
    index.put({"a": "eins zwei", "b": "eins"})
    index.put({"a": "zwei drei"})
    assert [found(index, query) for query in ("eins", "zwei", "drei")] == [["b"], ["a"], ["a"]]
    index.put({"a": ["zwei " * 600, "ende"]})
    assert [row.parts for row in index.rows() if row.key == "a"] == [3] * 3
    index.put({"a": "kurz"})
    assert [row.parts for row in index.rows() if row.key == "a"] == [1]
    assert [found(index, query) for query in ("zwei", "ende", "kurz")] == [[], [], ["a"]]
    index.remove("a", "b", "c")
    assert [found(index, query) for query in ("eins", "kurz")] == [[], []]


def test_kinds_do_not_see_each_other(index: Index) -> None:
    index.put({"a": "天气", "long": "w " * 300 + "天气"})
    index.put({"a": "天气 chunk"}, kind="chunk")
    assert index.find("天气") == ["a", "long"]
    assert index.find("天气", kind="chunk") == ["a"]
    assert index.find("chunk") == []
    index.remove("a", kind="chunk")
    assert (index.find("天气"), index.find("天气", kind="chunk")) == (["a", "long"], [])


def test_a_long_document_is_one_document(index: Index) -> None:
    words = [f"w{number}" for number in range(30_000)]
    index.put({"long": " ".join(words), "short": "w1 w2"})
    assert [row.part for row in index.rows() if row.key == "long"] == [0, 1, 2]
    assert index.find("w1 w29999") == ["long"]
    assert index.find("w1 -w29999") == ["short"]
    assert index.find("w2 -w1") == []
    assert index.find("w2999* w1*") == ["long"]
    border = MOST_TOKENS
    for start in (border - LONGEST_PHRASE, border - 30, border - 1, border):
        assert index.find('"' + " ".join(words[start : start + LONGEST_PHRASE]) + '"') == ["long"]
        assert index.find(f'"{words[start]} {words[start + 2]}"') == []


def test_a_word_that_is_everywhere_is_found_as_part_of_a_phrase_at_the_end(index: Index) -> None:
    index.put({"a": "the " * 5000 + "end", "b": "the " * 100})
    assert index.find('"the end"') == ["a"]
    assert index.find("the") == ["a", "b"]
    assert index.find('"end the"') == []


# --- against the scan

WORDS = [
    "a",
    "ab",
    "abc",
    "b",
    "c",
    "foo",
    "天气",
    "天",
    "气",
    "很好",
    "データ",
    "タ",
    "검색",
    "색",
    "é",
    "ｆｏｏ",
    "用a写",
]
GAPS = [" ", " ", "", "。", "-", "\n", "+"]


@st.composite
def texts(draw: st.DrawFn) -> str:
    parts = draw(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), max_size=8))
    return "".join(word + gap for word, gap in parts)


@st.composite
def queries(draw: st.DrawFn) -> str:
    one = st.one_of(
        st.sampled_from(WORDS),
        st.builds("{}{}".format, st.sampled_from(WORDS), st.sampled_from(WORDS)),
        st.builds('"{} {}"'.format, st.sampled_from(WORDS), st.sampled_from(WORDS)),
        st.builds("{}*".format, st.sampled_from(WORDS)),
        st.builds("-{}".format, st.sampled_from(WORDS)),
        st.builds('-"{}-{}"'.format, st.sampled_from(WORDS), st.sampled_from(WORDS)),
        st.text(st.sampled_from("天气很好。ab\"*-'\\&|!:()<>%?"), min_size=1, max_size=6),
    )
    return " ".join(draw(st.lists(one, min_size=1, max_size=6)))


def compare(both: list[Store], documents: Mapping[str, Sequence[str]], asked: Sequence[str], index: type[Any]) -> None:
    answers = []
    for store in both:
        bound = store.bind(index)
        bound.put(documents)
        answers.append([bound.ranked(query) for query in asked])
        bound.remove(*documents)
    for query, sqlite, postgresql in zip(asked, *answers, strict=True):
        assert sqlite == postgresql, query
        wanted = sorted(key for key, each in documents.items() if parse(query).matches(each))
        assert sorted(key for key, _ in sqlite) == wanted, query
        assert all(score > 0 for _, score in sqlite), query


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.lists(texts(), max_size=3), min_size=1, max_size=6), st.lists(queries(), min_size=1, max_size=8))
def test_both_indexes_agree_with_the_scan(
    both: list[Store], index_type: type[Any], documents: list[list[str]], asked: list[str]
) -> None:
    compare(both, {f"d{number}": each for number, each in enumerate(documents)}, asked, index_type)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), min_size=1, max_size=5), st.data())
def test_whatever_characters_there_are_both_find_the_same(
    both: list[Store], index_type: type[Any], documents: list[str], data: st.DataObject
) -> None:
    one = st.sampled_from(documents).flatmap(
        lambda text: st.integers(0, len(text)).map(lambda at: text[at : at + 3]) if text else st.just("x")
    )
    asked = data.draw(st.lists(one, min_size=1, max_size=6))
    compare(both, {f"d{number}": [each] for number, each in enumerate(documents)}, asked, index_type)


def test_long_documents_agree_with_the_scan(both: list[Store], index_type: type[Any]) -> None:
    chance = random.Random(5)
    documents = {
        f"d{number}": [" ".join(chance.choice(WORDS) for _ in range(chance.choice([3, 300, 2000])))]
        for number in range(12)
    }
    asked = [
        "a",
        "天气",
        "a* -foo",
        '"a b c"',
        '"天 气"',
        "foo 검색 데이터",
        "데*",
        "タ é",
        "a -ab",
        '-"c c c c" b',
        "很好很好",
    ]
    asked += [" ".join(chance.choices(WORDS, k=3)) for _ in range(20)]
    asked += ['"' + " ".join(chance.choices(WORDS, k=3)) + '"' for _ in range(20)]
    compare(both, documents, asked, index_type)


# --- the order


def test_more_is_better_and_shorter_is_better_and_ties_go_by_key(index: Index) -> None:
    index.put(
        {
            "b": "cat dog",
            "a": "cat dog",
            "more": "cat cat dog",
            "long": "cat dog " + "x " * 50,
            "most": "cat " * 200,
            "none": "dog",
        }
    )
    assert [key for key, _ in index.ranked("cat")] == ["most", "more", "a", "b", "long"]
    assert [key for key, _ in index.ranked("cat dog")] == ["more", "a", "b", "long"]
    assert [key for key, _ in index.ranked("ca*")] == ["a", "b", "more", "long", "most"]


@pytest.mark.parametrize("times", [1, 2, 3, 10, MOST_OCCURRENCES - 1, MOST_OCCURRENCES, MOST_OCCURRENCES + 1, 255, 700])
def test_occurrences_are_counted_the_same_on_both(both: list[Store], index_type: type[Any], times: int) -> None:
    document = {"a": ["cat " * times + "dog"]}
    compare(both, document, ["cat", "cat dog", "dog"], index_type)
    bound = both[1].bind(index_type)
    bound.put(document)
    ((_, score),) = bound.ranked("cat")
    bound.remove("a")
    assert score == relevance(b"cat " * times, times + 1, json.dumps([0, " cat "]))


def test_each_number_of_occurrences_in_a_part_is_counted_the_same_on_both(
    both: list[Store], index_type: type[Any]
) -> None:
    documents = {f"{times:03}": ["cat " * times + "dog"] for times in range(1, MOST_OF_ONE)}
    compare(both, documents, ["cat"], index_type)


# --- parts


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        ["a"],
        ["a"] * (MOST_OF_ONE + 1),
        ["a"] * 5000,
        [f"w{n}" for n in range(MOST_TOKENS)],
        [f"w{n}" for n in range(MOST_TOKENS + 1)],
        [f"{n:0128}" for n in range(8000)],
        ["中" * 128 + f"{n}" for n in range(4000)],
    ],
    ids=len,
)
def test_parts_are_within_the_limits_and_overlap(tokens: list[str]) -> None:
    parts = [part.split(" ") if part else [] for part in split(tokens)]
    joined = list(parts[0])
    for part in parts[1:]:
        assert joined[-OVERLAP:] == part[:OVERLAP]
        joined += part[OVERLAP:]
    assert joined == tokens
    for part in parts:
        assert len(part) <= MOST_TOKENS
        assert max((part.count(token) for token in set(part[:3])), default=0) <= MOST_OF_ONE
        assert sum(len(token.encode()) + 8 for token in part) <= MOST_BYTES


def test_the_largest_parts_fit_into_postgresql(both: list[Store], index_type: type[Any]) -> None:
    text = " ".join("𠮷" * 0 + f"ж{n:0127}" for n in range(3000))
    compare(both, {"a": [text], "b": ["中文字" * 9000]}, [f"ж{2999:0127}", "ж*", "中文", "字中文 -ж*"], index_type)


def test_tokens_are_read_back_as_they_were_written(index: Index) -> None:
    texts = ["我用Python写 code, code; it's C++", "", "ab " * 100, "é 𠮷野家 " + "x" * 200]
    index.put({f"d{number}": text for number, text in enumerate(texts)})
    assert [row.tokens for row in index.rows()] == [" ".join(terms(text)) for text in texts]


def test_what_is_no_token_is_quoted_all_the_same(store: Store, index: Index) -> None:
    from agentos_store.engine.postgresql.connect import DIALECT

    write, read = Tokens().encoder(DIALECT), Tokens().decoder(DIALECT)
    assert read is not None
    for tokens in ("a'b c\\d 'e' f", "''", "a"):
        written = write(tokens, "tokens")
        if store.capabilities.backend == "postgresql":
            written = index.cast(written)
        assert read(written) == tokens


def test_a_query_that_asks_for_nothing_is_never_sent() -> None:
    from agentos_store.engine.sqlite.connection import DIALECT

    encode = WholeQuery("memory").encoder(DIALECT)
    for query in (parse(""), parse("-a"), "a"):
        with pytest.raises(InvalidValueError):
            encode(query, "query")


def test_texts_that_differ_have_hashes_that_differ() -> None:
    hashes = [indexed("k", each).text_hash for each in (["a", "b"], ["ab"], ["a"], ["b", "a"], [], [""], ["\ud800"])]
    assert len(set(hashes)) == len(hashes)
