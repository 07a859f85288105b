"""Dependencies between tasks: links without circles, and the orders and graphs that follow from them."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import CTE, bindparam, literal, select, update
from sqlalchemy.dialects import postgresql

from agentos_store.engine.advisory import one_at_a_time
from agentos_store.engine.among import among, searched
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, build_model, numbered_by_database
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import CycleError, NotFoundError
from agentos_store.tasks.graph import mermaid_text
from agentos_store.tasks.link_models import DEPENDENCY_TYPE, TaskDependency
from agentos_store.tasks.models import Task
from agentos_store.tasks.transition import GET
from agentos_store.types import Identifier, check_whole

LINKS = TaskDependency.table()
TASKS = Task.table()

_KEY = Identifier()

STRENGTH = {"suggests": 0, "requires": 1, "blocks": 2}
"""Of two types for one pair the stronger counts."""

LARGEST = 10_000
"""Steps and nodes of a graph at most; whoever wants all tasks reads their topological order."""


@dataclass(frozen=True, slots=True)
class TaskNode:
    """A task in a graph."""

    task_id: str
    title: str
    status: str


@dataclass(frozen=True, slots=True)
class DependencyEdge:
    """A task depends on another."""

    task_id: str
    depends_on_task_id: str
    dependency_type: str


@dataclass(frozen=True, slots=True)
class DependencyGraph:
    """Tasks and what they depend on."""

    nodes: tuple[TaskNode, ...]
    edges: tuple[DependencyEdge, ...]
    truncated: bool
    """Whether there was more than the limit allowed."""

    def mermaid(self) -> str:
        """Return the graph as the text of a Mermaid flow chart, from what is needed to what needs it."""
        names = {node.task_id: f"n{number}" for number, node in enumerate(self.nodes)}
        lines = ["flowchart LR"]
        lines += [f'    {names[n.task_id]}["{mermaid_text(n.title)}<br/>{mermaid_text(n.status)}"]' for n in self.nodes]
        for edge in self.edges:
            arrow = "-.->" if edge.dependency_type == "suggests" else "-->"
            lines.append(f"    {names[edge.depends_on_task_id]} {arrow} {names[edge.task_id]}")
        return "\n".join(lines) + "\n"


def insert_dependency(session: Session, row: Mapping[str, Any]) -> TaskDependency:
    """Add a link unless it closes a circle; strengthen the one that is there."""
    task_id, needed = row["task_id"], row["depends_on_task_id"]
    _KEY.check(task_id, "task_id")
    _KEY.check(needed, "depends_on_task_id")
    DEPENDENCY_TYPE.check(row["dependency_type"], "dependency_type")
    if task_id == needed:
        raise CycleError([task_id, task_id])
    if session.capabilities.advisory_locks:
        # Two links that close a circle together need not share a task, so no lock on rows keeps both writers apart.
        session.first(_ONE_AT_A_TIME)
    found = session.first(_GET, row)
    if found is not None:
        if STRENGTH[row["dependency_type"]] <= STRENGTH[found.dependency_type]:
            return found
        strengthened = session.first(_STRENGTHEN, row)
        if strengthened is not None:
            return strengthened
        # It was removed meanwhile: whoever removes a link can close no circle, so the lock does not hold it off.
    _refuse_circle(session, task_id, needed)
    try:
        added = session.first(_INSERT, row)
    except IntegrityViolation as violation:
        raise explain(violation, TaskDependency, {**row, "dependency_id": None}, session) from None
    assert added is not None
    return build_model(TaskDependency, {**row, "dependency_id": added[0]})


def _refuse_circle(session: Session, task_id: str, needed: str) -> None:
    """Raise CycleError when the needed task depends on the other already, NotFoundError when there is no such task."""
    facts = session.first(_SURROUNDINGS, {"task_id": task_id, "depends_on_task_id": needed})
    assert facts is not None
    for key, known in ((task_id, facts[0]), (needed, facts[1])):
        if not known:
            raise NotFoundError("task", key)
    # Most links are made between tasks of which one stands at an end, where no circle can close.
    if not (facts[2] and facts[3]) or session.first(_REACHES, {"start": needed, "goal": task_id}) is None:
        return
    raise CycleError([task_id, *_path(session, needed, task_id)])


def _path(session: Session, start: str, goal: str) -> list[str]:
    """Return one of the shortest ways from start to goal, along what each task depends on."""
    needs: dict[str, list[str]] = {}
    for task, needed, _ in session.all(_UP, {"start": start}):
        needs.setdefault(task, []).append(needed)
    came_from = {start: start}
    here = deque([start])
    while goal not in came_from:
        task = here.popleft()
        for needed in needs.get(task, ()):
            if needed not in came_from:
                came_from[needed] = task
                here.append(needed)
    path = [goal]
    while path[-1] != start:
        path.append(came_from[path[-1]])
    return path[::-1]


def ancestors_of(session: Session, task_id: str) -> Sequence[Task]:
    """Return what the task depends on, each before those that depend on it."""
    return _reached(session, task_id, _UP, _UP_TASKS)


def descendants_of(session: Session, task_id: str) -> Sequence[Task]:
    """Return what depends on the task, each after those that it depends on."""
    return _reached(session, task_id, _DOWN, _DOWN_TASKS)


def _reached(session: Session, task_id: str, links: Statement[Any], tasks: Statement[Task]) -> Sequence[Task]:
    found = {task.task_id: task for task in session.all(tasks, {"start": task_id})}
    if not found:
        require_task(session, task_id)
        return []
    edges = [(task, needed) for task, needed, _ in session.all(links, {"start": task_id})]
    return [found[key] for key in _order([(task.created_at, key) for key, task in found.items()], edges)]


def topological(session: Session, project_id: str | None) -> Sequence[str]:
    """Return the tasks so that each comes after those that it depends on."""
    if project_id is None:
        return _order(session.all(_ALL_TASKS), session.all(_ALL_LINKS))
    binds = {"project_id": project_id}
    return _order(session.all(_TASKS_OF_PROJECT, binds), session.all(_LINKS_OF_PROJECT, binds))


def _order(tasks: Sequence[tuple[Any, str]], edges: Iterable[tuple[str, str]]) -> list[str]:
    """Sort tasks, given as time and key, topologically after Kahn, with a heap so that ties come in a stable order.

    Links to or from other tasks do not count.
    """
    ages = {key: (created, key) for created, key in tasks}
    waits_for = dict.fromkeys(ages, 0)
    needed_by: dict[str, list[str]] = {}
    for task, needed in edges:
        if task in ages and needed in ages:
            waits_for[task] += 1
            needed_by.setdefault(needed, []).append(task)
    ready = [ages[key] for key, count in waits_for.items() if count == 0]
    heapq.heapify(ready)
    ordered = []
    while ready:
        _, key = heapq.heappop(ready)
        ordered.append(key)
        for task in needed_by.get(key, ()):
            waits_for[task] -= 1
            if waits_for[task] == 0:
                heapq.heappush(ready, ages[task])
    return ordered


def dependency_graph(session: Session, task_id: str, *, depth: int, limit: int) -> DependencyGraph:
    """Gather the graph around a task, step by step in both directions."""
    check_whole("depth", depth, 1, LARGEST)
    check_whole("limit", limit, 1, LARGEST)
    root = require_task(session, task_id)
    nodes = {task_id: TaskNode(root.task_id, root.title, root.status)}
    edges: list[DependencyEdge] = []
    truncated = False
    for statement in (_NEEDS, _NEEDED_BY):
        here = [task_id]
        for _ in range(depth):
            following: list[str] = []
            for key in here:
                for edge, other in _edges(session, statement, key, limit):
                    if other.task_id not in nodes:
                        if len(nodes) == limit:
                            truncated = True
                            continue
                        nodes[other.task_id] = other
                        following.append(other.task_id)
                    edges.append(edge)
            here = following
    return DependencyGraph(tuple(nodes.values()), tuple(edges), truncated)


def project_dependency_graph(session: Session, project_id: str, *, limit: int) -> DependencyGraph:
    """Gather the tasks of a project, and what they depend on."""
    check_whole("limit", limit, 1, LARGEST)
    rows = session.all(_PROJECT_NODES, {"project_id": project_id, "limit_": limit + 1})
    nodes = {task_id: TaskNode(task_id, title, status) for task_id, title, status in rows[:limit]}
    truncated = len(rows) > limit
    edges = []
    for key in list(nodes):
        for edge, other in _edges(session, _NEEDS, key, limit):
            if other.task_id not in nodes:
                if len(nodes) == limit:
                    truncated = True
                    continue
                nodes[other.task_id] = other
            edges.append(edge)
    return DependencyGraph(tuple(nodes.values()), tuple(edges), truncated)


def _edges(
    session: Session, statement: Statement[Any], key: str, limit: int
) -> Iterator[tuple[DependencyEdge, TaskNode]]:
    """Yield the links of a task, each with the task at its other end; more than the limit's nodes are not needed."""
    for task, needed, kind, title, status in session.all(statement, {"start": key, "limit_": limit}):
        yield DependencyEdge(task, needed, kind), TaskNode(needed if task == key else task, title, status)


def require_task(session: Session, task_id: str) -> Task:
    """Return the task; raise NotFoundError for an unknown identifier."""
    task = session.first(GET, {"task_id": task_id})
    if task is None:
        raise NotFoundError("task", task_id)
    return task


def _bind(name: str) -> Any:
    return bindparam(name, type_=LINKS.c.task_id.type)


_KEYS = (LINKS.c.task_id == _bind("task_id"), LINKS.c.depends_on_task_id == _bind("depends_on_task_id"))
_GET: Statement[TaskDependency] = Statement(select(LINKS).where(*_KEYS), returns=TaskDependency)
_INSERT: Statement[Any] = Statement(
    postgresql.insert(LINKS)
    .values({c.name: bindparam(c.name, type_=c.type) for c in LINKS.c if not numbered_by_database(c)})
    .returning(LINKS.c.dependency_id)
)
_STRENGTHEN: Statement[TaskDependency] = Statement(
    update(LINKS)
    .where(*_KEYS)
    .values(dependency_type=bindparam("dependency_type", type_=LINKS.c.dependency_type.type))
    .returning(*LINKS.c),
    returns=TaskDependency,
)
_ONE_AT_A_TIME: Statement[Any] = Statement(select(one_at_a_time("dependencies")))
_EDGE = (LINKS.c.task_id, LINKS.c.depends_on_task_id, LINKS.c.dependency_type)


def _neighbours(here: Any, there: Any) -> Statement[Any]:
    """Return the query for a task's links in one direction, the first ones first, with the tasks at their ends."""
    return Statement(
        select(*_EDGE, TASKS.c.title, TASKS.c.status)
        .join(TASKS, TASKS.c.task_id == there)
        .where(here == _bind("start"))
        .order_by(LINKS.c.dependency_id)
        .limit(bindparam("limit_"))
    )


_NEEDS = _neighbours(LINKS.c.task_id, LINKS.c.depends_on_task_id)
_NEEDED_BY = _neighbours(LINKS.c.depends_on_task_id, LINKS.c.task_id)


def _is_there(column: Any, key: str) -> Any:
    return select(literal(1)).where(column == _bind(key)).exists()


_SURROUNDINGS: Statement[Any] = Statement(
    select(
        _is_there(TASKS.c.task_id, "task_id"),
        _is_there(TASKS.c.task_id, "depends_on_task_id"),
        _is_there(LINKS.c.task_id, "depends_on_task_id"),
        _is_there(LINKS.c.depends_on_task_id, "task_id"),
    )
)


def _reached_tasks(here: Any, there: Any) -> CTE:
    """Return the recursive part: every task that is reached from the start, stepping from one column to the other."""
    reached = select(_bind("start").label("task_id")).cte("reached", recursive=True)
    return reached.union(select(there).join(reached, searched(here, reached.c.task_id)))


def _reached_links(here: Any, there: Any) -> Statement[Any]:
    """Return the query for every link that is met on these ways."""
    met = select(*_EDGE).where(here == _bind("start")).cte("met", recursive=True)
    met = met.union(select(*_EDGE).join(met, searched(here, met.c[there.name])))
    return Statement(select(*met.c))


def _at_the_ends(reached: CTE) -> Statement[Task]:
    others = select(reached.c.task_id).where(reached.c.task_id != _bind("start"))
    return Statement(select(TASKS).where(among(TASKS.c.task_id, others)), returns=Task)


_REACHED_UP = _reached_tasks(LINKS.c.task_id, LINKS.c.depends_on_task_id)
_UP = _reached_links(LINKS.c.task_id, LINKS.c.depends_on_task_id)
_UP_TASKS = _at_the_ends(_REACHED_UP)
_DOWN = _reached_links(LINKS.c.depends_on_task_id, LINKS.c.task_id)
_DOWN_TASKS = _at_the_ends(_reached_tasks(LINKS.c.depends_on_task_id, LINKS.c.task_id))
_REACHES: Statement[Any] = Statement(
    select(literal(1)).select_from(_REACHED_UP).where(_REACHED_UP.c.task_id == _bind("goal")).limit(1)
)
_PROJECT = bindparam("project_id", type_=TASKS.c.project_id.type)
_ALL_TASKS: Statement[Any] = Statement(select(TASKS.c.created_at, TASKS.c.task_id))
_ALL_LINKS: Statement[Any] = Statement(select(LINKS.c.task_id, LINKS.c.depends_on_task_id))
_TASKS_OF_PROJECT: Statement[Any] = Statement(
    select(TASKS.c.created_at, TASKS.c.task_id).where(TASKS.c.project_id == _PROJECT)
)
_LINKS_OF_PROJECT: Statement[Any] = Statement(
    select(LINKS.c.task_id, LINKS.c.depends_on_task_id)
    .join(TASKS, searched(LINKS.c.task_id, TASKS.c.task_id))
    .where(TASKS.c.project_id == _PROJECT)
)
_PROJECT_NODES: Statement[Any] = Statement(
    select(TASKS.c.task_id, TASKS.c.title, TASKS.c.status)
    .where(TASKS.c.project_id == _PROJECT)
    .order_by(TASKS.c.created_at, TASKS.c.task_id)
    .limit(bindparam("limit_"))
)
