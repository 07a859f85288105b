"""What ``migrations/env.py`` does: the same for ``ensure_migrations``, for our command line, and for Alembic's."""

from __future__ import annotations

from typing import Any

from alembic.ddl.postgresql import PostgresqlImpl
from alembic.ddl.sqlite import SQLiteImpl
from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, text
from sqlalchemy.sql.elements import quoted_name

from agentos_store.engine.version import TABLE, quote_name
from agentos_store.migrate import operations
from agentos_store.migrate.backup import back_up_before
from agentos_store.migrate.locked import lock_key, locked_connection, looking_connection
from agentos_store.migrate.operations import as_text
from agentos_store.migrate.target import DEFAULT_SCHEMA, Target
from agentos_store.models import metadata
from agentos_store.types import UTCDateTime, now

__all__ = ["operations", "run"]


# SQL that is written down is run at another time, so its time is the database's.
_CLOCK_SQLITE = text("strftime('%Y-%m-%dT%H:%M:%f000Z', 'now')".replace(":", "\\:"))
_CLOCK_POSTGRESQL = text("clock_timestamp()")


def _version_table(schema: str | None, clock: object) -> Table:
    return Table(
        TABLE,
        MetaData(),
        # Alembic knows the column by its own name for it.
        Column("revision", String(64), key="version_num", nullable=False),
        Column("applied_at", UTCDateTime(), nullable=False, default=clock, onupdate=clock),
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
        return _version_table(version_table_schema, _CLOCK_SQLITE if self.as_sql else now)


class _PostgreSQL(PostgresqlImpl):
    """Alembic's implementation, with our version table beside those of other applications."""

    __dialect__ = "postgresql"

    def version_table_impl(self, *, version_table: str, version_table_schema: str | None, **options: Any) -> Table:
        if version_table != TABLE:
            return super().version_table_impl(
                version_table=version_table, version_table_schema=version_table_schema, **options
            )
        return _version_table(version_table_schema, _CLOCK_POSTGRESQL if self.as_sql else now)

    # What ALTER TABLE says is no table of SQLAlchemy's, so the schema is not written into it as into the rest.

    def add_column(self, table_name: str, *arguments: Any, schema: Any = None, **options: Any) -> None:
        super().add_column(table_name, *arguments, schema=self._named(schema), **options)

    def drop_column(self, table_name: str, *arguments: Any, schema: Any = None, **options: Any) -> None:
        super().drop_column(table_name, *arguments, schema=self._named(schema), **options)

    def alter_column(self, table_name: str, column_name: str, *, schema: Any = None, **options: Any) -> None:
        super().alter_column(table_name, column_name, schema=self._named(schema), **options)

    def _named(self, schema: Any) -> Any:
        schema = schema or self.context_opts.get("version_table_schema")
        # Alembic takes a plain text with a dot in it for two names.
        return None if schema is None else quoted_name(schema, None)


def run(context: Any) -> None:
    """Run Alembic's command on a locked connection: one that was handed over, or one opened for it.

    ``context`` is the module ``alembic.context``, which stands for the EnvironmentContext of the command that runs.
    """
    given = context.config.attributes.get("connection")
    if given is not None:
        _run_on(context, given, context.config.attributes["target"])
        return
    arguments = context.get_x_argument(as_dictionary=True)
    target = Target.of(arguments.get("url"), schema=arguments.get("schema"))
    if context.is_offline_mode():
        _write_sql(context, target)
        return
    # A command that only looks waits for nobody, and makes no file and no schema.
    opened = looking_connection if _options(context, target).get("dont_mutate") else locked_connection
    with opened(target) as connection:
        _run_on(context, connection, target)


def _run_on(context: Any, connection: Connection, target: Target) -> None:
    if target.schema is not None:
        connection = connection.execution_options(schema_translate_map={None: target.schema})
    planned = _options(context, target)["fn"]

    def plan(heads: Any, migration: Any) -> list[Any]:
        steps = list(planned(heads, migration))
        back_up_before(target, steps)
        return steps

    context.configure(
        connection=connection,
        target_metadata=metadata,
        version_table=TABLE,
        version_table_schema=target.schema,
        transactional_ddl=True,
        append_only=target.settings.append_only,
        fn=plan,
    )
    context.run_migrations()


def _write_sql(context: Any, target: Target) -> None:
    context.configure(
        dialect_name=_dialect_name(target),
        # With the driver's own style of parameters every percent sign would be written twice.
        dialect_opts={"paramstyle": "named"},
        target_metadata=metadata,
        version_table=TABLE,
        version_table_schema=target.schema,
        literal_binds=True,
        transactional_ddl=True,
        append_only=target.settings.append_only,
    )
    with context.begin_transaction():
        if target.schema is not None:
            lock, name = lock_key(target.schema), quote_name(target.schema)
            context.execute(f"SELECT pg_advisory_xact_lock({lock})")
            if target.schema != DEFAULT_SCHEMA:
                context.execute(as_text(f"CREATE SCHEMA IF NOT EXISTS {name}"))
            context.execute(as_text(f"SET LOCAL search_path TO {name}"))
        context.run_migrations()


def _options(context: Any, target: Target) -> dict[str, Any]:
    """Return what the command was called with; Alembic shows it to a configured context only."""
    context.configure(dialect_name=_dialect_name(target))
    options: dict[str, Any] = context.get_context().opts
    return options


def _dialect_name(target: Target) -> str:
    return target.url.drivername.partition("+")[0]
