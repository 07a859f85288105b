"""What all column types share: one check for every database, one form for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import TypeDecorator
from sqlalchemy.types import UserDefinedType

if TYPE_CHECKING:
    from sqlalchemy import Dialect

T = TypeVar("T")

Encode = Callable[[object, str], object]
"""Takes a value and its name; returns the driver's value or raises InvalidValueError."""

Decode = Callable[[Any], object]


class Gate(TypeDecorator[T]):
    """A column type that lets the same values through on every database, and gives them back equal.

    The check knows no dialect, so what one database would refuse is refused on both. Writer and decoder are chosen
    once for a dialect and then called for each value.

    Each class says ``cache_ok`` for itself, as SQLAlchemy does not inherit it.
    """

    def check(self, value: object, name: str) -> T:
        """Return the value in its normal form; raise InvalidValueError for one that the store refuses.

        The value is not None; ``name`` is what the error calls it.
        """
        raise NotImplementedError

    def writer(self, dialect: Dialect) -> Callable[[T], object] | None:  # noqa: ARG002  for types that differ
        """Return what makes a checked value into the driver's; None when it is the same."""
        return None

    is_derived = False
    """Whether the library makes the values, of what it was given and has measured: no limit is meant for them."""

    writes_none = False
    """Whether None has a form of its own, JSON's ``null``, in place of SQL NULL."""

    def strict_encoder(self, dialect: Dialect) -> Encode:
        """Return the function from a value that is not None, unless None has a form, to the driver's value."""
        check, write = self.check, self.writer(dialect)
        return check if write is None else lambda value, name: write(check(value, name))

    def encoder(self, dialect: Dialect) -> Encode:
        """Return the function from a value and its name to the driver's value; None stays None."""
        encode = self.strict_encoder(dialect)
        return encode if self.writes_none else lambda value, name: None if value is None else encode(value, name)

    def decoder(self, dialect: Dialect) -> Decode | None:  # noqa: ARG002  for types that differ
        """Return the function from the driver's value, which is not None, to ours; None when they are the same."""
        return None

    def process_bind_param(self, value: T | None, dialect: Dialect) -> object:
        """Check and encode a value that SQLAlchemy binds."""
        return self.encoder(dialect)(value, "value")

    def process_result_value(self, value: Any, dialect: Dialect) -> T | None:
        """Decode a value that SQLAlchemy read."""
        decode = self.decoder(dialect)
        return cast("T | None", value if value is None or decode is None else decode(value))

    def bind_processor(self, dialect: Dialect) -> Callable[[T | None], Any]:
        """Choose the encoder once for a statement. The drivers take its values as they are."""
        encode = self.encoder(dialect)
        return lambda value: encode(value, "value")

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], T | None] | None:  # noqa: ARG002
        """Choose the decoder once for a statement."""
        decode = self.decoder(dialect)
        return None if decode is None else lambda value: None if value is None else cast("T", decode(value))


class PostgreSQLType(UserDefinedType[Any]):
    """A type of PostgreSQL by its name, without SQLAlchemy's or the driver's own ideas of what goes in and comes out.

    Each parameter is cast, so that NULL has a type wherever it stands.
    """

    cache_ok = True
    render_bind_cast = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_options: Any) -> str:
        """Name the type."""
        return self.name

    def literal_processor(self, dialect: Dialect) -> Callable[[Any], str]:  # noqa: ARG002
        """Write a value into the statement itself, as a definition of an index or a CHECK needs it."""
        return lambda value: "'" + str(value).replace("'", "''") + f"'::{self.name}"


def kind_of(value: object) -> str:
    """Name the type of a value that was refused, without the value."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
