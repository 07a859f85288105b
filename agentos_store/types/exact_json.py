"""JSON that a language model will read again."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from agentos_store.types import json_text
from agentos_store.types.gate import Decode, Encode, Gate, PostgreSQLType

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


class ExactJSON(Gate[Any]):
    r"""A JSON value that comes back as it was given: order of keys, ``1e16`` as a float, ``-0.0``, ``null`` and all.

    PostgreSQL stores ``JSON``, which keeps the text, SQLite ``TEXT``; both hold the same text. U+0000 and lone
    surrogates inside strings are written as escapes (``\u0000``, ``\ud83d``), all other characters as they are.

    With ``none_as_null`` (the default) None is SQL NULL; without it None is the JSON text ``null``.

    NaN and infinities are refused because JSON has none. Tuples, keys that are not strings, and every other type are
    refused because they would come back as something else; so would a high surrogate directly before a low one, which
    JSON cannot tell from the one character that the two stand for. Integers of more than 4,300 digits and nesting
    deeper than 500 are refused because readers, Python's among them, stop there.
    """

    impl = sa.Text
    cache_ok = True

    # SQLAlchemy does not see options that are keyword-only: statements would be cached without regard to them.
    def __init__(self, none_as_null: bool = True) -> None:
        super().__init__()
        self.none_as_null = none_as_null
        self.should_evaluate_none = self.writes_none = not none_as_null

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Keep the text on both."""
        return PostgreSQLType("JSON") if dialect.name == "postgresql" else sa.TEXT()

    def check(self, value: object, name: str) -> Any:
        """Return the value as it is."""
        dumps_exact(value, name)
        return value

    def strict_encoder(self, dialect: Dialect) -> Encode:  # noqa: ARG002  one text for all
        """Write the text that is stored on both."""
        return _dump

    def decoder(self, dialect: Dialect) -> Decode | None:  # noqa: ARG002  one text for all
        """Read the text that is stored on both."""
        return loads_exact


class ExactText(str):
    """Text that ``dumps_exact`` wrote, given in place of its value so that it is not written again."""

    __slots__ = ()


def _dump(value: object, name: str) -> str:
    # The driver wants a plain string.
    return str(value) if type(value) is ExactText else dumps_exact(value, name)


def dumps_exact(value: object, name: str) -> str:
    """Return the JSON text from which ``loads_exact`` makes the same value; raise InvalidValueError with the path."""
    # Not by __class__, of which stand-ins for other objects do not tell the truth.
    if type(value) is str and is_unicode(value):
        # There is nothing in a string that could come back otherwise.
        return json_text.write(value)
    return json_text.encode(value, name, _escape, _text_fault)


def quick_text(value: object, name: str) -> str:
    """Return the text of a value that is only compared with stored ones, without making sure that it comes back equal.

    Raises InvalidValueError for what has no text.
    """
    try:
        return _escape(json_text.write(value))
    except (TypeError, ValueError, RecursionError):
        return dumps_exact(value, name)


loads_exact = json_text.decode
"""Return the value of a text that ``dumps_exact`` wrote."""


def is_unicode(text: str) -> bool:
    """Tell whether the text holds no surrogate."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escape(text: str) -> str:
    if is_unicode(text):
        return text
    # A pair of them is read back as one character, so comparing finds it.
    return _SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _text_fault(text: str) -> str | None:
    found = None if text.isascii() else _PAIR.search(text)
    if found is None:
        return None
    return f"holds a high surrogate directly before a low one, at character {found.start()}"
