"""Cutting texts into chunks that say something on their own, each with its headings and its lines.

Markdown is cut at its headings first, and a section that is too long at paragraphs, sentences or words. A chunk so
never reaches from one section into another, and a change within one section leaves the chunks of the others as they
are. Chunks do not overlap, and together they are the whole text but for blank lines.

Lines end with LF or CRLF and with nothing else, as in editors: a form feed or U+2028 stands within a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from agentos_store.errors import InvalidValueError, UsageError
from agentos_store.knowledge.chunks import NewChunk
from agentos_store.search.estimate import estimate_tokens
from agentos_store.types import check_whole

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

MAX_TOKENS = 400
"""Tokens of a chunk, estimated: what embedding models take as a whole, and about a page of a screen."""

VERSION = 1
"""Of the rules below: a change of them cuts files anew that did not change."""

LONGEST_HEADING = 200
"""Characters of one heading that are kept."""

_BETWEEN = " > "

# The time that the splitter takes grows with the square of what it is given when that has no paragraphs.
_WINDOW = 20
"""Characters for each token of a chunk that are looked at together; a chunk has four at most."""

# A line of dashes with an empty line after it is a line of dashes.
_FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\n(?![ \t]*\n)(?:.*\n)*?(?:\1|\.\.\.)[ \t]*(?:\n|\Z)")
_MAY_BE_HEADING = re.compile(r"^ {0,3}(?:#{1,6}(?:[ \t]|$)|[=-]+[ \t]*$)", re.MULTILINE)
_MARKS = re.compile(r"[\\`*_\[<&\n]")
_LEADING_BLANK_LINES = re.compile(r"(?:[^\S\n]*\n)*")


class _Splitter(Protocol):
    def chunk_indices(self, text: str) -> Sequence[tuple[int, str]]: ...


@dataclass(frozen=True, slots=True)
class _Section:
    start: int
    end: int
    heading: str | None


def chunk_markdown(text: str, *, max_tokens: int = MAX_TOKENS) -> list[NewChunk]:
    """Return the chunks of a Markdown text, each with the headings that it stands under: ``Guide > Install``.

    Headings are CommonMark's, underlined ones too; a ``#`` in a code block or in front matter is none. A heading
    without a text of its own goes with the section below it. No chunk has more than ``max_tokens``.
    """
    text = _normalized(text)
    splitter = _splitter("MarkdownSplitter", check_whole("max_tokens", max_tokens, 16, 100_000))
    return _chunks(text, _sections(text), splitter, max_tokens)


def chunk_text(text: str, *, max_tokens: int = MAX_TOKENS) -> list[NewChunk]:
    """Return the chunks of a plain text, cut at paragraphs where they fit, else at sentences or words."""
    text = _normalized(text)
    splitter = _splitter("TextSplitter", check_whole("max_tokens", max_tokens, 16, 100_000))
    return _chunks(text, [_Section(0, len(text), None)], splitter, max_tokens)


def require_chunker() -> None:
    """Raise UsageError when what cuts texts is not installed."""
    _splitter("TextSplitter", MAX_TOKENS)
    _parsers()


def _normalized(text: str) -> str:
    if not isinstance(text, str):
        raise InvalidValueError("text", "is no text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValueError("text", f"has half a surrogate pair at character {error.start}") from None
    return text.lstrip("\ufeff").replace("\r\n", "\n")


def _chunks(text: str, sections: Sequence[_Section], splitter: _Splitter, max_tokens: int) -> list[NewChunk]:
    chunks: list[NewChunk] = []
    line, at = 1, 0
    for section in sections:
        for start, end in _pieces(text, section, splitter, max_tokens):
            content = text[start:end]
            line += text.count("\n", at, start)
            at = start
            chunks.append(
                NewChunk(content, section.heading, line, line + content.count("\n"), estimate_tokens(content))
            )
    return chunks


def _pieces(text: str, section: _Section, splitter: _Splitter, max_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield where the chunks of a section begin and end, without the blank lines around them."""
    start, end = _trimmed(text, section.start, section.end)
    if start == end:
        return
    if end - start <= 4 * max_tokens and estimate_tokens(text[start:end]) <= max_tokens:
        yield start, end
        return
    for first, last in _cuts(text, start, end, splitter, _WINDOW * max_tokens):
        begin, finish = _trimmed(text, first, last)
        if begin < finish:
            yield begin, finish


def _cuts(text: str, start: int, end: int, splitter: _Splitter, window: int) -> Iterator[tuple[int, int]]:
    while start < end:
        until = min(start + window, end)
        found = splitter.chunk_indices(text[start:until])
        borders = [start + offset for offset, _ in found] + [until]
        # What the window cuts off is looked at again, together with what follows.
        complete = len(found) if until == end or len(found) == 1 else len(found) - 1
        yield from pairwise(borders[: complete + 1])
        start = borders[complete]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Return the range without white space at its end and blank lines at its start.

    The indentation of a first line stays: it says what belongs together.
    """
    end = start + len(text[start:end].rstrip())
    blank = _LEADING_BLANK_LINES.match(text, start, end)
    first = start if blank is None else blank.end()
    if first and text[first - 1] != "\n":
        while first < end and text[first].isspace():
            first += 1
    return min(first, end), end


def _sections(text: str) -> list[_Section]:
    """Return the sections of a Markdown text, which follow each other without a gap."""
    sections: list[_Section] = []
    path: list[tuple[int, str]] = []
    start, heading = 0, None
    seen = 0
    """Where what follows the newest heading begins."""
    for at, after, level, title in _headings(text):
        is_deeper = bool(path) and level > path[-1][0]
        while path and path[-1][0] >= level:
            path.pop()
        path.append((level, title))
        if not is_deeper or text[seen:at].strip():
            sections.append(_Section(start, at, heading))
            start = at
        heading = _BETWEEN.join(title for _, title in path if title) or None
        seen = after
    sections.append(_Section(start, len(text), heading))
    return sections


def _headings(text: str) -> Iterator[tuple[int, int, int, str]]:
    """Yield where each heading begins, where its line ends, its level and its text."""
    # The parser takes a lone carriage return for the end of a line, and front matter for an underlined heading.
    front = _FRONT_MATTER.match(text)
    seen = text if front is None else "\n" * front[0].count("\n") + text[front.end() :]
    seen = seen.replace("\r", " ")
    if not _MAY_BE_HEADING.search(seen):
        return
    parser, inline_parser = _parsers()
    line, at = 0, 0
    tokens = parser.parse(seen)
    for token, inline in pairwise(tokens):
        if token.type != "heading_open" or token.level or token.map is None:
            continue
        first, last = token.map
        at = _start_of_line(text, at, first - line)
        after = _start_of_line(text, at, last - first)
        line = first
        yield at, after, int(token.tag[1:]), _plain(inline_parser, inline.content)


def _start_of_line(text: str, at: int, lines: int) -> int:
    """Return where the line begins that is so many lines after the one that begins here."""
    for _ in range(lines):
        at = text.find("\n", at) + 1
        if not at:
            return len(text)
    return at


def _plain(parser: MarkdownIt, content: str) -> str:
    """Return a heading without its marks."""
    content = content[: 10 * LONGEST_HEADING]
    found: list[str] = [] if _MARKS.search(content) else [content]
    waiting = [] if found else parser.parseInline(content)
    while waiting:
        token = waiting.pop(0)
        if token.children:
            waiting[:0] = token.children
        elif token.type in {"text", "code_inline", "text_special"}:
            found.append(token.content)
        elif token.type in {"softbreak", "hardbreak"}:
            found.append(" ")
    title = " ".join("".join(found).split())
    return title if len(title) <= LONGEST_HEADING else title[: LONGEST_HEADING - 1] + "…"


def _splitter(name: str, max_tokens: int) -> _Splitter:
    try:
        import semantic_text_splitter
    except ImportError as error:
        raise _missing() from error
    # Nothing is trimmed by it, so that its places are those of the text.
    made: Any = getattr(semantic_text_splitter, name).from_callback(estimate_tokens, max_tokens, trim=False)
    splitter: _Splitter = made
    return splitter


@cache
def _parsers() -> tuple[MarkdownIt, MarkdownIt]:
    """Return the one that finds headings, and the one that reads them."""
    try:
        from markdown_it import MarkdownIt
    except ImportError as error:
        raise _missing() from error
    parser = MarkdownIt("commonmark")
    # Of the blocks only where they begin and end is wanted.
    parser.core.ruler.disable(["inline", "text_join"])
    parser.block.ruler.disable(["reference"])
    return parser, MarkdownIt("commonmark")


def _missing() -> UsageError:
    return UsageError("cutting texts into chunks needs an extra: pip install 'agentos-store[kb]'")
