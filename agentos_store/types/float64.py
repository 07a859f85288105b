"""Measured numbers."""

from __future__ import annotations

from math import isfinite, isnan
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from agentos_store.errors import InvalidValueError
from agentos_store.types.gate import Gate, PostgreSQLType, kind_of

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine


class Float64(Gate[float]):
    """A finite 64-bit floating-point number; an ``int`` becomes one.

    PostgreSQL stores ``DOUBLE PRECISION``, SQLite ``REAL``, both the same 64 bits. Negative zero is stored as zero,
    since SQLite keeps no other.

    NaN is refused because SQLite stores NULL for it and PostgreSQL sorts it above everything; infinities because JSON,
    into which these numbers are exported, has none. An ``int`` that is too large for a float is refused, and so are
    ``bool``, which would come back as a number, and ``Decimal``, whose digits would be lost.
    """

    impl = sa.Double
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Take the type that has 64 bits on each."""
        return sa.REAL() if dialect.name == "sqlite" else PostgreSQLType("DOUBLE PRECISION")

    def check(self, value: object, name: str) -> float:
        """Return a plain, finite ``float``."""
        if not isinstance(value, float | int) or isinstance(value, bool):
            raise InvalidValueError(name, f"is of type {kind_of(value)}, not float")
        try:
            # Adding zero makes a positive zero of a negative one, and a plain float of a subclass.
            number = float(value) + 0.0
        except OverflowError:
            raise InvalidValueError(name, "is too large for a 64-bit float") from None
        if not isfinite(number):
            raise InvalidValueError(name, "is NaN" if isnan(number) else "is infinite")
        return number
