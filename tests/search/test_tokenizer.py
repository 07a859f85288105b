from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentos_store.search.tokenizer import _WORDS, fold_with_places, is_run, terms, words

VECTORS = {
    "": [],
    " \t\n": [],
    "The quick, brown fox!": ["the", "quick", "brown", "fox"],
    "用Python写": ["用", "python", "写"],
    "今天北京天气很好。": ["今天", "天北", "北京", "京天", "天气", "气很", "很好", "好"],
    "天": ["天"],
    "第3章": ["第", "3", "章"],
    "Ｐｙｔｈｏｎ３": ["python3"],
    "ﾃﾞｰﾀ": ["デー", "ータ", "タ"],
    "か\u3099く": ["がく", "く"],
    "がく": ["がく", "く"],
    "かく": ["かく", "く"],
    "人々": ["人々", "々"],
    "東京・大阪": ["東京", "京", "大阪", "阪"],
    "데이터 검색": ["데이", "이터", "터", "검색", "색"],
    "\u1112\u1161\u11ab글": ["한글", "글"],
    "ㄅㄆ": ["ㄅㄆ", "ㄆ"],
    "葛\U000e0100飾": ["葛飾", "飾"],
    "𠮷野家": ["𠮷野", "野家", "家"],
    "Café cafe\u0301 CAFÉ": ["cafe", "cafe", "cafe"],
    "Straße STRASSE": ["strasse", "strasse"],
    "ΣΊΣΥΦΟΣ σίσυφος": ["σισυφοσ", "σισυφοσ"],
    "İstanbul": ["istanbul"],
    "Ёлка": ["елка"],
    "שָׁלוֹם": ["שלום"],
    "مُحَمَّد": ["محمد"],
    "हिन्दी": ["हिन्दी"],
    "ﬁle №5 m²": ["file", "no5", "m2"],
    "C++ C# foo-bar it's a_b x*y 3.14": ["c", "c", "foo", "bar", "it", "s", "a", "b", "x", "y", "3", "14"],
    "Daten\u00adbank": ["datenbank"],
    "می\u200cخواهم": ["میخواهم"],
    "👍🏽 ok❤️1️⃣": ["ok", "1"],
    "a\u200bb": ["a", "b"],
    "a\0b\ud800c": ["a", "b", "c"],
    "\ufeffBOM": ["bom"],
    "x" * 128: ["x" * 128],
    "x" * 129: ["x" * 128 + "…", "…x"],
    "…¶": [],
}


@pytest.mark.parametrize("text", VECTORS)
def test_a_text_becomes_these_tokens(text: str) -> None:
    assert terms(text) == VECTORS[text]


LETTERS = "e\u0301|か|\u3099|ﾃ|ﾞ|한|\u1100|\u1161|\u11a8|ㄱ|ﾡ|中|文|。|\u200d|\u00ad|ﬁ|½|ß|İ|क|\u093c|ि|\u09c7|\u09be"
ALPHABET = st.sampled_from([*"ab1 -.é", *LETTERS.split("|"), "\u0344", "\ufdfa", "𠮷", "\ufe0f"])
TEXTS = st.one_of(st.text(st.characters(), max_size=12), st.lists(ALPHABET, max_size=12).map("".join))


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("\u3000\u3099-")
def test_tokens_hold_nothing_that_a_database_could_read_otherwise(text: str) -> None:
    for term in terms(text):
        assert term
        assert all(character.isascii() <= character.isalnum() for character in term), ascii(term)
        assert not any(character.isspace() for character in term), ascii(term)
        term.encode()


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("e\u0301")
@example("\u1100\u1161\u11a8")
def test_folding_with_places_folds_the_same_and_its_places_are_in_order(text: str) -> None:
    folded, places = fold_with_places(text)
    assert _WORDS.findall(folded) == words(text)
    if places is None:
        assert len(folded) == len(text)
        return
    assert len(places) == len(folded)
    assert all(start < end <= len(text) for start, end in places)
    assert [start for start, _ in places] == sorted(start for start, _ in places)
    for character, (start, end) in zip(folded, places, strict=True):
        assert character in fold_with_places(text[start:end])[0]


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_case_width_and_composition_make_no_difference(text: str) -> None:
    if "\u0345" in unicodedata.normalize("NFD", text):
        return  # a mark that becomes a letter, in another place
    assert terms(unicodedata.normalize("NFC", text)) == terms(unicodedata.normalize("NFD", text)) == terms(text)


def test_every_character_is_folded_as_it_is_among_others() -> None:
    for code in range(0, sys.maxunicode + 1, 7):
        character = chr(code)
        assert [w for part in (character, "中") for w in words(part)] == words(f"{character} 中"), ascii(character)


def test_a_thousand_marks_on_one_letter_cost_no_more_than_thirty() -> None:
    text = "a" + "\u0301\u0323" * 200_000 + "b c"
    assert terms(text) == ["ab", "c"]
    assert words(fold_with_places(text)[0]) == ["ab", "c"]


def test_runs_are_told_from_words() -> None:
    assert [is_run(word) for word in words("用Python写 데이터 हिन्दी ไทย")] == [True, False, True, True, False, False]
