"""The index of messages, which lags: it is brought up to date by who searches, so that who writes pays nothing.

A session's row tells from which number on messages may be missing (``unindexed_from``). Every statement that writes
messages changes that row anyway and says so there, so nothing is forgotten, whoever races with whom: what is found
under the lock of the row is all that was committed. What a message says never changes, so its document never does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import bindparam, case, func, literal, or_, select, text, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from agentos_store.conversations.drafts import MESSAGES
from agentos_store.conversations.message_models import CURRENT, Message
from agentos_store.conversations.message_texts import KIND, document, texts_of
from agentos_store.conversations.models import UNINDEXED
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.among import among, searched
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.search.index import DOCUMENTS, add
from agentos_store.search.keys import keys_in
from agentos_store.search.sources import Source
from agentos_store.types import Int64, Text

SESSIONS = Conversation.table()
IS_CURRENT: Any = text(f"{MESSAGES.name}.{CURRENT}")
IS_UNINDEXED: Any = text(" AND ".join(f"{SESSIONS.name}.{each}" for each in UNINDEXED.split(" AND ")))

SOME = 100
"""Messages that are indexed in one transaction where others may wait for it, and keys that one statement asks for."""

MOST_STORED = 1_000_000
"""Bytes of their contents, about, unless one alone has more: writers wait for so much at most."""

LOOKED_AT = 1000
"""Messages of a session that one transaction looks at to find them; the others of them are indexed."""

_MARK = select(SESSIONS.c.unindexed_from).where(SESSIONS.c.id == MESSAGES.c.session_id).scalar_subquery()
_Waiting = tuple[str, int, int]
"""A session of which messages may be missing, from where on, and the number that its next message gets."""

SOURCE = Source(
    KIND,
    Message,
    lambda message: texts_of(message.content),
    where=IS_CURRENT,
    due=or_(_MARK.is_(None), MESSAGES.c.seq < _MARK),
)


def count_waiting(session: Session, session_id: str | None) -> int:
    """Return about how many messages are not indexed, of one session or of all: at least one for each that says so."""
    counted = session.first(_COUNT if session_id is None else _COUNT_IN, {"session_id": session_id})
    assert counted is not None
    return int(counted[0])


def index_some(
    session: Session, after: str, session_id: str | None, *, wait: bool, most: int = SOME
) -> tuple[str | None, int]:
    """Index some of the messages that are not, of one session or of those whose keys come after one.

    Return the key after which the next step begins, None at the end, and how many, as ``count_waiting`` counts, need
    no longer be looked at. Sessions that others have locked are passed over, or one session is waited for.
    """
    values: dict[str, Any] = {"after": after, "session_id": session_id, "limit_": most}
    waiting = session.all(_WAITING if session_id is None else _WAITS, values)
    if not waiting:
        return None, 0
    taken = _choose(waiting, most)[: 1 if wait else None]
    behind = taken[-1][0] if len(taken) < len(waiting) or len(waiting) == most else None
    if session.capabilities.row_locks:
        taken = session.all(_LOCK if wait else _LOCK_FREE, {"keys": [key for key, _, _ in taken]})
    if not taken:
        return behind, 0
    missing, end = _missing(session, taken, most)
    for some in batches(missing):
        # In the order of their keys, as everybody locks documents.
        rows = sorted(session.all(CONTENTS, {"keys": some}))
        add(session, KIND, [document(key, content) for key, content in rows])
    whole = [each for each in taken if end is None or each[0] < end[0]]
    marks: list[dict[str, Any]] = [{"id": key, "mark": None} for key, _, _ in whole]
    done = sum(map(_size, whole))
    if end is None:
        session.execute_many(_SET_MARK, marks)
        return behind, done
    session.execute_many(_SET_MARK, [*marks, {"id": end[0], "mark": end[1]}])
    done += sum(end[1] - start for key, start, _ in taken if key == end[0])
    return (whole[-1][0] if whole else after), done


def _choose(waiting: Sequence[_Waiting], room: int) -> Sequence[_Waiting]:
    """Return the first sessions, as many as have enough messages together."""
    for number, each in enumerate(waiting, 1):
        room -= _size(each)
        if room <= 0:
            return waiting[:number]
    return waiting


def _size(waiting: _Waiting) -> int:
    _, start, next_seq = waiting
    return max(next_seq - start, 1)


def _missing(session: Session, taken: Sequence[_Waiting], most: int) -> tuple[list[str], tuple[str, int] | None]:
    """Return messages that are not indexed, and the place before which there are no others; None for no place."""
    ends = [(key, start + LOOKED_AT) for key, start, next_seq in taken if next_seq > start + LOOKED_AT]
    missing: list[str] = []
    stored = 0
    for session_id, key, seq, size in session.all(
        _FOLLOWING, {"keys": [key for key, _, _ in taken], "looked_at": LOOKED_AT}
    ):
        if size is None:
            continue
        if missing and (len(missing) == most or stored + size > MOST_STORED):
            ends.append((session_id, seq))
            break
        missing.append(key)
        stored += size
    return missing, min(ends, default=None)


def is_one(column: Any) -> Any:
    """Return the condition that the column holds one of the ``keys``."""
    return among(column, select(keys_in("keys").c.value))


def batches(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    """Return the keys in batches that one statement can ask for."""
    return (keys[at : at + SOME] for at in range(0, len(keys), SOME))


class stored_size(FunctionElement[Any]):  # noqa: N801  a function of SQL
    """About the bytes that a value takes."""

    type = Int64()
    inherit_cache = True
    name = "stored_size"


@compiles(stored_size, "postgresql")
def _size_postgresql(element: stored_size, compiler: Any, **options: Any) -> str:
    # As it lies in the table, which it need not be fetched for.
    return f"pg_column_size({compiler.process(element.clauses, **options)})"


@compiles(stored_size, "sqlite")
def _size_sqlite(element: stored_size, compiler: Any, **options: Any) -> str:
    return f"length({compiler.process(element.clauses, **options)})"


# For each message a search by the key of its document: planned as a join, all documents might be read.
IS_MISSING = (
    select(DOCUMENTS.c.part)
    .where(DOCUMENTS.c.kind == KIND, DOCUMENTS.c.key == MESSAGES.c.id, DOCUMENTS.c.part == literal(0, Int64()))
    .scalar_subquery()
    .is_(None)
)
# From the sessions to their messages, never the other way round.
OF_SESSIONS = SESSIONS.join(MESSAGES, searched(MESSAGES.c.session_id, SESSIONS.c.id.op("||")(text("''"))))
_AFTER = SESSIONS.c.id > bindparam("after", type_=Text())
_ORDER = (SESSIONS.c.id, SESSIONS.c.unindexed_from, SESSIONS.c.next_seq)
_WAITING: Statement[Any] = Statement(
    select(*_ORDER).where(IS_UNINDEXED, _AFTER).order_by(SESSIONS.c.id).limit(bindparam("limit_"))
)
_IS_SESSION = SESSIONS.c.id == bindparam("session_id", type_=SESSIONS.c.id.type)
_WAITS: Statement[Any] = Statement(select(*_ORDER).where(IS_UNINDEXED, _AFTER, _IS_SESSION))
_LEFT = SESSIONS.c.next_seq - SESSIONS.c.unindexed_from
_ONE = literal(1, SESSIONS.c.next_seq.type)
_ALL_LEFT = select(func.coalesce(func.sum(case((_LEFT > _ONE, _LEFT), else_=_ONE)), literal(0))).where(IS_UNINDEXED)
_COUNT: Statement[Any] = Statement(_ALL_LEFT)
_COUNT_IN: Statement[Any] = Statement(_ALL_LEFT.where(_IS_SESSION))
_CHOSEN = select(*_ORDER).where(is_one(SESSIONS.c.id), IS_UNINDEXED).order_by(SESSIONS.c.id)
_LOCK: Statement[Any] = Statement(_CHOSEN.with_for_update(key_share=True))
_LOCK_FREE: Statement[Any] = Statement(_CHOSEN.with_for_update(key_share=True, skip_locked=True))
_FOLLOWING: Statement[Any] = Statement(
    select(
        MESSAGES.c.session_id,
        MESSAGES.c.id,
        MESSAGES.c.seq,
        case((IS_MISSING, stored_size(MESSAGES.c.content))),
    )
    .select_from(OF_SESSIONS)
    .where(
        is_one(SESSIONS.c.id),
        MESSAGES.c.seq >= SESSIONS.c.unindexed_from,
        # So many at most, so that sorting them is nothing.
        MESSAGES.c.seq < SESSIONS.c.unindexed_from + bindparam("looked_at", type_=MESSAGES.c.seq.type),
        IS_CURRENT,
    )
    .order_by(MESSAGES.c.session_id, MESSAGES.c.seq)
)
CONTENTS: Statement[Any] = Statement(select(MESSAGES.c.id, MESSAGES.c.content).where(is_one(MESSAGES.c.id)))
_SET_MARK: Statement[Any] = Statement(
    update(SESSIONS)
    .where(SESSIONS.c.id == bindparam("id", type_=SESSIONS.c.id.type))
    .values(unindexed_from=bindparam("mark", type_=SESSIONS.c.unindexed_from.type))
)
