"""Adding messages at the end of a conversation: the number is drawn, the row written and the counters moved at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Update, bindparam, case, insert, literal, or_, select, text, update

from agentos_store.conversations.drafts import MESSAGES, NOTHING, Draft
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.recordset import recordset
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, insert_into
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import AlreadyExistsError, BudgetExceededError, ConflictError, NotFoundError

SESSIONS = Conversation.table()
KEYED = "uq_messages_session_id_idempotency_key"


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
            session.first(_LOCK, row)
        place = _write_one(session, draft, binds, keyed=keyed)
        if place is not None:
            return draft.built(*place)
        if keyed and (found := session.first(_BY_KEY, row)) is not None:
            exists(session, row["session_id"])
            return found
        _refuse(session, row["session_id"], [draft])
        # Whatever stood in the way is gone by now.


def _write_one(session: Session, draft: Draft, binds: Mapping[str, Any], *, keyed: bool) -> tuple[int, int] | None:
    """Return the place that the message got, or None where it could not be added."""
    try:
        if session.capabilities.data_modifying_cte:
            return session.first(_APPEND_KEYED if keyed else _APPEND, binds)
        place: tuple[int, int] | None = session.first(_DRAW_KEYED if keyed else _DRAW, binds)
        if place is not None:
            session.execute(_INSERT, draft.placed(*place))
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
        session.first(_BY_KEY, draft.row) is not None for draft in drafts if draft.idempotency_key is not None
    )


def _meaning(violation: IntegrityViolation, draft: Draft, session: Session) -> Exception:
    return explain(violation, Message, draft.placed(0, 0), session)


def append_many(session: Session, session_id: str, drafts: Sequence[Draft]) -> list[Message]:
    """Add messages in their order, but those whose idempotency key is taken; return the row of each."""
    refuse_twice(drafts)
    # A statement that commits by itself fails for a key that is taken, and then they are looked up.
    look = session.in_transaction or session.repeated
    while True:
        if session.repeated and any(_written(session, draft) is not None for draft in drafts):
            # An earlier try of this very call was committed, and its answer got lost.
            return [_found(session, draft) for draft in drafts]
        if session.in_transaction and session.capabilities.row_locks:
            session.first(_LOCK, {"session_id": session_id})
        there = {}
        if look:
            there = {key: found for key in _keys(drafts) if (found := session.first(_BY_KEY, _key(session_id, key)))}
        new = _without_repeats(drafts, there)
        place = _write_many(session, session_id, new) if new else (0, 0)
        if new and place is None:
            if look:
                _refuse(session, session_id, new)
            # Whatever stood in the way is gone by now, or is found by its key.
            look = True
            continue
        if not new:
            exists(session, session_id)
        assert place is not None
        added = {id(draft): draft.built(place[0] + i, place[1]) for i, draft in enumerate(new)}
        by_key = there | {key: added[id(draft)] for draft in new if (key := draft.idempotency_key) is not None}
        return [added.get(id(draft)) or by_key[str(draft.idempotency_key)] for draft in drafts]


def add(session: Session, session_id: str, drafts: Sequence[Draft]) -> None:
    """Add messages to a session that the caller's transaction holds; a key that is taken is an error here."""
    if _write_many(session, session_id, drafts) is None:
        _refuse(session, session_id, drafts)
        raise ConflictError("session", session_id, "it was changed meanwhile")


def _write_many(session: Session, session_id: str, drafts: Sequence[Draft]) -> tuple[int, int] | None:
    """Return the place that the first of the messages got, or None where they could not be added."""
    count = len(drafts)
    binds = {
        "session_id": session_id,
        "count": count,
        "tokens": tokens_of(drafts),
        "spent": cost_of(drafts),
        "now": session.now(),
    }
    try:
        if session.capabilities.data_modifying_cte:
            rows = [draft.placed(i, 0) for i, draft in enumerate(drafts)]
            return session.first(_APPEND_ROWS, {**binds, "added": rows})
        place: tuple[int, int] | None = session.first(_DRAW_MANY, binds)
        if place is not None:
            write_rows(session, [draft.placed(place[0] + i, place[1]) for i, draft in enumerate(drafts)])
    except IntegrityViolation as violation:
        if not session.in_transaction and _lost_race(violation, drafts, session):
            return None
        raise explain_rows(violation, drafts, session) from None
    return place


def write_rows(session: Session, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows whose places are known, in one round trip."""
    if session.capabilities.data_modifying_cte:
        session.execute(_INSERT_ROWS, {"added": rows})
    else:
        session.execute_many(_INSERT, rows)


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
        found = session.first(_BY_KEY, row)
        if found is not None and found.id != row["id"]:
            key = row["session_id"], draft.idempotency_key
            return AlreadyExistsError("message", key, field="session_id, idempotency_key")
    return None


def refuse_twice(drafts: Sequence[Draft]) -> None:
    """Raise AlreadyExistsError for an identifier that is given to two messages."""
    seen: set[str] = set()
    for draft in drafts:
        key = draft.row["id"]
        if isinstance(key, str):
            if key in seen:
                raise AlreadyExistsError("message", key)
            seen.add(key)


def _written(session: Session, draft: Draft) -> Message | None:
    """Return the row that an earlier try of this call wrote; another's under the same identifier is none."""
    found, row = session.first(GET, draft.row), draft.row
    if found is None or (found.session_id, found.created_at) != (row["session_id"], row["created_at"]):
        return None
    return found


def _found(session: Session, draft: Draft) -> Message:
    found = session.first(GET, draft.row)
    if found is None and draft.idempotency_key is not None:
        found = session.first(_BY_KEY, draft.row)
    if found is None:
        raise NotFoundError("message", draft.row["id"])
    return found


def _keys(drafts: Sequence[Draft]) -> list[str]:
    return [key for draft in drafts if (key := draft.idempotency_key) is not None]


def _key(session_id: str, key: str) -> dict[str, Any]:
    return {"session_id": session_id, "idempotency_key": key}


def _without_repeats(drafts: Sequence[Draft], there: Mapping[str, Message]) -> list[Draft]:
    seen: set[str | None] = set(there)
    new: list[Draft] = []
    for draft in drafts:
        key = draft.idempotency_key
        if key is None or key not in seen:
            new.append(draft)
            seen |= set() if key is None else {key}
    return new


def cost_of(drafts: Sequence[Draft]) -> Decimal:
    """Return what messages cost together."""
    return sum((draft.cost for draft in drafts), NOTHING)


def tokens_of(drafts: Sequence[Draft]) -> int:
    """Return what messages count for together."""
    return sum(draft.tokens for draft in drafts)


def exists(session: Session, session_id: str) -> None:
    """Raise NotFoundError when there is no such session, or it is deleted."""
    if session.first(_STATE, {"session_id": session_id}) is None:
        raise NotFoundError("session", session_id)


def _refuse(session: Session, session_id: str, drafts: Sequence[Draft]) -> None:
    """Raise what kept messages out of the session; return when nothing does any more."""
    # What they say is refused first, also where they were not looked at because the session takes nothing.
    for draft in drafts:
        draft.check()
    cost = cost_of(drafts)
    found = session.first(_STATE, {"session_id": session_id})
    if found is None:
        raise NotFoundError("session", session_id)
    budget, spent = found
    if cost and budget is not None and spent >= budget:
        raise BudgetExceededError(session_id)


_SESSION_ID = bindparam("session_id", type_=SESSIONS.c.id.type)
_TOKENS = bindparam("tokens", type_=SESSIONS.c.total_tokens.type)
_SPENT = bindparam("spent", type_=SESSIONS.c.total_cost.type)
_COUNT = bindparam("count", type_=SESSIONS.c.next_seq.type)
_NOW = bindparam("now", type_=SESSIONS.c.updated_at.type)
_IDEMPOTENCY_KEY = bindparam("idempotency_key", type_=MESSAGES.c.idempotency_key.type)
OPEN = text(f"{SESSIONS.name}.deleted_at IS NULL")

GET: Statement[Message] = Statement(
    select(MESSAGES).where(MESSAGES.c.id == bindparam("id", type_=MESSAGES.c.id.type)), returns=Message
)
_HAS_KEY = (MESSAGES.c.session_id == _SESSION_ID, MESSAGES.c.idempotency_key == _IDEMPOTENCY_KEY)
_BY_KEY: Statement[Message] = Statement(select(MESSAGES).where(*_HAS_KEY), returns=Message)
_LOCK: Statement[Any] = Statement(
    select(SESSIONS.c.id).where(SESSIONS.c.id == _SESSION_ID).with_for_update(key_share=True)
)
_STATE: Statement[Any] = Statement(
    select(SESSIONS.c.budget, SESSIONS.c.total_cost).where(SESSIONS.c.id == _SESSION_ID, OPEN)
)
_INSERT: Statement[Any] = Statement(insert_into(Message))


def spendable(spent: Any) -> Any:
    """Return the condition that a session's budget admits what was spent: anything until it is used up."""
    return or_(SESSIONS.c.budget.is_(None), SESSIONS.c.total_cost < SESSIONS.c.budget, spent == literal(0, _SPENT.type))


def _draw(count: Any, *, keyed: bool = False) -> Update:
    """Return the statement that draws the numbers and moves the counters, where the session takes the messages."""
    query = (
        update(SESSIONS)
        .where(SESSIONS.c.id == _SESSION_ID, OPEN, spendable(_SPENT))
        .values(
            next_seq=SESSIONS.c.next_seq + count,
            message_count=SESSIONS.c.message_count + count,
            total_tokens=SESSIONS.c.total_tokens + _TOKENS,
            total_cost=SESSIONS.c.total_cost + _SPENT,
            # What is said from here on is not in the index of the search.
            unindexed_from=case(
                (SESSIONS.c.unindexed_from < SESSIONS.c.next_seq, SESSIONS.c.unindexed_from),
                else_=SESSIONS.c.next_seq,
            ),
            updated_at=_NOW,
        )
    )
    return query.where(~select(literal(1)).where(*_HAS_KEY).exists()) if keyed else query


def _drawn(query: Update, count: Any) -> Any:
    return query.returning((SESSIONS.c.next_seq - count).label("seq"), SESSIONS.c.generation)


_ONE = literal(1, SESSIONS.c.next_seq.type)
_DRAW: Statement[Any] = Statement(_drawn(_draw(_ONE), _ONE))
_DRAW_KEYED: Statement[Any] = Statement(_drawn(_draw(_ONE, keyed=True), _ONE))
_DRAW_MANY: Statement[Any] = Statement(_drawn(_draw(_COUNT), _COUNT))


def _append(*, keyed: bool) -> Statement[Any]:
    """Draw the number and write the row in one statement; no row comes back where the message is not added."""
    drawn = _drawn(_draw(_ONE, keyed=keyed), _ONE).cte("drawn")
    values = {c.name: bindparam(c.name, type_=c.type) for c in MESSAGES.c if c.name not in {"seq", "from_generation"}}
    source = select(*values.values(), drawn.c.seq, drawn.c.generation)
    return Statement(
        insert(MESSAGES)
        .from_select([*values, "seq", "from_generation"], source, include_defaults=False)
        .returning(MESSAGES.c.seq, MESSAGES.c.from_generation)
    )


_APPEND = _append(keyed=False)
_APPEND_KEYED = _append(keyed=True)


def _append_rows() -> Statement[Any]:
    """Draw the numbers and write the rows in one statement, of which one row tells the first place."""
    drawn = _drawn(_draw(_COUNT), _COUNT).cte("drawn")
    added, columns = recordset("added", list(MESSAGES.c))
    values = {**columns, "seq": drawn.c.seq + columns["seq"], "from_generation": drawn.c.generation}
    source = select(*values.values()).select_from(drawn, added)
    rows = insert(MESSAGES).from_select([*values], source, include_defaults=False).cte("rows")
    return Statement(select(drawn.c.seq, drawn.c.generation).add_cte(rows), writes=True)


def _insert_rows() -> Statement[Any]:
    added, columns = recordset("added", list(MESSAGES.c))
    source = select(*columns.values()).select_from(added)
    return Statement(insert(MESSAGES).from_select([*columns], source, include_defaults=False))


_APPEND_ROWS = _append_rows()
_INSERT_ROWS = _insert_rows()
