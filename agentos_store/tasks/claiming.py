"""Claiming: a worker takes what is the most urgent, and what dead workers held waits again.

Each claim adds its audit entry in the statement that changes the task. An entry says who claimed (``by``), in which
call (``claim``) and with which ``token``; the steps that end a claim name the token too, so that the trail tells who
held a task when.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    Float,
    Integer,
    Select,
    String,
    Update,
    and_,
    bindparam,
    case,
    cast,
    extract,
    func,
    literal_column,
    null,
    select,
    text,
    true,
    union_all,
    update,
)

from agentos_store.engine.among import among, searched, unsearched
from agentos_store.engine.clock import from_now, seconds
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, build_model
from agentos_store.errors import InvalidValueError, UnavailableError
from agentos_store.tasks import composed
from agentos_store.tasks.link_models import TaskDependency
from agentos_store.tasks.models import AT_ONCE, DELAYED, LEASED, RUNS, Task
from agentos_store.tasks.trail import AUDITS, Entry, append
from agentos_store.tasks.transition import EVENT_TYPE, GET, TASKS
from agentos_store.types import Text, check_duration, check_whole

LINKS = TaskDependency.table()

LARGEST_LIMIT = 1000
"""Tasks that one call claims, or gives back, at most."""
MOST_TYPES = 50
GIVEN_BACK_AT_ONCE = 100
"""A claim does not become slow because many workers died at once."""
LAPSED = "the lease lapsed"

_BY = Text(1)


def _fixed(value: str, type_: Any = None) -> Any:
    """Return a constant that is part of the statement's text; see ``composed``."""
    return literal_column(f"'{value}'", type_ or String())


def _one() -> Any:
    return literal_column("1", Integer())


_TYPE: Any = TASKS.c.task_type.type


def claim(session: Session, *, by: str, lease: dt.timedelta, task_types: Sequence[str], limit: int) -> Sequence[Task]:
    """Take the most urgent tasks that are free, in that order, and let those of dead workers wait again."""
    _BY.check(by, "by")
    check_duration("lease", lease)
    check_whole("limit", limit, 1, LARGEST_LIMIT)
    types = _checked_types(task_types)
    time, call = session.now(), session.new_ulid()
    if session.repeated and (before := _claimed_before(session, time, call)):
        return before
    payload = {"from": "pending", "to": "running", "by": by, "claim": call}
    binds: dict[str, Any] = {"by": by, "lease": lease.total_seconds(), "limit_": limit, "at": time}
    binds |= {f"type_{number}": each for number, each in enumerate(types)}
    many = limit > 1
    if not session.capabilities.data_modifying_cte:
        # Those that lapse are asked for first, so that the claim itself is none of them, however short its lease.
        lapsed = session.all(_LAPSED_TASKS, {"limit_": GIVEN_BACK_AT_ONCE})
        statement = _claim(len(types), many=many, many_due=bool(session.all(_MANY_DUE, {})[0][0]))
        taken: list[Task] = session.all(statement, binds)
        if lapsed:
            _give_back_each(session, lapsed, time)
            taken = taken or session.all(statement, binds)
        taken.sort(key=_urgency)
        for task in taken:
            append(session, _entry(task.task_id, composed.with_token(payload, task.lease_token), time))
        return taken
    binds |= composed.parts("claimed", payload, time)
    found: list[Any] = session.all(_claim_in_one(len(types), many=many, many_due=False), binds)
    if found and found[0][0]:
        session.settle()
        # What was claimed is claimed, whatever comes of this.
        with contextlib.nullcontext() if session.in_transaction else contextlib.suppress(UnavailableError):
            give_back_lapsed(session, time=time)
    elif not found:
        given_back = give_back_lapsed(session, time=time)
        session.settle()
        if given_back or session.all(_MANY_DUE, {})[0][0]:
            found = session.all(_claim_in_one(len(types), many=many, many_due=True), binds)
    return sorted((build_model(Task, dict(zip(_NAMES, row[1:], strict=True))) for row in found), key=_urgency)


def give_back_lapsed(session: Session, *, limit: int = GIVEN_BACK_AT_ONCE, time: dt.datetime | None = None) -> int:
    """Let tasks wait again whose lease has lapsed, or fail after their last try; return how many."""
    check_whole("limit", limit, 1, LARGEST_LIMIT)
    time = session.now() if time is None else time
    binds: dict[str, Any] = {"limit_": limit, "at": time}
    if session.capabilities.data_modifying_cte:
        for name, is_last in (("worn", True), ("freed", False)):
            binds |= composed.parts(name, _lapse_payload(is_last=is_last), time, level="warning")
        return len(session.all(_GIVE_BACK, binds))
    lapsed = session.all(_LAPSED_TASKS, binds)
    _give_back_each(session, lapsed, time)
    return len(lapsed)


def _give_back_each(session: Session, lapsed: Sequence[Any], time: dt.datetime) -> None:
    for task_id, token, is_last in lapsed:
        session.execute(_GIVE_BACK_ONE, {"task_id": task_id, "at": time})
        payload = composed.with_token(_lapse_payload(is_last=is_last), token)
        append(session, _entry(task_id, payload, time, level="warning"))


def _checked_types(task_types: object) -> Sequence[str]:
    if isinstance(task_types, str) or not isinstance(task_types, Sequence | set | frozenset):
        raise InvalidValueError("task_types", "must be a sequence of types")
    types = list(dict.fromkeys(_TYPE.check(each, "task_types") for each in task_types))
    if len(types) > MOST_TYPES:
        raise InvalidValueError("task_types", f"must be {MOST_TYPES} at most")
    return types


def _claimed_before(session: Session, time: dt.datetime, call: str) -> Sequence[Task]:
    """Return what an earlier try of this very call has claimed and still holds."""
    entries = session.all(_ENTRIES_AT, {"at": time, "event_type": EVENT_TYPE})
    mine = [(key, payload) for key, payload in entries if isinstance(payload, dict) and payload.get("claim") == call]
    tasks = [(session.first(GET, {"task_id": key}), payload["token"]) for key, payload in mine]
    return sorted(
        (task for task, token in tasks if task and task.lease_token == token and task.lease_until is not None),
        key=_urgency,
    )


def _entry(task_id: str, payload: dict[str, Any], time: dt.datetime, *, level: str = "info") -> Entry:
    return Entry(task_id=task_id, event_type=EVENT_TYPE, level=level, payload=payload, created_at=time)


def _lapse_payload(*, is_last: bool) -> dict[str, Any]:
    return {"from": "running", "to": "failed" if is_last else "pending", "reason": LAPSED}


def _urgency(task: Task) -> tuple[int, dt.datetime, str]:
    return -task.priority, task.created_at, task.task_id


_KEY = bindparam("task_id", type_=TASKS.c.task_id.type)
_AT = bindparam("at", type_=TASKS.c.updated_at.type)
_NOW = from_now(0.0)

# --- what is free

_WAITING = TASKS.alias("w")
# Every step but the one into running takes the lease away, so the status only keeps out what somebody wrote past us.
_IS_LAPSED = and_(text(f"w.{LEASED}"), _WAITING.c.lease_until < _NOW, text(f"w.{RUNS}"))


def unfinished(task_id: Any) -> Any:
    """Return the query for whether the task waits for something: true, or NULL.

    Only what completed is finished: what failed can be tried again, and whoever cancels something has to say what
    becomes of the rest.
    """
    link, needed = LINKS.alias("l"), TASKS.alias("n")
    # A subquery that gives a value is asked for each task that comes up, until enough are found. As NOT EXISTS,
    # PostgreSQL may gather everything that anything waits for first; and of a truth it expects that it holds for half
    # of the tasks, where with IS NULL it would expect to look through most of them, and sort them all.
    query = (
        select(true())
        .select_from(link)
        .join(needed, searched(needed.c.task_id, link.c.depends_on_task_id))
        .where(
            searched(link.c.task_id, task_id),
            link.c.dependency_type != _fixed("suggests"),
            needed.c.status != _fixed("completed"),
        )
        .limit(_one())
    )
    return query.correlate(task_id.table).scalar_subquery()


def _free(number: int, limit: Any, condition: str, *more: Any, few: bool = False) -> Select[Any]:
    """Return the query for the most urgent of the tasks that pass the conditions; ``few`` are found and sorted."""
    task = _WAITING.c
    # No index is in the order of the sum.
    priority = task.priority + literal_column("0", Integer()) if few else task.priority
    query = (
        select(task.task_id, task.priority, task.created_at, task.lease_token)
        .where(_said(condition), *more, task.attempts < task.max_attempts, unfinished(task.task_id).is_not(true()))
        .order_by(priority.desc(), task.created_at, task.task_id)
        .limit(limit)
        # The weaker lock: entries that others add to the trail refer to the task and need not wait.
        .with_for_update(skip_locked=True, key_share=True)
    )
    return select(query.subquery(f"b{number}"))


def _said(condition: str) -> Any:
    return text(condition.replace("status", "w.status").replace("run_after", "w.run_after"))


def _many_are_due(many: int) -> Select[Any]:
    due = select(_one().label("n")).where(_said(DELAYED), _WAITING.c.run_after <= _NOW)
    number = literal_column(str(many), Integer())
    return select(func.count() == number).select_from(due.limit(number).subquery("d"))


MANY_DUE = 200
_MANY_DUE: Statement[Any] = Statement(_many_are_due(MANY_DUE // 2))
"""Asked for half as many, for others claim some of them meanwhile."""


def _chosen(types: int, limit: Any, *columns: str, many_due: bool) -> Select[Any]:
    """Return the query for the tasks to claim, of all types or of so many.

    What may be had at once lies in the order of its urgency in an index, of each type. Those whose time has come are
    found by their time, and sorted: there are few, for they are claimed as they come. When there are many all the same,
    as after an hour without workers, they are looked for in the order of their urgency, among all that wait for a time.
    """
    wanted = [_WAITING.c.task_type == bindparam(f"type_{number}", type_=_TYPE) for number in range(types)]
    branches = [_free(number, limit, AT_ONCE, each) for number, each in enumerate(wanted)] or [_free(0, limit, AT_ONCE)]
    # Not by an index over types: in the one that would do, those that wait for their time do not stand.
    of_types = [case(*((each, _one()) for each in wanted)) == _one()] if wanted else []
    run_after = unsearched(_WAITING.c.run_after) if many_due else _WAITING.c.run_after
    branches.append(_free(len(branches), limit, DELAYED, run_after <= _NOW, *of_types, few=not many_due))
    free = union_all(*branches).subquery("f")
    query = select(*(free.c[name] for name in columns))
    return query.order_by(free.c.priority.desc(), free.c.created_at, free.c.task_id).limit(limit)


# --- claiming them


def _claimed(task: Any) -> dict[str, Any]:
    """Return what a claim sets."""
    return {
        "status": _fixed("running", task.status.type),
        "version": task.version + _one(),
        "attempts": task.attempts + _one(),
        "lease_token": task.lease_token + _one(),
        "claimed_by": bindparam("by", type_=task.claimed_by.type),
        "lease_until": from_now(seconds("lease")),
        "updated_at": _AT,
        "started_at": func.coalesce(task.started_at, _AT),
        "exit_reason": null(),
    }


def _limit(*, many: bool) -> Any:
    # The planner knows that one row is found when one is asked for.
    return bindparam("limit_") if many else _one()


@cache
def _claim(types: int, *, many: bool, many_due: bool) -> Statement[Task]:
    """Return the claim of tasks of so many types, where all writers stand in one queue."""
    free = _chosen(types, _limit(many=many), "task_id", many_due=many_due)
    chosen = among(TASKS.c.task_id, free.correlate(None))
    return Statement(update(TASKS).where(chosen).values(_claimed(TASKS.c)).returning(*TASKS.c), returns=Task)


@cache
def _claim_in_one(types: int, *, many: bool, many_due: bool) -> Statement[Any]:
    """Return the claim with its entries, in one statement, which also tells whether some lease has lapsed.

    The chosen tasks are locked as they are chosen, so what the entries say of them is what they become. The statement
    for when few are due claims nothing when many are.
    """
    free = _chosen(types, _limit(many=many), "task_id", "lease_token", many_due=many_due)
    chosen = (free if many_due else free.where(~_many_are_due(MANY_DUE).scalar_subquery())).cte("c")
    entry = composed.entries(chosen, {"claimed": None}, _AT, token=chosen.c.lease_token + _one())
    task: Any = TASKS.alias("t")
    is_lapsed = select(_one()).where(_IS_LAPSED).exists()
    statement = update(task).where(searched(task.c.task_id, chosen.c.task_id)).values(_claimed(task.c))
    return Statement(statement.returning(is_lapsed, *task.c).add_cte(entry))


_NAMES = tuple(TASKS.c.keys())

# --- giving back what lapsed

_LAST = TASKS.c.attempts >= TASKS.c.max_attempts


def _lapsed(*columns: Any) -> Select[Any]:
    query = select(*columns).where(_IS_LAPSED).order_by(_WAITING.c.lease_until)
    return query.limit(bindparam("limit_")).with_for_update(skip_locked=True, key_share=True)


def _giving_back(condition: Any, elapsed: Any) -> Update:
    return (
        update(TASKS)
        .where(condition)
        .values(
            status=case((_LAST, _fixed("failed")), else_=_fixed("pending")),
            version=TASKS.c.version + 1,
            updated_at=_AT,
            completed_at=case((_LAST, _AT), else_=null()),
            duration=case((_LAST, elapsed), else_=null()),
            exit_reason=_fixed(LAPSED, TASKS.c.exit_reason.type),
            claimed_by=null(),
            lease_until=null(),
        )
    )


def _give_back() -> Statement[Any]:
    elapsed = cast(extract("epoch", _AT - TASKS.c.started_at), Float(53))
    # What this very call has claimed is none of them, however short its lease.
    lapsed = _lapsed(_WAITING.c.task_id).where(_WAITING.c.updated_at != _AT)
    found = among(TASKS.c.task_id, lapsed.correlate(None))
    freed = _giving_back(found, elapsed).returning(TASKS.c.task_id, TASKS.c.lease_token, TASKS.c.status).cte("c")
    kinds = {"worn": freed.c.status == _fixed("failed"), "freed": None}
    return Statement(
        select(freed.c.task_id).add_cte(composed.entries(freed, kinds, _AT, token=freed.c.lease_token)), writes=True
    )


_GIVE_BACK = _give_back()
_LAPSED_TASKS: Statement[Any] = Statement(
    _lapsed(_WAITING.c.task_id, _WAITING.c.lease_token, _WAITING.c.attempts >= _WAITING.c.max_attempts)
)
_GIVE_BACK_ONE: Statement[Any] = Statement(
    _giving_back(TASKS.c.task_id == _KEY, func.agentos_seconds_between(TASKS.c.started_at, _AT))
)
_ENTRIES_AT: Statement[Any] = Statement(
    select(AUDITS.c.task_id, AUDITS.c.payload).where(
        AUDITS.c.created_at == _AT, AUDITS.c.event_type == bindparam("event_type", type_=AUDITS.c.event_type.type)
    )
)
