"""``agentos-store status``: the page that one opens first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from agentos_store.cli.inbox import print_backlog
from agentos_store.cli.output import AsJSON, console, echo, print_json, print_table, size
from agentos_store.cli.where import where
from agentos_store.cli.work import print_queue

if TYPE_CHECKING:
    from agentos_store.operations.lately import DayOfTokens, EventsLately, FailingTool
    from agentos_store.operations.status import Status

WIDEST, NARROWEST = 40, 4
"""Columns of the longest bar of a chart."""

EIGHTHS = " ▏▎▍▌▋▊▉"


def status(context: typer.Context, as_json: AsJSON = False) -> None:
    """Show where the database stands.

    The revision, the size, the rows of each table, tasks and what waits, tools that fail, tokens by day, events. A ~
    marks an estimate: what has more than 100,000 rows is not counted one by one.
    """
    with where(context).open() as store:
        found = store.status()
        backlog = store.inbox.backlog()
        queue = store.tasks.queue_stats()
    if as_json:
        print_json({**asdict(found), "inbox": asdict(backlog), "queue": asdict(queue)})
        return
    _print_facts(found)
    rows = [(name, _count(found, name, count)) for name, count in sorted(found.rows.items()) if count]
    print_table("Rows", ["table", "rows"], rows, right=["rows"])
    echo(f"{len(found.rows) - len(rows)} of {len(found.rows)} tables are empty")
    if found.tasks_by_status:
        _print_tasks(found)
    if queue.pending or queue.running:
        print_queue(queue)
    if backlog.by_status:
        print_backlog(backlog)
    if found.failing_tools:
        _print_tools(found.failing_tools)
    if any(day.tokens for day in found.tokens_by_day):
        _print_tokens(found.tokens_by_day)
    if found.events.newest_at is not None:
        _print_events(found.events)


def _print_facts(found: Status) -> None:
    facts = [
        ("database", found.location),
        ("server", f"{found.backend} {found.server_version}"),
        ("revision", found.revision if found.revision == found.head else f"{found.revision} (this code: {found.head})"),
        ("size", size(found.size_bytes)),
        ("oldest pending task", found.oldest_pending or "none waits"),
    ]
    print_table("Status", ["", ""], facts)


def _print_tasks(found: Status) -> None:
    counts = sorted(found.tasks_by_status.items(), key=lambda item: (-item[1], item[0]))
    rows = [(name, _count(found, f"tasks.{name}", count)) for name, count in counts]
    _print_chart("Tasks", ["status", "tasks"], rows, [count for _, count in counts])


def _print_tools(tools: Sequence[FailingTool]) -> None:
    rows = [(tool.tool_name, tool.calls, tool.failures, f"{tool.failures / tool.calls:.0%}") for tool in tools]
    columns = ["tool, last 24 hours", "calls", "failed", "rate"]
    print_table("Failing tools", columns, rows, right=columns[1:], whole=columns[1:])


def _print_tokens(days: Sequence[DayOfTokens]) -> None:
    rows = [(str(day.day), f"{day.tokens:,}" if day.complete else f"≥{day.tokens:,}") for day in days]
    _print_chart("Tokens by day (UTC)", ["day", "tokens"], rows, [day.tokens for day in days])


def _print_events(events: EventsLately) -> None:
    more = "at least " if events.estimated else ""
    echo(f"events in the last 24 hours: {more}{events.count:,}, of which {events.errors:,} are errors")
    echo(f"the newest is of {events.newest_at:%Y-%m-%d %H:%M}")


def _print_chart(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int]) -> None:
    """Print a table with a bar in each row, as wide as there is room."""
    cells = [tuple(row) for row in rows]
    taken = sum(max(len(name), *(len(row[place]) for row in cells)) + 2 for place, name in enumerate(columns))
    widest = max(NARROWEST, min(WIDEST, console().width - taken - 3))
    most = max(numbers)
    charted = [(*row, bar(number, most, widest)) for row, number in zip(cells, numbers, strict=True)]
    print_table(title, [*columns, ""], charted, right=columns[1:], whole=columns)


def bar(number: int, most: int, widest: int) -> str:
    """Return a bar of blocks; what is not zero shows, however small it is."""
    if number <= 0:
        return ""
    whole, eighths = divmod(max(1, round(8 * widest * number / most)), 8)
    return "█" * whole + EIGHTHS[eighths].strip()


def _count(found: Status, name: str, count: int) -> str:
    return f"~{count:,}" if name in found.estimated else f"{count:,}"
