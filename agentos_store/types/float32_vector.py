"""Vectors of measured numbers: embeddings."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from agentos_store.errors import InvalidValueError
from agentos_store.types.gate import Decode, Gate, PostgreSQLType, kind_of

if TYPE_CHECKING:
    from sqlalchemy import Dialect
    from sqlalchemy.types import TypeEngine

MOST_DIMENSIONS = 16_000
BYTES = 4
"""Of a number."""


class Float32Vector(Gate[bytes]):
    """A vector of 1 to 16,000 finite 32-bit floating-point numbers, as their bytes, the least significant first.

    PostgreSQL stores ``BYTEA``, SQLite ``BLOB``, both the same bytes. A sequence of numbers or a NumPy array becomes
    such bytes; each number is rounded to 32 bits. Read it with ``numpy.frombuffer(value, "<f4")``.

    NaN is refused because it is near to nothing and would be sorted anywhere; infinities, and what becomes one in 32
    bits, because the distance to them is none; a vector of zeros because it has no direction.
    """

    impl = sa.LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Store the bytes."""
        return PostgreSQLType("BYTEA") if dialect.name == "postgresql" else sa.BLOB()

    def check(self, value: object, name: str) -> bytes:
        """Return the bytes of the vector."""
        return _checked(_numbers(value, name), name)

    def writer(self, dialect: Dialect) -> Callable[[bytes], object] | None:
        """Write PostgreSQL's text form, which travels among other values too."""
        return _to_hex if dialect.name == "postgresql" else None

    def decoder(self, dialect: Dialect) -> Decode | None:  # noqa: ARG002  one for all
        """Return plain bytes, whatever a driver makes of them."""
        return _to_bytes


def _to_hex(value: bytes) -> str:
    return "\\x" + value.hex()


def _to_bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    return bytes.fromhex(value[2:]) if isinstance(value, str) else bytes(value)


def _numbers(value: object, name: str) -> array[float]:
    if isinstance(value, memoryview) and value.itemsize > 1:
        # Of numbers, not of bytes.
        value = value.tolist()
    if isinstance(value, bytes | bytearray | memoryview):
        numbers = array("f")
        try:
            numbers.frombytes(value)
        except ValueError:
            raise InvalidValueError(name, f"is of {len(value):,} bytes, and a number takes {BYTES}") from None
        return _turned(numbers)
    if hasattr(value, "__array__"):
        return _numbers(_of_array(value, name), name)
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidValueError(name, f"is of type {kind_of(value)}, not a vector")
    try:
        return array("f", value)
    except TypeError:
        raise InvalidValueError(name, "holds something that is no number") from None
    except OverflowError:
        raise InvalidValueError(name, "holds a number that is too large for a 32-bit float") from None


def _of_array(value: Any, name: str) -> bytes:
    # Who has an array has NumPy.
    import numpy as np

    try:
        found = np.asarray(value)
        if found.ndim != 1 or found.dtype.kind not in "fiu":
            raise InvalidValueError(name, f"is an array of {found.ndim} dimensions of {found.dtype}, not a vector")
        with np.errstate(over="ignore"):
            return found.astype("<f4").tobytes()
    except (TypeError, ValueError) as error:
        if isinstance(error, InvalidValueError):
            raise
        raise InvalidValueError(name, "holds something that is no number") from None


def _checked(numbers: array[float], name: str) -> bytes:
    if not 1 <= len(numbers) <= MOST_DIMENSIONS:
        raise InvalidValueError(name, f"has {len(numbers):,} dimensions, not 1 to {MOST_DIMENSIONS:,}")
    # 64 bits hold the sum of 32-bit numbers, so that it is only infinite or NaN when one of them is.
    if not isfinite(sum(numbers)):
        place = next(i for i, number in enumerate(numbers) if not isfinite(number))
        raise InvalidValueError(f"{name}[{place}]", "is not finite in 32 bits")
    if not any(numbers):
        raise InvalidValueError(name, "is zero throughout, so it has no direction")
    return _turned(numbers).tobytes()


def _turned(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
