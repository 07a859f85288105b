"""``agentos-store export``: rows as JSON lines, for other programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from agentos_store.cli.output import AsJSON, ReaderGoneError, echo, print_json, print_table
from agentos_store.cli.stages import stages
from agentos_store.cli.where import where


def _complete(incomplete: str) -> list[str]:
    from agentos_store.operations.export import DOMAINS

    return [name for name in DOMAINS if name.startswith(incomplete)]


def export(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Domains, as they are called in the store, or tables; without any, all.", autocompletion=_complete
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Make this directory, with a file for each table.")
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Write rows as JSON lines, of one moment: to the standard output, or with --output a file for each table.

    A line is a JSON object, which on the standard output begins with the name of its table.
    """
    from agentos_store.errors import InvalidValueError
    from agentos_store.operations.export import export_lines

    if output is None and as_json:
        raise InvalidValueError("--json", "tells what was written with --output; without it the output is JSON lines")
    quiet = as_json or (output is None and sys.stdout.isatty())
    with where(context).open() as store, stages(quiet=quiet) as progress:
        if output is None:
            # Closed before the store is, which waits for what is still read.
            with closing(export_lines(store._backend, names or (), progress=progress)) as lines:  # noqa: SLF001  no face
                _print(lines)
            return
        report = store.export(output, names or (), progress=progress)
    if as_json:
        print_json({"directory": report.directory, "rows": dict(report.rows)})
        return
    rows = [(name, count) for name, count in report.rows.items() if count]
    print_table(report.directory, ["table", "rows"], rows, right=["rows"])
    echo(f"{sum(report.rows.values()):,} rows of {len(report.rows)} tables")


def _print(lines: Iterator[bytes]) -> None:
    try:
        for line in lines:
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise ReaderGoneError from None
