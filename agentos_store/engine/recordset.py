"""Many rows in one statement: they travel as one JSON text and become rows again in the database.

One value however many rows there are, so that the statement is prepared once; and one round trip, so that they can be
numbered by what the same statement finds. A driver's arrays do the same at several times the cost in Python.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import repeat
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import Column, cast, column, func, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from agentos_store.engine.columnwise import encode_column
from agentos_store.types.gate import Encode, Gate, PostgreSQLType

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Dialect, FromClause

_dumps = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"), default=str).encode


class CompoundText(str):
    """Many values as one text, which are measured each by itself."""

    __slots__ = ("parts",)

    parts: Iterable[tuple[str, object]]
    """The values with their columns' names, to be gone through once."""


class Records(Gate[Any]):
    """A list of mappings, as JSON text: each value in the form that its column has in PostgreSQL."""

    impl = sa.Text
    cache_ok = False

    def __init__(self, columns: Sequence[Column[Any]]) -> None:
        super().__init__()
        self.columns = tuple(columns)

    def load_dialect_impl(self, dialect: Dialect) -> Any:  # noqa: ARG002  there is no other
        """Name the type that the function takes."""
        return PostgreSQLType("JSON")

    def strict_encoder(self, dialect: Dialect) -> Encode:
        """Encode each value as its column does; what is NULL does not travel."""
        encoders: list[tuple[str, Encode, bool]] = []
        for each in self.columns:
            assert isinstance(each.type, Gate)
            # Where NULL may not stand, the type is asked what it makes of None: a form of its own, or a refusal.
            encoders.append((each.name, each.type.strict_encoder(dialect), each.type.writes_none or not each.nullable))
        derived = frozenset(each.name for each in self.columns if isinstance(each.type, Gate) and each.type.is_derived)

        def dump(value: Any, _name: str) -> CompoundText:
            rows: Sequence[Mapping[str, Any]] = value
            encoded = [
                {
                    name: encode(value, name)
                    for name, encode, asked in encoders
                    if (value := row[name]) is not None or asked
                }
                for row in rows
            ]
            text = CompoundText(_dumps(encoded))
            text.parts = ((name, value) for row in encoded for name, value in row.items() if name not in derived)
            return text

        return dump


def recordset(name: str, columns: Sequence[Column[Any]]) -> tuple[FromClause, dict[str, ColumnElement[Any]]]:
    """Return a table made of the rows in the value of this name, and its columns by name.

    Only a database with data-modifying common table expressions is asked for it.
    """
    # Each travels as text, and becomes what it is in the SELECT: JSON within JSON would be read and written again.
    rows = (
        func.json_to_recordset(sa.bindparam(name, type_=Records(columns)))
        .table_valued(*(column(each.name, PostgreSQLType("TEXT")) for each in columns))
        .render_derived(name=name, with_types=True)
    )
    return rows, {each.name: _typed(rows.c[each.name], each) for each in columns}


class Series(Gate[Any]):
    """The values of one column, of which there is at least one, as JSON text, in the form that it has in PostgreSQL."""

    impl = sa.Text
    cache_ok = False

    def __init__(self, column: Column[Any]) -> None:
        super().__init__()
        self.column = column

    def load_dialect_impl(self, dialect: Dialect) -> Any:  # noqa: ARG002  there is no other
        """Name the type that the function takes."""
        return PostgreSQLType("JSON")

    def strict_encoder(self, dialect: Dialect) -> Encode:
        """Encode the values as the column does."""
        name, type_ = self.column.name, self.column.type
        assert isinstance(type_, Gate)
        encode = type_.strict_encoder(dialect)
        for_none = encode if type_.writes_none else None if self.column.nullable else type_.check

        def dump(value: Any, _name: str) -> CompoundText:
            encoded = encode_column(value, encode, name, for_none)
            text = CompoundText(_dumps(encoded))
            text.parts = () if type_.is_derived else zip(repeat(name), encoded)
            return text

        return dump


class _Unfolded(FunctionElement[Any]):
    inherit_cache = True
    name = "unfolded"


@compiles(_Unfolded, "postgresql")
def _unfold(element: _Unfolded, compiler: Any, **options: Any) -> str:
    each = (f"json_array_elements_text({compiler.process(clause, **options)})" for clause in element.clauses)
    return f"ROWS FROM ({', '.join(each)}) WITH ORDINALITY"


def series(
    name: str, columns: Sequence[Column[Any]]
) -> tuple[FromClause, dict[str, ColumnElement[Any]], ColumnElement[int]]:
    """Return a table made of lists of equal length, its columns by name, and the number of a row, from 1.

    The list for the column ``id`` is the value of the name ``name_id``. This is for few columns, each of which has a
    text of its own: rows as mappings repeat their names, and take twice as long to be written and a fifth longer to be
    read.
    """
    given = _Unfolded(*(sa.bindparam(f"{name}_{each.name}", type_=Series(each)) for each in columns))
    texts = (column(each.name, PostgreSQLType("TEXT")) for each in columns)
    number = column("row_number_", sa.BIGINT())
    rows = given.table_valued(*texts, number).render_derived(name=name)
    return rows, {each.name: _typed(rows.c[each.name], each) for each in columns}, rows.c.row_number_


def _typed(value: ColumnElement[Any], like: Column[Any]) -> ColumnElement[Any]:
    is_text = str(like.type.compile(dialect=_dialect())).startswith("TEXT")
    return type_coerce(value, like.type) if is_text else cast(value, like.type)


@cache
def _dialect() -> Any:
    # It takes a sixth of the time that all of SQLAlchemy takes to import, which a store pays for that has such rows.
    from sqlalchemy.dialects import postgresql

    return postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own
