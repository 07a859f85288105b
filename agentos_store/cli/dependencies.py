"""``agentos-store tasks graph``: what tasks depend on, as a tree, a table, a diagram or data."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from agentos_store.cli.output import AsJSON, console, echo, print_json, print_table, short, visible
from agentos_store.cli.where import where
from agentos_store.tasks.dependencies import DependencyGraph

if TYPE_CHECKING:
    from rich.tree import Tree


def graph(
    context: typer.Context,
    task_id: Annotated[str | None, typer.Argument(help="The task; or name a project.")] = None,
    project: Annotated[str | None, typer.Option(help="All tasks of this project.")] = None,
    depth: Annotated[int, typer.Option(help="Steps from the task, each way.")] = 5,
    limit: Annotated[int, typer.Option(help="How many tasks at most.")] = 500,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flow chart.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Show what a task depends on and what depends on it, or the dependencies of a whole project."""
    if (task_id is None) == (project is None):
        raise typer.BadParameter("name either a task or, with --project, a project")
    with where(context).open() as store:
        if task_id is not None:
            found = store.tasks.graph(task_id, depth=depth, limit=limit)
        else:
            store.projects.get(str(project))
            found = store.tasks.project_graph(str(project), limit=limit)
    if as_json:
        print_json(asdict(found))
        return
    if mermaid:
        echo(found.mermaid())
        return
    if task_id is not None:
        console().print(draw(found, task_id))
    else:
        _print_all(found, str(project))
    if found.truncated:
        echo("there is more than is shown")


def draw(found: DependencyGraph, task_id: str) -> Tree:
    """Return the graph as a tree: below the task what it needs and what needs it; each is drawn out once."""
    from rich.text import Text
    from rich.tree import Tree

    labels = {
        node.task_id: Text.assemble(
            (visible(node.title), "bold"), " ", (f"{node.status} {visible(node.task_id)}", "dim")
        )
        for node in found.nodes
    }
    needs: dict[str, list[tuple[str, str]]] = {}
    needed_by: dict[str, list[tuple[str, str]]] = {}
    for edge in found.edges:
        needs.setdefault(edge.task_id, []).append((edge.depends_on_task_id, edge.dependency_type))
        needed_by.setdefault(edge.depends_on_task_id, []).append((edge.task_id, edge.dependency_type))
    tree = Tree(labels[task_id])
    for title, links in (("depends on", needs), ("needed by", needed_by)):
        if task_id not in links:
            continue
        branches = [(tree.add(Text(title, style="cyan")), task_id)]
        drawn = {task_id}
        while branches:
            branch, here = branches.pop(0)
            for there, kind in links.get(here, []):
                again = there in drawn
                label = Text.assemble((f"{kind} ", "cyan"), labels[there], " (see above)" if again else "")
                below = branch.add(label)
                if not again:
                    drawn.add(there)
                    branches.append((below, there))
    return tree


def _print_all(found: DependencyGraph, project: str) -> None:
    needs: dict[str, list[str]] = {}
    for edge in found.edges:
        needs.setdefault(edge.task_id, []).append(f"{edge.dependency_type} {edge.depends_on_task_id}")
    rows = [
        (node.task_id, node.status, short(node.title, 40), ", ".join(needs.get(node.task_id, [])))
        for node in found.nodes
    ]
    title = f"{project}: {len(rows):,} tasks, {len(found.edges):,} dependencies"
    print_table(title, ["task", "status", "title", "depends on"], rows, whole=["task", "status"])
