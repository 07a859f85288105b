"""What a searcher types, and what it asks for.

Plain words, all of which must be there; ``"a phrase"``; ``word*`` for its beginnings; ``-word`` for texts without it.
Any other character is text, so nothing that is typed is an error: ``C++`` asks for ``c``, ``foo-bar`` for the two words
one after the other, ``NOT`` for itself. A query that asks for nothing, or only for what must not be there, finds
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

from agentos_store.search.tokenizer import BREAK, is_run, pieces, terms, words

LONGEST_PHRASE = 64
"""Tokens of a phrase that are asked of an index. Parts of a document overlap by one less."""

MOST_CLAUSES = 32
"""Phrases of a query that are asked of an index."""

_TERM = re.compile(r'(?P<minus>(?<!\S)-(?=["\w]))?(?:"(?P<phrase>[^"]*)"|(?P<word>[^\s"]+))')


@dataclass(frozen=True, slots=True)
class Phrase:
    """Tokens that follow each other."""

    terms: tuple[str, ...]
    prefix: bool = False
    """Whether the last one may go on."""
    words: tuple[str, ...] = field(default=(), compare=False)
    """The words and runs that the tokens were made of."""

    def is_in(self, line: str, present: AbstractSet[str]) -> bool:
        """Tell whether the phrase is in a line of tokens, each between two spaces, of which these are there."""
        if not self.prefix and len(self.terms) == 1:
            return self.terms[0] in present
        return f" {' '.join(self.terms)}{'' if self.prefix else ' '}" in line


@dataclass(frozen=True)
class Query:
    """A query, understood."""

    required: tuple[Phrase, ...]
    excluded: tuple[Phrase, ...]

    @property
    def indexed(self) -> Query:
        """What an index is asked: the whole query, or as much of it as is bounded."""
        return self if self.is_indexed else self._part

    @cached_property
    def is_indexed(self) -> bool:
        """Whether an index decides alone; else each text that it finds must be asked by ``matches``."""
        return all(len(each) <= MOST_CLAUSES and all(map(_is_short, each)) for each in (self.required, self.excluded))

    @cached_property
    def _part(self) -> Query:
        return Query(_bounded(self.required), tuple(p for p in self.excluded[:MOST_CLAUSES] if _is_short(p)))

    def __bool__(self) -> bool:
        """Tell whether the query can find anything."""
        return bool(self.required)

    def matches(self, texts: Iterable[str]) -> bool:
        """Tell whether a document of these texts is found: what an index answers, without one."""
        if not self.required:
            return False
        lines = [terms(text) for text in texts]
        present = frozenset(chain.from_iterable(lines))
        line = f" {f' {BREAK} '.join(map(' '.join, lines))} "
        return all(each.is_in(line, present) for each in self.required) and not any(
            each.is_in(line, present) for each in self.excluded
        )


def parse(query: str) -> Query:
    """Understand a query, whatever it is."""
    required: dict[Phrase, None] = {}
    excluded: dict[Phrase, None] = {}
    for found in _TERM.finditer(query):
        text, phrase = found["word"], found["phrase"]
        made = _phrase(phrase) if text is None else _word(text)
        if made is not None:
            (excluded if found["minus"] else required)[made] = None
    return Query(tuple(required), tuple(excluded))


def _word(text: str) -> Phrase | None:
    stem = text[:-1]
    # A star after anything but a word is text.
    return _phrase(stem, prefix=True) if text.endswith("*") and terms(stem[-1:]) else _phrase(text)


def _phrase(text: str, *, prefix: bool = False) -> Phrase | None:
    found = words(text)
    if not found:
        return None
    tokens: list[str] = []
    for word in found[:-1]:
        # What follows stands right after the run, so that its last character is there too.
        tokens += [word[at : at + 2] for at in range(len(word))] if is_run(word) else pieces(word)
    last = found[-1]
    if is_run(last):
        # Pairs may go on as they are; a character alone is the beginning of a pair, or the end of a run.
        prefix = len(last) == 1
        tokens += [last] if prefix else [last[at : at + 2] for at in range(len(last) - 1)]
    else:
        tokens += pieces(last)
    return Phrase(tuple(tokens), prefix, tuple(found))


def _bounded(phrases: Sequence[Phrase]) -> tuple[Phrase, ...]:
    """Return phrases that are in every text that these are in, and no more than an index should be asked."""
    return tuple(dict.fromkeys(_windows(phrases)))[:MOST_CLAUSES]


def _windows(phrases: Sequence[Phrase]) -> Iterator[Phrase]:
    for phrase in phrases:
        if _is_short(phrase):
            yield phrase
        else:
            for start in range(0, len(phrase.terms) - LONGEST_PHRASE + 1, LONGEST_PHRASE):
                yield Phrase(phrase.terms[start : start + LONGEST_PHRASE])


def _is_short(phrase: Phrase) -> bool:
    return len(phrase.terms) <= LONGEST_PHRASE
