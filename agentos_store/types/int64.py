"""Whole numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from agentos_store.errors import InvalidValueError
from agentos_store.types.gate import Gate, kind_of

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

LEAST, GREATEST = -(2**63), 2**63 - 1


class Int64(Gate[int]):
    """A whole number from -2**63 to 2**63 - 1.

    PostgreSQL stores ``BIGINT``; SQLite stores ``INTEGER``, by that very name, because only an ``INTEGER`` primary
    key numbers itself there.

    A larger number is refused: SQLite's driver overflows and PostgreSQL complains in its own way. A ``bool`` is
    refused because it would come back as a number, a ``float`` because it may have lost digits already.
    """

    impl = sa.BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Take the type that has 64 bits on each."""
        return sa.INTEGER() if dialect.name == "sqlite" else sa.BIGINT()

    def check(self, value: object, name: str) -> int:
        """Return a plain ``int``."""
        if type(value) is not int:
            if not isinstance(value, int) or isinstance(value, bool):
                raise InvalidValueError(name, f"is of type {kind_of(value)}, not int")
            value = int.__int__(value)
        if not LEAST <= value <= GREATEST:
            raise InvalidValueError(name, "is outside of -2**63 to 2**63 - 1")
        return value
