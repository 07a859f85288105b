"""How many rows there are: exact while they are few, an estimate beyond, so that nobody waits for seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Table, bindparam, func, literal, select
from sqlalchemy.ext.compiler import compiles

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.types import Int64

EXACT = 100_000
"""Rows that are counted one by one, which takes some milliseconds."""


@dataclass(frozen=True, slots=True)
class Count:
    """A number of rows."""

    rows: int
    estimated: bool = False
    """Whether there are more than are counted one by one."""

    def __str__(self) -> str:
        return f"~{self.rows:,}" if self.estimated else f"{self.rows:,}"


class RowCount:
    """Counts the rows of one table, or those of them that meet conditions."""

    def __init__(self, table: Table, *conditions: ColumnElement[bool]) -> None:
        some = select(literal(1).label("one")).select_from(table).where(*conditions).limit(bindparam("most")).subquery()
        self._some: Statement[Any] = Statement(select(func.count()).select_from(some))
        self._all: Statement[Any] = Statement(select(_EstimatedRows(table)))

    def of(self, session: Session, *, exact: int = EXACT) -> Count:
        """Count up to so many; beyond, say how many rows the table has by the database's own books."""
        ((found,),) = session.all(self._some, {"most": exact + 1})
        if found <= exact:
            return Count(found)
        ((estimate,),) = session.all(self._all)
        return Count(max(found, estimate or 0), estimated=True)


class _EstimatedRows(ColumnElement[int]):
    """The rows of a table as the database has them in its books."""

    inherit_cache = False
    type = Int64()

    def __init__(self, table: Table) -> None:
        self.table = table


@compiles(_EstimatedRows, "postgresql")
def _postgresql(element: _EstimatedRows, compiler: Any, **options: Any) -> str:
    # As the planner does it: the rows that a page had when it was last looked at, times the pages of now; what nobody
    # has looked at yet was counted by the server as it came in. Over all partitions, where there are some.
    del options
    one = f"(SELECT tableoid FROM {compiler.process(element.table, asfrom=True)} LIMIT 1)"
    return (
        "(SELECT sum(CASE WHEN c.relpages > 0 AND c.reltuples > 0 THEN c.reltuples / c.relpages"
        " * (pg_relation_size(c.oid) / current_setting('block_size')::int)"
        " ELSE pg_stat_get_live_tuples(c.oid) END)::bigint"
        f" FROM pg_catalog.pg_class c WHERE c.oid = {one} OR c.oid IN (SELECT i.inhrelid FROM pg_catalog.pg_inherits i"
        f" JOIN pg_catalog.pg_inherits p ON p.inhparent = i.inhparent WHERE p.inhrelid = {one}))"
    )


@compiles(_EstimatedRows, "sqlite")
def _sqlite(element: _EstimatedRows, compiler: Any, **options: Any) -> str:
    # Both ends of the table are found at once, in two queries; rows that were removed in between are counted too.
    del options
    table = compiler.process(element.table, asfrom=True)
    return f"((SELECT max(rowid) FROM {table}) - (SELECT min(rowid) FROM {table}) + 1)"
