"""Audit entries whose payload is erased: the entry stays in its place, and a further one vouches for it.

The hash of an entry covers its payload, so an entry that was emptied is no longer what was hashed. The further entry,
``audit.erased``, is chained like any other. It names the ``row_hash`` of each entry that was emptied and the hash of
what is left of it, which holds nothing of the payload. That hash covers ``prev_hash`` as well, for the ``row_hash`` of
an emptied entry no longer shows what it followed, and the entries before it could be others. So what is left can be
changed as little as before, and the chain as a whole as well. An entry that was not what had been recorded already is
emptied too, but nobody vouches for it: it stays a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Text as PlainText
from sqlalchemy import bindparam, cast, delete, func, null, or_, select, text, update

from agentos_store.engine.holding import holds
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, insert_into
from agentos_store.errors import UnavailableError
from agentos_store.tasks.models import AuditPruningPermit
from agentos_store.tasks.trail import AUDITS, ERASED, HEADS, Entry, append, chained
from agentos_store.tasks.verification import STORED, hash_of

NAMES = 4
"""Texts that can be asked for at once."""


def erase_payloads(
    session: Session, task_id: str, number: int, *, run_id: str | None, holding: Sequence[str] = ()
) -> int:
    """Erase the payloads of up to so many entries of a task's chain, and return how many there were.

    With ``holding`` only those whose text holds one of these. ``run_id`` names the run of upkeep that does it.
    """
    session.first(_LOCK_HEAD, {"task_id": task_id})
    given: dict[str, Any] = {"task_id": task_id, "limit_": number}
    rows = session.all(_NEXT_HOLDING, given | _patterns(holding)) if holding else session.all(_NEXT, given)
    if not rows:
        return 0
    session.execute(_PERMIT, {"task_id": task_id})
    session.execute_many(_EMPTY, [{"audit_id": row[1]} for row in rows])
    session.execute(_FORBID, {"task_id": task_id})
    vouched: dict[str, str] = {}
    for row in rows:
        entry = dict(zip(_NAMES, row, strict=True))
        del entry["audit_id"]
        prev_hash, row_hash = (_text(entry.pop(name)) for name in ("prev_hash", "row_hash"))
        if chained(prev_hash, hash_of(entry)) == row_hash:
            vouched[row_hash] = chained(prev_hash, hash_of(entry | {"payload": None}))
    # A chain without a head does not verify already, and whatever is added to it would look like a fork.
    if vouched and session.first(_LOCK_HEAD, {"task_id": task_id}) is not None:
        payload = {"run": run_id, "erased": vouched}
        append(session, Entry(task_id=task_id, event_type=ERASED, payload=payload, created_at=session.now()))
    return len(rows)


def count_payloads(session: Session, task_id: str, holding: Sequence[str] = ()) -> int:
    """Return how many payloads there are to be erased."""
    if holding:
        found: int = session.all(_COUNT_HOLDING, {"task_id": task_id, **_patterns(holding)})[0][0]
    else:
        found = session.all(_COUNT, {"task_id": task_id})[0][0]
    return found


def tasks_holding(session: Session, after: int, upto: int, holding: Sequence[str]) -> list[str]:
    """Return the tasks of which one of the entries with these numbers has a payload that holds one of the texts."""
    rows = session.all(_TASKS_HOLDING, {"after": after, "upto": upto, **_patterns(holding)})
    return [row[0] for row in rows]


def refuse_unless_permitted(session: Session) -> None:
    """Raise UnavailableError unless this role may erase: where privileges keep the audits, the tables' owner may."""
    try:
        # It finds no row; the privilege is asked for all the same.
        session.execute(_EMPTY, {"audit_id": -1})
    except UnavailableError as error:
        if error.code != "42501":
            raise
        raise UnavailableError(
            "audit entries are kept by privileges here: connect as the owner of the tables to erase", code=error.code
        ) from None


def _patterns(holding: Sequence[str]) -> dict[str, str]:
    assert 0 < len(holding) <= NAMES
    return {f"text_{number}": holding[number % len(holding)] for number in range(NAMES)}


def _text(stored: Any) -> str:
    return stored.decode(errors="replace") if isinstance(stored, bytes) else str(stored)


_NAMES = [column.name for column in STORED]
_TASK_ID = bindparam("task_id", type_=AUDITS.c.task_id.type)
_LIMIT: Any = bindparam("limit_")
_OPEN = (AUDITS.c.payload.is_not(None), text(f"{AUDITS.name}.event_type <> '{ERASED}'"))
_PAYLOAD = cast(AUDITS.c.payload, PlainText)
_HOLDS = or_(*(holds(_PAYLOAD, bindparam(f"text_{number}", type_=PlainText())) for number in range(NAMES)))


def _next(*where: Any) -> Statement[Any]:
    found = select(*STORED).where(AUDITS.c.task_id == _TASK_ID, *_OPEN, *where)
    return Statement(found.order_by(AUDITS.c.audit_id).limit(_LIMIT))


def _count(*where: Any) -> Statement[Any]:
    return Statement(select(func.count()).select_from(AUDITS).where(AUDITS.c.task_id == _TASK_ID, *_OPEN, *where))


_NEXT, _NEXT_HOLDING = _next(), _next(_HOLDS)
_COUNT, _COUNT_HOLDING = _count(), _count(_HOLDS)
_TASKS_HOLDING: Statement[Any] = Statement(
    select(AUDITS.c.task_id)
    .where(
        AUDITS.c.audit_id > bindparam("after", type_=AUDITS.c.audit_id.type),
        AUDITS.c.audit_id <= bindparam("upto", type_=AUDITS.c.audit_id.type),
        *_OPEN,
        _HOLDS,
    )
    .distinct()
)
_LOCK_HEAD: Statement[Any] = Statement(select(HEADS.c.task_id).where(HEADS.c.task_id == _TASK_ID).with_for_update())
_PERMIT: Statement[Any] = Statement(insert_into(AuditPruningPermit))
_FORBID: Statement[Any] = Statement(
    delete(AuditPruningPermit.table()).where(AuditPruningPermit.table().c.task_id == _TASK_ID)
)
_EMPTY: Statement[Any] = Statement(
    update(AUDITS)
    .where(AUDITS.c.audit_id == bindparam("audit_id", type_=AUDITS.c.audit_id.type))
    .values(payload=null())
)
