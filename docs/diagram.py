#!/usr/bin/env python3
"""Draw the tables in schema.md from the models: ``python docs/diagram.py`` rewrites the diagram in place.

The diagram shows keys and references; the tables below it list every column.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import Column, ForeignKeyConstraint, Table, UniqueConstraint

from agentos_store.models import metadata

PAGE = Path(__file__).with_name("schema.md")
BEGIN, END = "<!-- diagram:begin -->", "<!-- diagram:end -->"


def draw() -> str:
    """Return the diagram as a Mermaid block."""
    tables = sorted(metadata.tables.values(), key=lambda table: table.name)
    lines = ["```mermaid", "erDiagram"]
    for table in tables:
        keys = sorted(table.foreign_key_constraints, key=lambda key: str(key.name))
        lines += [f"    {_reference(table, key)}" for key in keys]
    for table in tables:
        lines += [f"    {table.name} {{", *(f"        {line}" for line in _keys(table)), "    }"]
    return "\n".join([*lines, "```"])


def with_diagram(page: str) -> str:
    """Return the page with the diagram of today between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n\n{draw()}\n\n{END}{after}"


def _reference(table: Table, key: ForeignKeyConstraint) -> str:
    own = {column.name for column in key.columns}
    parent = "|o" if any(column.nullable for column in key.columns) else "||"
    child = "o|" if any(unique <= own for unique in _unique(table)) else "o{"
    return f'{key.referred_table.name} {parent}--{child} {table.name} : "{_named(key)}"'


def _named(key: ForeignKeyConstraint) -> str:
    columns = ", ".join(column.name for column in key.columns)
    return f"{columns} ({(key.ondelete or 'no action').lower()})"


def _keys(table: Table) -> Iterator[str]:
    for column in table.columns:
        marks = list(_marks(table, column))
        if marks:
            yield f"{type(column.type).__name__} {column.name} {', '.join(marks)}"


def _marks(table: Table, column: Column[object]) -> Iterator[str]:
    if column.primary_key:
        yield "PK"
    if column.foreign_keys:
        yield "FK"
    if {column.name} in [unique for unique in _unique(table) if not column.primary_key]:
        yield "UK"


def _unique(table: Table) -> list[set[str]]:
    keys = [table.primary_key, *(key for key in table.constraints if isinstance(key, UniqueConstraint))]
    return [{column.name for column in key.columns} for key in keys]


if __name__ == "__main__":
    PAGE.write_text(with_diagram(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
