"""Conditions on a column in the form that makes the database search the column's index, whatever it knows of the table.

PostgreSQL's planner guesses wrongly how many rows a part of a statement gives, the more so before a table's first
ANALYZE, and then prefers to read the whole table: at each step, where the part is recursive.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType


class Among(FunctionElement[Any]):
    """``among`` as part of a statement."""

    # A boolean would be compared with 1 where the database has no booleans, and no index serves that.
    type = NullType()
    inherit_cache = True
    name = "among"


class Searched(FunctionElement[Any]):
    """``searched`` as part of a statement."""

    type = NullType()
    inherit_cache = True
    name = "searched"


def among(column: Any, query: Select[Any]) -> Among:
    """Return the condition that the column holds one of the few values that the query gives, which is run once."""
    return Among(column, query.scalar_subquery())


def searched(column: Any, value: Any) -> Searched:
    """Return the condition that the column equals a value of another table, row by row of that table."""
    return Searched(column, value)


class Unsearched(FunctionElement[Any]):
    """``unsearched`` as part of a statement."""

    inherit_cache = True
    name = "unsearched"


def unsearched(column: Any) -> Any:
    """Return the column in a form that keeps SQLite from searching an index that begins with it.

    So it follows the one that has the order asked for; PostgreSQL does, where few rows are asked for.
    """
    return type_coerce(Unsearched(column), column.type)


@compiles(Unsearched, "postgresql")
def _unsearched_postgresql(element: Unsearched, compiler: Any, **options: Any) -> str:
    return _parts(element, compiler, options)[0]


@compiles(Unsearched, "sqlite")
def _unsearched_sqlite(element: Unsearched, compiler: Any, **options: Any) -> str:
    return f"+{_parts(element, compiler, options)[0]}"


def _parts(element: FunctionElement[Any], compiler: Any, options: Any) -> list[str]:
    return [compiler.process(clause, **options) for clause in element.clauses]


@compiles(Among, "postgresql")
def _among_postgresql(element: Among, compiler: Any, **options: Any) -> str:
    column, values = _parts(element, compiler, options)
    return f"{column} = ANY (ARRAY{values})"


@compiles(Among, "sqlite")
def _among_sqlite(element: Among, compiler: Any, **options: Any) -> str:
    column, values = _parts(element, compiler, options)
    return f"{column} IN {values}"


@compiles(Searched, "postgresql")
def _searched_postgresql(element: Searched, compiler: Any, **options: Any) -> str:
    column, value = _parts(element, compiler, options)
    # No join but a nested loop can work with this.
    return f"{column} = ANY (ARRAY[{value}])"


@compiles(Searched, "sqlite")
def _searched_sqlite(element: Searched, compiler: Any, **options: Any) -> str:
    column, value = _parts(element, compiler, options)
    return f"{column} = {value}"
