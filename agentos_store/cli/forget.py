"""``agentos-store forget``: a person or an agent is erased everywhere."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentos_store.cli.moments import duration
from agentos_store.cli.output import AsJSON, echo, print_json, print_table
from agentos_store.cli.where import where
from agentos_store.operations.forgetting.report import ForgetReport

app = typer.Typer(help="Erase a person or an agent everywhere.", no_args_is_help=True)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many rows there are.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
By = Annotated[str | None, typer.Option(help="Who does it: noted with the run.")]
Vacuum = Annotated[
    bool, typer.Option("--vacuum", help="Write the database anew afterwards, so that no page keeps what was removed.")
]


@app.command()
def user(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="The person's identifier.")],
    dry_run: DryRun = False,
    yes: Yes = False,
    by: By = None,
    vacuum: Vacuum = False,
    as_json: AsJSON = False,
) -> None:
    """Erase a person, with conversations, tasks, memories and all else that is theirs."""
    _forget(context, {"user": id}, dry_run=dry_run, yes=yes, by=by, vacuum=vacuum, as_json=as_json)


@app.command()
def agent(
    context: typer.Context,
    id: Annotated[str, typer.Argument(help="The agent's identifier.")],
    dry_run: DryRun = False,
    yes: Yes = False,
    by: By = None,
    vacuum: Vacuum = False,
    as_json: AsJSON = False,
) -> None:
    """Erase an agent, with its conversation, what it kept for itself, and what it made of tasks."""
    _forget(context, {"agent": id}, dry_run=dry_run, yes=yes, by=by, vacuum=vacuum, as_json=as_json)


def _forget(
    context: typer.Context,
    whom: dict[str, Any],
    *,
    dry_run: bool,
    yes: bool,
    by: str | None,
    vacuum: bool,
    as_json: bool,
) -> None:
    with where(context).open() as store:
        if dry_run or not yes:
            found = store.forget(**whom, dry_run=True)
            if dry_run:
                _show(found, as_json=as_json)
                return
            if not as_json:
                _show(found, as_json=False)
            typer.confirm(f"{found.rows:,} rows are erased for good. Go on?", abort=True, err=True)
        report = store.forget(**whom, by=by)
        skipped = dict(store.vacuum(full=True).skipped) if vacuum else None
    _show(report, as_json=as_json, skipped=skipped)


def _show(report: ForgetReport, *, as_json: bool, skipped: dict[str, str] | None = None) -> None:
    if as_json:
        print_json(
            {
                "kind": report.kind,
                "dry_run": report.dry_run,
                "run_id": report.run_id,
                "receipt": report.receipt,
                "finished_at": report.finished_at,
                "tables": report.counts(),
                "steps": report.steps,
                "longest_seconds": report.longest.total_seconds(),
                "not_vacuumed": skipped,
            }
        )
        return
    columns = ["table", "removed", "emptied", "named"]
    rows = [(name, *numbers.values()) for name, numbers in report.counts().items()]
    print_table("Would be erased" if report.dry_run else "Erased", columns, rows, right=columns[1:])
    if not report.dry_run:
        echo(f"{report.steps:,} steps, the longest of {duration(report.longest.total_seconds())}")
        echo(f"noted as maintenance run {report.run_id}; receipt: {report.receipt}")
    for table, why in (skipped or {}).items():
        echo(f"not vacuumed: {table}: {why}")
