"""Three roles and what each may do, as SQL for an administrator: one migrates, one works, one reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentos_store.engine.version import TABLE, quote_name
from agentos_store.errors import InvalidValueError
from agentos_store.migrate.target import LONGEST_NAME, Target
from agentos_store.migrate.triggers import APPEND_ONLY
from agentos_store.types import Identifier


@dataclass(frozen=True, slots=True)
class Roles:
    """The names of the three roles."""

    owner: str
    """Owns the schema and its tables, and migrates."""
    application: str
    """Reads and writes rows, and changes nothing else."""
    reader: str
    """Reads."""

    def __post_init__(self) -> None:
        """Refuse what cannot be three roles."""
        for name in self.all():
            Identifier().check(name, "role")
            if len(name.encode()) > LONGEST_NAME:
                raise InvalidValueError("role", f"is longer than {LONGEST_NAME} bytes, which PostgreSQL would cut")
        if len(set(self.all())) < len(self.all()):
            raise InvalidValueError("role", "is named twice; the three are different ones")

    def all(self) -> tuple[str, str, str]:
        """Return the three."""
        return self.owner, self.application, self.reader


def grants(target: Target, roles: Roles) -> str:
    """Return the SQL that makes the roles where they are missing and gives each what it needs, and no more.

    It may be run again at any time, by a superuser or by whoever may make roles and grant the owner's. It has to be run
    before the first migration, and once more behind it: what the application must not change is there by then. Further
    migrations need no new grants.
    """
    if target.schema is None:
        raise InvalidValueError("url", "is an SQLite file; who may do what with it is said by the file's permissions")
    schema, database = quote_name(target.schema), quote_name(target.url.database or target.url.username or "postgres")
    owner, application, reader = map(quote_name, roles.all())
    lines = ["BEGIN;", "", "-- The roles; their passwords are set apart from this: \\password " + owner]
    lines += [_make_role(name) for name in roles.all()]
    lines += [
        "",
        "-- Who can make no object in any schema on a search_path can slip nothing under anybody's statements.",
        _if_so("pg_catalog.to_regnamespace('public') IS NOT NULL", "REVOKE CREATE ON SCHEMA public FROM PUBLIC"),
        f"GRANT CONNECT ON DATABASE {database} TO {owner}, {application}, {reader};",
        f"CREATE SCHEMA IF NOT EXISTS {schema};",
        f"ALTER SCHEMA {schema} OWNER TO {owner};",
        f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC, {application}, {reader};",
        f"GRANT USAGE ON SCHEMA {schema} TO {application}, {reader};",
        "",
        "-- What is there, and what migrations will add.",
    ]
    for privileges, kind, role in (
        ("SELECT, INSERT, UPDATE, DELETE", "TABLES", application),
        ("USAGE, SELECT, UPDATE", "SEQUENCES", application),
        ("SELECT", "TABLES", reader),
        ("SELECT", "SEQUENCES", reader),
    ):
        lines.append(f"GRANT {privileges} ON ALL {kind} IN SCHEMA {schema} TO {role};")
        lines.append(
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema} GRANT {privileges} ON {kind} TO {role};"
        )
    lines += ["", "-- Only a migration says which revision the schema has."]
    lines.append(_where_there(schema, TABLE, f"REVOKE INSERT, UPDATE, DELETE ON {schema}.{TABLE} FROM {application}"))
    if target.settings.append_only == "privileges":
        lines += ["", "-- What is append-only is kept so by these privileges; the owner's are needed to prune it."]
        lines += [
            _where_there(schema, table, f"REVOKE UPDATE, DELETE ON {schema}.{table} FROM {application}")
            for table in APPEND_ONLY
        ]
    lines += ["", "-- Limits that hold through a pooler, too, which does not pass on those of the connection."]
    for role in (application, reader):
        lines += [
            f"ALTER ROLE {role} IN DATABASE {database} SET {name} = '{round(seconds * 1000)}ms';"
            for name, seconds in _limits(target.settings).items()
        ]
    return "\n".join([*lines, "", "COMMIT;"])


def _limits(settings: Any) -> dict[str, float]:
    limits = {
        "lock_timeout": settings.lock_timeout,
        "statement_timeout": settings.statement_timeout,
        "idle_in_transaction_session_timeout": settings.idle_in_transaction_timeout,
    }
    return {name: seconds for name, seconds in limits.items() if seconds is not None}


def _make_role(name: str) -> str:
    missing = f"NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {_literal(name)})"
    return _if_so(missing, f"CREATE ROLE {quote_name(name)} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")


def _where_there(schema: str, table: str, command: str) -> str:
    return _if_so(f"pg_catalog.to_regclass({_literal(f'{schema}.{table}')}) IS NOT NULL", command)


def _if_so(question: str, command: str) -> str:
    return f"DO {_literal(f'BEGIN IF {question} THEN {command}; END IF; END')};"


def _literal(text: str) -> str:
    """Return a text as SQL has it between quotes; a backslash is one whatever standard_conforming_strings says."""
    quoted = text.replace("'", "''")
    return f"E'{quoted.replace(chr(92), chr(92) * 2)}'" if "\\" in text else f"'{quoted}'"
