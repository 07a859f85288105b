"""``agentos-store lineage``: where a task comes from and what it led to, as a tree."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from agentos_store.cli.output import AsJSON, console, echo, print_json, visible
from agentos_store.cli.where import where
from agentos_store.tasks.graph import Edge, LineageGraph, Node


def lineage(
    context: typer.Context,
    task_id: Annotated[str, typer.Argument(help="The task.")],
    depth: Annotated[int, typer.Option(help="Steps from the task; 2 shows other tasks that share its links.")] = 2,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a Mermaid flow chart.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Draw what a task comes from and what it led to, and the other tasks that share it."""
    with where(context).open() as store:
        graph = store.lineage.graph(task_id, depth=depth)
    if as_json:
        print_json(asdict(graph))
    elif mermaid:
        echo(graph.mermaid())
    else:
        console().print(draw(graph))
        if graph.truncated:
            echo("there is more than is shown")


def draw(graph: LineageGraph) -> Tree:
    """Return the graph as a tree from its root; what hangs in several places is drawn out once."""
    nodes = {node.id: node for node in graph.nodes}
    around: dict[str, list[tuple[str, Edge]]] = {}
    for edge in graph.edges:
        around.setdefault(edge.source, []).append((edge.target, edge))
        around.setdefault(edge.target, []).append((edge.source, edge))
    root = nodes[graph.root]
    tree = Tree(_label(root, None))
    branches = [(tree, root.id)]
    drawn = {root.id}
    while branches:
        branch, here = branches.pop(0)
        for there, edge in around.get(here, []):
            if there not in drawn:
                drawn.add(there)
                branches.append((branch.add(_label(nodes[there], edge)), there))
    return tree


def _label(node: Node, edge: Edge | None) -> Text:
    label, kind = visible(node.label), visible(node.kind)
    if node.type == "task":
        return Text.assemble((label, "bold"), " ", (f"{kind} {visible(node.id.removeprefix('task:'))}", "dim"))
    phase = visible(edge.phase or "") if edge is not None else ""
    return Text.assemble((kind, "cyan"), f" {label}", (f" {phase}" if phase else "", "dim"))
