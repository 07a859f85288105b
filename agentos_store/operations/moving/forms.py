"""The form in which a value travels: one for both databases, and one that JSON can hold.

=============  =======================================================================================
text           the text
whole number   the number; a JSON integer
yes or no      ``true`` or ``false``
float          the number, always with a point or an exponent
amount         a text of its digits, ``"0.000000001"``, without an exponent
instant        a text, ``"2026-10-21T09:30:00.000000Z"``
vector         a text, its bytes in base64
exact JSON     the text that is stored, as a text: the order of keys and the way of writing are part of it
our JSON       its text with sorted keys, as a text: JSONB keeps no order, and no difference of -0.0 and 0.0
NULL           ``null``, which is another thing than JSON's ``"null"``
=============  =======================================================================================
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from decimal import Decimal
from math import isfinite
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from agentos_store.errors import InvalidValueError
from agentos_store.types import (
    Boolean,
    ExactJSON,
    Float32Vector,
    Float64,
    Int64,
    JSONValue,
    Money,
    Text,
    UTCDateTime,
    from_text,
    to_text,
)
from agentos_store.types.gate import Decode, Encode, Gate
from agentos_store.types.json_text import decode, on_empty_stack
from agentos_store.types.json_value import positional_floats
from agentos_store.types.text import UNSTORABLE

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

Field = Callable[[Any], str]
"""Makes a value, which is not None, into a field of COPY's text format."""


class Form(Gate[Any]):
    """The form of one column's values: reading decodes what a driver gives into it, writing encodes it again."""

    impl = sa.Text
    cache_ok = False

    def __init__(self, column_type: Gate[Any]) -> None:
        super().__init__()
        self.column_type = column_type

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Be to the database what the column is."""
        return self.column_type.load_dialect_impl(dialect)

    def strict_encoder(self, dialect: Dialect) -> Encode:  # noqa: ARG002  for forms that differ
        """Write the form as it is."""
        return _as_it_is

    def field(self, value: Any) -> str:
        """Write the form as COPY reads it."""
        return str(value)

    def admit(self, value: object) -> bool:
        """Tell whether a value, which is not None, is of this form: it may come out of a file."""
        raise NotImplementedError


class _TextForm(Form):
    cache_ok = False

    def field(self, value: Any) -> str:
        return escape(value)

    def admit(self, value: object) -> bool:
        return isinstance(value, str) and not UNSTORABLE.search(value)


class _ExactForm(_TextForm):
    """The text that is stored is the same on both."""

    cache_ok = False


class _ValueForm(_TextForm):
    cache_ok = False

    def decoder(self, dialect: Dialect) -> Decode:  # noqa: ARG002  one text for all
        return sorted_text

    def admit(self, value: object) -> bool:
        try:
            return super().admit(value) and isinstance(value, str) and sorted_text(value) == value
        except (ValueError, RecursionError):
            return False


class _WholeForm(Form):
    cache_ok = False

    def admit(self, value: object) -> bool:
        return type(value) is int and -(2**63) <= value < 2**63


class _FloatForm(Form):
    cache_ok = False

    def decoder(self, dialect: Dialect) -> Decode:  # noqa: ARG002  one for all
        # A positive zero of a negative one, which SQLite does not keep.
        return _plus_zero

    def field(self, value: Any) -> str:
        return repr(value)

    def admit(self, value: object) -> bool:
        return type(value) is float and isfinite(value)


class _TruthForm(Form):
    cache_ok = False

    def strict_encoder(self, dialect: Dialect) -> Encode:
        write = self.column_type.writer(dialect)
        return _as_it_is if write is None else lambda value, _: write(value)

    def decoder(self, dialect: Dialect) -> Decode | None:
        return self.column_type.decoder(dialect)

    def field(self, value: Any) -> str:
        return "t" if value else "f"

    def admit(self, value: object) -> bool:
        return value is True or value is False


class _AmountForm(Form):
    cache_ok = False

    def strict_encoder(self, dialect: Dialect) -> Encode:
        write = self.column_type.strict_encoder(dialect)
        return lambda value, name: write(Decimal(str(value)), name)

    def decoder(self, dialect: Dialect) -> Decode:
        read: Any = self.column_type.decoder(dialect)
        return lambda value: format(read(value), "f")

    def admit(self, value: object) -> bool:
        if not isinstance(value, str) or not _AMOUNT.fullmatch(value):
            return False
        try:
            return format(self.column_type.check(Decimal(value), "amount"), "f") == value
        except InvalidValueError:
            return False


class _InstantForm(Form):
    cache_ok = False

    def strict_encoder(self, dialect: Dialect) -> Encode:
        # A driver would take the text too, in more time than is won here: it is cast for each row.
        return _as_it_is if self.column_type.writer(dialect) else lambda value, _: from_text(str(value))

    def decoder(self, dialect: Dialect) -> Decode:
        if self.column_type.writer(dialect):
            return _written_instant
        read: Any = self.column_type.decoder(dialect)
        return lambda value: to_text(read(value))

    def admit(self, value: object) -> bool:
        try:
            return isinstance(value, str) and to_text(from_text(value)) == value
        except InvalidValueError:
            return False


class _VectorForm(Form):
    cache_ok = False

    def strict_encoder(self, dialect: Dialect) -> Encode:
        write = self.column_type.writer(dialect)
        if write is None:
            return lambda value, _: base64.b64decode(str(value))
        return lambda value, _: write(base64.b64decode(str(value)))

    def decoder(self, dialect: Dialect) -> Decode:
        read: Any = self.column_type.decoder(dialect)
        return lambda value: base64.b64encode(read(value)).decode()

    def field(self, value: Any) -> str:
        return "\\\\x" + base64.b64decode(value).hex()

    def admit(self, value: object) -> bool:
        try:
            found = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
            self.column_type.check(found, "vector")
        except (InvalidValueError, binascii.Error, ValueError):
            return False
        return base64.b64encode(found).decode() == value


_FORMS: tuple[tuple[type[Gate[Any]], type[Form]], ...] = (
    (Boolean, _TruthForm),
    (Int64, _WholeForm),
    (Float64, _FloatForm),
    (Money, _AmountForm),
    (UTCDateTime, _InstantForm),
    (Float32Vector, _VectorForm),
    (ExactJSON, _ExactForm),
    (JSONValue, _ValueForm),
    (Text, _TextForm),
)


def form_of(column_type: Any) -> Form:
    """Return the form of a column's values."""
    return next(form for kind, form in _FORMS if isinstance(column_type, kind))(column_type)


_SHORT = {"{}", "[]", "null", "true", "false", '""'}
_NEGATIVE_ZERO = re.compile(r'"(?:[^"\\]|\\.)*"|-0\.0(?![0-9])')
_AMOUNT = re.compile(r"-?\d{1,10}(\.\d{1,9})?", re.ASCII)
_SPECIAL = re.compile(r"[\\\t\n\r]")
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_sorted = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


def sorted_text(text: str) -> str:
    """Return the text of a JSON value as both databases can store it, with sorted keys."""
    if text in _SHORT:
        return text
    value = decode(text)
    try:
        written = _sorted(value)
    except RecursionError:
        written = on_empty_stack(_sorted, value)
    if "-0.0" in written:
        written = _NEGATIVE_ZERO.sub(_positive, written)
    return positional_floats(written)


def _positive(found: re.Match[str]) -> str:
    token = found.group()
    return token if token.startswith('"') else "0.0"


def escape(text: str) -> str:
    """Return a text as COPY reads it."""
    return text.translate(_ESCAPES) if _SPECIAL.search(text) else text


def _as_it_is(value: object, _name: str) -> object:
    return value


def _plus_zero(value: Any) -> Any:
    return value + 0.0


def _written_instant(value: Any) -> str:
    # Somebody may have put another text there, which is no instant for the other database.
    return value if len(value) == _INSTANT and value.endswith("Z") else to_text(from_text(value))


_INSTANT = len("2026-10-21T09:30:00.000000Z")
