"""``agentos-store audit``: the audit trail and whether it is whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from agentos_store.cli.exits import FOUND_WRONG
from agentos_store.cli.output import AsJSON, echo, print_json, print_table
from agentos_store.cli.where import where

app = typer.Typer(help="The audit trail.", no_args_is_help=True)


@app.command()
def verify(
    context: typer.Context,
    task_id: Annotated[str | None, typer.Argument(help="Only this task's chain.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Check the audit chains; exit code 1 when one is not whole."""
    with where(context).open() as store:
        if task_id is not None:
            store.tasks.get(task_id)
        found = store.audits.verify(task_id)
    if as_json:
        print_json({"ok": found.ok, **asdict(found)})
    elif found.ok:
        echo(f"{found.chains:,} chains with {found.entries:,} entries: all whole")
    else:
        rows = [(fault.task_id, fault.kind, str(fault.audit_id or ""), fault.detail) for fault in found.faults]
        title = f"{len(rows):,} of {found.chains:,} chains are not whole"
        print_table(title, ["task", "what", "first bad entry", "detail"], rows, whole=["task"])
    if not found.ok:
        raise typer.Exit(FOUND_WRONG)
