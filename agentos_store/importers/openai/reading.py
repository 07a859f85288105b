"""A file of transcripts, read.

::

    with open_transcripts("gpt-4o-airline.json.gz") as file:
        for item in file.transcripts():
            if isinstance(item, LostTranscript):
                ...  # a record that was set aside
            else:
                ...  # a Transcript

The file is JSON, one value on each line, or either compressed; its content tells, not its name. A record is
``{"messages": […]}``, an object that has such a list under another key, or the bare list.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from agentos_store.errors import InvalidValueError
from agentos_store.importers.database import Opened
from agentos_store.importers.jsontext import JSON, parse_json
from agentos_store.importers.keys import KeySets
from agentos_store.importers.openai.pieces import Characters, Piece, elements, layout_of, lines
from agentos_store.importers.openai.records import LostTranscript, Transcript
from agentos_store.importers.openai.transcripts import digest, read_transcript
from agentos_store.importers.opening import check_file, state_of, unreadable
from agentos_store.importers.problems import SetAside

MESSAGES: Final = "messages"


def open_transcripts(path: str | os.PathLike[str], *, key: str | None = None) -> TranscriptFile:
    """Open a file of transcripts; with ``key`` the messages are those under this key of each record.

    NotFoundError: there is no such file. InvalidValueError: it is empty, or neither JSON nor compressed JSON.
    UnavailableError: the system refuses it.
    """
    return TranscriptFile(path, key=key)


class TranscriptFile(Opened):
    """An open file of transcripts; close it, or use it in a ``with`` block."""

    def __init__(self, path: str | os.PathLike[str], *, key: str | None = None) -> None:
        self.path = Path(path)
        check_file(self.path)
        self._key = key
        self._found_key: str | None = None
        self._begun = False
        with ExitStack() as stack:
            self._state = state_of(self.path)
            try:
                self._file = stack.enter_context(self.path.open("rb"))
                self._size = self.path.stat().st_size
                characters = Characters(self._file, self._size)
                self._layout = layout_of(characters)
            except (OSError, ValueError) as error:
                raise unreadable(self.path, error) from None
            if self._layout is None:
                raise InvalidValueError("path", characters.damage or "it is empty")
            if self._layout == "json" and not _begins_json(characters):
                raise InvalidValueError("path", "it is no JSON")
            self._characters = characters
            self._keys = stack.enter_context(KeySets())
            self._stack = stack.pop_all()

    @property
    def layout(self) -> str:
        """Return ``json`` or ``jsonl``."""
        return self._layout or ""

    @property
    def changed(self) -> bool:
        """Whether the file was written to since it was opened."""
        return state_of(self.path) != self._state

    @property
    def share(self) -> float:
        """How much of the file is read, from 0 to 1."""
        return min(self._file.tell() / self._size, 1.0) if self._size else 1.0

    def transcripts(self) -> Iterator[Transcript | LostTranscript]:
        """Give the transcripts in their order, once.

        Raises InvalidValueError when several lists of the first record could be the messages.
        """
        pieces = lines(self._characters) if self._layout == "jsonl" else elements(self._characters)
        for piece in pieces:
            if piece.last:
                continue
            if piece.fault is not None:
                yield LostTranscript(piece.place, piece.fault)
                continue
            try:
                value = _parsed(piece.text)
            except SetAside as aside:
                yield LostTranscript(piece.place, aside.reason)
                continue
            if piece.member and _is_message(value) and not self._has_messages(value):
                # The array is a transcript itself.
                yield self._bare(piece, value, pieces)
            else:
                yield self._read(piece.place, value)

    def _bare(self, first: Piece, value: JSON, pieces: Iterator[Piece]) -> Transcript | LostTranscript:
        values, reason, place = [value], None, first.place
        for piece in pieces:
            if piece.last:
                break
            if piece.fault is not None:
                reason = piece.fault
                continue
            try:
                values.append(_parsed(piece.text))
            except SetAside as aside:
                reason = reason or f"its message {len(values) + 1}: {aside.reason}"
                values.append(None)
        if reason is not None:
            return LostTranscript(place, reason, len(values))
        return self._read(place, values)

    def _read(self, place: str, value: JSON) -> Transcript | LostTranscript:
        messages: list[JSON] = []
        try:
            key, messages = (None, value) if isinstance(value, list) else self._messages_of(value)
            name = digest(key, value)
            times = self._keys.tally("transcript", name)
            session_id = f"openai-{name}" if times == 1 else f"openai-{name}-{times}"
            return read_transcript(place, key, value, messages, session_id)
        except SetAside as aside:
            return LostTranscript(place, aside.reason, len(messages))
        finally:
            self._begun = True

    def _messages_of(self, record: JSON) -> tuple[str, list[JSON]]:
        if not isinstance(record, dict):
            raise SetAside("it is neither an object nor a list")
        key = self._key_of(record)
        messages = record[key]
        if not isinstance(messages, list):
            raise SetAside(f"what it has under {key!r} is no list")
        return key, messages

    def _key_of(self, record: dict[str, JSON]) -> str:
        if self._key is not None:
            if self._key not in record:
                raise SetAside(f"it has no key {self._key!r}")
            return self._key
        for key in (MESSAGES, self._found_key):
            if key is not None and key in record:
                return key
        found = [name for name, value in record.items() if _are_messages(value)]
        if not found:
            raise SetAside("it holds no list of messages")
        if len(found) > 1:
            names = ", ".join(map(repr, found))
            why = f"several lists of a record could be its messages: {names}; say which one is meant"
            if not self._begun:
                raise InvalidValueError("key", why)
            raise SetAside(why)
        self._found_key = found[0]
        return found[0]

    def _has_messages(self, value: JSON) -> bool:
        return isinstance(value, dict) and (
            (self._key or MESSAGES) in value or any(_are_messages(inner) for inner in value.values())
        )


def _parsed(text: str) -> JSON:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise SetAside("it is no UTF-8") from None
    try:
        value, _ = parse_json(text)
    except ValueError as error:
        raise SetAside(f"it is no JSON that can be stored: {error}") from None
    return value


def _is_message(value: JSON) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def _are_messages(value: JSON) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) for each in value)
        and _is_message(value[0])
    )


def _begins_json(characters: Characters) -> bool:
    while text := characters.read():
        if text.strip():
            characters.hand_back(text)
            return text.lstrip()[0] in "{["
    return False
