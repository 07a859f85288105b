"""What ``migrations/env.py`` does: the same for ``ensure_migrations``, for our command line, and for Alembic's."""

from __future__ import annotations

from typing import Any

from alembic.ddl.postgresql import PostgresqlImpl
from alembic.ddl.sqlite import SQLiteImpl
from alembic.runtime.environment import EnvironmentContext
from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table

from agentos_store.engine.version import TABLE
from agentos_store.migrate import operations
from agentos_store.models import metadata
from agentos_store.types import UTCDateTime, now

__all__ = ["operations", "run"]


def _version_table(schema: str | None) -> Table:
    return Table(
        TABLE,
        MetaData(),
        # Alembic knows the column by its own name for it.
        Column("revision", String(64), key="version_num", nullable=False),
        Column("applied_at", UTCDateTime(), nullable=False, default=now, onupdate=now),
        PrimaryKeyConstraint("version_num", name=f"pk_{TABLE}"),
        schema=schema,
    )


class _SQLite(SQLiteImpl):
    """Alembic's implementation, with our version table beside those of other applications."""

    __dialect__ = "sqlite"

    def version_table_impl(self, *, version_table: str, version_table_schema: str | None, **options: Any) -> Table:
        if version_table != TABLE:
            return super().version_table_impl(
                version_table=version_table, version_table_schema=version_table_schema, **options
            )
        return _version_table(version_table_schema)


class _PostgreSQL(PostgresqlImpl):
    """Alembic's implementation, with our version table beside those of other applications."""

    __dialect__ = "postgresql"

    def version_table_impl(self, *, version_table: str, version_table_schema: str | None, **options: Any) -> Table:
        if version_table != TABLE:
            return super().version_table_impl(
                version_table=version_table, version_table_schema=version_table_schema, **options
            )
        return _version_table(version_table_schema)


def run(context: EnvironmentContext) -> None:
    """Run Alembic's command on a locked connection: one that was handed over, or one opened for it."""
    given = context.config.attributes.get("connection")
    if given is not None:
        _run_on(context, given, context.config.attributes["schema"], context.config.attributes["append_only"])
        return
    from agentos_store.migrate.locked import locked_connection
    from agentos_store.migrate.target import Target

    arguments = context.get_x_argument(as_dictionary=True)
    target = Target.of(arguments.get("url"), schema=arguments.get("schema"))
    if context.is_offline_mode():
        _write_sql(context, target.url.drivername, target.schema)
        return
    with locked_connection(target) as connection:
        _run_on(context, connection, target.schema, target.settings.append_only)


def _run_on(context: EnvironmentContext, connection: Connection, schema: str | None, append_only: str) -> None:
    if schema is not None:
        connection = connection.execution_options(schema_translate_map={None: schema})
    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=TABLE,
        version_table_schema=schema,
        transactional_ddl=True,
        append_only=append_only,
    )
    context.run_migrations()


def _write_sql(context: EnvironmentContext, drivername: str, schema: str | None) -> None:
    context.configure(
        dialect_name=drivername.partition("+")[0],
        target_metadata=metadata,
        version_table=TABLE,
        version_table_schema=schema,
        literal_binds=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        if schema is not None:
            context.execute(f'SET LOCAL search_path TO "{schema.replace(chr(34), chr(34) * 2)}"')
        context.run_migrations()
