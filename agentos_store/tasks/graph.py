"""The lineage graph: tasks and what they have in common, as data and as a Mermaid diagram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import bindparam, select

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import NotFoundError
from agentos_store.tasks.models import Task, TaskLineage
from agentos_store.tasks.transition import GET
from agentos_store.types import check_whole

_LINKS = TaskLineage.table()
_TASKS = Task.table()


@dataclass(frozen=True, slots=True)
class Node:
    """A task, or something that tasks refer to."""

    id: str
    """Unique in the graph: ``task:…``, or ``ref:`` with kind and reference."""
    type: Literal["task", "ref"]
    label: str
    """A task's title, or a reference."""
    kind: str
    """A task's status, or a reference's kind."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A link from a task to a reference."""

    source: str
    target: str
    kind: str
    phase: str | None


@dataclass(frozen=True, slots=True)
class LineageGraph:
    """Tasks and references, and the links between them."""

    root: str
    """The identifier of the node that the graph was asked for."""
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    truncated: bool
    """Whether there was more than the limit allowed."""

    def mermaid(self) -> str:
        """Return the graph as the text of a Mermaid flow chart."""
        names = {node.id: f"n{number}" for number, node in enumerate(self.nodes)}
        lines = ["flowchart LR"]
        for node in self.nodes:
            label, kind = mermaid_text(node.label), mermaid_text(node.kind)
            text = f"{label}<br/>{kind}" if node.type == "task" else f"{kind}<br/>{label}"
            shape = ("[", "]") if node.type == "task" else ("(", ")")
            lines.append(f'    {names[node.id]}{shape[0]}"{text}"{shape[1]}')
        lines += [f"    {names[edge.source]} --> {names[edge.target]}" for edge in self.edges]
        return "\n".join(lines) + "\n"


def build_graph(session: Session, task_id: str, *, depth: int, limit: int) -> LineageGraph:
    """Gather the graph breadth first, alternately the links of tasks and the tasks of links."""
    check_whole("depth", depth)
    check_whole("limit", limit)
    task = session.first(GET, {"task_id": task_id})
    if task is None:
        raise NotFoundError("task", task_id)
    nodes = {f"task:{task_id}": Node(f"task:{task_id}", "task", task.title, task.status)}
    edges: dict[tuple[str, str], Edge] = {}
    tasks, truncated = [task_id], False
    refs: list[tuple[str, str]] = []
    for step in range(depth):
        if not tasks and not refs:
            break
        found_refs: list[tuple[str, str]] = []
        found_tasks: list[str] = []
        rows = (
            [row for each in tasks for row in session.all(_LINKS_OF_TASK, {"task_id": each, "limit_": limit + 1})]
            if step % 2 == 0
            else [row for kind, ref in refs for row in session.all(_LINKS_TO_REF, _ref_binds(kind, ref, limit))]
        )
        for link_task, title, status, kind, ref_id, phase in rows:
            source, target = f"task:{link_task}", _ref_id(kind, ref_id)
            new = [key for key in (source, target) if key not in nodes]
            if len(nodes) + len(new) > limit:
                truncated = True
                continue
            if source in new:
                nodes[source] = Node(source, "task", title, status)
                found_tasks.append(link_task)
            if target in new:
                nodes[target] = Node(target, "ref", ref_id, kind)
                found_refs.append((kind, ref_id))
            edges.setdefault((source, target), Edge(source, target, kind, phase))
        tasks, refs = found_tasks, found_refs
    return LineageGraph(f"task:{task_id}", tuple(nodes.values()), tuple(edges.values()), truncated)


def _ref_binds(kind: str, ref_id: str, limit: int) -> dict[str, object]:
    return {"kind": kind, "ref_id": ref_id, "limit_": limit + 1}


def _ref_id(kind: str, ref_id: str) -> str:
    """Return the node of a reference; a colon in the kind is written otherwise, or two references could be one."""
    return f"ref:{kind.replace('%', '%25').replace(':', '%3A')}:{ref_id}"


def mermaid_text(text: str) -> str:
    """Return the text so that Mermaid shows it as it is.

    Quotes end a label, backticks begin Markdown, ``%%{`` a directive wherever it stands, ``<`` a tag: so every ASCII
    mark that is not known to be harmless becomes an entity, and what does not show becomes a space.
    """
    return "".join(
        character
        if character.isalnum() or character in _HARMLESS or (character > "\x7f" and character.isprintable())
        else f"#{ord(character)};"
        if character.isprintable()
        else " "
        for character in text
    )


_HARMLESS = " .,_-+/()"

_JOINED = select(
    _LINKS.c.task_id, _TASKS.c.title, _TASKS.c.status, _LINKS.c.kind, _LINKS.c.ref_id, _LINKS.c.phase
).join(_TASKS, _TASKS.c.task_id == _LINKS.c.task_id)
_LINKS_OF_TASK: Statement[Any] = Statement(
    _JOINED.where(_LINKS.c.task_id == bindparam("task_id", type_=_LINKS.c.task_id.type))
    .order_by(_LINKS.c.lineage_id)
    .limit(bindparam("limit_"))
)
_LINKS_TO_REF: Statement[Any] = Statement(
    _JOINED.where(
        _LINKS.c.kind == bindparam("kind", type_=_LINKS.c.kind.type),
        _LINKS.c.ref_id == bindparam("ref_id", type_=_LINKS.c.ref_id.type),
    )
    .order_by(_LINKS.c.lineage_id)
    .limit(bindparam("limit_"))
)
