"""``agentos-store import``: data of other systems, brought in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from agentos_store.cli.output import AsJSON, echo, errors, print_json, print_table
from agentos_store.cli.where import where
from agentos_store.importers.report import ImportReport

app = typer.Typer(help="Bring in the data of other systems.", no_args_is_help=True)


@app.command()
def agentos(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help="The registry, an SQLite file of schema 0.25.")],
    keep_status: Annotated[
        bool, typer.Option("--keep-status", help="Let tasks that waited or ran arrive pending and running, not paused.")
    ] = False,
    export_rest: Annotated[
        Path | None,
        typer.Option(
            "--export-rest", help="Write what has no place in the store, or none yet, to this new JSONL file."
        ),
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Import an AgentOS registry: projects, sessions, and tasks with all that belongs to them. It is only read.

    A second run changes nothing; a run that was interrupted is simply repeated.
    """
    from agentos_store.importers.agentos.load import load_registry
    from agentos_store.importers.agentos.registry import open_registry

    # The registry first: a slip in its name should leave no new store behind.
    with open_registry(path) as registry, where(context).open(create=True) as store, _bars(quiet=as_json) as bars:
        shown: dict[str, TaskID] = {}

        def progress(kind: str, done: int, total: int) -> None:
            if kind not in shown:
                shown[kind] = bars.add_task(kind, total=total)
            bars.update(shown[kind], completed=done, total=total)

        report = load_registry(
            store, registry, str(path), keep_status=keep_status, progress=progress, export_rest=export_rest
        )
    if as_json:
        print_json(report.to_dict())
    else:
        print_report(report)


def print_report(report: ImportReport) -> None:
    """Print what an import did."""
    columns = ["kind", "read", "imported", "there already", "merged", "set aside", "repaired"]
    rows = [
        (kind, counts.read, counts.imported, counts.repeated, counts.merged, counts.set_aside, counts.repaired)
        for kind, counts in report.counts.items()
    ]
    print_table(f"AgentOS {report.version} ({report.source})", columns, rows, right=columns[1:])
    for title, notes in (("Repaired", report.repairs), ("Set aside", report.set_aside)):
        if notes:
            print_table(
                title, ["table", "key", "why"], [(note.table, note.key, note.why) for note in notes], whole=["table"]
            )
    if report.unlisted:
        echo(f"and {report.unlisted:,} more, which are counted above")
    for title, tables in (("Not yet", report.not_yet), ("No place in the store", report.no_place)):
        if tables:
            names = ", ".join(f"{table} {count:,}" for table, count in tables.items())
            echo(f"{title}: {names}")
    if report.exported:
        echo(f"Exported: {sum(report.exported.values()):,} rows of {len(report.exported):,} tables")


def _bars(*, quiet: bool) -> Progress:
    shown = errors()
    return Progress(
        TextColumn("{task.description:<14}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=shown,
        # In a log they would be noise.
        disable=quiet or not shown.is_terminal,
    )
