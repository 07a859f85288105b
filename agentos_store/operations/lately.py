"""What happened lately: tools that fail, tokens by day, events. A bounded number of rows is read for each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, bindparam, case, cast, func, literal, or_, select, true

from agentos_store.agents.models import Agent
from agentos_store.conversations.message_models import Message
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import ToolCallRecord
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.events.models import Event
from agentos_store.types import Int64

DAYS = 14
"""Days of the chart of tokens."""

HOURS = 24
"""Hours of what else happened lately."""

NEWEST = 100_000
"""Rows that are looked at: the newest ones."""

MOST_TOOLS = 10


@dataclass(frozen=True, slots=True)
class FailingTool:
    """A tool whose calls failed lately."""

    tool_name: str
    calls: int
    failures: int


@dataclass(frozen=True, slots=True)
class DayOfTokens:
    """What the messages of one day in UTC came to."""

    day: dt.date
    tokens: int
    complete: bool
    """Whether all messages of the day were looked at; where very many follow they were not."""


@dataclass(frozen=True, slots=True)
class EventsLately:
    """What was told lately."""

    count: int
    errors: int
    """Those of severity error and critical."""
    estimated: bool
    """Whether there are more than were looked at."""
    newest_at: dt.datetime | None
    """When the newest event of all was."""


def failing_tools(session: Session) -> Sequence[FailingTool]:
    """Return the tools whose calls failed in the last hours, the most failures first."""
    binds = {"since": session.now() - dt.timedelta(hours=HOURS), "newest": NEWEST}
    return [FailingTool(*row) for row in session.all(_TOOLS, binds)]


def tokens_by_day(session: Session, *, newest: int = NEWEST) -> Sequence[DayOfTokens]:
    """Return what was used on each of the last days, the oldest first."""
    today = session.now().replace(hour=0, minute=0, second=0, microsecond=0)
    binds = {f"day_{ago}": today - dt.timedelta(days=ago) for ago in range(DAYS)}
    found = {ago: (tokens, count) for ago, tokens, count in session.all(_TOKENS, {**binds, "newest": newest})}
    looked_at = sum(count for _, count in found.values())
    # The day in which the looking ended, and those before it, have more messages than were seen.
    last = max(found) if looked_at >= newest else DAYS
    return [
        DayOfTokens((today - dt.timedelta(days=ago)).date(), found.get(ago, (0,))[0], complete=ago < last)
        for ago in reversed(range(DAYS))
    ]


def events_lately(session: Session, *, newest: int = NEWEST) -> EventsLately:
    """Return how many events there were in the last hours."""
    binds = {"since": session.now() - dt.timedelta(hours=HOURS), "newest": newest}
    ((count, errors),) = session.all(_EVENTS, binds)
    last = session.first(_NEWEST_EVENT)
    return EventsLately(count, errors, count >= newest, last[0] if last else None)


_AGENTS = Agent.table()
_CALLS = ToolCallRecord.table()
_EVENT = Event.table()
_MESSAGES = Message.table()
_SESSIONS = Conversation.table()


def _sum(column: Any) -> Any:
    # PostgreSQL gives the sum of integers another type.
    return cast(func.coalesce(func.sum(column), literal(0, Int64())), Int64())


def _newest(table: Any, key: Any, since: str, *columns: Any, where: Sequence[Any] = ()) -> Any:
    """Return the newest rows since a time: so many at most, found by the index on the time."""
    created_at = table.c.created_at
    return (
        select(*columns)
        .where(created_at >= bindparam(since, type_=created_at.type), *where)
        .order_by(created_at.desc(), key.desc())
        .limit(bindparam("newest"))
        .subquery("newest")
    )


def _tools() -> Statement[Any]:
    failed = case(
        (or_(_CALLS.c.state == literal("failed", _CALLS.c.state.type), _CALLS.c.is_error.is_(true())), 1), else_=0
    )
    # What belongs to something that was softly deleted is left out, as in the statistics of tools.
    is_open = (
        ~select(literal(1)).where(_AGENTS.c.agent_id == _CALLS.c.agent_id, _AGENTS.c.deleted_at.is_not(None)).exists(),
        ~select(literal(1)).where(_SESSIONS.c.id == _CALLS.c.session_id, _SESSIONS.c.deleted_at.is_not(None)).exists(),
    )
    calls = _newest(_CALLS, _CALLS.c.id, "since", _CALLS.c.tool_name, failed.label("failed"), where=is_open)
    failures = _sum(calls.c.failed)
    return Statement(
        select(calls.c.tool_name, func.count(), failures)
        .group_by(calls.c.tool_name)
        .having(failures > 0)
        .order_by(failures.desc(), calls.c.tool_name)
        .limit(MOST_TOOLS)
    )


def _tokens() -> Statement[Any]:
    created_at = _MESSAGES.c.created_at
    ago = case(
        *(
            (created_at >= bindparam(f"day_{each}", type_=created_at.type), literal(each, Int64()))
            for each in range(DAYS)
        ),
        else_=literal(DAYS, Int64()),
    )
    columns = (ago.label("ago"), _MESSAGES.c.token_count, _MESSAGES.c.session_id, _MESSAGES.c.copied_from)
    rows = _newest(_MESSAGES, _MESSAGES.c.id, f"day_{DAYS - 1}", *columns)
    # Copies were paid for where they were made.
    counts = and_(rows.c.copied_from.is_(None), _SESSIONS.c.deleted_at.is_(None))
    return Statement(
        select(rows.c.ago, _sum(case((counts, rows.c.token_count), else_=0)), func.count())
        .join_from(rows, _SESSIONS, _SESSIONS.c.id == rows.c.session_id)
        .group_by(rows.c.ago)
    )


def _events() -> Statement[Any]:
    rows = _newest(_EVENT, _EVENT.c.position, "since", _EVENT.c.severity)
    is_error = or_(*(rows.c.severity == literal(each, _EVENT.c.severity.type) for each in ("error", "critical")))
    return Statement(select(func.count(), _sum(case((is_error, 1), else_=0))).select_from(rows))


_TOOLS = _tools()
_TOKENS = _tokens()
_EVENTS = _events()
_NEWEST_EVENT: Statement[Any] = Statement(
    select(_EVENT.c.created_at).order_by(_EVENT.c.created_at.desc(), _EVENT.c.position.desc()).limit(1)
)
