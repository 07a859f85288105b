"""JSON that is only ours."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from agentos_store.errors import InvalidValueError
from agentos_store.types import json_text
from agentos_store.types.exact_json import loads_exact
from agentos_store.types.gate import Decode, Encode, Gate, PostgreSQLType, kind_of
from agentos_store.types.text import UNSTORABLE

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Dialect
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.types import TypeEngine

_KINDS: dict[str, type] = {"object": dict, "array": list}
_STRING_OR_LARGE_FLOAT = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?\d+(?:\.\d+)?e\+\d+')

# The backslash of the escape is not itself escaped: an even number of backslashes goes before it.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class JSONValue(Gate[Any]):
    r"""A JSON value that comes back equal and with its types; the order of keys is not promised.

    PostgreSQL stores ``JSONB``, SQLite ``TEXT``; both are given the same text. JSONB keeps a number's digits but not
    the way it was written, so a float such as ``1e16`` is written as ``10000000000000000.0``: with a decimal point it
    comes back as a float.

    ``kind="object"`` or ``"array"`` restricts what the value may be. None is SQL NULL.

    U+0000 and lone surrogates are refused in strings and keys because JSONB takes neither; NaN and infinities because
    JSON has none. Tuples, keys that are not strings, and every other type are refused because they would come back as
    something else; integers of more than 4,300 digits and nesting deeper than 500 because readers, Python's among
    them, stop there. The error is named after the path: ``metadata.scores[3]``.
    """

    impl = sa.Text
    cache_ok = True

    def __init__(self, kind: Literal["object", "array"] | None = None) -> None:
        super().__init__()
        self.kind = kind

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Store what can be indexed where there is such a type."""
        return PostgreSQLType("JSONB") if dialect.name == "postgresql" else sa.TEXT()

    def check(self, value: object, name: str) -> Any:
        """Return the value as it is."""
        self._dump(value, name)
        return value

    def strict_encoder(self, dialect: Dialect) -> Encode:  # noqa: ARG002  one text for all
        """Write the same text on both."""
        return self._dump

    def decoder(self, dialect: Dialect) -> Decode | None:  # noqa: ARG002  one text for all
        """Read the text that either gives."""
        return loads_exact

    def _dump(self, value: object, name: str) -> str:
        if self.kind is not None and not isinstance(value, _KINDS[self.kind]):
            raise InvalidValueError(name, f"is of type {kind_of(value)}, not a JSON {self.kind}")
        if type(value) is dict and not value:
            # Most metadata are.
            return "{}"
        return json_text.encode(value, name, _finish, _text_fault)

    class Comparator(Gate.Comparator[Any]):
        """What can be asked of a column."""

        __slots__ = ()

        def contains(self, other: Any, **_options: Any) -> ColumnElement[bool]:
            """Tell whether the document contains the other, by the rules of PostgreSQL's ``@>`` on both."""
            return JSONContains(self.expr, _pattern(other))

    comparator_factory = Comparator


class JSONPattern(JSONValue):
    """What a document may contain: like JSONValue, but None is JSON's ``null``, which an array may hold."""

    cache_ok = True
    writes_none = True


class JSONContains(FunctionElement[bool]):
    """The condition that one JSON document contains another."""

    name = "agentos_json_contains"
    type = sa.Boolean()
    inherit_cache = True


@compiles(JSONContains)
def _call_function(element: JSONContains, compiler: SQLCompiler, **options: Any) -> str:
    return f"{element.name}({compiler.process(element.clauses, **options)})"


@compiles(JSONContains, "postgresql")
def _use_operator(element: JSONContains, compiler: SQLCompiler, **options: Any) -> str:
    document, pattern = element.clauses
    return f"({compiler.process(document, **options)} @> {compiler.process(pattern, **options)})"


def _pattern(other: Any) -> ColumnElement[Any]:
    if isinstance(other, sa.ClauseElement) or hasattr(other, "__clause_element__"):
        return sa.type_coerce(other, JSONPattern())
    return sa.bindparam(None, other, type_=JSONPattern(), unique=True)


def _finish(text: str) -> str:
    if not text.isascii():
        text.encode()  # raises UnicodeEncodeError, which is a ValueError, for a lone surrogate
    text = positional_floats(text)
    if "\\u0000" in text and _NUL.search(text):
        raise ValueError
    return text


def positional_floats(text: str) -> str:
    """Return the JSON text with floats such as ``1e+16`` written out, so that JSONB gives them back as floats."""
    return _STRING_OR_LARGE_FLOAT.sub(_positional, text) if "e+" in text else text


def _positional(found: re.Match[str]) -> str:
    token = found.group()
    # Python writes an exponent with a plus from 1e16 on only, where every float is whole.
    return token if token.startswith('"') else f"{Decimal(token):f}.0"


def _text_fault(text: str) -> str | None:
    found = UNSTORABLE.search(text)
    if found is None:
        return None
    what = "U+0000" if found.group() == "\0" else f"the lone surrogate U+{ord(found.group()):04X}"
    return f"holds {what} at character {found.start()}"
