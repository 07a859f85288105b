"""Yes or no."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from agentos_store.errors import InvalidValueError
from agentos_store.types.gate import Decode, Gate, PostgreSQLType, kind_of

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine


class Boolean(Gate[bool]):
    """``True`` or ``False``.

    PostgreSQL stores ``BOOLEAN``; SQLite, which has none, stores ``INTEGER`` 0 or 1, decoded to ``bool``.

    Anything else is refused, 0 and 1 too: PostgreSQL would not take them, and what is merely true or false in Python,
    such as the text ``"false"``, has been the wrong value often enough.
    """

    impl = sa.Boolean
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Store a number where there is no boolean."""
        return sa.INTEGER() if dialect.name == "sqlite" else PostgreSQLType("BOOLEAN")

    def check(self, value: object, name: str) -> bool:
        """Return the value as it is."""
        if value is True or value is False:
            return value
        raise InvalidValueError(name, f"is of type {kind_of(value)}, not bool")

    def writer(self, dialect: Dialect) -> Callable[[bool], object] | None:
        """Write a number on SQLite."""
        return int if dialect.name == "sqlite" else None

    def decoder(self, dialect: Dialect) -> Decode | None:
        """Read a number on SQLite."""
        return _from_number if dialect.name == "sqlite" else None


def _from_number(value: int) -> bool:
    return value != 0
