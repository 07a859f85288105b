"""``agentos-store copy``: from one database into another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from agentos_store.cli.exits import FOUND_WRONG
from agentos_store.cli.output import AsJSON, echo, print_json, print_table
from agentos_store.cli.stages import stages
from agentos_store.cli.where import where
from agentos_store.errors import InvalidValueError

if TYPE_CHECKING:
    from agentos_store.operations.moving.copying import Comparison
    from agentos_store.operations.moving.move import MoveReport


def copy(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="The URL of the database to copy; it is only read.")],
    target: Annotated[str, typer.Argument(help="The URL of the database to copy into; made if it is not there.")],
    source_schema: Annotated[str | None, typer.Option(help="The source's PostgreSQL schema.")] = None,
    target_schema: Annotated[str | None, typer.Option(help="The target's PostgreSQL schema.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin anew what an unfinished copy has left in the target.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Remove whatever the target holds, for good, and copy then.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before what is there is removed.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many rows would be removed.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Copy nothing; compare the two row by row and say what differs.")
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """Copy a whole database into another one, between SQLite and PostgreSQL either way.

    Interrupted or killed, the same command finishes the work. Until it is finished nobody can open the target.
    """
    given = where(context)
    if given.url is not None or given.schema is not None:
        raise InvalidValueError("--url", "is of no use here, nor is --schema: name both databases behind 'copy'")
    # SQLAlchemy takes longer to import than the help of a command should.
    from agentos_store.operations.moving.copying import compare_stores, copy_store

    if not check and (replace or dry_run):
        from agentos_store.cli.replacing import may_replace
        from agentos_store.operations.moving.places import place

        goal = place(target, target_schema, None, "target")
        if not may_replace(goal, replace=replace, restart=restart, yes=yes, dry_run=dry_run, as_json=as_json):
            return
    with stages(quiet=as_json) as progress:
        if check:
            found = compare_stores(
                source, target, source_schema=source_schema, target_schema=target_schema, progress=progress
            )
        else:
            report = copy_store(
                source,
                target,
                source_schema=source_schema,
                target_schema=target_schema,
                restart=restart,
                replace=replace,
                progress=progress,
            )
    if check:
        _show_comparison(found, as_json=as_json)
    else:
        show_move(report, as_json=as_json)


def show_move(report: MoveReport, *, as_json: bool) -> None:
    """Print what a copy or a restore has brought; end with the code for what was found wrong if trails are broken."""
    tables = {name: {"rows": each.rows, "hash": each.hex} for name, each in report.hashes.items()}
    if as_json:
        print_json(
            {
                "source": report.source,
                "target": report.target,
                "resumed": report.resumed,
                "rows": report.rows,
                "root_hash": report.root_hash,
                "seconds": round(report.seconds, 3),
                "broken_trails": list(report.broken_trails),
                "tables": tables,
            }
        )
    else:
        rows = [(name, each.rows, each.hex[:16]) for name, each in report.hashes.items() if each.rows]
        print_table(f"{report.source} → {report.target}", ["table", "rows", "hash"], rows, right=["rows"])
        how = "finished after an interruption" if report.resumed else "copied"
        echo(f"{report.rows:,} rows {how} and compared in {report.seconds:.1f} s; root hash {report.root_hash}")
        if report.broken_trails:
            echo(f"audit trails that are broken in the source, too: {', '.join(report.broken_trails)}")
    if report.broken_trails:
        raise typer.Exit(FOUND_WRONG)


def _show_comparison(found: Comparison, *, as_json: bool) -> None:
    differing = {name: table for name, table in found.tables.items() if table.differing}
    if as_json:
        print_json(
            {
                "source": found.source,
                "target": found.target,
                "equal": found.ok,
                "source_root_hash": found.source_root_hash,
                "target_root_hash": found.target_root_hash,
                "differing": {
                    name: {
                        "source_rows": table.source.rows,
                        "target_rows": table.target.rows,
                        "rows": table.differing,
                        "first": list(table.first),
                    }
                    for name, table in differing.items()
                },
            }
        )
    elif found.ok:
        rows = sum(table.source.rows for table in found.tables.values())
        echo(f"equal: {rows:,} rows on either side; root hash {found.source_root_hash}")
    else:
        counts = [(name, each.source.rows, each.target.rows, each.differing) for name, each in differing.items()]
        columns = ["table", "in the source", "in the target", "different"]
        print_table(f"{found.source} ≠ {found.target}", columns, counts, right=columns[1:])
        print_table(
            "The first of them", ["table", "row"], [(n, each) for n, t in differing.items() for each in t.first]
        )
    if not found.ok:
        raise typer.Exit(FOUND_WRONG)
