"""``agentos-store tasks queue`` and ``tasks reclaim``: the queue that workers take tasks from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from agentos_store.cli.moments import duration
from agentos_store.cli.output import AsJSON, echo, print_json, print_table
from agentos_store.cli.where import where
from agentos_store.tasks.queue_stats import QueueStats


def queue(context: typer.Context, as_json: AsJSON = False) -> None:
    """Show how many tasks wait, and for what, how many are being done, and how long the oldest has waited."""
    with where(context).open() as store:
        stats = store.tasks.queue_stats()
    if as_json:
        print_json(asdict(stats))
    else:
        print_queue(stats)


def reclaim(
    context: typer.Context,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 100,
    as_json: AsJSON = False,
) -> None:
    """Let tasks of workers that died wait again, or fail after their last attempt; workers do so by themselves."""
    with where(context).open() as store:
        count = store.tasks.reclaim_lapsed(limit=limit)
    if as_json:
        print_json({"reclaimed": count})
    else:
        echo(f"{count} given back")


def print_queue(stats: QueueStats) -> None:
    """Print the numbers of the queue."""
    rows = [
        ("ready", stats.ready, "the next worker takes them"),
        ("delayed", stats.delayed, "their time has not come"),
        ("blocked", stats.blocked, "they depend on what is unfinished"),
        ("running", stats.running, f"{stats.lapsed} of them lapsed" if stats.lapsed else ""),
    ]
    print_table("Queue", ["state", "tasks", "why"], rows, right=["tasks"], whole=["state", "tasks"])
    if stats.oldest_ready_at is None:
        echo("nothing is ready")
    else:
        echo(f"the oldest is ready since {stats.oldest_ready_at:%Y-%m-%d %H:%M} ({duration(stats.oldest_ready_age)})")
