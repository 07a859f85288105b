"""``agentos-store verdicts``: what guardians decided."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from agentos_store.cli.moments import parse_moment
from agentos_store.cli.output import AsJSON, as_text, echo, print_json, print_table
from agentos_store.cli.where import where

app = typer.Typer(help="Verdicts of guardians.", no_args_is_help=True)


@app.command("list")
def list_(
    context: typer.Context,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    decision: Annotated[str | None, typer.Option(help="Only approve, reject or warn.")] = None,
    triggered_by: Annotated[str | None, typer.Option("--by", help="Only what this event or guardian led to.")] = None,
    after: Annotated[str | None, typer.Option(help="Only from this time on.")] = None,
    before: Annotated[str | None, typer.Option(help="Only from before this time.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Where the page before said that the next one begins.")] = None,
    as_json: AsJSON = False,
) -> None:
    """List verdicts, the newest first."""
    with where(context).open() as store:
        page = store.verdicts.list(
            task_id=task,
            decision=decision,
            triggered_by=triggered_by,
            created_after=parse_moment(after, "after"),
            created_before=parse_moment(before, "before"),
            order="-created_at",
            limit=limit,
            cursor=cursor,
        )
    if as_json:
        print_json({"items": [verdict.to_dict() for verdict in page.items], "next": page.next})
        return
    columns = ["verdict", "decision", "at", "by", "task", "reasons"]
    rows = [
        (v.id, v.decision, f"{v.created_at:%Y-%m-%d %H:%M}", v.triggered_by, v.task_id, len(v.reasons_json))
        for v in page.items
    ]
    print_table(f"Verdicts ({len(page)})", columns, rows, right=["reasons"], whole=["decision", "at"])
    if page.next is not None:
        echo(f"more: --cursor {page.next}")


@app.command()
def show(
    context: typer.Context, verdict: Annotated[str, typer.Argument(help="The verdict.")], as_json: AsJSON = False
) -> None:
    """Show one verdict with its reasons."""
    with where(context).open() as store:
        found = store.verdicts.get(verdict)
    if as_json:
        print_json(found.to_dict())
        return
    values = [(name, as_text(value)) for name, value in found.to_dict().items() if name != "reasons_json"]
    print_table(f"{found.decision}: {found.id}", ["field", "value"], values)
    print_table("Reasons", [""], [(as_text(reason),) for reason in found.reasons_json])


@app.command()
def stats(context: typer.Context, as_json: AsJSON = False) -> None:
    """Count the verdicts by decision and by what led to them."""
    with where(context).open() as store:
        found = store.verdicts.stats()
    if as_json:
        print_json(asdict(found))
        return
    decisions = ("approve", "warn", "reject")
    rows = [
        (trigger, *(counts.get(decision, 0) for decision in decisions)) for trigger, counts in found.by_trigger.items()
    ]
    rate = "" if found.approval_rate is None else f", {found.approval_rate:.0%} of them approvals"
    print_table(f"{found.total:,} verdicts{rate}", ["by", *decisions], rows, right=decisions)
