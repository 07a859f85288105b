"""The application: its groups, its common options, and its exit codes."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, TextIO

import typer

from agentos_store import StoreError
from agentos_store.cli import (
    audit,
    database,
    demonstration,
    imports,
    inbox,
    kb,
    lineage,
    prune,
    search,
    status,
    tail,
    tasks,
    verdicts,
)
from agentos_store.cli.exits import INTERRUPTED, READER_GONE, UNAVAILABLE, WRONG_USAGE, exit_code
from agentos_store.cli.output import ReaderGoneError, complain, echo
from agentos_store.cli.where import Where

app = typer.Typer(
    name="agentos-store",
    help="The data layer for agent platforms: AgentOS's registry of tasks and audits, on SQLite and PostgreSQL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="Exit codes: 0 done, 1 something was found wrong, 2 wrong usage, 3 not found, 4 a value was refused, "
    "5 conflict, 6 the schema is another one, 7 the database is not available, 130 interrupted, 141 nobody reads the "
    "output.",
)
app.add_typer(database.app, name="db")
app.add_typer(imports.app, name="import")
app.add_typer(tasks.app, name="tasks")
app.add_typer(audit.app, name="audit")
app.add_typer(verdicts.app, name="verdicts")
app.add_typer(inbox.app, name="inbox")
app.add_typer(kb.app, name="kb")
# A word that must not be there begins with a hyphen, as an option does.
app.command("search", context_settings={"ignore_unknown_options": True})(search.search)
app.command("lineage")(lineage.lineage)
app.command("prune")(prune.prune)
app.command("status")(status.status)
app.command("tail")(tail.tail)
app.command("demo")(demonstration.demo)

_USAGE: type[Any] = typer.BadParameter.__mro__[1]
"""What an unknown option or a missing argument raises, of the click that Typer depends on or of the one it carries."""


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        echo(f"agentos-store {version('agentos-store')}")
        raise typer.Exit


@app.callback()
def common(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(help="The database; without it the DATABASE_ variables say, or ./store/registry.sqlite."),
    ] = None,
    schema: Annotated[str | None, typer.Option(help="The PostgreSQL schema.")] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Keep what all commands need."""
    del version
    context.obj = Where(url, schema)


def main() -> None:
    """Run the command; an error is one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a character, or a file name that is no text, must not end the command.
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = _show_warning
    # What is worth a line is raised as well, and printed once.
    logging.getLogger("agentos_store").addHandler(logging.NullHandler())
    code = run()
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = READER_GONE
    if code == READER_GONE:
        # The interpreter flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or the program's own, and return its exit code."""
    try:
        # Not standalone: Typer would print its own errors, of many lines, and swallow our codes.
        result = app(args=arguments, standalone_mode=False)
    except StoreError as error:
        complain("error", str(error))
        return exit_code(error)
    except _USAGE as error:
        # Without a message it asked for help, which was printed.
        if message := error.format_message():
            complain("error", message)
        return WRONG_USAGE
    except ReaderGoneError:
        return READER_GONE
    except typer.Abort:
        complain("error", "there was no answer; nothing was changed")
        return INTERRUPTED
    except OSError as error:
        complain("error", f"{error.filename or 'a file'}: {error.strerror}")
        return UNAVAILABLE
    code = result if isinstance(result, int) else 0
    if code == INTERRUPTED:
        complain("interrupted", "what was committed stays; the command can be repeated")
    return code


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    del category, filename, lineno, file, line
    complain("warning", str(message))
