"""What users, agents, models and tools used: messages, tokens and costs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    Column,
    MetaData,
    Select,
    Table,
    bindparam,
    case,
    cast,
    desc,
    func,
    literal,
    or_,
    select,
    text,
    true,
    union_all,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import String

from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.models import User
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.clock import from_now, seconds
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import InvalidValueError, NotFoundError
from agentos_store.operation import F, Repository, reads, reads_together
from agentos_store.types import Identifier, Int64, Money, UTCDateTime, check_whole

DEFAULT_LIMIT = 100
LARGEST_LIMIT = 10_000
MOST_DAYS = 36_500

_USERS = User.table()
_SESSIONS = Conversation.table()
_MESSAGES = Message.table()
_CALLS = ToolCallRecord.table()
# Another domain's table is known by its name alone.
_AGENTS = Table(
    "agents",
    MetaData(),
    Column("agent_id", Identifier()),
    Column("template_id", Identifier()),
    Column("session_id", Identifier()),
    Column("deleted_at", UTCDateTime()),
)


@dataclass(frozen=True, slots=True)
class ToolUsage:
    """What came of the calls of one tool."""

    tool_name: str
    call_count: int
    avg_latency: float | None
    """Milliseconds, of those whose duration is known; None while there are none."""
    failures: int


@dataclass(frozen=True, slots=True)
class UsageStats:
    """What one user used lately."""

    period_days: int
    session_count: int
    """Sessions that were at work in the period; the totals are theirs, from their beginning."""
    total_tokens: int
    total_messages: int
    tool_usage: Sequence[ToolUsage]


@dataclass(frozen=True, slots=True)
class Usage:
    """What the messages under one key came to."""

    key: str | None
    """None for messages that have no user, agent, template or model."""
    messages: int
    token_count: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: Decimal


class UserUsage(Repository[F]):
    """The part of the user repository that is about what was used."""

    @reads_together
    def usage_stats(self, session: Session, user_id: str, days: int = 7) -> UsageStats:
        """Return what a user used in the last days, by the database's clock; NotFoundError for an unknown user.

        A session counts, with all that it ever came to, when it was changed in the period; a tool call when it was
        made in the period, in a session of the user's or, where it names none, by an agent of such a session. What is
        softly deleted is left out.
        """
        check_whole("days", days, 1, MOST_DAYS)
        binds = {"user_id": user_id, "ago": -86_400.0 * days}
        totals = session.first(_TOTALS, binds)
        assert totals is not None
        count, tokens, messages, known = totals
        if not known:
            raise NotFoundError(User.entity, user_id)
        tools = [ToolUsage(*row) for row in session.all(_TOOLS, binds)]
        return UsageStats(days, count, tokens, messages, tools)

    @reads
    def usage(
        self,
        session: Session,
        *,
        by: str,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        user_id: str | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
        include_deleted: bool = False,
        limit: int = DEFAULT_LIMIT,
    ) -> Sequence[Usage]:
        """Return messages, tokens and costs by ``user``, ``agent``, ``template``, ``model``, ``tool`` or ``day``.

        The largest number of tokens comes first. What a rewriting took out of a conversation counts, for it was paid,
        and copies that a fork or a rewriting made do not. By tool, a message counts for each tool that it calls, and
        one that calls none for none. ``since`` is inclusive and ``until`` is not; a day is one in UTC, written
        ``YYYY-MM-DD``. Sessions that are softly deleted are left out unless ``include_deleted``.
        """
        if not isinstance(by, str) or by not in _KEYS:
            raise InvalidValueError("by", f"must be one of {', '.join(_KEYS)}")
        check_whole("limit", limit, 1, LARGEST_LIMIT)
        given = {"since": since, "until": until, "user_id": user_id, "agent_id": agent_id, "session_id": session_id}
        filters = {name: value for name, value in given.items() if value is not None}
        key = by, frozenset(filters), bool(include_deleted)
        statement = _STATEMENTS.get(key)
        if statement is None:
            statement = _STATEMENTS[key] = Statement(_usage(by, filters, include_deleted=bool(include_deleted)))
        rows = session.all(statement, {**filters, "limit_": limit})
        return [Usage(*row) for row in rows]


class _DayOf(FunctionElement[Any]):
    """The day of an instant in UTC, as text."""

    type = String()
    inherit_cache = True
    name = "day_of"


class _EachText(FunctionElement[Any]):
    """The texts of a JSON array, as a table with the column ``value``."""

    inherit_cache = True
    name = "each_text"


class _ByCodePoint(FunctionElement[Any]):
    """A text that no column lent its order, in the order that all columns have."""

    type = String()
    inherit_cache = True
    name = "by_code_point"


@compiles(_ByCodePoint, "postgresql")
def _by_code_point_postgresql(element: _ByCodePoint, compiler: Any, **options: Any) -> str:
    return f'{compiler.process(element.clauses, **options)} COLLATE "C"'


@compiles(_ByCodePoint, "sqlite")
def _by_code_point_sqlite(element: _ByCodePoint, compiler: Any, **options: Any) -> str:
    text_: str = compiler.process(element.clauses, **options)
    return text_


@compiles(_DayOf, "postgresql")
def _day_of_postgresql(element: _DayOf, compiler: Any, **options: Any) -> str:
    instant = compiler.process(element.clauses, **options)
    return f"to_char({instant} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"


@compiles(_DayOf, "sqlite")
def _day_of_sqlite(element: _DayOf, compiler: Any, **options: Any) -> str:
    return f"substr({compiler.process(element.clauses, **options)}, 1, 10)"


@compiles(_EachText, "postgresql")
def _each_text_postgresql(element: _EachText, compiler: Any, **options: Any) -> str:
    return f"jsonb_array_elements_text({compiler.process(element.clauses, **options)})"


@compiles(_EachText, "sqlite")
def _each_text_sqlite(element: _EachText, compiler: Any, **options: Any) -> str:
    return f"json_each({compiler.process(element.clauses, **options)})"


def _sum(column: Any) -> Any:
    # PostgreSQL makes the sum of large numbers a NUMERIC.
    return cast(func.coalesce(func.sum(column), literal(0, Int64())), Int64())


_IS_USER = _SESSIONS.c.user_id == bindparam("user_id", type_=_USERS.c.id.type)
_SINCE = from_now(seconds("ago"))
_KNOWN = select(literal(1)).where(_USERS.c.id == bindparam("user_id", type_=_USERS.c.id.type)).exists()
_TOTALS: Statement[Any] = Statement(
    select(
        func.count(_SESSIONS.c.id),
        _sum(_SESSIONS.c.total_tokens),
        _sum(_SESSIONS.c.message_count),
        _KNOWN,
    ).where(_IS_USER, _SESSIONS.c.updated_at >= _SINCE, _SESSIONS.c.deleted_at.is_(None))
)


def _tools() -> Select[Any]:
    wanted = (_IS_USER, _SESSIONS.c.deleted_at.is_(None), _CALLS.c.created_at >= _SINCE)
    columns = (_CALLS.c.tool_name, _CALLS.c.duration_ms, _CALLS.c.is_error, _CALLS.c.state)
    named = select(*columns).join_from(_SESSIONS, _CALLS, _CALLS.c.session_id == _SESSIONS.c.id).where(*wanted)
    by_agent = (
        select(*columns)
        .join_from(_SESSIONS, _AGENTS, _AGENTS.c.session_id == _SESSIONS.c.id)
        .join(_CALLS, _CALLS.c.agent_id == _AGENTS.c.agent_id)
        .where(*wanted, _AGENTS.c.deleted_at.is_(None), _CALLS.c.session_id.is_(None))
    )
    calls = union_all(named, by_agent).subquery("calls")
    failed = or_(calls.c.is_error.is_(true()), calls.c.state == literal("failed", calls.c.state.type))
    return (
        select(
            calls.c.tool_name,
            func.count().label("call_count"),
            func.avg(calls.c.duration_ms),
            _sum(case((failed, 1), else_=0)),
        )
        .group_by(calls.c.tool_name)
        .order_by(desc("call_count"), calls.c.tool_name)
    )


_TOOLS: Statement[Any] = Statement(_tools())

_EACH_TOOL = _EachText(_MESSAGES.c.tool_names).table_valued("value", name="each_tool")
_KEYS: Mapping[str, Any] = {
    "user": _SESSIONS.c.user_id,
    "agent": _MESSAGES.c.agent_id,
    "template": _AGENTS.c.template_id,
    "model": _MESSAGES.c.model,
    "tool": _ByCodePoint(_EACH_TOOL.c.value),
    "day": _DayOf(_MESSAGES.c.created_at),
}
_FILTERS: Mapping[str, Any] = {
    "since": _MESSAGES.c.created_at >= bindparam("since", type_=_MESSAGES.c.created_at.type),
    "until": _MESSAGES.c.created_at < bindparam("until", type_=_MESSAGES.c.created_at.type),
    "user_id": _IS_USER,
    "agent_id": _MESSAGES.c.agent_id == bindparam("agent_id", type_=_MESSAGES.c.agent_id.type),
    "session_id": _MESSAGES.c.session_id == bindparam("session_id", type_=_MESSAGES.c.session_id.type),
}
_STATEMENTS: dict[tuple[str, frozenset[str], bool], Statement[Any]] = {}


def _usage(by: str, filters: Iterable[str], *, include_deleted: bool) -> Select[Any]:
    key, tokens = _KEYS[by], _sum(_MESSAGES.c.token_count)
    source = _MESSAGES.join(_SESSIONS, _SESSIONS.c.id == _MESSAGES.c.session_id)
    if by == "template":
        source = source.outerjoin(_AGENTS, _AGENTS.c.agent_id == _MESSAGES.c.agent_id)
    elif by == "tool":
        source = source.join(_EACH_TOOL, true())
    # Written out, for a partial index serves only a condition that says what the index says.
    conditions = [text(f"{_MESSAGES.name}.copied_from IS NULL"), *(_FILTERS[name] for name in filters)]
    if not include_deleted:
        conditions.append(_SESSIONS.c.deleted_at.is_(None))
    return (
        select(
            key.label("key"),
            func.count(_MESSAGES.c.id),
            tokens.label("tokens"),
            _sum(_MESSAGES.c.input_tokens),
            _sum(_MESSAGES.c.output_tokens),
            _sum(_MESSAGES.c.cached_tokens),
            func.coalesce(func.sum(_MESSAGES.c.cost), literal(Decimal(0), Money())),
        )
        .select_from(source)
        .where(*conditions)
        .group_by(key)
        # None comes last on every database.
        .order_by(desc("tokens"), key.asc().nulls_last())
        .limit(bindparam("limit_"))
    )
