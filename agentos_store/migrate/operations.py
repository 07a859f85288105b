"""Operations that revisions have beside Alembic's own: ``op.create_json_triggers`` and the like.

They are part of what a released revision means, so their effect never changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations

from agentos_store.errors import StoreError
from agentos_store.migrate.triggers import (
    append_only_function,
    append_only_triggers_postgresql,
    append_only_triggers_sqlite,
    json_triggers,
)


def is_sqlite(operations: Operations) -> bool:
    """Tell whether the revision runs on SQLite."""
    return operations.get_context().dialect.name == "sqlite"


def _quoted_schema(operations: Operations) -> str:
    context = operations.get_context()
    return str(context.dialect.identifier_preparer.quote_identifier(context.version_table_schema or "public"))


@Operations.register_operation("create_json_triggers")
class CreateJSONTriggers(MigrateOperation):
    """``op.create_json_triggers(table, *columns)``: on SQLite, refuse invalid JSON in these columns."""

    def __init__(self, table: str, columns: Sequence[str]) -> None:
        self.table = table
        self.columns = columns

    @classmethod
    def create_json_triggers(cls, operations: Operations, table: str, *columns: str) -> Any:
        """Create the triggers."""
        return operations.invoke(cls(table, columns))


@Operations.implementation_for(CreateJSONTriggers)
def _create_json_triggers(operations: Operations, operation: CreateJSONTriggers) -> None:
    if is_sqlite(operations):
        for column in operation.columns:
            for _, text in json_triggers(operation.table, column):
                operations.execute(text)


@Operations.register_operation("create_append_only_triggers")
class CreateAppendOnlyTriggers(MigrateOperation):
    """``op.create_append_only_triggers(table)``: let the database itself refuse changes to the table's rows.

    On PostgreSQL they are left out where the setting says that the role's privileges do it.
    """

    def __init__(self, table: str) -> None:
        self.table = table

    @classmethod
    def create_append_only_triggers(cls, operations: Operations, table: str) -> Any:
        """Create the triggers."""
        return operations.invoke(cls(table))


@Operations.implementation_for(CreateAppendOnlyTriggers)
def _create_append_only_triggers(operations: Operations, operation: CreateAppendOnlyTriggers) -> None:
    if is_sqlite(operations):
        for _, text in append_only_triggers_sqlite(operation.table):
            operations.execute(text)
    elif operations.get_context().opts.get("append_only", "trigger") == "trigger":
        schema = _quoted_schema(operations)
        operations.execute(append_only_function(operation.table, schema))
        for _, text in append_only_triggers_postgresql(operation.table, schema):
            operations.execute(text)


@Operations.register_operation("drop_append_only_function")
class DropAppendOnlyFunction(MigrateOperation):
    """``op.drop_append_only_function(table)``: what the triggers leave behind on PostgreSQL when the table is dropped."""

    def __init__(self, table: str) -> None:
        self.table = table

    @classmethod
    def drop_append_only_function(cls, operations: Operations, table: str) -> Any:
        """Drop the function."""
        return operations.invoke(cls(table))


@Operations.implementation_for(DropAppendOnlyFunction)
def _drop_append_only_function(operations: Operations, operation: DropAppendOnlyFunction) -> None:
    if not is_sqlite(operations):
        operations.execute(f"DROP FUNCTION IF EXISTS {_quoted_schema(operations)}.{operation.table}_append_only()")


class RebuildError(StoreError):
    """A table that was rebuilt came out with other triggers or another number of rows than it went in."""


@Operations.register_operation("rebuild_table")
class RebuildTable(MigrateOperation):
    """``op.rebuild_table(table, change)``: on SQLite, change what ALTER TABLE cannot, and keep the triggers.

    ``change`` is given Alembic's batch operations. Alembic's batch mode makes a new table, copies the rows and drops
    the old one, and the table's triggers with it, in silence. Here they are taken down first, put back afterwards
    (but for those named in ``without_triggers``), and checked, as is the number of rows. A revision that calls this
    says ``REWRITES = True``, so that a file with rows in it is backed up first.
    """

    def __init__(self, table: str, change: Callable[[Any], None], without_triggers: Sequence[str]) -> None:
        self.table = table
        self.change = change
        self.without_triggers = without_triggers

    @classmethod
    def rebuild_table(
        cls, operations: Operations, table: str, change: Callable[[Any], None], *, without_triggers: Sequence[str] = ()
    ) -> Any:
        """Rebuild the table."""
        return operations.invoke(cls(table, change, without_triggers))


@Operations.implementation_for(RebuildTable)
def _rebuild_table(operations: Operations, operation: RebuildTable) -> None:
    connection = operations.get_bind()
    before = table_triggers(connection, operation.table)
    rows = _count(connection, operation.table)
    with operations.batch_alter_table(operation.table, recreate="always") as batch:
        operation.change(batch)
    wanted = {name: text for name, text in before.items() if name not in operation.without_triggers}
    for name, text in wanted.items():
        if name not in table_triggers(connection, operation.table):
            connection.exec_driver_sql(text)
    if table_triggers(connection, operation.table) != wanted:
        raise RebuildError(f"the triggers of {operation.table} are not what they were")
    if _count(connection, operation.table) != rows:
        raise RebuildError(f"{operation.table} has lost rows")


def table_triggers(connection: sa.Connection, table: str) -> dict[str, str]:
    """Return the text of each trigger on an SQLite table, by its name."""
    rows = connection.execute(
        sa.text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = :table ORDER BY name"),
        {"table": table},
    )
    return {name: text for name, text in rows}


def _count(connection: sa.Connection, table: str) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(sa.table(table))).scalar_one())
