"""Rewriting a conversation: a new generation, of which the rows that stay keep their identifiers.

Rows that are no part of it any more are closed, and stay for the snapshots that were taken before. A row that only
moves, because something before it was cut out or put in, keeps its identifier and its time; the place that it had is
kept by a closed copy.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, case, cast, insert, null, select, text, update

from agentos_store.conversations.append import cost_of, explain_rows, tokens_of, write_rows
from agentos_store.conversations.append_statements import SESSIONS, spendable
from agentos_store.conversations.difference import Run, gaps
from agentos_store.conversations.drafts import MESSAGES, NOTHING, Draft
from agentos_store.conversations.message_models import CURRENT
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.engine.violations import IntegrityViolation
from agentos_store.errors import BudgetExceededError, NotFoundError
from agentos_store.types import Text, new_ulid


def rewrite(
    session: Session,
    session_id: str,
    generation: int,
    old: Sequence[str],
    runs: Sequence[Run],
    drafts: Mapping[int, Draft],
    length: int,
    now: dt.datetime,
) -> None:
    """Begin a generation of so many messages: runs of the old ones, told by their identifiers, and the new by place.

    The caller's transaction holds the session. Raises BudgetExceededError, and what ``append_many`` raises.
    """
    new = list(drafts.values())
    try:
        _move(session, session_id, generation, old, runs, drafts)
    except IntegrityViolation as violation:
        raise explain_rows(violation, new, session) from None
    changed = [length, *drafts, *(run.new for run in runs if run.old != run.new)]
    binds = {"session_id": session_id, "generation": generation, "length": length}
    binds |= {"tokens": tokens_of(new), "spent": cost_of(new), "now": now}
    binds |= {"first_new": min(drafts, default=None), "first_changed": min(changed)}
    if session.execute(_COUNT, binds) == 0:
        raise BudgetExceededError(session_id)


def _move(
    session: Session,
    session_id: str,
    generation: int,
    old: Sequence[str],
    runs: Sequence[Run],
    drafts: Mapping[int, Draft],
) -> None:
    binds = {"session_id": session_id, "generation": generation, "tag": f"{new_ulid()}@"}
    for first, behind in gaps(runs, len(old), lambda run: run.old):
        session.execute(_CLOSE, {**binds, "first": first, "behind": behind})
    moves: list[tuple[int, int]] = []
    for run in runs:
        if run.old != run.new:
            session.execute(_COPY, {**binds, "first": run.old, "behind": run.old + run.length})
            moves += [(run.old + i, run.new + i) for i in range(run.length)]
    # No two messages may have one place, not even for a moment: who goes down goes first, from the bottom; then who
    # goes up, from the top.
    moves = [move for move in moves if move[1] < move[0]] + [move for move in reversed(moves) if move[1] > move[0]]
    session.execute_many(
        _MOVE, [{"id": old[origin], "seq": place, "generation": generation} for origin, place in moves]
    )
    if drafts:
        write_rows(session, list(drafts.values()), list(drafts), generation)


def renumber(session: Session, session_id: str) -> int:
    """Give the messages of a conversation with gaps the numbers 0, 1, 2, …, as a new generation; return how many moved.

    A repair: nothing in the store leaves a gap.
    """
    found = session.first(_LOCK_ANY if session.capabilities.row_locks else _READ_ANY, {"session_id": session_id})
    if found is None:
        raise NotFoundError("session", session_id)
    generation = found[0] + 1
    rows = session.all(_PLACES, {"session_id": session_id})
    moves = [(id_, seq, place) for place, (id_, seq) in enumerate(rows) if seq != place]
    if not moves:
        return 0
    binds = {"session_id": session_id, "generation": generation, "tag": f"{new_ulid()}@"}
    first = moves[0][1]
    session.execute(_COPY, {**binds, "first": first, "behind": rows[-1][1] + 1})
    # All go down, so who goes first makes room for the next.
    session.execute_many(_MOVE, [{"id": id_, "seq": place, "generation": generation} for id_, _, place in moves])
    binds |= {"length": len(rows), "tokens": 0, "spent": NOTHING, "now": session.now()}
    session.execute(_COUNT, {**binds, "first_new": None, "first_changed": moves[0][2]})
    return len(moves)


_SESSION_ID = bindparam("session_id", type_=SESSIONS.c.id.type)
_GENERATION = bindparam("generation", type_=SESSIONS.c.generation.type)
_LENGTH = bindparam("length", type_=SESSIONS.c.next_seq.type)
_SPENT = bindparam("spent", type_=SESSIONS.c.total_cost.type)
_TEXT = Text()

# A repair is for conversations that are deleted too.
_ANY = select(SESSIONS.c.generation, SESSIONS.c.next_seq).where(SESSIONS.c.id == _SESSION_ID)
_READ_ANY: Statement[Any] = Statement(_ANY)
_LOCK_ANY: Statement[Any] = Statement(_ANY.with_for_update(key_share=True))
_PLACES: Statement[Any] = Statement(
    select(MESSAGES.c.id, MESSAGES.c.seq)
    .where(MESSAGES.c.session_id == _SESSION_ID, text(f"{MESSAGES.name}.{CURRENT}"))
    .order_by(MESSAGES.c.seq)
)
_WITHIN = (
    MESSAGES.c.session_id == _SESSION_ID,
    text(f"{MESSAGES.name}.{CURRENT}"),
    MESSAGES.c.seq >= bindparam("first", type_=MESSAGES.c.seq.type),
    MESSAGES.c.seq < bindparam("behind", type_=MESSAGES.c.seq.type),
)
_CLOSE: Statement[Any] = Statement(update(MESSAGES).where(*_WITHIN).values(to_generation=_GENERATION))


def _copy() -> Statement[Any]:
    values = {c.name: c for c in MESSAGES.c} | {
        # No key of the caller's can be in its way, or be too long for it.
        "id": bindparam("tag", type_=_TEXT).op("||")(cast(MESSAGES.c.seq, _TEXT)),
        "to_generation": _GENERATION,
        "copied_from": MESSAGES.c.id,
        "idempotency_key": null(),
    }
    source = select(*values.values()).where(*_WITHIN)
    return Statement(insert(MESSAGES).from_select([*values], source, include_defaults=False))


_COPY = _copy()
_MOVE: Statement[Any] = Statement(
    update(MESSAGES)
    .where(MESSAGES.c.id == bindparam("id", type_=MESSAGES.c.id.type))
    .values(seq=bindparam("seq", type_=MESSAGES.c.seq.type), from_generation=_GENERATION)
)
_FIRST_CHANGED = bindparam("first_changed", type_=SESSIONS.c.unindexed_from.type)
# What is indexed stays so wherever it moves; what is not may have moved to before the place that is told.
_UNINDEXED_FROM = case(
    (SESSIONS.c.unindexed_from.is_(None), bindparam("first_new", type_=SESSIONS.c.unindexed_from.type)),
    (SESSIONS.c.unindexed_from > _FIRST_CHANGED, _FIRST_CHANGED),
    else_=SESSIONS.c.unindexed_from,
)
_COUNT: Statement[Any] = Statement(
    update(SESSIONS)
    .where(SESSIONS.c.id == _SESSION_ID, spendable(_SPENT))
    .values(
        generation=_GENERATION,
        next_seq=_LENGTH,
        message_count=_LENGTH,
        total_tokens=SESSIONS.c.total_tokens + bindparam("tokens", type_=SESSIONS.c.total_tokens.type),
        total_cost=SESSIONS.c.total_cost + _SPENT,
        unindexed_from=_UNINDEXED_FROM,
        updated_at=bindparam("now", type_=SESSIONS.c.updated_at.type),
    )
)
