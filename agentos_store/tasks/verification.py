"""Verification of audit chains: entry by entry, in bounded memory, against the head."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import bindparam, select, tuple_, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType

from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.tasks.models import TaskAuditHead
from agentos_store.tasks.trail import AUDITS, ERASED, GENESIS, HEADS, chained, content_hash
from agentos_store.types import Text

BATCH = 1000

LEAST, GREATEST = -(2**63), 2**63 - 1
"""Numbers that an entry can have: what was put in past the library need not begin at 1."""

NOT_TEXT = object()
"""Stands for bytes that are no text."""

Kind = Literal["changed", "missing", "cut", "headless"]


@dataclass(frozen=True, slots=True)
class Fault:
    """The first thing that is wrong with a chain."""

    task_id: str
    kind: Kind
    """``changed``: the entry is not what was hashed; ``missing``: something is missing before it, or was put in;
    ``cut``: entries are missing at the end; ``headless``: the chain's head is gone."""
    audit_id: int | None
    """The first bad entry; None when it is gone."""
    detail: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found."""

    chains: int
    entries: int
    faults: tuple[Fault, ...]
    erased: int = 0
    """Entries whose payload was erased rightfully: a later entry of the same chain vouches for each."""

    @property
    def ok(self) -> bool:
        """Whether every chain is whole."""
        return not self.faults


def verify_chains(session: Session, task_id: str | None) -> Verification:
    """Walk the heads and the entries side by side, both in the order of the tasks."""
    heads = _walk_heads(session, task_id)
    entries = _Entries(session, task_id)
    faults: list[Fault] = []
    chains = erased = 0
    for head in heads:
        faults += entries.headless_before(head.task_id)
        chains += 1
        fault, vouched = _verify(head, entries)
        erased += vouched
        if fault is not None:
            faults.append(fault)
    faults += entries.headless_before(None)
    return Verification(chains, entries.seen, tuple(faults), erased)


class _Emptied:
    """Entries without a payload that are not what was hashed, until a later entry vouches for them."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[int, int, str]] = {}
        """By ``row_hash``: place in the chain, number, and the hash of what is left, with what it follows."""
        self.vouched = 0

    @property
    def waits(self) -> bool:
        """Whether there is an entry that nobody has vouched for yet."""
        return bool(self._waiting)

    def note(self, row_hash: str, place: int, audit_id: int, left: str) -> None:
        """Wait for somebody to vouch for an entry."""
        self._waiting[row_hash] = (place, audit_id, left)

    def hear(self, entry: Mapping[str, Any]) -> None:
        """Take the word of an entry that is what was hashed; it counts for what is left of an entry as it was then."""
        if not self._waiting or _text(entry["event_type"]) != ERASED:
            return
        for row_hash, left in vouched_by(_text(entry["payload"])).items():
            if self._waiting.get(row_hash, ("", "", None))[2] == left:
                del self._waiting[row_hash]
                self.vouched += 1

    def first(self) -> tuple[int, int] | None:
        """Return place and number of the first entry that nobody vouched for."""
        return min(((place, audit_id) for place, audit_id, _ in self._waiting.values()), default=None)


def vouched_by(payload: Any) -> dict[str, str]:
    """Return what an entry about erasure vouches for: by ``row_hash``, the hash of what is left of an entry."""
    try:
        found = json.loads(payload)["erased"]
    except (TypeError, ValueError, KeyError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _verify(head: TaskAuditHead, entries: _Entries) -> tuple[Fault | None, int]:
    """Return what is wrong with a chain, and how many of its entries were erased rightfully."""
    previous = head.pruned_hash if head.pruned_to else GENESIS
    count = head.pruned_to
    fault: Fault | None = None
    fault_at = 0
    emptied = _Emptied()
    for audit_id, stored, entry in entries.of(head.task_id):
        count += 1
        prev_hash, row_hash = (_text(each) for each in stored)
        if fault is not None and not emptied.waits:
            continue
        content = hash_of(entry)
        if fault is not None:
            # There may be somebody yet who vouches for an entry before the fault, which is then not the first bad one.
            if chained(str(prev_hash), content) == row_hash:
                emptied.hear(entry)
        elif prev_hash != previous:
            detail = "the entry does not follow the one before it: entries are missing or were put in"
            fault, fault_at = Fault(head.task_id, "missing", audit_id, detail), count
        elif chained(str(prev_hash), content) == row_hash:
            emptied.hear(entry)
        elif entry["payload"] is None and isinstance(row_hash, str):
            emptied.note(row_hash, count, audit_id, chained(str(prev_hash), content))
        else:
            fault, fault_at = _changed(head.task_id, audit_id), count
        previous = row_hash
    unknown = emptied.first()
    if unknown is not None and (fault is None or unknown[0] < fault_at):
        fault = _changed(head.task_id, unknown[1])
    if fault is None and (previous != head.head_hash or count != head.length):
        missing = head.length - count
        detail = (
            f"{missing} entries are missing at the end" if missing > 0 else "the head does not belong to the entries"
        )
        fault = Fault(head.task_id, "cut", None, detail)
    return fault, emptied.vouched


def _changed(task_id: str, audit_id: int) -> Fault:
    return Fault(task_id, "changed", audit_id, "the entry is not what was recorded")


def hash_of(entry: Mapping[str, Any]) -> str:
    """Return the hash of an entry's content as it is stored; an empty text where a value is no such value."""
    try:
        return content_hash(**{name: _text(value) for name, value in entry.items()})
    except (TypeError, ValueError):
        # Somebody put a value there that the column cannot have.
        return ""


def _text(stored: Any) -> Any:
    """Return a text that SQLite gave as its bytes; something without a hash for bytes that are none."""
    if not isinstance(stored, bytes):
        return stored
    try:
        return stored.decode()
    except UnicodeDecodeError:
        return NOT_TEXT


class _Entries:
    """All entries in the order of tasks, then of numbers, a batch at a time."""

    def __init__(self, session: Session, task_id: str | None) -> None:
        self._rows = self._walk(session, task_id)
        self._next = next(self._rows, None)
        self.seen = 0

    def of(self, task_id: str) -> Iterator[tuple[int, tuple[Any, Any], dict[str, Any]]]:
        """Yield number, hashes and content of the task's entries, which must be next."""
        while self._next is not None and self._next["task_id"] == task_id:
            row = dict(self._next)
            self._next = next(self._rows, None)
            self.seen += 1
            yield row.pop("audit_id"), (row.pop("prev_hash"), row.pop("row_hash")), row

    def headless_before(self, task_id: str | None) -> list[Fault]:
        """Pass over the entries of tasks that come before this one: they have no head."""
        faults = []
        while self._next is not None and (task_id is None or self._next["task_id"] < task_id):
            orphan = self._next["task_id"]
            first = self._next["audit_id"]
            for _ in self.of(orphan):
                pass
            faults.append(Fault(orphan, "headless", first, "the head of the chain is gone"))
        return faults

    @staticmethod
    def _walk(session: Session, task_id: str | None) -> Iterator[dict[str, Any]]:
        start: tuple[str, int] = ("" if task_id is None else task_id, LEAST)
        while True:
            binds = {"from_task": start[0], "from_audit": start[1], "only": task_id, "limit_": BATCH}
            rows = session.all(_ENTRIES if task_id is None else _ENTRIES_OF_ONE, binds)
            for row in rows:
                yield dict(zip(_NAMES, row, strict=True))
            if len(rows) < BATCH:
                return
            last_task, last_audit = rows[-1][:2]
            # After the greatest number comes the least one of a later task.
            start = (last_task, last_audit + 1) if last_audit < GREATEST else (last_task + "\x01", LEAST)


def _walk_heads(session: Session, task_id: str | None) -> Iterator[TaskAuditHead]:
    if task_id is not None:
        yield from session.all(_HEAD, {"only": task_id})
        return
    after = ""
    while True:
        heads = session.all(_HEADS, {"after_task": after, "limit_": BATCH})
        yield from heads
        if len(heads) < BATCH:
            return
        after = heads[-1].task_id


class _AsStored(FunctionElement[Any]):
    """A column's value as it is stored, for that is what was hashed, and what somebody changed may not be readable."""

    name = "as_stored"
    type = NullType()
    inherit_cache = True


@compiles(_AsStored)
def _leave(element: _AsStored, compiler: SQLCompiler, **options: Any) -> str:
    return str(compiler.process(element.clauses, **options))


@compiles(_AsStored, "sqlite")
def _take_bytes(element: _AsStored, compiler: SQLCompiler, **options: Any) -> str:
    # The driver fails at a text that is no UTF-8, and SQLite lets any type into any column.
    column = compiler.process(element.clauses, **options)
    return f"CASE typeof({column}) WHEN 'text' THEN CAST({column} AS BLOB) WHEN 'null' THEN NULL ELSE 0 END"


STORED = [
    type_coerce(AUDITS.c.task_id, NullType()).label("task_id"),
    type_coerce(AUDITS.c.audit_id, NullType()).label("audit_id"),
    *(
        _AsStored(type_coerce(column, NullType())).label(column.name)
        for column in (
            AUDITS.c.prev_hash,
            AUDITS.c.row_hash,
            AUDITS.c.repo_id,
            AUDITS.c.level,
            AUDITS.c.event_type,
            AUDITS.c.payload,
            AUDITS.c.decision_id,
            AUDITS.c.source_event_ts,
            AUDITS.c.supervisor_processed_at,
            AUDITS.c.verdict_id,
            AUDITS.c.created_at,
        )
    ),
]
"""An entry as it is stored, for ``hash_of``: its key, its number, its hashes, and the fields that are hashed."""
_NAMES = [column.name for column in STORED]
_FROM_TASK = bindparam("from_task", type_=Text())
_FROM_AUDIT = bindparam("from_audit", type_=AUDITS.c.audit_id.type)
_ONLY = bindparam("only", type_=AUDITS.c.task_id.type)
_ENTRIES: Statement[Any] = Statement(
    select(*STORED)
    .where(tuple_(AUDITS.c.task_id, AUDITS.c.audit_id) >= tuple_(_FROM_TASK, _FROM_AUDIT))
    .order_by(AUDITS.c.task_id, AUDITS.c.audit_id)
    .limit(bindparam("limit_"))
)
_ENTRIES_OF_ONE: Statement[Any] = Statement(
    select(*STORED)
    .where(AUDITS.c.task_id == _ONLY, AUDITS.c.audit_id >= _FROM_AUDIT)
    .order_by(AUDITS.c.audit_id)
    .limit(bindparam("limit_"))
)
_HEAD: Statement[TaskAuditHead] = Statement(select(HEADS).where(HEADS.c.task_id == _ONLY), returns=TaskAuditHead)
_HEADS: Statement[TaskAuditHead] = Statement(
    select(HEADS)
    .where(HEADS.c.task_id > bindparam("after_task", type_=Text()))
    .order_by(HEADS.c.task_id)
    .limit(bindparam("limit_")),
    returns=TaskAuditHead,
)
