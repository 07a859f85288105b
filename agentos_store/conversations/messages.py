"""Operations on messages."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, literal, select, text

from agentos_store.conversations import append as appending
from agentos_store.conversations import saving
from agentos_store.conversations.append_statements import GET
from agentos_store.conversations.content import CONTENT_TYPES, LONGEST_NAME, TOOL_RESULT, calls_of, results_of
from agentos_store.conversations.drafts import MESSAGES, Draft, naming, read_drafts
from agentos_store.conversations.message_models import CURRENT, Message
from agentos_store.conversations.message_search import MessageSearch
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.saving import Saved
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.operation import F, reads, repeatable, walks, writes_once
from agentos_store.page import DEFAULT_LIMIT, Filter, Listing, Page, at_least, below, contains, equals
from agentos_store.types import Boolean, JSONValue, Text, check_whole

_SESSIONS = Conversation.table()


class MessageRepository(MessageSearch[F]):
    """The messages of conversations: what a language model reads and writes."""

    name = "messages"

    @writes_once
    @repeatable
    def append(
        self,
        session: Session,
        session_id: str,
        *,
        role: str,
        content: Any,
        name: str | None = None,
        tool_calls: Sequence[Any] | None = None,
        tool_call_id: str | None = None,
        agent_id: str | None = None,
        model: str | None = None,
        token_count: int | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
        cost: Decimal | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        id: str | None = None,
        created_at: dt.datetime | None = None,
    ) -> Message:
        """Add a message at the end of a conversation and return it; the session's counters move with it.

        ``content`` is a string, a list of blocks such as ``{"type": "text", "text": "…"}``, or None, and comes back
        exactly as it was given. Of parallel appenders each gets a number of its own, and none is left out. A second
        call with the same ``idempotency_key`` in the same session returns the first one's row, whatever else it says,
        and be that closed by now.
        ``token_count`` is the sum of input and output tokens unless given.

        Raises NotFoundError for a session that does not exist or is deleted and for an unknown agent,
        BudgetExceededError for a cost when the session's budget is used up, and InvalidValueError or
        PayloadTooLargeError for what cannot be stored; then nothing is written.
        """
        values = {
            "role": role,
            "content": content,
            "name": name,
            "tool_calls": tool_calls,
            "tool_call_id": tool_call_id,
            "agent_id": agent_id,
            "model": model,
            "token_count": token_count,
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cached_tokens": cached_tokens,
            "cost": cost,
            "metadata": metadata,
            "idempotency_key": idempotency_key,
            "id": id,
            "created_at": created_at,
        }
        return appending.append(session, Draft(session, session_id, values))

    @writes_once
    @repeatable
    def append_many(self, session: Session, session_id: str, messages: Sequence[Any]) -> Sequence[Message]:
        """Add messages at the end of a conversation, all or none, and return the row of each, in order.

        A message is a mapping with the names of ``append``'s parameters. All get one time. One whose
        ``idempotency_key`` is taken is not added again: its place in the answer has the first one's row. A row becomes
        an object when it is first looked at. Raises what ``append`` raises; the error names the message that is meant,
        as in ``messages[3].content``.
        """
        drafts = read_drafts(session, session_id, messages)
        with naming(drafts):
            return appending.append_many(session, session_id, drafts)

    @writes_once
    @repeatable
    def save(
        self,
        session: Session,
        session_id: str,
        messages: Sequence[Any],
        *,
        expected_generation: int | None = None,
        expected_next_seq: int | None = None,
    ) -> Saved:
        """Make the conversation consist of these messages, and write only what changed.

        A message, a mapping with the names of ``append``'s parameters or a Message, stays what it is when one with
        the same role, name, content, tool calls and ``tool_call_id`` is there, and nothing else that is given
        differs; it keeps its identifier and its time. A list that only grew is appended. Else the conversation enters
        a new generation: what is left out is closed, not removed, and earlier snapshots still show it. The counters
        of tokens and cost tell what was spent, so they only grow.

        With ``expected_generation`` and ``expected_next_seq``, as the session had them when the list was made, a
        conversation that somebody else changed meanwhile raises ConflictError; without them the last one to save
        wins. A new message whose ``idempotency_key`` is taken, be it by another of the list, raises AlreadyExistsError.
        Else raises what ``append_many`` raises.
        """
        return saving.save(
            session,
            session_id,
            messages,
            expected_generation=expected_generation,
            expected_next_seq=expected_next_seq,
        )

    @reads
    def history(
        self, session: Session, session_id: str, *, last: int | None = None, whole_exchanges: bool = True
    ) -> list[dict[str, Any]]:
        """Return the conversation as a language model wants it: plain messages, the oldest first.

        Each is a dict of ``role`` and ``content`` and, where the message has them, ``name``, ``tool_calls`` and
        ``tool_call_id``. With ``last``, no more than so many, from the end. A tool's result whose call would be cut
        off by that is left out too, for language models refuse it, unless ``whole_exchanges`` is false.
        """
        if last is None:
            rows = session.all(_HISTORY, {"session_id": session_id})
        else:
            check_whole("last", last)
            # One more, to know whether anything is cut off.
            limit = min(last, LARGEST_LAST) + 1
            rows = session.all(_LAST, {"session_id": session_id, "limit_": limit})
            rows.reverse()
            if len(rows) == limit:
                del rows[0]
                if whole_exchanges:
                    rows = _answered(rows)
        if not rows:
            appending.exists(session, session_id)
        return [_plain(row) for row in rows]

    @reads
    def get(self, session: Session, id: str) -> Message:
        """Return the message, be it part of its conversation or closed; raise NotFoundError for an unknown one."""
        found = session.first(GET, {"id": id})
        if found is None:
            raise NotFoundError("message", id)
        return found

    @reads
    def find(self, session: Session, id: str) -> Message | None:
        """Return the message, or None."""
        return session.first(GET, {"id": id})

    @reads
    def exists(self, session: Session, id: str) -> bool:
        """Tell whether there is such a message."""
        return session.first(_EXISTS, {"id": id}) is not None

    @reads
    def list(
        self,
        session: Session,
        session_id: str,
        *,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[Message]:
        """Return a page of a conversation's messages, by their numbers; ``order="-seq"`` begins with the last."""
        page = _OF_SESSION.page(
            session,
            {"session_id": session_id, "current": True, "open": True},
            order=order,
            limit=limit,
            cursor=cursor,
            offset=offset,
        )
        if not page.items and cursor is None:
            appending.exists(session, session_id)
        return page

    iterate = walks(list)

    @reads
    def query(
        self,
        session: Session,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        role: str | None = None,
        content_type: str | None = None,
        tool_name: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        metadata: Mapping[str, Any] | None = None,
        include_deleted: bool = False,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[Message]:
        """Return a page of current messages of any conversation that pass all the filters, the oldest first.

        ``content_type`` is one of text, tool_use, tool_result, reasoning, image, audio, video, file, other;
        ``tool_name`` keeps messages that call the tool. ``created_after`` is inclusive and ``created_before`` is not.
        ``metadata`` keeps messages whose metadata contains it and narrows what the other filters leave. Messages of
        deleted sessions are left out unless ``include_deleted``. The order is ``created_at`` or, within one
        session, which is then the default, ``seq``; a ``-`` before it turns it round.
        """
        filters: dict[str, Any] = {
            "session_id": session_id,
            "agent_id": agent_id,
            "role": role,
            "tool_name": _tool(tool_name),
            "current": True,
            "created_after": created_after,
            "created_before": created_before,
            "metadata": plain_json(metadata),
            "open": None if include_deleted else True,
        }
        _add_content_type(filters, content_type)
        listing = _OF_ALL if session_id is None else _OF_SESSION
        return listing.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    @reads
    def count(
        self,
        session: Session,
        *,
        session_id: str | None = None,
        agent_id: str | None = None,
        role: str | None = None,
        content_type: str | None = None,
        tool_name: str | None = None,
        include_deleted: bool = False,
    ) -> int:
        """Return how many current messages pass the filters. A session's own number is its ``message_count``."""
        filters: dict[str, Any] = {
            "session_id": session_id,
            "agent_id": agent_id,
            "role": role,
            "tool_name": _tool(tool_name),
            "current": True,
            "open": None if include_deleted else True,
        }
        _add_content_type(filters, content_type)
        return (_OF_ALL if session_id is None else _OF_SESSION).count(session, filters)


LARGEST_LAST = 1_000_000


def _answered(rows: Sequence[Any]) -> list[Any]:
    """Return the messages without the results of calls that stand before the first of them."""
    called: set[object] = set()
    kept = []
    for row in rows:
        calls, results = calls_of(row[1], row[3]), results_of(row[0], row[1], row[4])
        called.update(calls)
        # Some results name no call; any call before them may be theirs.
        if row[5] & TOOL_RESULT and not (called and (not results or not called.isdisjoint(results))):
            continue
        kept.append(row)
    return kept


def _plain(row: tuple[Any, ...]) -> dict[str, Any]:
    role, content, name, tool_calls, tool_call_id, _ = row
    message = {"role": role, "content": content}
    if name is not None:
        message["name"] = name
    if tool_calls is not None:
        message["tool_calls"] = tool_calls
    if tool_call_id is not None:
        message["tool_call_id"] = tool_call_id
    return message


def _add_content_type(filters: dict[str, Any], content_type: object) -> None:
    if content_type is None:
        return
    if not isinstance(content_type, str) or content_type not in CONTENT_TYPES:
        raise InvalidValueError("content_type", f"must be one of {', '.join(CONTENT_TYPES)}")
    filters[f"content_type={content_type}"] = True


def _tool(name: object) -> list[str] | None:
    if name is None:
        return None
    return [_TOOL_NAME.check(name, "tool_name")]


def _holds(*conditions: str) -> Filter:
    """Return a filter that has no value: it is there or it is not."""
    # Text, for a partial index serves only a condition that says what the index says.
    condition: Any = text(" AND ".join(conditions))
    return Filter(Boolean(), lambda _: condition)


def _content_type(bit: int) -> Filter:
    column = f"{MESSAGES.name}.content_types"
    # Written out as the partial indexes say it.
    of_others = [f"{column} > {FIRST_OF_OTHERS - 1}"] if bit >= FIRST_OF_OTHERS else []
    return _holds(*of_others, f"{column} & {bit} <> 0")


def _content_type_within(bit: int) -> Filter:
    # In words that no partial index knows: a conversation's messages are few beside all those of the type.
    return _holds(f"{MESSAGES.name}.content_types / {bit} % 2 = 1")


FIRST_OF_OTHERS = CONTENT_TYPES["image"]
"""From this bit on the types share one index, for messages of these types are few."""

_TOOL_NAME = Text(1, LONGEST_NAME)


def _calls(value: str) -> ColumnElement[bool]:
    """Return the condition that a message calls the tool, in the words of the indexes that serve it."""
    column = MESSAGES.name
    served: Any = text(f"{column}.content_types & {CONTENT_TYPES['tool_use']} <> 0 AND {column}.tool_names IS NOT NULL")
    called: ColumnElement[bool] = Message.tool_names.contains(bindparam(value, type_=MESSAGES.c.tool_names.type))
    return and_(served, called)


_OPEN = select(_SESSIONS.c.deleted_at).where(_SESSIONS.c.id == MESSAGES.c.session_id).scalar_subquery().is_(None)
_FILTERS = {
    "session_id": equals(Message.session_id),
    "agent_id": equals(Message.agent_id),
    "role": equals(Message.role),
    "created_after": at_least(Message.created_at),
    "created_before": below(Message.created_at),
    "metadata": contains(Message.metadata_),
    "current": _holds(f"{MESSAGES.name}.{CURRENT}"),
    "open": Filter(Boolean(), lambda _: _OPEN),
    "tool_name": Filter(JSONValue(kind="array"), _calls),
}


def _equals_within(column: Any) -> Filter:
    # In words that no index knows, for the same reason.
    return Filter(column.type, lambda name: column.op("||")(text("''")) == bindparam(name, type_=column.type))


_WITHIN = {"agent_id": _equals_within(MESSAGES.c.agent_id), "role": _equals_within(MESSAGES.c.role)}
_OF_SESSION = Listing(
    Message,
    filters=_FILTERS
    | _WITHIN
    | {f"content_type={name}": _content_type_within(bit) for name, bit in CONTENT_TYPES.items()},
    orders={"seq": (MESSAGES.c.session_id, MESSAGES.c.seq, MESSAGES.c.id)},
    default="seq",
)
_OF_ALL = Listing(
    Message,
    filters=_FILTERS | {f"content_type={name}": _content_type(bit) for name, bit in CONTENT_TYPES.items()},
    orders={"created_at": (MESSAGES.c.created_at, MESSAGES.c.id)},
    default="created_at",
)

_SESSION_ID = bindparam("session_id", type_=MESSAGES.c.session_id.type)
_CONVERSATION = select(
    MESSAGES.c.role,
    MESSAGES.c.content,
    MESSAGES.c.name,
    MESSAGES.c.tool_calls,
    MESSAGES.c.tool_call_id,
    MESSAGES.c.content_types,
).where(
    MESSAGES.c.session_id == _SESSION_ID,
    text(f"{MESSAGES.name}.{CURRENT}"),
    select(_SESSIONS.c.deleted_at).where(_SESSIONS.c.id == _SESSION_ID).scalar_subquery().is_(None),
)
_EXISTS: Statement[Any] = Statement(
    select(literal(1)).where(MESSAGES.c.id == bindparam("id", type_=MESSAGES.c.id.type))
)
_HISTORY: Statement[Any] = Statement(_CONVERSATION.order_by(MESSAGES.c.seq))
_LAST: Statement[Any] = Statement(_CONVERSATION.order_by(MESSAGES.c.seq.desc()).limit(bindparam("limit_")))
