"""Databases for single tests: made from a template in hundredths of a second, gone afterwards."""

from __future__ import annotations

import uuid
from typing import LiteralString

from psycopg import sql
from sqlalchemy.engine import URL

from agentos_store.engine.urls import parse_url
from agentos_store.errors import InvalidValueError
from agentos_store.testing.postgres import connect

PREFIX = "agentos_test_"

CHOICE_OF_STRATEGY = 150_000
"""The server's version since which CREATE DATABASE has a STRATEGY."""


class Databases:
    """Makes and drops databases on one server."""

    def __init__(self, server_url: str) -> None:
        self._server = parse_url(server_url)

    def can_create(self) -> bool:
        """Tell whether the user may create databases; where not, ``reset_schema`` is the way to an empty one."""
        with connect(self._server) as connection:
            found = connection.execute(
                "SELECT rolcreatedb OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user"
            ).fetchone()
        return found is not None and bool(found[0])

    def create(self, template: str | None = None) -> str:
        """Create a database under a name of its own and return its URL.

        ``template`` is the name or the URL of a database that is copied; nobody may be connected to it.
        """
        name = PREFIX + uuid.uuid4().hex
        with connect(self._server) as connection:
            statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
            if template is not None:
                statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(_name(template)))
                if connection.info.server_version >= CHOICE_OF_STRATEGY:
                    statement += sql.SQL(" STRATEGY ") + sql.SQL(STRATEGY)
            connection.execute(statement)
        return self._server.set(database=name).render_as_string(hide_password=False)

    def seal(self, url: str) -> None:
        """Let nobody connect any more, autovacuum included, so that the database can be copied at any time."""
        with connect(self._server) as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false").format(sql.Identifier(_name(url)))
            )

    def drop(self, url: str) -> None:
        """Drop a database made by ``create``, whoever is still connected; one that is gone is no error."""
        name = _name(url)
        if not name.startswith(PREFIX):
            raise InvalidValueError("url", "is not a database that was made here")
        with connect(self._server) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


STRATEGY: LiteralString = "WAL_LOG"
"""Of the two the faster for a small template: no checkpoint before and after."""


def reset_schema(url: str | URL, schema: str) -> None:
    """Drop the schema with all that is in it, and create it empty; its migrations are the caller's to run again."""
    with connect(url) as connection, connection.transaction():
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))


def _name(database: str) -> str:
    """Return the name of a database that is given by its name or its URL."""
    return parse_url(database).database or "" if "://" in database else database
