"""The statements that add messages: they draw the numbers, move the session's counters and write the rows."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Update, bindparam, case, insert, literal_column, or_, select, text, update

from agentos_store.conversations.drafts import MESSAGES, PLACE
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.engine.recordset import series
from agentos_store.engine.statement import Statement, insert_into

SESSIONS = Conversation.table()

_SESSION_ID = bindparam("session_id", type_=SESSIONS.c.id.type)
_TOKENS = bindparam("tokens", type_=SESSIONS.c.total_tokens.type)
_SPENT = bindparam("spent", type_=SESSIONS.c.total_cost.type)
_COUNT = bindparam("count", type_=SESSIONS.c.next_seq.type)
_GENERATION = bindparam("generation", type_=SESSIONS.c.generation.type)
_NEXT_SEQ = bindparam("next_seq", type_=SESSIONS.c.next_seq.type)
_NOW = bindparam("now", type_=SESSIONS.c.updated_at.type)
_IDEMPOTENCY_KEY = bindparam("idempotency_key", type_=MESSAGES.c.idempotency_key.type)
OPEN = text(f"{SESSIONS.name}.deleted_at IS NULL")

GET: Statement[Message] = Statement(
    select(MESSAGES).where(MESSAGES.c.id == bindparam("id", type_=MESSAGES.c.id.type)), returns=Message
)
_HAS_KEY = (MESSAGES.c.session_id == _SESSION_ID, MESSAGES.c.idempotency_key == _IDEMPOTENCY_KEY)
BY_KEY: Statement[Message] = Statement(select(MESSAGES).where(*_HAS_KEY), returns=Message)
LOCK: Statement[Any] = Statement(
    select(SESSIONS.c.id).where(SESSIONS.c.id == _SESSION_ID).with_for_update(key_share=True)
)
STATE: Statement[Any] = Statement(
    select(SESSIONS.c.budget, SESSIONS.c.total_cost).where(SESSIONS.c.id == _SESSION_ID, OPEN)
)


def spendable(spent: Any) -> Any:
    """Return the condition that a session's budget admits what was spent: anything until it is used up."""
    return or_(SESSIONS.c.budget.is_(None), SESSIONS.c.total_cost < SESSIONS.c.budget, spent == literal_column("0"))


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
    return query.where(~select(literal_column("1")).where(*_HAS_KEY).exists()) if keyed else query


def _drawn(query: Update, count: Any) -> Any:
    return query.returning((SESSIONS.c.next_seq - count).label("seq"), SESSIONS.c.generation)


# Written out, for each value that is sent costs a little.
_ONE: Any = literal_column("1", SESSIONS.c.next_seq.type)
DRAW: Statement[Any] = Statement(_drawn(_draw(_ONE), _ONE))
DRAW_KEYED: Statement[Any] = Statement(_drawn(_draw(_ONE, keyed=True), _ONE))
DRAW_MANY: Statement[Any] = Statement(_drawn(_draw(_COUNT), _COUNT))


# One statement for each choice of columns that are given: the others are NULL without being sent.


@cache
def insert_message(names: frozenset[str]) -> Statement[Any]:
    """Write one row whose place is known."""
    return Statement(insert_into(Message, only=names | PLACE))


@cache
def append_message(names: frozenset[str], *, keyed: bool) -> Statement[Any]:
    """Draw the number and write the row in one statement; no row comes back where the message is not added."""
    drawn = _drawn(_draw(_ONE, keyed=keyed), _ONE).cte("drawn")
    values = {c.name: bindparam(c.name, type_=c.type) for c in MESSAGES.c if c.name in names}
    source = select(*values.values(), drawn.c.seq, drawn.c.generation)
    return Statement(
        insert(MESSAGES)
        .from_select([*values, "seq", "from_generation"], source, include_defaults=False)
        .returning(MESSAGES.c.seq, MESSAGES.c.from_generation)
    )


@cache
def append_rows(names: frozenset[str], *, unchanged: bool) -> Statement[Any]:
    """Draw the numbers and write the rows in one statement, of which one row tells the first place.

    With ``unchanged`` no row comes back where the conversation is not what it was when it was read: any appending moves
    the next number, any rewriting the generation.
    """
    draw = _draw(_COUNT)
    if unchanged:
        draw = draw.where(SESSIONS.c.generation == _GENERATION, SESSIONS.c.next_seq == _NEXT_SEQ)
    drawn = _drawn(draw, _COUNT).cte("drawn")
    added, values, number = _added(names)
    values |= {"seq": drawn.c.seq + number - _ONE, "from_generation": drawn.c.generation}
    source = select(*values.values()).select_from(drawn, added)
    rows = insert(MESSAGES).from_select([*values], source, include_defaults=False).cte("rows")
    return Statement(select(drawn.c.seq, drawn.c.generation).add_cte(rows), writes=True)


@cache
def insert_rows(names: frozenset[str]) -> Statement[Any]:
    """Write rows whose places are known."""
    added, values, _ = _added(names)
    values["from_generation"] = bindparam("from_generation", type_=MESSAGES.c.from_generation.type)
    source = select(*values.values()).select_from(added)
    return Statement(insert(MESSAGES).from_select([*values], source, include_defaults=False))


def _added(names: frozenset[str]) -> tuple[Any, dict[str, Any], Any]:
    """Return the table of the rows, the values of their columns and their number."""
    added, lists, number = series("added", [c for c in MESSAGES.c if c.name in names])
    one_for_all = {c.name: bindparam(c.name, type_=c.type) for c in (MESSAGES.c.session_id, MESSAGES.c.created_at)}
    return added, {**one_for_all, **lists}, number
