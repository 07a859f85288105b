"""The audit trail: how an entry is hashed, chained and appended.

Each entry's ``row_hash`` is SHA-256 over the previous entry's ``row_hash`` and the hash of its own content, both in
hexadecimal. The content is the stored payload text and the other fields in a fixed order, without ``audit_id``, so
that a chain stays whole when it is copied to another database.

The head of a chain is one row, which is moved by the very statement that adds an entry: so concurrent writers to one
chain stand in line, and no chain forks. (Reading the last entry and adding the next in one statement forked 202 of
1,600 chains' entries under 8 writers on PostgreSQL, row lock notwithstanding.)
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import CTE, Insert, Select, String, bindparam, func, insert, literal, literal_column, select
from sqlalchemy.dialects import postgresql

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, build_model, insert_into
from agentos_store.engine.violations import IntegrityViolation
from agentos_store.errors import AlreadyExistsError, ConflictError, NotFoundError
from agentos_store.tasks.models import Task, TaskAudit, TaskAuditHead
from agentos_store.types import Identifier, Text, dumps_exact, to_text

GENESIS = "0" * 64
"""``prev_hash`` of a chain's first entry."""

ERASED = "audit.erased"
"""The type of entries that vouch for others whose payload was erased; nobody but an erasure records one."""

AUDITS = TaskAudit.table()
HEADS = TaskAuditHead.table()
TASKS = Task.table()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What an audit entry says, before it is chained."""

    task_id: str
    event_type: str
    created_at: dt.datetime
    level: str = "info"
    payload: Any = None
    """None is stored as SQL NULL."""
    repo_id: str | None = None
    decision_id: str | None = None
    source_event_ts: dt.datetime | None = None
    supervisor_processed_at: dt.datetime | None = None
    verdict_id: str | None = None
    payload_text: str | None = field(init=False)

    def __post_init__(self) -> None:
        # The hash is taken before a column's type sees the value.
        for name, column in _CHECKS:
            value = getattr(self, name)
            if value is not None or not AUDITS.c[name].nullable:
                column.check(value, name)
        text = None if self.payload is None else dumps_exact(self.payload, "payload")
        object.__setattr__(self, "payload_text", text)

    def with_payload(self, payload: Any) -> Entry:
        """Return the same entry with another payload, without checking again what is the same."""
        twin = object.__new__(Entry)
        for name in _FIELDS:
            object.__setattr__(twin, name, getattr(self, name))
        object.__setattr__(twin, "payload", payload)
        object.__setattr__(twin, "payload_text", dumps_exact(payload, "payload"))
        return twin

    def values(self) -> dict[str, Any]:
        """Return the values by column."""
        return {
            "task_id": self.task_id,
            "repo_id": self.repo_id,
            "level": self.level,
            "event_type": self.event_type,
            "payload": self.payload,
            "decision_id": self.decision_id,
            "source_event_ts": self.source_event_ts,
            "supervisor_processed_at": self.supervisor_processed_at,
            "verdict_id": self.verdict_id,
            "created_at": self.created_at,
        }

    def digest(self) -> str:
        """Return the hash of the content."""
        return content_hash(**{**self.values(), "payload": self.payload_text})


_CHECKS: tuple[tuple[str, Any], ...] = tuple(
    (c.name, c.type) for c in AUDITS.c if c.name not in {"audit_id", "payload", "prev_hash", "row_hash"}
)


_FIELDS = tuple(each.name for each in fields(Entry))


def content_hash(
    *,
    task_id: str,
    repo_id: str | None,
    level: str,
    event_type: str,
    payload: str | None,
    decision_id: str | None,
    source_event_ts: dt.datetime | str | None,
    supervisor_processed_at: dt.datetime | str | None,
    verdict_id: str | None,
    created_at: dt.datetime | str,
) -> str:
    """Return SHA-256, in hexadecimal, over the fields in this order; ``payload`` is the stored text.

    A time may be given as SQLite stores it.
    """
    times = (source_event_ts, supervisor_processed_at, created_at)
    source, processed, created = (to_text(time) if isinstance(time, dt.datetime) else time for time in times)
    content = [task_id, repo_id, level, event_type, payload, decision_id, source, processed, verdict_id, created]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def chained(previous: str, content: str) -> str:
    """Return the ``row_hash`` of an entry that follows the previous one."""
    return hashlib.sha256((previous + content).encode()).hexdigest()


def append(session: Session, entry: Entry) -> TaskAudit:
    """Add one entry to its task's chain: one round trip where the database can.

    Raises NotFoundError for an unknown task and AlreadyExistsError for a decision that is recorded already.
    """
    if not session.capabilities.data_modifying_cte:
        return append_many(session, [entry])[0]
    try:
        added = session.first(_APPEND, {**entry.values(), "content": entry.digest()})
    except IntegrityViolation as violation:
        raise _meaning(violation, entry, session) from None
    if added is None:
        raise NotFoundError("task", entry.task_id)
    audit_id, previous, row_hash = added
    return _built(entry, audit_id, previous, row_hash)


def append_many(session: Session, entries: Sequence[Entry]) -> Sequence[TaskAudit]:
    """Add entries to the chain of one task, in their order; the head is locked for the rest of the transaction."""
    task_id = entries[0].task_id
    added: list[TaskAudit] = []
    if session.capabilities.data_modifying_cte:
        # A head that is not there yet cannot be locked by reading it; the first entry makes it, or waits for it.
        added.append(append(session, entries[0]))
        entries = entries[1:]
        if not entries:
            return added
    previous, length = session.first(_READ_HEAD, {"task_id": task_id}) or (GENESIS, 0)
    length += len(entries)
    for entry in entries:
        row_hash = chained(previous, entry.digest())
        values = {**entry.values(), "prev_hash": previous, "row_hash": row_hash}
        try:
            found = session.first(_INSERT, values)
        except IntegrityViolation as violation:
            raise _meaning(violation, entry, session) from None
        assert found is not None
        added.append(_built(entry, found[0], previous, row_hash))
        previous = row_hash
    last = added[-1]
    moved = {"task_id": task_id, "length": length, "head_hash": last.row_hash}
    session.execute(_MOVE_HEAD, {**moved, "head_prev_hash": last.prev_hash, "pruned_to": 0, "pruned_hash": None})
    return added


def _built(entry: Entry, audit_id: int, previous: str, row_hash: str) -> TaskAudit:
    return build_model(TaskAudit, {**entry.values(), "audit_id": audit_id, "prev_hash": previous, "row_hash": row_hash})


def _meaning(violation: IntegrityViolation, entry: Entry, session: Session) -> Exception:
    if violation.kind == "foreign_key":
        return NotFoundError("task", entry.task_id)
    if violation.kind == "unique":
        decided = violation.constraint == _DECISIONS
        if violation.constraint is None:
            # SQLite names no constraint, and has rolled back no more than the statement. It looks for the task last.
            if session.first(_KNOWN, {"task_id": entry.task_id}) is None:
                return NotFoundError("task", entry.task_id)
            decision = {"decision_id": entry.decision_id}
            decided = entry.decision_id is not None and session.first(_DECIDED, decision) is not None
        if decided:
            return AlreadyExistsError("audit", entry.decision_id, field="decision_id")
        return ConflictError("audit chain", entry.task_id, "its head does not lie at its end; verify the chain")
    return violation


_INSERT: Statement[Any] = Statement(insert_into(TaskAudit, returning=["audit_id"]))
_TASK_ID = bindparam("task_id", type_=HEADS.c.task_id.type)
_READ_HEAD: Statement[Any] = Statement(select(HEADS.c.head_hash, HEADS.c.length).where(HEADS.c.task_id == _TASK_ID))
_KNOWN: Statement[Any] = Statement(select(literal(1)).where(TASKS.c.task_id == _TASK_ID))
_DECISIONS = "uq_task_audits_decision_id"
_DECIDED: Statement[Any] = Statement(
    select(literal(1)).where(AUDITS.c.decision_id == bindparam("decision_id", type_=AUDITS.c.decision_id.type))
)


def _move_head() -> Statement[Any]:
    statement = postgresql.insert(HEADS).values({c.name: bindparam(c.name, type_=c.type) for c in HEADS.c})
    new = statement.excluded
    return Statement(
        statement.on_conflict_do_update(
            index_elements=[HEADS.c.task_id],
            set_={name: new[name] for name in ("length", "head_hash", "head_prev_hash")},
        )
    )


_MOVE_HEAD = _move_head()


def hash_sql(previous: Any, content: Any) -> Any:
    """Return the SQL of ``chained``, for a database that has SHA-256."""
    joined = func.convert_to(previous.op("||")(content), literal_column("'UTF8'", String()))
    return func.encode(func.sha256(joined), literal_column("'hex'", String()))


_GENESIS: Any = literal_column(f"repeat('0', {len(GENESIS)})", Text())


def moved_head(tasks: Select[Any], content: Any, again: Any = None, *, name: str = "head") -> CTE:
    """Return the part of a statement that moves the heads of the selected tasks and tells where they stood.

    The hash is computed where the head's row is locked: from a value that was read before, two writers would go on
    from the same entry. Where each task has a content of its own, ``again`` is the one that belongs to the head's row.
    """
    again = content if again is None else again
    beginning = tasks.add_columns(
        literal_column("1", HEADS.c.length.type),
        hash_sql(_GENESIS, content),
        _GENESIS,
        literal_column("0", HEADS.c.pruned_to.type),
    )
    statement = postgresql.insert(HEADS).from_select(
        ["task_id", "length", "head_hash", "head_prev_hash", "pruned_to"], beginning, include_defaults=False
    )
    return (
        statement.on_conflict_do_update(
            index_elements=[HEADS.c.task_id],
            set_={
                "length": HEADS.c.length + literal_column("1", HEADS.c.length.type),
                "head_prev_hash": HEADS.c.head_hash,
                "head_hash": hash_sql(HEADS.c.head_hash, again),
            },
        )
        .returning(HEADS.c.task_id, HEADS.c.head_hash, HEADS.c.head_prev_hash)
        .cte(name)
    )


def added_entry(fields: Mapping[str, Any], head: CTE, *also_from: Any, where: Any = None) -> Insert:
    """Return the INSERT of an entry with these fields, chained to where the head stood.

    Where there are several heads, the condition finds to each what belongs to it.
    """
    source = select(*fields.values(), head.c.head_prev_hash, head.c.head_hash).select_from(head, *also_from)
    source = source if where is None else source.where(where)
    return insert(AUDITS).from_select([*fields, "prev_hash", "row_hash"], source, include_defaults=False)


def _append() -> Statement[Any]:
    """Add an entry and move the head in one statement; no row comes back for a task that does not exist."""
    key = bindparam("task_id", type_=Identifier())
    known = select(key).where(select(literal(1)).where(TASKS.c.task_id == key).exists())
    head = moved_head(known, bindparam("content", type_=Text()))
    fields = {c.name: bindparam(c.name, type_=c.type) for c in AUDITS.c if c.name not in _CHAIN}
    return Statement(added_entry(fields, head).returning(AUDITS.c.audit_id, AUDITS.c.prev_hash, AUDITS.c.row_hash))


_CHAIN = {"audit_id", "prev_hash", "row_hash"}
_APPEND = _append()
