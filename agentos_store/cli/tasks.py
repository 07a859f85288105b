"""``agentos-store tasks``: what there is to do, and what was done."""

from __future__ import annotations

from typing import Annotated

import typer

from agentos_store.cli import dependencies, work
from agentos_store.cli.output import AsJSON, as_text, echo, print_json, print_table, short
from agentos_store.cli.where import where

app = typer.Typer(help="Tasks.", no_args_is_help=True)
app.command("graph")(dependencies.graph)
app.command("queue")(work.queue)
app.command("reclaim")(work.reclaim)

MOST = 100
"""Dependencies, scopes and artifacts that are shown with a task."""


@app.command("list")
def list_(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only this status.")] = None,
    project: Annotated[str | None, typer.Option(help="Only this project.")] = None,
    session: Annotated[str | None, typer.Option(help="Only this session.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only this agent.")] = None,
    task_type: Annotated[str | None, typer.Option("--type", help="Only this type.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Where the page before said that the next one begins.")] = None,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest first.")] = False,
    as_json: AsJSON = False,
) -> None:
    """List tasks, the newest first."""
    with where(context).open() as store:
        page = store.tasks.list(
            status=status,
            project_id=project,
            session_id=session,
            agent_id=agent,
            task_type=task_type,
            order="created_at" if oldest else "-created_at",
            limit=limit,
            cursor=cursor,
        )
    if as_json:
        print_json({"items": [task.to_dict() for task in page.items], "next": page.next})
        return
    columns = ["task", "status", "created", "title", "project"]
    rows = [(t.task_id, t.status, f"{t.created_at:%Y-%m-%d %H:%M}", short(t.title), t.project_id) for t in page.items]
    print_table(f"Tasks ({len(page)})", columns, rows, whole=["task", "status", "created"])
    if page.next is not None:
        echo(f"more: --cursor {page.next}")


@app.command()
def show(
    context: typer.Context, task_id: Annotated[str, typer.Argument(help="The task.")], as_json: AsJSON = False
) -> None:
    """Show one task with its history."""
    with where(context).open() as store:
        task = store.tasks.get(task_id)
        history = store.tasks.history(task_id)
        audits = store.audits.count(task_id=task_id)
        needs = store.tasks.list_dependencies(task_id=task_id, limit=MOST).items
        needed_by = store.tasks.list_dependencies(depends_on_task_id=task_id, limit=MOST).items
        scopes = store.tasks.list_scopes(task_id=task_id, limit=MOST).items
        artifacts = store.tasks.list_artifacts(task_id=task_id, limit=MOST).items
        verdict = store.verdicts.latest(task_id)
    if as_json:
        steps = [
            {name: getattr(step, name) for name in ("audit_id", "origin", "to", "at", "by", "reason")}
            for step in history
        ]
        around = {
            "depends_on": [link.to_dict() for link in needs],
            "needed_by": [link.to_dict() for link in needed_by],
            "scopes": [scope.to_dict() for scope in scopes],
            "artifacts": [artifact.to_dict() for artifact in artifacts],
            "latest_verdict": None if verdict is None else verdict.to_dict(),
        }
        print_json({**task.to_dict(), "history": steps, "audits": audits, **around})
        return
    values = [(name, as_text(value)) for name, value in task.to_dict().items() if value not in (None, "", {}, [])]
    print_table(short(task.title), ["field", "value"], values)
    rows = [(step.at, step.origin, step.to, step.by, step.reason) for step in history]
    print_table(f"History ({audits} audits)", ["at", "from", "to", "by", "reason"], rows)
    links = [("depends on", link.dependency_type, link.depends_on_task_id, link.reason) for link in needs]
    links += [("needed by", link.dependency_type, link.task_id, link.reason) for link in needed_by]
    if links:
        print_table("Dependencies", ["", "type", "task", "reason"], links, whole=["", "type", "task"])
    if scopes:
        touched = [(scope.repo_id, scope.scope, ", ".join(map(str, scope.path_filters))) for scope in scopes]
        print_table("May touch", ["repository", "scope", "paths"], touched)
    if artifacts:
        made = [(each.ref_type, each.ref_value, each.repo_id, short(each.summary or "")) for each in artifacts]
        print_table("Artifacts", ["type", "value", "repository", "summary"], made, whole=["type"])
    if verdict is not None:
        reasons = "; ".join(as_text(reason) for reason in verdict.reasons_json)
        said = [(verdict.decision, verdict.created_at, verdict.triggered_by, short(reasons, 100))]
        print_table("Latest verdict", ["decision", "at", "by", "reasons"], said)
