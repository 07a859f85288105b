"""Which tables are moved, in which order, and what of a row belongs to the place and not to the data.

Everything is told from the models, so that a new table is moved as soon as it is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Column, Table

from agentos_store.base import Base
from agentos_store.conversations.models import Session as Conversation
from agentos_store.models import metadata
from agentos_store.operations.moving.forms import Form, form_of

STAYING = {
    "audit_pruning_permits": "lives as long as one step of retention",
    "event_orders": "says for which server an order of the events holds; what goes on there is told by the facts",
    "search_documents": "is made of the rows that are moved",
}
"""Tables that belong to a database and not to its data, and why."""

OF_THE_PLACE: Mapping[tuple[str, str], str] = {
    (Conversation.__tablename__, "unindexed_from"): "says which messages the index of this database lacks",
}
"""Columns that do, and why."""


@dataclass(frozen=True, slots=True, eq=False)
class MovedTable:
    """A table whose rows are moved."""

    model: type[Base]
    table: Table
    columns: Sequence[Column[Any]]
    """Those whose values are moved, in the order in which the model has them."""
    forms: Sequence[Form]
    """Of each column the form in which its values travel."""
    keys: Sequence[int]
    """Where the columns of the primary key stand among the columns; rows come in the order of their keys."""
    late: Sequence[int]
    """Where those stand that refer to rows which may come later: they are NULL until all rows are there."""

    @property
    def name(self) -> str:
        """What the table is called."""
        return self.table.name

    @property
    def names(self) -> Sequence[str]:
        """What the moved columns are called."""
        return [column.name for column in self.columns]

    @property
    def identity(self) -> Column[Any] | None:
        """The column that the database numbers."""
        return next((column for column in self.columns if column.identity is not None), None)

    def key_of(self, row: Sequence[object]) -> tuple[Any, ...]:
        """Return the key of a row in its canonical form."""
        return tuple(row[i] for i in self.keys)


@cache
def moved_tables() -> Sequence[MovedTable]:
    """Return the tables in the order in which their rows can be written: what is referred to comes first."""
    models = {mapper.local_table: mapper.class_ for mapper in Base.registry.mappers}
    seen: set[Table] = set()
    found = []
    for table in metadata.sorted_tables:
        if table.name not in STAYING:
            found.append(_moved(models[table], table, seen))
        seen.add(table)
    return tuple(found)


def moved_table(name: str) -> MovedTable:
    """Return a table by its name; KeyError for one that is not moved."""
    return {each.name: each for each in moved_tables()}[name]


def _moved(model: type[Base], table: Table, seen: set[Table]) -> MovedTable:
    columns = [column for column in table.columns if (table.name, column.name) not in OF_THE_PLACE]
    late = {
        element.parent
        for key in table.foreign_key_constraints
        if key.referred_table not in seen
        for element in key.elements
        if not element.parent.primary_key
    }
    assert all(column.nullable for column in late), table.name
    return MovedTable(
        model,
        table,
        tuple(columns),
        tuple(form_of(column.type) for column in columns),
        tuple(columns.index(column) for column in table.primary_key.columns),
        tuple(i for i, column in enumerate(columns) if column in late),
    )
