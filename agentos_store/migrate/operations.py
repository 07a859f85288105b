"""Operations that revisions have beside Alembic's own: ``op.create_json_triggers`` and the like.

They are part of what a released revision means, so their effect never changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from alembic.operations import MigrateOperation, Operations
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateTable

from agentos_store.engine.version import quote_name
from agentos_store.errors import StoreError
from agentos_store.migrate.catalogue_sqlite import table_facts
from agentos_store.migrate.target import DEFAULT_SCHEMA
from agentos_store.migrate.triggers import (
    append_only_function,
    append_only_triggers_postgresql,
    append_only_triggers_sqlite,
    json_triggers,
)


def is_sqlite(operations: Operations) -> bool:
    """Tell whether the revision runs on SQLite."""
    return operations.get_context().dialect.name == "sqlite"


def as_text(statement: str) -> sa.TextClause:
    """Return the statement as it is: a colon in it, in the name of a schema for instance, begins no parameter."""
    return sa.text(statement.replace(":", "\\:"))


def _quoted_schema(operations: Operations) -> str:
    return quote_name(operations.get_context().version_table_schema or DEFAULT_SCHEMA)


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
        operations.execute(as_text(append_only_function(operation.table, schema)))
        for _, text in append_only_triggers_postgresql(operation.table, schema):
            operations.execute(as_text(text))


@Operations.register_operation("permit_erasure")
class PermitErasure(MigrateOperation):
    """``op.permit_erasure(table)``: let one column of an append-only table become NULL while pruning is permitted.

    With ``permitted=False`` it is taken back. Which column that is, ``triggers.ERASABLE`` says.
    """

    def __init__(self, table: str, permitted: bool) -> None:
        self.table = table
        self.permitted = permitted

    @classmethod
    def permit_erasure(cls, operations: Operations, table: str, *, permitted: bool = True) -> Any:
        """Put the triggers in place of those that are there."""
        return operations.invoke(cls(table, permitted))


@Operations.implementation_for(PermitErasure)
def _permit_erasure(operations: Operations, operation: PermitErasure) -> None:
    if is_sqlite(operations):
        for name, text in append_only_triggers_sqlite(operation.table, erasing=operation.permitted):
            operations.execute(f"DROP TRIGGER {name}")
            operations.execute(text)
    elif operations.get_context().opts.get("append_only", "trigger") == "trigger":
        text = append_only_function(operation.table, _quoted_schema(operations), erasing=operation.permitted)
        operations.execute(as_text(text.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)))


@Operations.register_operation("drop_append_only_function")
class DropAppendOnlyFunction(MigrateOperation):
    """``op.drop_append_only_function(table)``: what a dropped table's triggers leave behind on PostgreSQL."""

    def __init__(self, table: str) -> None:
        self.table = table

    @classmethod
    def drop_append_only_function(cls, operations: Operations, table: str) -> Any:
        """Drop the function."""
        return operations.invoke(cls(table))


@Operations.implementation_for(DropAppendOnlyFunction)
def _drop_append_only_function(operations: Operations, operation: DropAppendOnlyFunction) -> None:
    if not is_sqlite(operations):
        name = f"{_quoted_schema(operations)}.{operation.table}_append_only()"
        operations.execute(as_text(f"DROP FUNCTION IF EXISTS {name}"))


class RebuildError(StoreError):
    """A table cannot be rebuilt, or came out of it otherwise than it went in; nothing was changed."""


@Operations.register_operation("rebuild_table")
class RebuildTable(MigrateOperation):
    """``op.rebuild_table(table, change)``: on SQLite, change what ALTER TABLE cannot, and keep all the rest.

    ``change`` is given Alembic's batch operations. Alembic's batch mode makes a new table from what SQLAlchemy reads
    of the old one, copies the rows and drops the old one: the triggers go in silence, and so do AUTOINCREMENT with its
    last number, the order of an index's columns, and indexes on expressions. Here the triggers and indexes (but for
    those named in ``without``) are taken down first, put back word for word and tried, and the number of rows and the
    last number are checked; a table of which SQLAlchemy does not read everything is refused. Views, and triggers of
    other tables that name this one, are taken down meanwhile: SQLite renames no table while one of them names a table
    that is not there.

    A revision that calls this says ``REWRITES = ("upgrade",)`` or whichever way it is, so that a file with rows in it
    is backed up first.
    """

    def __init__(self, table: str, change: Callable[[Any], None], without: Sequence[str]) -> None:
        self.table = table
        self.change = change
        self.without = without

    @classmethod
    def rebuild_table(
        cls, operations: Operations, table: str, change: Callable[[Any], None], *, without: Sequence[str] = ()
    ) -> Any:
        """Rebuild the table."""
        return operations.invoke(cls(table, change, without))


@Operations.implementation_for(RebuildTable)
def _rebuild_table(operations: Operations, operation: RebuildTable) -> None:
    table = operation.table
    if not is_sqlite(operations):
        raise RebuildError(f"{table}: only SQLite needs this; elsewhere alter the table")
    if operations.get_context().as_sql:
        raise RebuildError(
            f"{table}: what a rebuild does depends on the table, so it cannot be written down beforehand"
        )
    connection = operations.get_bind()
    attached = _attached(connection, table)
    for name, (kind, _) in attached.items():
        connection.exec_driver_sql(f"DROP {kind} {quote_name(name)}")
    options = {"sqlite_autoincrement": True} if _numbered(connection, table) else {}
    found = _read_table(connection, table, options)
    rows, last = _count(connection, table), _last_number(connection, table)
    with operations.batch_alter_table(table, recreate="always", copy_from=found, table_kwargs=options) as batch:
        operation.change(batch)
    if options:
        connection.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = :table"), {"table": table})
        connection.execute(
            sa.text("INSERT INTO sqlite_sequence VALUES (:table, :last)"), {"table": table, "last": last}
        )
    wanted = {name: found for name, found in attached.items() if name not in operation.without}
    for _, text in wanted.values():
        connection.exec_driver_sql(text)
    _check_triggers(connection, table)
    # What the change itself added may be there too.
    if not wanted.items() <= _attached(connection, table).items():
        raise RebuildError(f"the indexes and triggers of {table} are not what they were")
    if _count(connection, table) != rows:
        raise RebuildError(f"{table} has lost rows")
    if options and (not _numbered(connection, table) or _last_number(connection, table) != last):
        raise RebuildError(f"{table} would use numbers again")


def _attached(connection: sa.Connection, table: str) -> dict[str, tuple[str, str]]:
    """Return kind and text, by name, of the table's indexes and of every trigger and view that names the table.

    The order is the one to make them in again: a view may have triggers.
    """
    rows = connection.execute(
        sa.text(
            "SELECT type, name, tbl_name, sql FROM sqlite_master WHERE sql IS NOT NULL AND type <> 'table'"
            " ORDER BY type = 'trigger', type = 'view', rowid"
        )
    )
    names_it = re.compile(rf"\b{re.escape(table)}\b", re.IGNORECASE)
    return {
        name: (kind, text)
        for kind, name, of, text in rows
        if of == table or (kind != "index" and names_it.search(text))
    }


def _numbered(connection: sa.Connection, table: str) -> bool:
    return "AUTOINCREMENT" in _statement(connection, table).upper()


def _last_number(connection: sa.Connection, table: str) -> int:
    if not _numbered(connection, table):
        return 0
    row = connection.execute(sa.text("SELECT seq FROM sqlite_sequence WHERE name = :table"), {"table": table}).first()
    return 0 if row is None else int(row[0])


_REFERENCE = re.compile(
    r"\( (?P<columns>.*?) \) references (?P<table>\w+) \( (?P<keys>.*?) \)"
    r"(?: deferrable)?(?: initially (?P<initially>\w+))?"
    r"(?: on delete (?P<ondelete>[\w ]+?))?(?: on update (?P<onupdate>[\w ]+?))?$"
)
"""A foreign key as ``table_facts`` writes it."""


def _read_table(connection: sa.Connection, table: str, options: dict[str, Any]) -> sa.Table:
    """Return the table as SQLAlchemy can make it again; refuse one that the copy would lack something of.

    SQLAlchemy reads neither the name nor the actions of a foreign key that came with ADD COLUMN and stands inside its
    column, so the foreign keys are taken from the statement.
    """
    found = sa.Table(table, sa.MetaData(), autoload_with=connection, **options)
    for constraint in found.foreign_key_constraints:
        found.constraints.discard(constraint)
        for element in constraint.elements:
            element.parent.foreign_keys.discard(element)
    facts = table_facts(table, _statement(connection, table))
    for (_, what), definition in facts.items():
        reference = _REFERENCE.match(definition) if what.startswith("foreign key") else None
        if reference is not None:
            found.append_constraint(
                sa.ForeignKeyConstraint(
                    reference["columns"].split(" , "),
                    [f"{reference['table']}.{key}" for key in reference["keys"].split(" , ")],
                    name=what.removeprefix("foreign key").strip() or None,
                    ondelete=reference["ondelete"],
                    onupdate=reference["onupdate"],
                    deferrable=True if " deferrable" in definition else None,
                    initially=reference["initially"],
                )
            )
    again = table_facts(table, str(CreateTable(found).compile(dialect=connection.dialect)))
    lost = sorted({what for (_, what), _ in facts.items() ^ again.items()})
    # Alembic passes over a CHECK that has no name.
    lost += ["check without a name"] if (table, "check") in facts else []
    if lost:
        raise RebuildError(f"a rebuild of {table} would not keep: {', '.join(lost)}")
    return found


def _check_triggers(connection: sa.Connection, table: str) -> None:
    """See that the triggers still work: SQLite looks at what a trigger names only when a statement fires it."""
    columns = [column["name"] for column in sa.inspect(connection).get_columns(table)]
    for statement in (
        f"INSERT INTO {quote_name(table)} DEFAULT VALUES",
        f"UPDATE {quote_name(table)} SET {', '.join(f'{quote_name(name)} = NULL' for name in columns)}",
        f"DELETE FROM {quote_name(table)}",
    ):
        try:
            connection.exec_driver_sql(f"EXPLAIN {statement}")
        except OperationalError as error:
            raise RebuildError(f"a trigger that {table} fires names what is no longer there") from error


def _statement(connection: sa.Connection, table: str) -> str:
    query = sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :table")
    found = connection.execute(query, {"table": table}).scalar()
    if found is None:
        raise RebuildError(f"there is no table {table}")
    return str(found)


def _count(connection: sa.Connection, table: str) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(sa.table(table))).scalar_one())
