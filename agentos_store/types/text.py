"""Plain text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from agentos_store.errors import InvalidValueError
from agentos_store.types.gate import Gate, kind_of

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""The code points that a PostgreSQL text cannot hold."""


class Text(Gate[str]):
    """Text of any script, compared by code point.

    SQLite stores ``TEXT``; PostgreSQL stores ``TEXT COLLATE "C"``, for a language's order differs from SQLite's and
    from one server to the next. Lengths are in characters.

    U+0000 is refused because PostgreSQL has no place for it, lone surrogates because UTF-8 has none. Anything but a
    ``str`` is refused: SQLite would turn a number into text, PostgreSQL would not.
    """

    impl = sa.Text
    cache_ok = True

    def __init__(self, min_length: int = 0, max_length: int | None = None) -> None:
        super().__init__()
        self.min_length = min_length
        self.max_length = max_length

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Compare by code point on PostgreSQL too."""
        return sa.TEXT(collation="C" if dialect.name == "postgresql" else None)

    def check(self, value: object, name: str) -> str:
        """Return a plain ``str`` that both databases hold."""
        text = plain_str(value, name)
        if text.isascii():
            if "\0" in text:
                raise InvalidValueError(name, f"holds U+0000 at character {text.index(chr(0))}")
        else:
            refuse_unstorable(text, name)
        self.check_length(text, name)
        return text

    def check_length(self, text: str, name: str) -> None:
        """Refuse a text that is too short or too long."""
        length = len(text)
        if length < self.min_length:
            why = "is empty" if not text else f"{length:,} characters are fewer than the least, {self.min_length:,}"
            raise InvalidValueError(name, why)
        if self.max_length is not None and length > self.max_length:
            raise InvalidValueError(name, f"{length:,} characters are more than the limit of {self.max_length:,}")


def plain_str(value: object, name: str) -> str:
    """Return the text without the subclass that it may come in, which drivers may not know."""
    if type(value) is str:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    raise InvalidValueError(name, f"is of type {kind_of(value)}, not str")


def refuse_unstorable(text: str, name: str) -> None:
    """Raise InvalidValueError for U+0000 and lone surrogates."""
    found = UNSTORABLE.search(text) if "\0" in text or not _encodable(text) else None
    if found:
        what = "U+0000" if found.group() == "\0" else f"the lone surrogate U+{ord(found.group()):04X}"
        raise InvalidValueError(name, f"holds {what} at character {found.start()}")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
