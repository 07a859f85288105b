"""``agentos-store inbox``: the events that the supervisor looks at."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from agentos_store.cli.moments import duration
from agentos_store.cli.output import AsJSON, echo, print_json, print_table, short
from agentos_store.cli.where import where
from agentos_store.governance.inbox import Backlog

app = typer.Typer(help="The supervisor's inbox.", no_args_is_help=True)


@app.command("list")
def list_(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only this status.")] = None,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Where the page before said that the next one begins.")] = None,
    as_json: AsJSON = False,
) -> None:
    """List events, the oldest first."""
    with where(context).open() as store:
        page = store.inbox.list(status=status, task_id=task, limit=limit, cursor=cursor)
    if as_json:
        print_json({"items": [entry.to_dict() for entry in page.items], "next": page.next})
        return
    columns = ["event", "status", "at", "type", "task", "attempts", "error"]
    rows = [
        (
            e.id,
            e.status,
            f"{e.event_ts:%Y-%m-%d %H:%M}",
            e.event_type,
            e.task_id,
            e.attempts,
            short(e.error_message or ""),
        )
        for e in page.items
    ]
    print_table(f"Inbox ({len(page)})", columns, rows, right=["attempts"], whole=["status", "at"])
    if page.next is not None:
        echo(f"more: --cursor {page.next}")


@app.command()
def backlog(context: typer.Context, as_json: AsJSON = False) -> None:
    """Show how many events there are by status, and how long the oldest has waited."""
    with where(context).open() as store:
        found = store.inbox.backlog()
    if as_json:
        print_json(asdict(found))
    else:
        print_backlog(found)


@app.command()
def unpark(
    context: typer.Context, event: Annotated[str, typer.Argument(help="The event.")], as_json: AsJSON = False
) -> None:
    """Let a parked event wait again, with its attempts counted anew."""
    with where(context).open() as store:
        found = store.inbox.unpark(event)
    if as_json:
        print_json(found.to_dict())
    else:
        echo(f"{found.id}: {found.status}")


def print_backlog(found: Backlog) -> None:
    """Print the numbers of the inbox."""
    rows = sorted(found.by_status.items(), key=lambda item: (-item[1], item[0]))
    print_table("Inbox", ["status", "events"], rows, right=["events"])
    if found.oldest_pending_at is None:
        echo("nothing waits")
    else:
        echo(f"the oldest waits since {found.oldest_pending_at:%Y-%m-%d %H:%M} ({duration(found.oldest_pending_age)})")
