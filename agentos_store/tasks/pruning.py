"""Audit entries that go by age: from the beginning of a chain, so that what is left still verifies."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, select, update

from agentos_store.engine.clock import from_now, seconds
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, insert_into
from agentos_store.tasks.models import AuditPruningPermit, TaskAudit, TaskAuditHead

_AUDITS = TaskAudit.table()
_HEADS = TaskAuditHead.table()
_PERMITS = AuditPruningPermit.table()


def prune_chain(session: Session, task_id: str, age: float, number: int) -> int:
    """Remove up to so many entries from the beginning of a task's chain that are older than ``age`` seconds.

    The head tells how many went and the hash of the last of them, by which the rest verifies. Returns how many went.
    """
    if session.first(_LOCK_HEAD, {"task_id": task_id}) is None:
        # Without its head a chain does not verify already, and is left as evidence.
        return 0
    last: tuple[int, str] | None = None
    count = 0
    for audit_id, row_hash, is_old in session.all(_FIRST, {"task_id": task_id, "age": -age, "limit_": number}):
        if not is_old:
            break
        last = (audit_id, row_hash)
        count += 1
    if last is None:
        return 0
    session.execute(_PERMIT, {"task_id": task_id})
    session.execute(_REMOVE, {"task_id": task_id, "last": last[0]})
    session.execute(_MOVE, {"task_id": task_id, "count": count, "hash": last[1]})
    session.execute(_FORBID, {"task_id": task_id})
    return count


_TASK_ID = bindparam("task_id", type_=_AUDITS.c.task_id.type)
_LOCK_HEAD: Statement[Any] = Statement(select(_HEADS.c.task_id).where(_HEADS.c.task_id == _TASK_ID).with_for_update())
_FIRST: Statement[Any] = Statement(
    select(_AUDITS.c.audit_id, _AUDITS.c.row_hash, _AUDITS.c.created_at < from_now(seconds("age")))
    .where(_AUDITS.c.task_id == _TASK_ID)
    .order_by(_AUDITS.c.audit_id)
    .limit(bindparam("limit_"))
)
_PERMIT: Statement[Any] = Statement(insert_into(AuditPruningPermit))
_REMOVE: Statement[Any] = Statement(
    delete(_AUDITS).where(
        _AUDITS.c.task_id == _TASK_ID, _AUDITS.c.audit_id <= bindparam("last", type_=_AUDITS.c.audit_id.type)
    )
)
_MOVE: Statement[Any] = Statement(
    update(_HEADS)
    .where(_HEADS.c.task_id == _TASK_ID)
    .values(
        pruned_to=_HEADS.c.pruned_to + bindparam("count", type_=_HEADS.c.pruned_to.type),
        pruned_hash=bindparam("hash", type_=_HEADS.c.pruned_hash.type),
    )
)
_FORBID: Statement[Any] = Statement(delete(_PERMITS).where(_PERMITS.c.task_id == _TASK_ID))

FORGET_CHAIN: Statement[Any] = Statement(
    update(_HEADS).where(_HEADS.c.task_id == _TASK_ID).values(pruned_to=_HEADS.c.length, pruned_hash=_HEADS.c.head_hash)
)
"""For a task that is gone with all its entries: its chain counts as pruned to its end, so that it verifies."""
