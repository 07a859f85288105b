"""One tokenizer for both databases, so that both find the same.

A text is folded first: NFKC (a full-width Ｐ is ``p``), case, and marks that are written or left out at will (accents,
Hebrew and Arabic vowels). Marks that make another letter stay: か is not が, and an Indic vowel sign is a letter of its
word. What is neither letter, digit nor mark separates words: ``C++`` is ``c``, ``foo-bar`` two words, an emoji none.
Soft hyphens, joiners and variation selectors are not there at all.

A word of a script with spaces is one token. A run of Chinese, Japanese or Korean characters gives each pair of
neighbours and its last character: 天气很好 is 天气 气很 很好 好. A query of two characters or more is then a phrase of
pairs and one of a single character a prefix, whatever the words of the language are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

VERSION = 1
"""Part of each document's hash: a change of the rules below makes the index stale."""

BREAK = "¶"
"""Stands between two texts of one document, so that no phrase reaches from one into the other. Never part of a word."""

LONGEST_WORD = 128
"""Characters. A longer word becomes pieces that follow each other."""

CONTINUED = "…"
"""Stands where a piece goes on, so that none is taken for a word. Never part of a word: NFKC makes dots of it."""

_RUN = (
    "\u1100-\u11ff\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u3096\u3099\u309a\u309d-\u309f"
    "\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
    "\uac00-\ud7a3\ud7b0-\ud7fb\uf900-\ufaff\U0001aff0-\U0001b16f\U00020000-\U0003fffd"
)
"""Han, Hiragana, Katakana, Hangul and Bopomofo, as they are after folding."""

_FIRST_OF_RUN = "\u1100"
_IS_RUN = re.compile(f"[{_RUN}]").match
_ASCII_WORDS = re.compile("[0-9a-z]+")
_WORDS = re.compile(f"[{_RUN}]+|[^ {_RUN}]+")

# A Python that is older than the characters calls them unassigned; they are letters all the same.
_IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\U00020000-\U0003fffd]").match

_NOT_THERE = re.compile(
    "[\u00ad\u034f\u061c\u180b-\u180f\u200c-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]"
).match
"""Characters that say how others are shown."""

_MOST_FOLDED = 200_000


class _Folded(dict[int, str]):
    """By code point what it becomes: itself, another letter, a space for a separator, or nothing."""

    def __missing__(self, code: int) -> str:
        if len(self) > _MOST_FOLDED:
            self.clear()
        found = self[code] = _fold_character(chr(code))
        return found


def _fold_character(character: str) -> str:
    if _IDEOGRAPH(character):
        return character
    kept = ""
    for part in unicodedata.normalize("NFD", character):
        category = unicodedata.category(part)
        if category[0] in "LN":
            kept += part
        elif _NOT_THERE(part) or category == "Me":
            continue
        elif category[0] == "M":
            kept += "" if _is_optional(unicodedata.combining(part)) else part
        else:
            return " "
    return unicodedata.normalize("NFC", kept)


def _is_optional(combining_class: int) -> bool:
    """Tell marks that a word is the same word without: 10 to 35 are Hebrew and Arabic vowels, 200 to 240 accents.

    Below are those of Indic scripts and Japanese, between them those of Thai, Lao and Tibetan.
    """
    return 10 <= combining_class <= 35 or 200 <= combining_class <= 240


_FOLDED = _Folded()

_MOST_MARKS = 30
_MANY_MARKS = re.compile(r"[^\w\s]{31}")
"""Where marks may follow each other in a row that no language has."""


def _normalize(text: str) -> str:
    # NFKC sorts the marks of a letter, in a time that grows with the square of their number.
    if _MANY_MARKS.search(text):
        text = _without_excess_marks(text)
    return unicodedata.normalize("NFKC", text)


def _without_excess_marks(text: str) -> str:
    kept: list[str] = []
    row = 0
    for character in text:
        row = row + 1 if _is_mark[character] else 0
        if row <= _MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def fold(text: str) -> str:
    """Return the text with its words folded; what stands between them is spaces, or ASCII that is no word."""
    if text.isascii():
        return text.lower()
    return _normalize(text).casefold().translate(_FOLDED)


def is_run(word: str) -> bool:
    """Tell whether a word is a run of Chinese, Japanese or Korean characters."""
    return word[0] >= _FIRST_OF_RUN and _IS_RUN(word) is not None


def words(text: str) -> list[str]:
    """Return the folded words and runs of the text, in order."""
    folded = fold(text)
    return _ASCII_WORDS.findall(folded) if folded.isascii() else _WORDS.findall(folded)


def pieces(word: str) -> list[str]:
    """Return the tokens of a word: itself, or its pieces."""
    if len(word) <= LONGEST_WORD:
        return [word]
    cut = [word[at : at + LONGEST_WORD] for at in range(0, len(word), LONGEST_WORD)]
    last = len(cut) - 1
    return [(CONTINUED if at else "") + piece + (CONTINUED if at < last else "") for at, piece in enumerate(cut)]


def terms(text: str) -> list[str]:
    """Return the tokens of the text, in order."""
    found: list[str] = []
    for word in words(text):
        if word[0] >= _FIRST_OF_RUN and _IS_RUN(word):
            # The last slice is the last character alone.
            found += [word[at : at + 2] for at in range(len(word))]
        elif len(word) <= LONGEST_WORD:
            found.append(word)
        else:
            found += pieces(word)
    return found


# --- folding with places, for showing where a text matches

Places = Sequence[tuple[int, int]]
"""For each character of a folded text the start and the end of what it was made from."""


def fold_with_places(text: str) -> tuple[str, Places | None]:
    """Return the folded text, with spaces for all that is no word; its places are None where they are its own."""
    if text.isascii():
        return text.lower().translate(_FOLDED), None
    if unicodedata.is_normalized("NFKC", text) and not _MANY_MARKS.search(text):
        # Folding case makes one character or more of each, the rest one or none: with the same length each made one.
        cased = text.casefold()
        folded = cased.translate(_FOLDED)
        if len(cased) == len(text) == len(folded):
            return folded, None
    parts: list[str] = []
    places: list[tuple[int, int]] = []
    at = 0
    while at < len(text):
        end = end_of_character(text, at)
        made = _fold_cluster[text[at:end]]
        parts.append(made)
        places += [(at, end)] * len(made)
        at = end
    return "".join(parts), places


def end_of_character(text: str, start: int) -> int:
    """Return where the character that begins here ends, with the marks that belong to it."""
    end = start + 1
    while end < len(text) and _joins[text[end]]:
        end += 1
    return end


class _Joins(dict[str, bool]):
    """By character whether NFKC may join it to the one before."""

    def __missing__(self, character: str) -> bool:
        if len(self) > _MOST_FOLDED:
            self.clear()
        first = unicodedata.normalize("NFKD", character)[0]
        # Vowels and final consonants of Hangul have no combining class.
        joins = unicodedata.category(first)[0] == "M" or "\u1160" <= first <= "\u11ff"
        self[character] = joins
        return joins


class _FoldedCluster(dict[str, str]):
    """By a character with what may be joined to it: what it becomes."""

    def __missing__(self, cluster: str) -> str:
        if len(self) > _MOST_FOLDED:
            self.clear()
        made = _normalize(cluster).casefold().translate(_FOLDED)
        # A cluster of many marks is nobody's letter.
        if len(cluster) <= _MOST_MARKS:
            self[cluster] = made
        return made


class _IsMark(dict[str, bool]):
    """By character whether NFKC sorts it among the marks of a letter."""

    def __missing__(self, character: str) -> bool:
        if len(self) > _MOST_FOLDED:
            self.clear()
        found = self[character] = unicodedata.combining(unicodedata.normalize("NFKD", character)[0]) != 0
        return found


_is_mark = _IsMark()
_joins = _Joins()
_fold_cluster = _FoldedCluster()
