"""``agentos-store status``: the page that one opens first."""

from __future__ import annotations

from dataclasses import asdict

import typer

from agentos_store.cli.inbox import print_backlog
from agentos_store.cli.output import AsJSON, print_json, print_table, size
from agentos_store.cli.where import where
from agentos_store.cli.work import print_queue


def status(context: typer.Context, as_json: AsJSON = False) -> None:
    """Show where the database stands: revision, size, rows, tasks by status."""
    with where(context).open() as store:
        found = store.status()
        backlog = store.inbox.backlog()
        queue = store.tasks.queue_stats()
    if as_json:
        print_json({**asdict(found), "inbox": asdict(backlog), "queue": asdict(queue)})
        return
    facts = [
        ("database", found.location),
        ("server", f"{found.backend} {found.server_version}"),
        ("revision", found.revision if found.revision == found.head else f"{found.revision} (this code: {found.head})"),
        ("size", size(found.size_bytes)),
        ("oldest pending task", found.oldest_pending or "none waits"),
    ]
    print_table("Status", ["", ""], facts)
    print_table("Rows", ["table", "rows"], sorted(found.rows.items()), right=["rows"])
    if found.tasks_by_status:
        by_count = sorted(found.tasks_by_status.items(), key=lambda item: (-item[1], item[0]))
        most = by_count[0][1]
        rows = [(name, count, "█" * max(1, round(30 * count / most))) for name, count in by_count]
        print_table("Tasks", ["status", "tasks", ""], rows, right=["tasks"])
    if queue.pending or queue.running:
        print_queue(queue)
    if backlog.by_status:
        print_backlog(backlog)
