"""A file of transcripts, cut into the texts of its records, one at a time.

A file is one document, whose top-level array is cut into its elements, or it has a value on each line. Brackets and
strings are enough to cut by, so a record with bad JSON in it costs no other record, and no more than one record is in
memory. What is no UTF-8 comes as lone surrogates, which the text of a record holds for no other reason.
"""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, Literal

LARGEST: Final = 64 * 1024 * 1024
"""Characters of one record."""

_CHUNK: Final = 256 * 1024
_HEAD: Final = 1024 * 1024
"""Characters that the first line may have to be looked at as a line."""

_PACKED: Final = 16 * 1024
_GZIP: Final = b"\x1f\x8b"
_GZIP_ONLY: Final = 16 + zlib.MAX_WBITS
_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)
_SCALAR: Final = re.compile(r"[^\s,\[\]{}\"]+")
_BETWEEN: Final = re.compile(r"[\s,]*")
_SPACE: Final = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """The text of one record, or why there is none."""

    place: str
    """``line 7`` or ``record 7``; with `` on`` behind it, it and all that would come after it."""
    text: str = ""
    fault: str | None = None
    member: bool = False
    """Whether it is an element of an array that goes on with the next piece, until one is ``last``."""
    last: bool = False
    """The end of an array; there is no text."""


class _AsItWas:
    """A file as long as it was when it was opened: one that is written to all the time would have no end."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int) -> bytes:
        raw = self._file.read(min(size, self._left))
        self._left -= len(raw)
        return raw


class _Unpacked:
    """What a gzip file holds, given as far as it can be read: ``gzip`` itself keeps back what was before the damage."""

    def __init__(self, file: _AsItWas) -> None:
        self._file = file
        self._packed = b""
        self._member = zlib.decompressobj(_GZIP_ONLY)

    def read(self, size: int) -> bytes:
        """Return the next bytes, none at the end; EOFError when the file is cut off, zlib.error when it is damaged."""
        while True:
            if self._member.eof:
                # A file may be several, one behind the other, and end with zeros.
                self._packed = (self._member.unused_data or self._file.read(_PACKED)).lstrip(b"\0")
                if not self._packed:
                    return b""
                self._member = zlib.decompressobj(_GZIP_ONLY)
            packed = self._member.unconsumed_tail or self._packed or self._file.read(_PACKED)
            self._packed = b""
            if not packed:
                raise EOFError
            if unpacked := self._member.decompress(packed, size):
                return unpacked


class Characters:
    """The text of a file, which may be compressed, in chunks that can be handed back."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        head = file.read(len(_GZIP))
        file.seek(0)
        raw = _AsItWas(file, size)
        self._raw: _AsItWas | _Unpacked = _Unpacked(raw) if head == _GZIP else raw
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._held = ""
        self._at = 0
        """How much of what is held was given already."""
        self._started = self._ended = False
        self.damage: str | None = None
        """Why the file cannot be read to its end."""

    def read(self) -> str:
        """Return the next characters, none at the end of what can be read."""
        if self._at < len(self._held):
            held = self._held[self._at :]
            self._held, self._at = "", 0
            return held
        # A line may have ended just where it does: nothing is held then either.
        self._held, self._at = "", 0
        while not self._ended:
            try:
                raw = self._raw.read(_CHUNK)
            except EOFError:
                self.damage, raw = "the compressed file is cut off", b""
            except zlib.error:
                self.damage, raw = "the compressed file is damaged", b""
            self._ended = not raw
            text = self._decoder.decode(raw, final=self._ended)
            if not self._started and text:
                self._started = True
                text = text.removeprefix("\ufeff")
            if text:
                return text
        return ""

    def hand_back(self, text: str) -> None:
        """Let the next ``read`` begin with this text."""
        self._held, self._at = text + self._held[self._at :], 0

    def line(self, most: int) -> tuple[str, bool]:
        """Return the next line with its end, and whether all of it; of a line that is longer, its beginning."""
        parts: list[str] = []
        length = 0
        while length <= most:
            end = self._held.find("\n", self._at) + 1
            if end:
                parts.append(self._held[self._at : end])
                self._at = end
                return "".join(parts), True
            text = self.read()
            if self._held == "" and "\n" in text:
                self.hand_back(text)
            elif text:
                parts.append(text)
                length += len(text)
            else:
                break
        return "".join(parts), length <= most


def layout_of(characters: Characters) -> Literal["json", "jsonl"] | None:
    """Tell whether the file is one document or has a value on each line; None for a file without anything in it."""
    first, second = "", ""
    taken: list[str] = []
    while not first.strip():
        first, whole = characters.line(_HEAD)
        taken.append(first)
        if not first:
            characters.hand_back("".join(taken))
            return None
    is_line = whole and first.endswith("\n")
    while is_line and not second.strip():
        second, _ = characters.line(_HEAD)
        taken.append(second)
        if not second:
            break
    characters.hand_back("".join(taken))
    if not second.strip() or first.strip() == "[":
        return "json"
    # A damaged first line does not make a document of lines.
    return "jsonl" if _is_complete(first) or (second[0] in "{[" and _is_complete(second)) else "json"


def lines(characters: Characters) -> Iterator[Piece]:
    """Give each line that is not empty."""
    number = 0
    while True:
        line, whole = characters.line(LARGEST)
        if not line:
            break
        number += 1
        place = f"line {number}"
        if not whole:
            yield Piece(place, fault=_too_large())
            while not whole:
                line, whole = characters.line(LARGEST)
        elif characters.damage is not None and not line.endswith("\n"):
            yield Piece(f"{place} on", fault=characters.damage)
            return
        elif line.strip(_SPACE):
            yield Piece(place, line)
    if characters.damage is not None:
        yield Piece(f"line {number + 1} on", fault=characters.damage)


def elements(characters: Characters) -> Iterator[Piece]:
    """Give each top-level value; of an array its elements, one by one."""
    cutter = _Cutter(characters)
    number = 0
    inside = False
    while True:
        start = cutter.next_start()
        place = f"record {number + 1}"
        if start == "":
            if inside or characters.damage is not None:
                yield Piece(f"{place} on", fault=characters.damage or "the file is cut off")
            return
        if start == "[" and not inside:
            cutter.skip()
            inside = True
        elif start == "]" and inside:
            cutter.skip()
            inside = False
            yield Piece(place, last=True)
        else:
            number += 1
            text = cutter.value()
            if text is None:
                fault = characters.damage or ("the file is cut off" if cutter.ended else _too_large())
                yield Piece(f"{place} on", fault=fault)
                return
            yield Piece(place, text, member=inside)


class _Cutter:
    """Finds where values begin and end."""

    def __init__(self, characters: Characters) -> None:
        self._characters = characters
        self._text = ""
        self._at = 0
        self.ended = False

    def next_start(self) -> str:
        """Return the character that the next value begins with; none at the end."""
        while True:
            found = _BETWEEN.match(self._text, self._at)
            self._at = self._at if found is None else found.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self) -> None:
        """Go past one character."""
        self._at += 1

    def value(self) -> str | None:
        """Return the text of the value that begins here; None when it does not end."""
        start = self._text[self._at]
        if start in "{[":
            return self._bracketed()
        if start in "]}":
            self._at += 1
            return start
        return self._single(start)

    def _bracketed(self) -> str | None:
        depth, at = 0, self._at
        while True:
            found = _TOKEN.search(self._text, at)
            if found is None or found[0] == '"':
                # A string may go on in what is not read yet, so it is looked at again from its beginning.
                at = (len(self._text) if found is None else found.start()) - self._at
                if not self._more():
                    return None
                at += self._at
                continue
            at = found.end()
            if found[0] in "{[":
                depth += 1
            elif found[0] in "]}":
                depth -= 1
                if depth == 0:
                    return self._taken(at)

    def _single(self, start: str) -> str | None:
        while True:
            if start == '"':
                found = _TOKEN.match(self._text, self._at)
                end = 0 if found is None or found[0] == '"' else found.end()
            else:
                found = _SCALAR.match(self._text, self._at)
                end = 0 if found is None or found.end() == len(self._text) else found.end()
            if end:
                return self._taken(end)
            if not self._more():
                return self._taken(len(self._text)) if self.ended and start != '"' else None

    def _taken(self, end: int) -> str:
        text = self._text[self._at : end]
        self._at = end
        return text

    def _more(self) -> bool:
        """Read on, as much again as there is, so that a long value is not looked through too often."""
        kept = self._text[self._at :]
        if len(kept) > LARGEST:
            return False
        parts, length = [kept], 0
        while length <= len(kept) and (text := self._characters.read()):
            parts.append(text)
            length += len(text)
        self._text, self._at = "".join(parts), 0
        self.ended = not length
        return length > 0


def _is_complete(line: str) -> bool:
    """Tell whether the line is an array or an object from its beginning to its end."""
    text = line.strip(_SPACE)
    if text[:1] not in {"{", "["}:
        return False
    depth = 0
    for found in _TOKEN.finditer(text):
        if found[0] in "{[":
            depth += 1
        elif found[0] in "]}":
            depth -= 1
            if depth == 0:
                return found.end() == len(text)
    return False


def _too_large() -> str:
    return f"it is larger than {LARGEST:,} characters"
