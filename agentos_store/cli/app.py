"""The application: its groups, its common options, and its exit codes."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, TextIO

import typer

from agentos_store.cli.exits import INTERRUPTED, READER_GONE, UNAVAILABLE, WRONG_USAGE, exit_code
from agentos_store.cli.loading import Later, LazyGroup
from agentos_store.cli.output import ReaderGoneError, complain, echo
from agentos_store.cli.where import Where


class Application(LazyGroup):
    """All commands. A new one is added here, and imported when it is called."""

    later: ClassVar[dict[str, Later]] = {
        "db": Later("database", "app", "The schema and its revisions."),
        "import": Later("imports", "app", "Bring in the data of other systems."),
        "tasks": Later("tasks", "app", "Tasks."),
        "audit": Later("audit", "app", "The audit trail."),
        "verdicts": Later("verdicts", "app", "Verdicts of guardians."),
        "inbox": Later("inbox", "app", "The supervisor's inbox."),
        "kb": Later("kb", "app", "Files that can be searched."),
        "search": Later(
            "search",
            "search",
            "Search memories, files and conversations, best hits first.",
            # A word that must not be there begins with a hyphen, as an option does.
            {"ignore_unknown_options": True},
        ),
        "lineage": Later("lineage", "lineage", "Draw what a task comes from and what it led to."),
        "copy": Later("copying", "copy", "Copy a whole database into another one."),
        "prune": Later("prune", "prune", "Remove old rows of one table for good."),
        "forget": Later("forget", "app", "Erase a person or an agent everywhere."),
        "status": Later("status", "status", "Show where the database stands."),
        "health": Later("health", "health", "Tell in one line whether the database can be worked with."),
        "backup": Later("archives", "backup", "Write what the database holds into one file."),
        "restore": Later("archives", "restore", "Make the database from a backup."),
        "verify": Later("archives", "verify", "Check a backup."),
        "export": Later("exporting", "export", "Write rows as JSON lines, for other programs."),
        "doctor": Later("doctor", "doctor", "Look what is wrong or weak, and what to do about it."),
        "tail": Later("tail", "tail", "Show the newest events, and with --follow those that come."),
        "demo": Later("demonstration", "demo", "Try the main job on a small registry made for it."),
    }


app = typer.Typer(
    name="agentos-store",
    cls=Application,
    help="The data layer for agent platforms: AgentOS's registry of tasks and audits, on SQLite and PostgreSQL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Plain text: Typer would draw frames, and colour them in a pipe too where it finds itself on a build server.
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 1 something was found wrong, 2 wrong usage, 3 not found, 4 a value was refused, "
    "5 conflict, 6 the schema is another one, 7 the database is not available, 8 something was found weak, "
    "130 interrupted, 141 nobody reads the output.",
)

_USAGE: type[Any] = typer.BadParameter.__mro__[1]
"""What an unknown option or a missing argument raises, of the click that Typer depends on or of the one it carries."""

_COMMON = ("--url", "--schema", "--version")
"""Options that stand before the command."""


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
    _fill_streams()
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


def _fill_streams() -> None:
    """Open what whoever started the program has closed, in this order, so that no other file gets its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115  open to the end


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or the program's own, and return its exit code."""
    try:
        return _run(arguments)
    except ReaderGoneError:
        return READER_GONE


def _run(arguments: Sequence[str] | None) -> int:
    try:
        # Not standalone: Typer would print its own errors, of many lines, and swallow our codes.
        result = app(args=arguments, prog_name="agentos-store", standalone_mode=False)
    except _USAGE as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            # Of one click or the other; its message is the help.
            echo(error.format_message())
        else:
            complain("error", error.format_message() + _hint(error))
        return WRONG_USAGE
    except ReaderGoneError:
        raise
    except typer.Abort:
        complain("error", "there was no answer; nothing was changed")
        return INTERRUPTED
    except KeyboardInterrupt:
        result = INTERRUPTED
    except OSError as error:
        complain("error", f"{error.filename or 'a file'}: {error.strerror or error}")
        return UNAVAILABLE
    except Exception as error:
        code = exit_code(error)
        if code is None:
            raise
        complain("error", str(error))
        return code
    code = result if isinstance(result, int) else 0
    if code == INTERRUPTED:
        complain("interrupted", "what was committed stays; the command can be repeated")
    return code


def _hint(error: Any) -> str:
    name = getattr(error, "option_name", None)
    return f"; it stands before the command: agentos-store {name} …" if name in _COMMON else ""


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
