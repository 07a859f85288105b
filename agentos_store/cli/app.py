"""The application: its groups, its common options, and its exit codes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from agentos_store import StoreError
from agentos_store.cli import audit, database, demonstration, imports, lineage, status, tasks
from agentos_store.cli.exits import exit_code
from agentos_store.cli.output import errors, escape
from agentos_store.cli.where import Where

app = typer.Typer(
    name="agentos-store",
    help="The data layer for agent platforms: AgentOS's registry of tasks and audits, on SQLite and PostgreSQL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 something was found wrong, 2 wrong usage, 3 not found, 4 a value was refused, "
    "5 conflict, 6 the schema is another one, 7 the database is not available, 130 interrupted.",
)
app.add_typer(database.app, name="db")
app.add_typer(imports.app, name="import")
app.add_typer(tasks.app, name="tasks")
app.add_typer(audit.app, name="audit")
app.command("lineage")(lineage.lineage)
app.command("status")(status.status)
app.command("demo")(demonstration.demo)


@app.callback()
def common(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(help="The database; without it the DATABASE_ variables say, or ./store/registry.sqlite."),
    ] = None,
    schema: Annotated[str | None, typer.Option(help="The PostgreSQL schema.")] = None,
) -> None:
    """Keep what all commands need."""
    context.obj = Where(url, schema)


def main() -> None:
    """Run the command; an error of the store is one line and an exit code."""
    try:
        # Not standalone: click would print its own tracebacks and swallow our codes.
        result = app(standalone_mode=False)
    except StoreError as error:
        errors().print(f"error: {escape(str(error))}", soft_wrap=True)
        sys.exit(exit_code(error))
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        errors().print("interrupted")
        sys.exit(130)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(result if isinstance(result, int) else 0)
