"""Operations on lineage: what a task comes from, and what it led to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, literal, select
from sqlalchemy.dialects import postgresql

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, build_model, numbered_by_database, plain_json
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import NotFoundError
from agentos_store.operation import F, Repository, reads, reads_together, repeatable, walks, writes_once
from agentos_store.page import DEFAULT_LIMIT, Listing, Page, equals
from agentos_store.tasks.graph import LineageGraph, build_graph
from agentos_store.tasks.models import Task, TaskLineage

_LINKS = TaskLineage.table()
_TASKS = Task.table()
_TASK_ID = bindparam("task_id", type_=_LINKS.c.task_id.type)
_KIND = bindparam("kind", type_=_LINKS.c.kind.type)
_REF = bindparam("ref_id", type_=_LINKS.c.ref_id.type)

_LISTING = Listing(
    TaskLineage,
    filters={
        "task_id": equals(TaskLineage.task_id),
        "kind": equals(TaskLineage.kind),
        "ref_id": equals(TaskLineage.ref_id),
    },
    orders={"lineage_id": (_LINKS.c.lineage_id,)},
    default="lineage_id",
)


class LineageRepository(Repository[F]):
    """Links from tasks to requests, intents, executions, commits, or whatever else they touch."""

    name = "lineage"

    @writes_once
    @repeatable
    def record(
        self,
        session: Session,
        task_id: str,
        *,
        kind: str,
        ref_id: str,
        phase: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> TaskLineage:
        """Record a link; the same one again gives the first one's row, unchanged.

        Raises NotFoundError for an unknown task.
        """
        row = {
            "task_id": task_id,
            "kind": kind,
            "ref_id": ref_id,
            "phase": phase,
            "metadata": {} if metadata is None else plain_json(metadata),
            "created_at": session.now(),
        }
        try:
            added = session.first(_INSERT, row)
        except IntegrityViolation as violation:
            raise explain(violation, TaskLineage, {**row, "lineage_id": None}, session) from None
        if added is not None:
            return build_model(TaskLineage, {**row, "lineage_id": added[0]})
        found = session.first(_GET_LINK, row)
        if found is None:
            # Only where a task is deleted between the two statements.
            raise NotFoundError("task", task_id)
        return found

    @reads
    def get(self, session: Session, lineage_id: int) -> TaskLineage:
        """Return the link; raise NotFoundError for an unknown number."""
        found = session.first(_GET, {"lineage_id": lineage_id})
        if found is None:
            raise NotFoundError("lineage link", lineage_id)
        return found

    @reads
    def find(self, session: Session, lineage_id: int) -> TaskLineage | None:
        """Return the link, or None."""
        return session.first(_GET, {"lineage_id": lineage_id})

    @reads
    def exists(self, session: Session, task_id: str, *, kind: str, ref_id: str) -> bool:
        """Tell whether the task has this link."""
        return session.first(_GET_LINK, {"task_id": task_id, "kind": kind, "ref_id": ref_id}) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        task_id: str | None = None,
        kind: str | None = None,
        ref_id: str | None = None,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[TaskLineage]:
        """Return a page of links in the order in which they were recorded."""
        filters = {"task_id": task_id, "kind": kind, "ref_id": ref_id}
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    @reads
    def count(
        self, session: Session, *, task_id: str | None = None, kind: str | None = None, ref_id: str | None = None
    ) -> int:
        """Return how many links pass the filters."""
        return _LISTING.count(session, {"task_id": task_id, "kind": kind, "ref_id": ref_id})

    @reads
    def chain(self, session: Session, task_id: str) -> Sequence[TaskLineage]:
        """Return the task's links in the order in which they were recorded; NotFoundError for an unknown task."""
        links = session.all(_CHAIN, {"task_id": task_id})
        if not links and session.first(_TASK_EXISTS, {"task_id": task_id}) is None:
            raise NotFoundError("task", task_id)
        return links

    @reads
    def trace(self, session: Session, ref_id: str, *, kind: str | None = None) -> Sequence[Task]:
        """Return all tasks that have a link to the reference, in the order of their links; of any kind, or of one."""
        rows = session.all(_TRACE if kind is None else _TRACE_KIND, {"ref_id": ref_id, "kind": kind})
        return list({task.task_id: task for task in rows}.values())

    @reads_together
    def graph(self, session: Session, task_id: str, *, depth: int = 2, limit: int = 500) -> LineageGraph:
        """Return the task, its links, the other tasks that share them, their links, and so on.

        ``depth`` counts steps from the task: 1 gives its links, 2 also the tasks that share them. At most ``limit``
        nodes are gathered; ``truncated`` tells when there were more.
        """
        return build_graph(session, task_id, depth=depth, limit=limit)


_INSERT: Statement[Any] = Statement(
    postgresql.insert(_LINKS)
    .values({c.name: bindparam(c.name, type_=c.type) for c in _LINKS.c if not numbered_by_database(c)})
    .on_conflict_do_nothing()
    .returning(_LINKS.c.lineage_id)
)
_GET: Statement[TaskLineage] = Statement(
    select(_LINKS).where(_LINKS.c.lineage_id == bindparam("lineage_id", type_=_LINKS.c.lineage_id.type)),
    returns=TaskLineage,
)
_GET_LINK: Statement[TaskLineage] = Statement(
    select(_LINKS).where(_LINKS.c.task_id == _TASK_ID, _LINKS.c.kind == _KIND, _LINKS.c.ref_id == _REF),
    returns=TaskLineage,
)
_CHAIN: Statement[TaskLineage] = Statement(
    select(_LINKS).where(_LINKS.c.task_id == _TASK_ID).order_by(_LINKS.c.lineage_id), returns=TaskLineage
)
_TASK_EXISTS: Statement[Any] = Statement(select(literal(1)).where(_TASKS.c.task_id == _TASK_ID))
_TRACED = select(_TASKS).join(_LINKS, _LINKS.c.task_id == _TASKS.c.task_id).where(_LINKS.c.ref_id == _REF)
_TRACE: Statement[Task] = Statement(_TRACED.order_by(_LINKS.c.lineage_id), returns=Task)
_TRACE_KIND: Statement[Task] = Statement(
    _TRACED.where(_LINKS.c.kind == _KIND).order_by(_LINKS.c.lineage_id), returns=Task
)
