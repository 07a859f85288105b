"""Exact amounts."""

from __future__ import annotations

from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from agentos_store.errors import InvalidValueError
from agentos_store.types.gate import Decode, Gate, PostgreSQLType, kind_of

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

PLACES = 9
UNIT = 10**PLACES
LIMIT = Decimal("9223372036.854775807")
"""2**63 - 1 units of 10**-9: what SQLite's integers hold."""

# The caller's decimal context may round to any precision; this one never rounds.
_EXACT = Context(prec=64, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[Inexact, InvalidOperation])
_STEP = Decimal("1e-9")


class Money(Gate[Decimal]):
    """An exact ``Decimal`` with up to nine decimal places, of at most 9223372036.854775807 either way.

    PostgreSQL stores ``NUMERIC(19, 9)``; SQLite, which has no exact decimals, stores ``INTEGER`` in units of 10**-9,
    so that ``SET total = total + :d`` adds exactly on both. What is read has no trailing zeros, is never ``-0``, and
    is the same on both down to its ``str()``.

    A ``float`` is refused: 0.1 is none of the amounts that anybody means. More places and larger amounts are refused
    rather than rounded, NaN and infinities because no amount is one.
    """

    impl = sa.Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Count small units where there is no exact decimal."""
        return sa.INTEGER() if dialect.name == "sqlite" else PostgreSQLType(f"NUMERIC(19, {PLACES})")

    def check(self, value: object, name: str) -> Decimal:
        """Return the amount in its normal form."""
        return _from_units(_units(value, name))

    def strict_encoder(self, dialect: Dialect) -> Callable[[object, str], object]:
        """Write units on SQLite, without the way through the normal form."""
        if dialect.name == "sqlite":
            return _units
        return super().strict_encoder(dialect)

    def decoder(self, dialect: Dialect) -> Decode | None:
        """Give both forms the same normal form."""
        return _from_sqlite if dialect.name == "sqlite" else _from_numeric


def _units(value: object, name: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        value = Decimal(value)
    elif isinstance(value, float):
        raise InvalidValueError(name, "is a float, which is not exact; pass a Decimal made from a str or an int")
    elif not isinstance(value, Decimal):
        raise InvalidValueError(name, f"is of type {kind_of(value)}, not Decimal")
    if not value.is_finite():
        raise InvalidValueError(name, "is NaN" if value.is_nan() else "is infinite")
    if not -LIMIT <= value <= LIMIT:
        raise InvalidValueError(name, f"is outside of -{LIMIT} to {LIMIT}")
    try:
        return int(_EXACT.multiply(_EXACT.quantize(value, _STEP), Decimal(UNIT)))
    except Inexact:
        raise InvalidValueError(name, f"has more than {PLACES} decimal places") from None


def _from_units(units: int) -> Decimal:
    if not units:
        return Decimal(0)
    whole, rest = divmod(units, UNIT)
    return _EXACT.normalize(_EXACT.scaleb(Decimal(units), -PLACES)) if rest else Decimal(whole)


def _from_sqlite(units: int) -> Decimal:
    if type(units) is not int:
        # A sum past 64 bits becomes a float there; an inexact amount must not pass for an exact one.
        raise InvalidValueError("amount", f"is stored as {kind_of(units)}, not as whole units of 10**-{PLACES}")
    return _from_units(units)


def _from_numeric(value: Decimal) -> Decimal:
    if not value:
        return Decimal(0)
    return Decimal(int(value)) if value == int(value) else _EXACT.normalize(value)
