"""``agentos-store prune``: what is old, or more than is wanted, goes."""

from __future__ import annotations

from typing import Annotated

import typer

from agentos_store.cli.consoles import progress_bar
from agentos_store.cli.moments import duration, parse_duration
from agentos_store.cli.output import AsJSON, echo, print_json, print_table
from agentos_store.cli.where import where
from agentos_store.errors import InvalidValueError
from agentos_store.operations.retention.policies import Policy, PruneReport


def prune(
    context: typer.Context,
    table: Annotated[str, typer.Argument(help="What to prune: events, tasks, task_audits, sessions, …")],
    older_than: Annotated[
        str | None, typer.Option(help="Only what ended, or was made, that long ago: 30d, 12h, 15m, 2w.")
    ] = None,
    keep: Annotated[int | None, typer.Option(help="How many of the newest stay, of each state.")] = None,
    state: Annotated[list[str] | None, typer.Option(help="Only this state; may be given several times.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many rows would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Prune although no row of the table would be left.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Remove old rows of one table for good, in short steps, so that whoever writes hardly notices."""
    if older_than is None and keep is None and not yes and not dry_run:
        raise InvalidValueError("older_than", "without it, and without --keep, all go that may; --yes if so meant")
    policy = Policy(
        table=table, older_than=parse_duration(older_than, "older_than"), keep=keep, states=tuple(state or ())
    )
    with where(context).open() as store, progress_bar(quiet=dry_run or as_json) as bar:
        told = bar.add_task(table, total=None)
        report = store.prune(
            [policy], dry_run=dry_run, confirm=yes, progress=lambda _, rows: bar.update(told, completed=rows)
        )
    if as_json:
        print_json(_plain(report))
        return
    rows = [
        (name, pruned.rows, pruned.steps, duration(pruned.longest.total_seconds()))
        for name, pruned in report.tables.items()
    ]
    title = "Would go" if report.dry_run else "Gone"
    print_table(title, ["table", "rows", "steps", "longest step"], rows, right=["rows", "steps", "longest step"])
    if report.run_id is not None:
        echo(f"noted as maintenance run {report.run_id}")


def _plain(report: PruneReport) -> object:
    return {
        "run_id": report.run_id,
        "dry_run": report.dry_run,
        "tables": {
            name: {"rows": pruned.rows, "steps": pruned.steps, "longest_seconds": pruned.longest.total_seconds()}
            for name, pruned in report.tables.items()
        },
    }
