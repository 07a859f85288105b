"""Adding messages at the end of a conversation: the number is drawn, the row written and the counters moved at once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from types import NoneType
from typing import Any, Literal

from agentos_store.conversations.append_statements import (
    BY_KEY,
    DRAW,
    DRAW_KEYED,
    DRAW_MANY,
    GET,
    LOCK,
    STATE,
    append_message,
    append_rows,
    insert_message,
    insert_rows,
)
from agentos_store.conversations.drafts import NOTHING, REQUIRED, Appended, Draft
from agentos_store.conversations.message_models import Message
from agentos_store.engine.session import Session
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import AlreadyExistsError, BudgetExceededError, ConflictError, NotFoundError

KEYED = "uq_messages_session_id_idempotency_key"
_NULLS = {NoneType}


def append(session: Session, draft: Draft) -> Message:
    """Add one message; under an idempotency key that is taken, return the row that has it."""
    row = draft.row
    binds = {**row, "tokens": draft.tokens, "spent": draft.cost, "now": session.now()}
    keyed = draft.idempotency_key is not None
    while True:
        if session.repeated and (found := _written(session, draft)) is not None:
            # An earlier try of this very call was committed, and its answer got lost.
            return found
        if keyed and session.in_transaction and session.capabilities.row_locks:
            # A statement that waits for the lock of the session would not see the key that was taken meanwhile, and
            # its failure could not be survived here.
            session.first(LOCK, row)
        place = _write_one(session, draft, binds, keyed=keyed)
        if place is not None:
            return draft.built(*place)
        if keyed and (found := session.first(BY_KEY, row)) is not None:
            exists(session, row["session_id"])
            return found
        _refuse(session, row["session_id"], [draft])
        # Whatever stood in the way is gone by now.


def _write_one(session: Session, draft: Draft, binds: Mapping[str, Any], *, keyed: bool) -> tuple[int, int] | None:
    """Return the place that the message got, or None where it could not be added."""
    try:
        if session.capabilities.data_modifying_cte:
            return session.first(append_message(draft.names, keyed=keyed), binds)
        place: tuple[int, int] | None = session.first(DRAW_KEYED if keyed else DRAW, binds)
        if place is not None:
            session.execute(insert_message(draft.names), draft.placed(*place))
    except IntegrityViolation as violation:
        if keyed and not session.in_transaction and _lost_race(violation, [draft], session):
            return None
        raise _meaning(violation, draft, session) from None
    return place


def _lost_race(violation: IntegrityViolation, drafts: Sequence[Draft], session: Session) -> bool:
    """Tell whether somebody took an idempotency key meanwhile; who gives identifiers too may meet theirs first."""
    if not session.capabilities.data_modifying_cte:
        return False
    return violation.constraint == KEYED or any(
        session.first(BY_KEY, draft.row) is not None for draft in drafts if draft.idempotency_key is not None
    )


def _meaning(violation: IntegrityViolation, draft: Draft, session: Session) -> Exception:
    return explain(violation, Message, draft.placed(0, 0), session)


def append_many(session: Session, session_id: str, drafts: Sequence[Draft]) -> Sequence[Message]:
    """Add messages in their order, but those whose idempotency key is taken; return the row of each."""
    # Drawn once, whatever way is taken: in a larger body the draws that follow keep their places when it is run again.
    now = session.now()
    refuse_twice(drafts, "id")
    # A statement that commits by itself fails for a key that is taken, and then they are looked up.
    look = session.in_transaction or session.repeated
    while True:
        if session.repeated and any(_written(session, draft) is not None for draft in drafts):
            # An earlier try of this very call was committed, and its answer got lost.
            return [_found(session, draft) for draft in drafts]
        if session.in_transaction and session.capabilities.row_locks:
            session.first(LOCK, {"session_id": session_id})
        there = {}
        if look:
            there = {key: found for key in _keys(drafts) if (found := session.first(BY_KEY, _key(session_id, key)))}
        new = _without_repeats(drafts, there)
        place = _write_many(session, session_id, new, now) if new else (0, 0)
        if new and place is None:
            if look:
                _refuse(session, session_id, new)
            # Whatever stood in the way is gone by now, or is found by its key.
            look = True
            continue
        if not new:
            exists(session, session_id)
        assert place is not None
        if len(new) == len(drafts):
            return Appended(drafts, *place)
        added = {id(draft): draft.built(place[0] + i, place[1]) for i, draft in enumerate(new)}
        by_key = there | {key: added[id(draft)] for draft in new if (key := draft.idempotency_key) is not None}
        return [added.get(id(draft)) or by_key[str(draft.idempotency_key)] for draft in drafts]


def add_unless_changed(
    session: Session, session_id: str, drafts: Sequence[Draft], now: dt.datetime, state: tuple[int, int]
) -> bool:
    """Add messages where the conversation is still as it was read; tell whether they were added.

    A key that is taken is an error here. In a transaction, which holds the conversation, so is whatever keeps them out.
    Only asked outside of one where a single statement does it: otherwise nobody looks whether it is as it was read.
    """
    generation, next_seq = state
    if _write_many(session, session_id, drafts, now, {"generation": generation, "next_seq": next_seq}) is not None:
        return True
    if session.in_transaction:
        _refuse(session, session_id, drafts)
        raise ConflictError("session", session_id, "it was changed meanwhile")
    return False


def _write_many(
    session: Session, session_id: str, drafts: Sequence[Draft], now: dt.datetime, state: Mapping[str, int] = {}
) -> tuple[int, int] | None:
    """Return the place that the first of the messages got, or None where they could not be added."""
    count = len(drafts)
    binds = {
        "session_id": session_id,
        "count": count,
        "tokens": tokens_of(drafts),
        "spent": cost_of(drafts),
        "now": now,
    }
    try:
        if session.capabilities.data_modifying_cte:
            names, values = _lists(_columns(drafts))
            return session.first(append_rows(names, unchanged=bool(state)), {**binds, **values, **state})
        place: tuple[int, int] | None = session.first(DRAW_MANY, binds)
        if place is not None:
            write_rows(session, drafts, range(place[0], place[0] + count), place[1])
    except IntegrityViolation as violation:
        # Nobody took a key meanwhile in a conversation that is still as it was read.
        if not (state or session.in_transaction) and _lost_race(violation, drafts, session):
            return None
        raise explain_rows(violation, drafts, session) from None
    return place


def write_rows(session: Session, drafts: Sequence[Draft], places: Sequence[int], generation: int) -> None:
    """Write messages whose places are known, in one round trip."""
    columns = _columns(drafts) | {"seq": places}
    if session.capabilities.data_modifying_cte:
        names, values = _lists(columns)
        session.execute(insert_rows(names), values | {"from_generation": generation})
    else:
        columns["from_generation"] = [generation] * len(drafts)
        session.execute_columns(insert_message(frozenset(columns)), len(drafts), columns)


def _columns(drafts: Sequence[Draft]) -> dict[str, Sequence[Any]]:
    """Return the values by column, without the columns of NULLs, which would cost a driver as much as any value."""
    rows = [draft.row for draft in drafts]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return {
        name: each
        for name, each in columns.items()
        if name in REQUIRED or each[0] is not None or set(map(type, each)) != _NULLS
    }


def _lists(columns: Mapping[str, Sequence[Any]]) -> tuple[frozenset[str], dict[str, Any]]:
    """Return the names of the columns that are sent as lists, and all values; one session, and mostly one time, do."""
    times = columns["created_at"]
    names = columns.keys() - {"session_id"}
    if times.count(times[0]) == len(times):
        names -= {"created_at"}
    values = {"session_id": columns["session_id"][0], "created_at": times[0]}
    return frozenset(names), values | {f"added_{name}": columns[name] for name in names}


def explain_rows(violation: IntegrityViolation, drafts: Sequence[Draft], session: Session) -> Exception:
    """Return the public error for these messages, of which a constraint refused one."""
    if violation.kind not in {"foreign_key", "unique"}:
        return _meaning(violation, drafts[0], session) if drafts else violation
    if session.in_transaction and session.capabilities.row_locks:
        # Nothing can be asked there after a failure, so which of several it was stays open.
        return _one_of(violation, drafts, session)
    if violation.kind == "foreign_key":
        nameless = IntegrityViolation(violation.kind, None)
        found = (_meaning(nameless, draft, session) for draft in drafts)
        return next((meant for meant in found if meant is not nameless), violation)
    return next((clash for draft in drafts if (clash := _clash(session, draft)) is not None), violation)


def _one_of(violation: IntegrityViolation, drafts: Sequence[Draft], session: Session) -> Exception:
    column = "idempotency_key" if violation.constraint == KEYED else "id"
    column = "agent_id" if violation.kind == "foreign_key" else column
    # What the caller did not give is in nobody's way.
    there = {key: draft for draft in drafts if (key := draft.values.get(column)) is not None}
    if len(there) == 1:
        return _meaning(violation, next(iter(there.values())), session)
    keys = tuple(sorted(there))
    if not keys:
        return violation
    if column == "agent_id":
        return NotFoundError("agent", keys)
    return AlreadyExistsError("message", keys, field=None if column == "id" else column)


def _clash(session: Session, draft: Draft) -> Exception | None:
    """Return what stands in a message's way; SQLite has kept the rows that were written before the refused one."""
    row = draft.row
    if _written(session, draft) is None and session.first(GET, row) is not None:
        return AlreadyExistsError("message", row["id"])
    if draft.idempotency_key is not None:
        found = session.first(BY_KEY, row)
        if found is not None and found.id != row["id"]:
            return _taken(draft)
    return None


def refuse_twice(drafts: Sequence[Draft], column: Literal["id", "idempotency_key"]) -> None:
    """Raise AlreadyExistsError for an identifier, or an idempotency key, that is given to two messages."""
    seen: set[str] = set()
    for draft in drafts:
        key = draft.row[column]
        # What is no text is left to the column, which refuses it.
        if isinstance(key, str):
            if key in seen:
                raise AlreadyExistsError("message", key) if column == "id" else _taken(draft)
            seen.add(key)


def _taken(draft: Draft) -> AlreadyExistsError:
    key = draft.row["session_id"], draft.idempotency_key
    return AlreadyExistsError("message", key, field="session_id, idempotency_key")


def _written(session: Session, draft: Draft) -> Message | None:
    """Return the row that an earlier try of this call wrote; another's under the same identifier is none."""
    found, row = session.first(GET, draft.row), draft.row
    if found is None or (found.session_id, found.created_at) != (row["session_id"], row["created_at"]):
        return None
    return found


def _found(session: Session, draft: Draft) -> Message:
    found = session.first(GET, draft.row)
    if found is None and draft.idempotency_key is not None:
        found = session.first(BY_KEY, draft.row)
    if found is None:
        raise NotFoundError("message", draft.row["id"])
    return found


def _keys(drafts: Sequence[Draft]) -> list[str]:
    return [key for draft in drafts if (key := draft.idempotency_key) is not None]


def _key(session_id: str, key: str) -> dict[str, Any]:
    return {"session_id": session_id, "idempotency_key": key}


def _without_repeats(drafts: Sequence[Draft], there: Mapping[str, Message]) -> list[Draft]:
    seen = set(there)
    new: list[Draft] = []
    for draft in drafts:
        key = draft.idempotency_key
        # What is no text is left to the column, which refuses it.
        if not isinstance(key, str):
            new.append(draft)
        elif key not in seen:
            new.append(draft)
            seen.add(key)
    return new


def cost_of(drafts: Sequence[Draft]) -> Decimal:
    """Return what messages cost together."""
    return sum((draft.cost for draft in drafts), NOTHING)


def tokens_of(drafts: Sequence[Draft]) -> int:
    """Return what messages count for together."""
    return sum(draft.tokens for draft in drafts)


def exists(session: Session, session_id: str) -> None:
    """Raise NotFoundError when there is no such session, or it is deleted."""
    if session.first(STATE, {"session_id": session_id}) is None:
        raise NotFoundError("session", session_id)


def _refuse(session: Session, session_id: str, drafts: Sequence[Draft]) -> None:
    """Raise what kept messages out of the session; return when nothing does any more."""
    # What they say is refused first, also where they were not looked at because the session takes nothing.
    for draft in drafts:
        draft.check()
    cost = cost_of(drafts)
    found = session.first(STATE, {"session_id": session_id})
    if found is None:
        raise NotFoundError("session", session_id)
    budget, spent = found
    if cost and budget is not None and spent >= budget:
        raise BudgetExceededError(session_id)
