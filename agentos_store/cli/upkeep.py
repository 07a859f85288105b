"""``agentos-store db vacuum`` and ``db salvage``: space back, and rows out of a damaged file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentos_store.cli.exits import FOUND_WRONG
from agentos_store.cli.moments import duration
from agentos_store.cli.output import AsJSON, echo, print_json, print_table, size
from agentos_store.cli.where import where

if TYPE_CHECKING:
    from agentos_store.operations.salvage.report import SalvagedTable, SalvageReport


def vacuum(
    context: typer.Context,
    full: Annotated[
        bool, typer.Option("--full", help="On PostgreSQL: write each table anew, locked against everybody.")
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """Give back the space of deleted rows; on SQLite writers wait meanwhile, about a second for 100 MB."""
    with where(context).open() as store:
        report = store.vacuum(full=full)
    if as_json:
        print_json(
            {
                "bytes_before": report.bytes_before,
                "bytes_after": report.bytes_after,
                "full": report.full,
                "is_held_up": report.is_held_up,
                "skipped": dict(report.skipped),
                "duration_seconds": report.duration.total_seconds(),
            }
        )
        return
    took = duration(report.duration.total_seconds())
    echo(f"{size(report.bytes_before)} before, {size(report.bytes_after)} after, in {took}")
    if report.is_held_up:
        echo("a reader keeps the file from becoming shorter for now")
    for table, why in report.skipped.items():
        echo(f"{table} was passed over: {why}")


def salvage(
    damaged: Annotated[Path, typer.Argument(help="The damaged SQLite file; it is only read.")],
    new: Annotated[Path, typer.Argument(help="The new file, which must not be there yet.")],
    as_json: AsJSON = False,
) -> None:
    """Read what can be read of a damaged SQLite file into a new one; exit code 1 when something is gone."""
    from agentos_store.cli.consoles import progress_bar
    from agentos_store.operations.salvage import salvage_sqlite

    with progress_bar(quiet=as_json) as bar:
        shown = bar.add_task("salvage", total=None)

        def progress(_: str, done: int, total: int) -> None:
            bar.update(shown, completed=done, total=total)

        report = salvage_sqlite(damaged, new, progress=progress)
    if as_json:
        print_json(_plain(report))
    else:
        _show(report)
    if not report.is_whole or not report.audits.ok:
        raise typer.Exit(FOUND_WRONG)


def _show(report: SalvageReport) -> None:
    rows = [
        (name, table.read, table.kept, _lost(table), sum(table.left_out.values()))
        for name, table in report.tables.items()
        if table.read or table.lost != 0 or not table.lost_is_exact
    ]
    columns = ["table", "read", "kept", "lost", "left out"]
    print_table(f"Salvaged from {report.path}", columns, rows, right=columns[1:])
    for name, table in report.tables.items():
        for why, count in table.left_out.items():
            echo(f"{name}: {count:,} left out: {why}")
        for column, count in table.unlinked.items():
            echo(f"{name}: {count:,} kept without their {column}, whose rows are gone")
        if table.lost_keys:
            more = " …" if (table.lost or 0) > len(table.lost_keys) else ""
            echo(f"{name}: lost {', '.join(map(str, table.lost_keys))}{more}")
    for kind, count in report.repaired.counts.items():
        echo(f"put right: {count:,} of {kind}")
    for fault in report.audits.faults:
        echo(f"audit chain of task {fault.task_id}: {fault.detail}")
    for note in report.notes:
        echo(note)
    if report.left_out_path is not None:
        echo(f"what was left out is in {report.left_out_path}")
    if report.is_whole:
        echo("nothing is known to be gone")
    echo(f"the new database is {report.target}")


def _lost(table: SalvagedTable) -> str:
    if table.lost is None:
        return "not known"
    return f"{table.lost:,}" if table.lost_is_exact else f"{table.lost:,} or more"


def _plain(report: SalvageReport) -> object:
    return {
        "path": report.path,
        "target": report.target,
        "size_bytes": report.size_bytes,
        "found_revision": report.found_revision,
        "revision": report.revision,
        "is_whole": report.is_whole,
        "notes": list(report.notes),
        "left_out_path": report.left_out_path,
        "repaired": dict(report.repaired.counts),
        "broken_chains": [fault.task_id for fault in report.audits.faults],
        "tables": {
            name: {
                "read": table.read,
                "kept": table.kept,
                "lost": table.lost,
                "lost_is_exact": table.lost_is_exact,
                "lost_keys": table.lost_keys,
                "left_out": table.left_out,
                "unlinked": table.unlinked,
            }
            for name, table in report.tables.items()
        },
    }
