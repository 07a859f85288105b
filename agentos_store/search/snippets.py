"""Where a text matches: a piece of the original with the matches marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from operator import itemgetter
from typing import NamedTuple

from agentos_store.search.query import Phrase, Query
from agentos_store.search.tokenizer import end_of_character, fold_with_places, is_run

WIDTH = 160
"""Characters of a snippet, but for the marks."""

MARKS = ("«", "»")
"""What a match stands between."""

_SEGMENT = 20_000
_SHARED = 1000
"""Characters that are looked at together, and how many of them are looked at with the next ones again."""

_FARTHEST = 100_000
"""Characters after the first match in which a better place is looked for."""

_NEAREST_GAP = 20
"""Characters that a snippet gives up so as not to begin or end within a word."""

_CUT = "…"
_MOST_MATCHES = 1000
"""Matches of one phrase in what is looked at together."""

_MOST_PHRASES = 32
"""Phrases of a query that are marked."""

_GAP = re.compile(r"[\s。，、；：！？,.;!?]")
_NO_WORD = frozenset(("", " "))
"""What is beside a word, but for runs: a separator, or the end of the text."""

_START = itemgetter(0)
_SPACE = re.compile(r"\s+")
_LAST_SPACE = re.compile(r"\s+(?=\S*\Z)")


class _Match(NamedTuple):
    start: int
    phrase: int
    end: int


def _find(text: str, phrases: Sequence[Phrase]) -> list[_Match]:
    """Return matches up to a place where all phrases were seen, or where it is far enough."""
    found: list[_Match] = []
    start, whole = 0, len(text)
    while start < whole:
        gap = _GAP.search(text, start + _SEGMENT) if whole - start > _SEGMENT else None
        end = whole if gap is None else gap.start()
        folded, places = fold_with_places(text[start:end])
        for number, phrase in enumerate(phrases):
            for first, last in _places_of(phrase, folded):
                if places is None:
                    found.append(_Match(start + first, number, start + last))
                else:
                    found.append(_Match(start + places[first][0], number, start + places[last - 1][1]))
        if end == whole:
            break
        if found and (len({match.phrase for match in found}) == len(phrases) or end > found[0].start + _FARTHEST):
            break
        gap = _GAP.search(text, max(end - _SHARED, start + 1))
        start = end if gap is None else min(gap.start(), end)
    found.sort(key=_START)
    return found


def _places_of(phrase: Phrase, folded: str) -> list[tuple[int, int]]:
    """Return where the phrase is in a folded text, by the tokenizer's rules but without making tokens."""
    first = phrase.words[0]
    is_word = len(phrase.words) == 1 and not phrase.prefix and not is_run(first)
    places: list[tuple[int, int]] = []
    at = folded.find(first)
    while at >= 0 and len(places) < _MOST_MATCHES:
        if is_word:
            end = at + len(first)
            if _is_of_word(folded[end : end + 1]) or (at and _is_of_word(folded[at - 1])):
                end = 0
        else:
            end = _end_of(phrase, folded, at)
        if end:
            places.append((at, end))
        at = folded.find(first, end or at + 1)
    return places


def _end_of(phrase: Phrase, folded: str, at: int) -> int:
    """Return where the phrase ends that begins here; 0 when none does."""
    last = len(phrase.words) - 1
    for number, word in enumerate(phrase.words):
        if number:
            while folded.startswith(" ", at):
                at += 1
            if not folded.startswith(word, at):
                return 0
        end = at + len(word)
        if is_run(word):
            # Only the last one may end within a run.
            if number < last and end < len(folded) and is_run(folded[end]):
                return 0
        else:
            if at and _is_of_word(folded[at - 1]):
                return 0
            while number == last and phrase.prefix and end < len(folded) and _is_of_word(folded[end]):
                end += 1
            if end < len(folded) and _is_of_word(folded[end]):
                return 0
        at = end
    return at


def _is_of_word(character: str) -> bool:
    return character not in _NO_WORD and not is_run(character)


def snippet(texts: Sequence[str], query: Query, *, width: int = WIDTH, marks: tuple[str, str] = MARKS) -> str:
    """Return the place in the texts that matches best, with each match between two marks.

    It is about ``width`` characters of the original, white space as single spaces, and ``…`` where it was cut. Without
    a match it is the beginning.
    """
    phrases = query.required[:_MOST_PHRASES]
    if not phrases:
        return _show(texts[0] if texts else "", [], width, marks)
    best: tuple[int, str, Sequence[_Match]] = (0, texts[0] if texts else "", [])
    for text in texts:
        found = _find(text, phrases)
        window = _best_window(found, width)
        different = len({match.phrase for match in window})
        if different > best[0]:
            best = different, text, window
        if different == len(phrases):
            break
    _, text, window = best
    return _show(text, window, width, marks)


def _best_window(found: Sequence[_Match], width: int) -> Sequence[_Match]:
    """Return the matches that a snippet can show together, as many different ones as there are somewhere."""
    if found and max([match.end for match in found]) - found[0].start <= width:
        return found
    best: Sequence[_Match] = []
    most = (0, 0)
    start = 0
    count: dict[int, int] = {}
    for end, match in enumerate(found):
        count[match.phrase] = count.get(match.phrase, 0) + 1
        while start < end and match.end - found[start].start > width:
            gone = found[start].phrase
            count[gone] -= 1
            if not count[gone]:
                del count[gone]
            start += 1
        here = (len(count), end - start)
        if here > most:
            most = here
            best = found[start : end + 1]
        elif not best:
            best = [match]
    return best


def _show(text: str, window: Sequence[_Match], width: int, marks: tuple[str, str]) -> str:
    first = window[0].start if window else 0
    last = max([match.end for match in window], default=0)
    # A third of what is left stands before, so that it is seen what the match is about.
    start = max(0, first - max(0, width - (last - first)) // 3)
    end = min(len(text), max(start + width, first + 1))
    start = max(0, min(start, end - width)) if end == len(text) else start
    start, end = _at_words(text, start, end, first, last)
    shown: list[str] = [_CUT] if start else []
    at = start
    for begin, finish in _merged(window, end):
        shown += [text[at:begin], marks[0], text[begin:finish], marks[1]]
        at = finish
    shown += [text[at:end], _CUT if end < len(text) else ""]
    return " ".join("".join(shown).split())


def _at_words(text: str, start: int, end: int, first: int, last: int) -> tuple[int, int]:
    """Move the ends of a snippet to gaps between words that are near, but not into a match, nor into a character."""
    if start:
        gap = _SPACE.search(text, start, min(start + _NEAREST_GAP, first))
        start = gap.end() if gap else start
        while 0 < start < first and end_of_character(text, start - 1) > start:
            start += 1
    if end < len(text):
        gap = _LAST_SPACE.search(text, max(end - _NEAREST_GAP, min(last, end)), end)
        end = gap.start() if gap else end_of_character(text, end - 1)
    return start, end


def _merged(window: Sequence[_Match], end: int) -> list[tuple[int, int]]:
    """Return the ranges to mark, none of which overlap, cut where the snippet ends."""
    merged: list[tuple[int, int]] = []
    for begin, _, finish in window:
        if merged and begin < merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], min(finish, end))
        elif begin < end:
            merged.append((begin, min(finish, end)))
    return merged
