"""Operations on tasks."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, MetaData, Select, Table, bindparam, delete, func, literal, select, update
from sqlalchemy.dialects import postgresql

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, build_model, plain_json
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import AlreadyExistsError, ConflictError, InvalidValueError, NotFoundError
from agentos_store.operation import F, reads, reads_together, repeatable, walks, writes, writes_once
from agentos_store.page import DEFAULT_LIMIT, Listing, Page, at_least, below, contains, equals
from agentos_store.tasks.links import TaskLinks
from agentos_store.tasks.models import Task, TaskAudit, TaskAuditHead
from agentos_store.tasks.queue import TaskQueue
from agentos_store.tasks.transition import EVENT_TYPE, GET, Step, take
from agentos_store.types import Text
from agentos_store.types.utc_datetime import EARLIEST, LATEST
from agentos_store.unset import UNSET, Unset, given

_TASKS = Task.table()
_AUDITS = TaskAudit.table()
_HEADS = TaskAuditHead.table()
_KEY = bindparam("task_id", type_=_TASKS.c.task_id.type)

_LISTING = Listing(
    Task,
    filters={
        "status": equals(Task.status),
        "task_type": equals(Task.task_type),
        "session_id": equals(Task.session_id),
        "project_id": equals(Task.project_id),
        "agent_id": equals(Task.agent_id),
        "created_after": at_least(Task.created_at),
        "created_before": below(Task.created_at),
        "metadata": contains(Task.metadata_),
    },
    orders={"created_at": (_TASKS.c.created_at, _TASKS.c.task_id)},
    default="created_at",
)


@dataclass(frozen=True, slots=True)
class Transition:
    """One step that a task took."""

    audit_id: int
    origin: str
    """The status that it left."""
    to: str
    at: dt.datetime
    by: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class AgentTaskStats:
    """What an agent's tasks came to."""

    agent_id: str
    total: int
    by_status: Mapping[str, int]
    success_rate: float | None
    """Completed, of those that completed or failed; None while there are none."""
    mean_duration: float | None
    """Seconds, of those that completed; None while there are none."""


class TaskRepository(TaskLinks[F], TaskQueue[F]):
    """Tasks: units of work, from the wish to the result."""

    name = "tasks"

    @writes_once
    @repeatable
    def create(
        self,
        session: Session,
        *,
        title: str,
        task_id: str | None = None,
        task_type: str = "",
        priority: int = 0,
        payload: Any = None,
        session_id: str | None = None,
        project_id: str | None = None,
        agent_id: str | None = None,
        route_plan: Any = None,
        requirements: Any = None,
        selected_instance_id: str | None = None,
        router_version: str | None = None,
        max_attempts: int = 3,
        run_after: dt.datetime | None = None,
        idempotency_key: str | None = None,
        enqueue: bool = False,
        created_by: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Task:
        """Add a task in status ``created``, or ``pending`` with ``enqueue``; its identifier is made unless given.

        A second call with the same ``idempotency_key`` and ``task_type`` returns the first one's task as it is now,
        whatever else it asks for. Raises AlreadyExistsError for an identifier that is taken, NotFoundError for a
        session, project or agent that does not exist, and ConflictError for a project that is deleted.
        """
        if not isinstance(max_attempts, bool) and isinstance(max_attempts, int) and max_attempts < 1:
            raise InvalidValueError("max_attempts", "must be at least 1")
        time = session.now()
        row = dict.fromkeys(_TASKS.c.keys()) | {
            "task_id": session.new_ulid() if task_id is None else task_id,
            "title": title,
            "status": "pending" if enqueue else "created",
            "task_type": task_type,
            "priority": priority,
            "payload": payload,
            "session_id": session_id,
            "project_id": project_id,
            "agent_id": agent_id,
            "route_plan_json": route_plan,
            "requirements_json": requirements,
            "selected_instance_id": selected_instance_id,
            "router_version": router_version,
            "attempts": 0,
            "max_attempts": max_attempts,
            "run_after": run_after,
            "lease_token": 0,
            "idempotency_key": idempotency_key,
            "version": 1,
            "created_by": created_by,
            "metadata": {} if metadata is None else plain_json(metadata),
            "created_at": time,
            "updated_at": time,
        }
        while True:
            try:
                added = session.execute(_INSERT if project_id is None else _INSERT_INTO_PROJECT, row)
            except IntegrityViolation as violation:
                raise explain(violation, Task, row, session) from None
            if added:
                return build_model(Task, row)
            found = _in_the_way(session, row)
            if found is not None:
                return found
            # Whatever it was is gone by now.

    @reads
    def get(self, session: Session, task_id: str) -> Task:
        """Return the task; raise NotFoundError for an unknown identifier."""
        return _required(session.first(GET, {"task_id": task_id}), task_id)

    @reads
    def find(self, session: Session, task_id: str) -> Task | None:
        """Return the task, or None."""
        return session.first(GET, {"task_id": task_id})

    @reads
    def exists(self, session: Session, task_id: str) -> bool:
        """Tell whether there is such a task."""
        return session.first(_EXISTS, {"task_id": task_id}) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        status: str | None = None,
        task_type: str | None = None,
        session_id: str | None = None,
        project_id: str | None = None,
        agent_id: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[Task]:
        """Return a page of tasks, the oldest first; ``order="-created_at"`` turns that round.

        ``created_after`` is inclusive and ``created_before`` is not. ``metadata`` keeps the tasks whose metadata
        contains it; on SQLite it narrows what the other filters leave.
        """
        filters = {
            "status": status,
            "task_type": task_type,
            "session_id": session_id,
            "project_id": project_id,
            "agent_id": agent_id,
            "created_after": created_after,
            "created_before": created_before,
            "metadata": plain_json(metadata),
        }
        return _LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    @reads
    def count(
        self,
        session: Session,
        *,
        status: str | None = None,
        task_type: str | None = None,
        session_id: str | None = None,
        project_id: str | None = None,
        agent_id: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> int:
        """Return how many tasks pass the filters."""
        filters = {
            "status": status,
            "task_type": task_type,
            "session_id": session_id,
            "project_id": project_id,
            "agent_id": agent_id,
            "created_after": created_after,
            "created_before": created_before,
            "metadata": plain_json(metadata),
        }
        return _LISTING.count(session, filters)

    @writes_once
    @repeatable
    def update(
        self,
        session: Session,
        task_id: str,
        *,
        version: int | None = None,
        title: str | Unset = UNSET,
        priority: int | Unset = UNSET,
        run_after: dt.datetime | None | Unset = UNSET,
        session_id: str | None | Unset = UNSET,
        project_id: str | None | Unset = UNSET,
        agent_id: str | None | Unset = UNSET,
    ) -> Task:
        """Change what is given and leave the rest; with ``version``, only if the task is still at it.

        Raises NotFoundError for a session, project or agent that does not exist, and ConflictError for another
        version or a project that is deleted.
        """
        changes = given(
            title=title,
            priority=priority,
            run_after=run_after,
            session_id=session_id,
            project_id=project_id,
            agent_id=agent_id,
        )
        return _change(session, task_id, changes, version)

    @writes_once
    @repeatable
    def set_routing(
        self,
        session: Session,
        task_id: str,
        *,
        route_plan: Any | Unset = UNSET,
        requirements: Any | Unset = UNSET,
        selected_instance_id: str | None | Unset = UNSET,
        router_version: str | None | Unset = UNSET,
        version: int | None = None,
    ) -> Task:
        """Record what the router decided; what is left out stays as it is."""
        changes = given(
            route_plan_json=route_plan,
            requirements_json=requirements,
            selected_instance_id=selected_instance_id,
            router_version=router_version,
        )
        return _change(session, task_id, changes, version)

    @writes
    @repeatable
    def merge_metadata(self, session: Session, task_id: str, metadata: Mapping[str, Any]) -> Task:
        """Set these keys of the task's metadata and keep the others; parallel merges keep each other's keys."""
        task = _required(session.first(_LOCK if session.capabilities.row_locks else GET, {"task_id": task_id}), task_id)
        # What is no mapping is for the column's type to refuse.
        merged = {**task.metadata_, **metadata} if isinstance(metadata, Mapping) else metadata
        return _change(session, task_id, {"metadata": merged}, None)

    @writes
    @repeatable
    def delete(self, session: Session, task_id: str) -> None:
        """Remove the task with its lineage and audits for good; the head of its audit chain stays as evidence.

        The chain counts as pruned to its end, so that it verifies.
        """
        if session.execute(_DELETE, {"task_id": task_id}) == 0 and not session.repeated:
            raise NotFoundError("task", task_id)
        session.execute(_PRUNE_HEAD, {"task_id": task_id})

    @writes_once
    @repeatable
    def transition(
        self,
        session: Session,
        task_id: str,
        to: str,
        *,
        expected: str | None = None,
        version: int | None = None,
        by: str | None = None,
        exit_reason: str | None = None,
        error_message: str | None = None,
        result: Any = None,
        duration: float | None = None,
    ) -> Task:
        """Move the task to another status, with an audit entry in the same transaction; return it as it is then.

        The status that it has already is no step: nothing changes and no audit is written. Raises
        InvalidTransitionError for a step that the state machine does not have, ConflictError when the task is not in
        the ``expected`` status or not at the ``version``, and InvalidValueError for a failure without a reason. Of
        two callers that race one comes first; the other is judged by what it finds then.
        """
        step = Step(
            task_id=task_id,
            to=to,
            expected=expected,
            version=version,
            by=by,
            exit_reason=exit_reason,
            error_message=error_message,
            result=result,
            duration=duration,
        )
        return take(session, step)

    @writes_once
    @repeatable
    def cancel(self, session: Session, task_id: str, *, by: str | None = None, reason: str | None = None) -> Task:
        """Cancel a task that has not ended."""
        return take(session, Step(task_id=task_id, to="cancelled", by=by, exit_reason=reason))

    @writes_once
    @repeatable
    def pause(self, session: Session, task_id: str, *, by: str | None = None, reason: str | None = None) -> Task:
        """Pause a pending or running task."""
        return take(session, Step(task_id=task_id, to="paused", by=by, exit_reason=reason))

    @writes_once
    @repeatable
    def resume(self, session: Session, task_id: str, *, by: str | None = None) -> Task:
        """Make a paused task pending again; ConflictError for one that is not paused."""
        return take(session, Step(task_id=task_id, to="pending", expected="paused", by=by))

    @writes_once
    @repeatable
    def retry(self, session: Session, task_id: str, *, by: str | None = None) -> Task:
        """Make a failed task pending again; ConflictError for one that has not failed."""
        return take(session, Step(task_id=task_id, to="pending", expected="failed", by=by))

    @reads
    def history(self, session: Session, task_id: str) -> Sequence[Transition]:
        """Return the steps that the task took, in order, those of an imported AgentOS task included."""
        rows = session.all(_HISTORY, {"task_id": task_id})
        if not rows and session.first(_EXISTS, {"task_id": task_id}) is None:
            raise NotFoundError("task", task_id)
        return [_step_of(audit) for audit in rows]

    @reads_together
    def agent_stats(
        self,
        session: Session,
        agent_id: str,
        *,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
    ) -> AgentTaskStats:
        """Return totals by status, the success rate and the mean duration of an agent's tasks.

        Of all of them, or of those created in a time; ``created_after`` is inclusive and ``created_before`` is not.
        """
        binds = {
            "agent_id": agent_id,
            "created_after": EARLIEST if created_after is None else created_after,
            "created_before": LATEST if created_before is None else created_before,
        }
        by_status: dict[str, int] = {}
        mean = None
        for status, count, seconds in session.all(_AGENT_STATS, binds):
            by_status[status] = count
            mean = seconds if status == "completed" else mean
        done, failed = by_status.get("completed", 0), by_status.get("failed", 0)
        rate = done / (done + failed) if done + failed else None
        return AgentTaskStats(agent_id, sum(by_status.values()), by_status, rate, mean)


_CALLED = {"route_plan_json": "route_plan", "requirements_json": "requirements"}
"""What errors call a value whose column has another name than the caller's parameter."""

_VALUES = {c.name: bindparam(c.name, type_=c.type) for c in _TASKS.c}
# One spelling serves both dialects; without a target it passes over any unique key that is taken.
_INSERT: Statement[Any] = Statement(postgresql.insert(_TASKS).values(_VALUES).on_conflict_do_nothing(), called=_CALLED)

# Another domain's table is known by its name alone. It is a Table all the same: a table clause would be left out when
# the schema is written into the statement.
_PROJECTS = Table("projects", MetaData(), Column("id", _TASKS.c.project_id.type), Column("status", Text()))


def _open_project(*columns: Any, key: str) -> Select[Any]:
    """Return the query for a project that takes tasks; it holds off whoever would delete it until the commit."""
    project = bindparam(key, type_=_TASKS.c.project_id.type)
    wanted = select(*columns).where(_PROJECTS.c.id == project, _PROJECTS.c.status != "deleted")
    return wanted.with_for_update(key_share=True, read=True, of=_PROJECTS)


_INSERT_INTO_PROJECT: Statement[Any] = Statement(
    postgresql.insert(_TASKS)
    .from_select([*_VALUES], _open_project(*_VALUES.values(), key="project_id"), include_defaults=False)
    .on_conflict_do_nothing(),
    called=_CALLED,
)
_PROJECT_STATUS: Statement[Any] = Statement(
    select(_PROJECTS.c.status).where(_PROJECTS.c.id == bindparam("project_id", type_=_TASKS.c.project_id.type))
)
_BY_IDEMPOTENCY_KEY: Statement[Task] = Statement(
    select(_TASKS).where(
        _TASKS.c.task_type == bindparam("task_type", type_=_TASKS.c.task_type.type),
        _TASKS.c.idempotency_key == bindparam("idempotency_key", type_=_TASKS.c.idempotency_key.type),
    ),
    returns=Task,
)
_EXISTS: Statement[Any] = Statement(select(literal(1)).where(_TASKS.c.task_id == _KEY))
_LOCK: Statement[Task] = Statement(select(_TASKS).where(_TASKS.c.task_id == _KEY).with_for_update(), returns=Task)
_DELETE: Statement[Any] = Statement(delete(_TASKS).where(_TASKS.c.task_id == _KEY))
_PRUNE_HEAD: Statement[Any] = Statement(
    update(_HEADS).where(_HEADS.c.task_id == _KEY).values(pruned_to=_HEADS.c.length, pruned_hash=_HEADS.c.head_hash)
)
_HISTORY: Statement[TaskAudit] = Statement(
    select(_AUDITS)
    .where(
        _AUDITS.c.task_id == _KEY,
        (_AUDITS.c.event_type == EVENT_TYPE)
        # AgentOS's own words for a step, as they come in with an imported registry.
        | ((_AUDITS.c.event_type >= "STATE_TRANSITION") & (_AUDITS.c.event_type < "STATE_TRANSITIOO")),
    )
    .order_by(_AUDITS.c.audit_id),
    returns=TaskAudit,
)
_AGENT_STATS: Statement[Any] = Statement(
    select(_TASKS.c.status, func.count(), func.avg(_TASKS.c.duration))
    .where(
        _TASKS.c.agent_id == bindparam("agent_id", type_=_TASKS.c.agent_id.type),
        _TASKS.c.created_at >= bindparam("created_after", type_=_TASKS.c.created_at.type),
        _TASKS.c.created_at < bindparam("created_before", type_=_TASKS.c.created_at.type),
    )
    .group_by(_TASKS.c.status)
)
_CHANGES: dict[tuple[frozenset[str], bool], Statement[Task]] = {}


def _in_the_way(session: Session, row: Mapping[str, Any]) -> Task | None:
    """Return the task that was asked for, when it stood in the way of the new one; raise when something else did."""
    if row["idempotency_key"] is not None:
        found = session.first(_BY_IDEMPOTENCY_KEY, row)
        if found is not None:
            return found
    found = session.first(GET, row)
    if found is not None:
        # The time was drawn for this call alone: an earlier try of it was committed, and its answer got lost.
        if session.repeated and found.created_at == row["created_at"]:
            return found
        raise AlreadyExistsError("task", row["task_id"])
    if row["project_id"] is not None:
        _refuse_closed_project(session, row["project_id"])
    return None


def _refuse_closed_project(session: Session, project_id: str) -> None:
    found = session.first(_PROJECT_STATUS, {"project_id": project_id})
    if found is None:
        raise NotFoundError("project", project_id)
    if found[0] == "deleted":
        raise ConflictError("project", project_id, "it is deleted; restore it before it is given a task")


def _change(session: Session, task_id: str, changes: Mapping[str, Any], version: int | None) -> Task:
    into_project = changes.get("project_id") is not None
    key = frozenset(changes), into_project
    statement = _CHANGES.get(key)
    if statement is None:
        statement = _CHANGES[key] = _change_of(changes, into_project=into_project)
    time = session.now()
    binds = {f"new_{name}": value for name, value in changes.items()}
    binds |= {"task_id": task_id, "given_version": version, "new_updated_at": time}
    while True:
        if session.repeated and (done := session.first(GET, {"task_id": task_id})) and done.updated_at == time:
            # An earlier try of this very call was committed, and its answer got lost.
            return done
        try:
            changed = session.first(statement, binds)
        except IntegrityViolation as violation:
            row = dict.fromkeys(_TASKS.c.keys()) | dict(changes)
            raise explain(violation, Task, row, session) from None
        if changed is not None:
            return changed
        task = _required(session.first(GET, {"task_id": task_id}), task_id)
        if version is not None and task.version != version:
            raise ConflictError("task", task_id, f"it is at version {task.version}, not {version}")
        if into_project:
            _refuse_closed_project(session, changes["project_id"])
        # Whatever stood in the way is gone by now.


def _change_of(changes: Mapping[str, Any], *, into_project: bool) -> Statement[Task]:
    values: dict[str, Any] = {name: bindparam(f"new_{name}", type_=_TASKS.c[name].type) for name in changes}
    values["updated_at"] = bindparam("new_updated_at", type_=_TASKS.c.updated_at.type)
    values["version"] = _TASKS.c.version + 1
    wanted = func.coalesce(bindparam("given_version", type_=_TASKS.c.version.type), _TASKS.c.version)
    query = update(_TASKS).where(_TASKS.c.task_id == _KEY, _TASKS.c.version == wanted)
    if into_project:
        query = query.where(_open_project(literal(1), key="new_project_id").exists())
    called = {f"new_{name}": _CALLED.get(name, name) for name in changes} | {"given_version": "version"}
    return Statement(query.values(values).returning(*_TASKS.c), returns=Task, called=called)


def _required(task: Task | None, task_id: str) -> Task:
    if task is None:
        raise NotFoundError("task", task_id)
    return task


def _step_of(audit: TaskAudit) -> Transition:
    payload = audit.payload if isinstance(audit.payload, dict) else {}
    return Transition(
        audit_id=audit.audit_id,
        origin=str(payload.get("from", payload.get("from_state", ""))),
        to=str(payload.get("to", payload.get("to_state", ""))),
        at=audit.created_at,
        by=payload.get("by", payload.get("actor")),
        reason=payload.get("reason"),
    )
