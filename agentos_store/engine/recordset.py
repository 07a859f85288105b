"""Many rows in one statement: they travel as one JSON text and become rows again in the database.

One value however many rows there are, so that the statement is prepared once; and one round trip, so that they can be
numbered by what the same statement finds. A driver's arrays do the same at several times the cost in Python.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import Column, cast, column, func, type_coerce
from sqlalchemy.dialects import postgresql

from agentos_store.types.gate import Encode, Gate, PostgreSQLType

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Dialect, FromClause

_dumps = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"), default=str).encode


class RecordsText(str):
    """Rows as one text, whose values are measured each by itself."""

    __slots__ = ("rows",)

    rows: list[dict[str, object]]


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

        def dump(value: Any, _name: str) -> RecordsText:
            rows: Sequence[Mapping[str, Any]] = value
            encoded = [
                {
                    name: encode(value, name)
                    for name, encode, asked in encoders
                    if (value := row[name]) is not None or asked
                }
                for row in rows
            ]
            text = RecordsText(_dumps(encoded))
            text.rows = encoded
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


def _typed(value: ColumnElement[Any], like: Column[Any]) -> ColumnElement[Any]:
    is_text = str(like.type.compile(dialect=_DIALECT)).startswith("TEXT")
    return type_coerce(value, like.type) if is_text else cast(value, like.type)


_DIALECT: Any = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own
