"""``agentos-store audit``: the audit trail and whether it is whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from agentos_store.cli.exits import FOUND_WRONG
from agentos_store.cli.moments import duration, parse_moment
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
        erased = f", {found.erased:,} of them erased rightfully" if found.erased else ""
        echo(f"{found.chains:,} chains with {found.entries:,} entries{erased}: all whole")
    else:
        rows = [(fault.task_id, fault.kind, str(fault.audit_id or ""), fault.detail) for fault in found.faults]
        title = f"{len(rows):,} of {found.chains:,} chains are not whole"
        print_table(title, ["task", "what", "first bad entry", "detail"], rows, whole=["task"])
    if not found.ok:
        raise typer.Exit(FOUND_WRONG)


@app.command()
def decisions(
    context: typer.Context, task_id: Annotated[str, typer.Argument(help="The task.")], as_json: AsJSON = False
) -> None:
    """List the supervisor's decisions about a task, and how long each took."""
    with where(context).open() as store:
        store.tasks.get(task_id)
        found = store.audits.decision_trace(task_id)
    if as_json:
        print_json([asdict(decision) for decision in found])
        return
    columns = ["audit", "at", "event", "level", "decision", "took"]
    rows = [
        (
            str(each.audit_id),
            each.supervisor_processed_at,
            each.event_type,
            each.level,
            each.decision_id,
            duration(each.lag),
        )
        for each in found
    ]
    print_table(f"Decisions ({len(rows)})", columns, rows, right=["audit", "took"], whole=["at"])


@app.command()
def lag(
    context: typer.Context,
    after: Annotated[str | None, typer.Option(help="Only what was recorded from this time on.")] = None,
    before: Annotated[str | None, typer.Option(help="Only what was recorded before this time.")] = None,
    as_json: AsJSON = False,
) -> None:
    """Tell how long the supervisor's decisions took, from the event to its processing."""
    with where(context).open() as store:
        found = store.audits.decision_lag(
            created_after=parse_moment(after, "after"), created_before=parse_moment(before, "before")
        )
    if as_json:
        print_json(asdict(found))
        return
    facts = [("half of them within", found.p50), ("95 % within", found.p95), ("the longest", found.longest)]
    print_table(f"{found.count:,} decisions", ["", "took"], [(name, duration(value)) for name, value in facts])
