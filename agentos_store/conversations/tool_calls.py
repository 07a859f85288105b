"""Operations on tool calls."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import and_, select, text

from agentos_store.conversations import tool_call_dangling as dangling
from agentos_store.conversations import tool_call_steps as steps
from agentos_store.conversations.models import Session as Conversation
from agentos_store.conversations.tool_call_models import TOOL_CALL_STATE, ToolCallRecord
from agentos_store.conversations.tool_call_states import ENDED, means_error
from agentos_store.conversations.tool_call_stats import Stats, ToolStats
from agentos_store.conversations.tool_call_steps import ASKED, CALLS, Key, Step, check_duration
from agentos_store.engine.session import Session
from agentos_store.engine.statement import build_model, plain_json
from agentos_store.engine.violations import IntegrityViolation, explain
from agentos_store.errors import InvalidValueError
from agentos_store.operation import F, Repository, reads, repeatable, walks, writes, writes_once
from agentos_store.page import DEFAULT_LIMIT, Filter, Listing, Page, at_least, below, equals
from agentos_store.types import Boolean, ErrorText, JSONValue, Text, UTCDateTime, to_text
from agentos_store.unset import UNSET

_SESSIONS = Conversation.table()


class ToolCallRepository(Repository[F]):
    """The calls of tools: what was asked, who allowed it, and what came of it.

    A call is named by its ``tool_call_id`` together with its agent, or with its session where it has no agent; the
    same name under two agents is two calls. Without agent and session the record's own ``id`` is meant.
    """

    name = "tool_calls"

    @writes_once
    @repeatable
    def record(
        self,
        session: Session,
        *,
        tool_name: str,
        tool_call_id: str | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
        input: Any = UNSET,
        state: str = "pending",
        ordinal: int = 0,
        message_id: str | None = None,
        output: Any = UNSET,
        is_error: bool | None = None,
        error_message: str | None = None,
        approval: Mapping[str, Any] | None = None,
        duration_ms: float | None = None,
        created_at: dt.datetime | None = None,
        started_at: dt.datetime | None = None,
        completed_at: dt.datetime | None = None,
        note: str | None = None,
        by: str | None = None,
    ) -> ToolCallRecord:
        """Record a call and return it; recording one name again returns the first one's row as it is now.

        Any state may be given, so that a call that has ended is logged at once; it ended at ``completed_at`` or else
        at ``created_at``. ``input`` is ``{}`` when left out; ``output`` may be anything, None included, and is no
        output when left out. ``is_error`` follows from the state of a call that has ended, unless it is given.
        ``duration_ms`` is the time from ``started_at`` to ``completed_at`` when both are given.

        Raises InvalidValueError where neither agent nor session is given and for what cannot be stored, and
        NotFoundError for an unknown agent, session or message.
        """
        if agent_id is None and session_id is None:
            raise InvalidValueError("agent_id", "a call belongs to an agent or to a session")
        TOOL_CALL_STATE.check(state, "state")
        key, now = session.new_ulid(), session.now()
        created = _time(created_at, "created_at") or now
        started = _time(started_at, "started_at") or (created if state == "executing" else None)
        completed = _time(completed_at, "completed_at") or (created if state in ENDED else None)
        duration = check_duration(duration_ms)
        if duration is None and started is not None and completed is not None:
            duration = max(0.0, (completed - started) / dt.timedelta(milliseconds=1))
        entered = completed if state in ENDED else started if state == "executing" else created
        assert entered is not None
        if approval is None and state == "approval_required":
            approval = ASKED
        row = {
            "id": key,
            "agent_id": agent_id,
            "session_id": session_id,
            "tool_call_id": key if tool_call_id is None else tool_call_id,
            "ordinal": ordinal,
            "message_id": message_id,
            "tool_name": tool_name,
            "state": state,
            "input": {} if input is UNSET else input,
            "output": None if output is UNSET else output,
            "has_output": output is not UNSET,
            "is_error": means_error(state) if is_error is None else is_error,
            "error_message": None if error_message is None else _ERROR.check(error_message, "error_message"),
            "approval": plain_json(approval),
            "audit_trail": [steps.entry(state, entered, by=by, note=note)],
            "duration_ms": duration,
            "created_at": created,
            "updated_at": now,
            "started_at": started,
            "completed_at": completed,
        }
        while True:
            try:
                added = session.execute(dangling.ADD, row)
            except IntegrityViolation as violation:
                raise explain(violation, ToolCallRecord, row, session) from None
            if added:
                return build_model(ToolCallRecord, row)
            found = steps.find(session, Key(str(row["tool_call_id"]), agent_id, session_id))
            if found is not None:
                return found
            # It was removed between the two statements.

    @writes_once
    @repeatable
    def update_state(
        self,
        session: Session,
        tool_call_id: str,
        state: str,
        *,
        agent_id: str | None = None,
        session_id: str | None = None,
        output: Any = UNSET,
        is_error: bool | None | Any = UNSET,
        error_message: str | None | Any = UNSET,
        duration_ms: float | None | Any = UNSET,
        approval: Mapping[str, Any] | None | Any = UNSET,
        note: str | None = None,
        by: str | None = None,
        expected: str | None = None,
    ) -> ToolCallRecord:
        """Bring a call into a state, with an entry in its audit trail, and return it as it is then.

        The state that it has already is no step: nothing changes, whatever else is given. Of parallel steps each
        finds the row as the one before it left it. Unless they are given, ``is_error`` follows from a state that
        ends the call, and ``duration_ms`` of one that completed or failed is the time since it began to execute.

        Raises NotFoundError, InvalidTransitionError where the state cannot follow, and ConflictError where the call
        is not in the state that is ``expected``; then nothing changes.
        """
        step = Step(
            key=Key(tool_call_id, agent_id, session_id),
            to=state,
            output=output,
            is_error=is_error,
            error_message=error_message,
            duration_ms=duration_ms,
            approval=approval,
            decision=ASKED if state == "approval_required" else {},
            note=note,
            by=by,
            expected=expected,
        )
        return steps.take(session, step)

    @writes_once
    @repeatable
    def require_approval(
        self,
        session: Session,
        tool_call_id: str,
        *,
        agent_id: str | None = None,
        session_id: str | None = None,
        meta: Mapping[str, Any] | None = None,
        note: str | None = None,
        by: str | None = None,
    ) -> ToolCallRecord:
        """Let a pending call wait for approval; its approval is then ``{"required": True}``, with ``meta`` if given.

        Raises NotFoundError, and InvalidTransitionError for a call that is not pending.
        """
        asked = ASKED if meta is None else ASKED | {"meta": _META.check(plain_json(meta), "meta")}
        key = Key(tool_call_id, agent_id, session_id)
        return steps.take(session, Step(key=key, to="approval_required", decision=asked, note=note, by=by))

    @writes_once
    @repeatable
    def decide(
        self,
        session: Session,
        tool_call_id: str,
        approved: bool,
        *,
        by: str,
        note: str | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
    ) -> ToolCallRecord:
        """Approve or deny a call that waits, or that is pending; return it with the decision in its approval.

        The approval gets ``decision`` (``"approved"`` or ``"denied"``), ``by``, ``at`` (UTC) and ``note``. Of several
        that decide at once the first is heard: who decides the same gets its row, anybody else InvalidTransitionError.
        Raises NotFoundError for an unknown call.
        """
        _BOOLEAN.check(approved, "approved")
        _BY.check(by, "by")
        word = "approved" if approved else "denied"
        time = session.now()
        decision = {"decision": word, "by": by, "at": to_text(time), "note": note}
        key = Key(tool_call_id, agent_id, session_id)
        return steps.take(session, Step(key=key, to=word, decision=decision, note=note, by=by), time)

    @writes
    @repeatable
    def settle_dangling(
        self,
        session: Session,
        agent_id: str | None = None,
        *,
        session_id: str | None = None,
        note: str = dangling.NOTE,
        by: str | None = None,
    ) -> Sequence[ToolCallRecord]:
        """Seal every call that has not ended, after a crash of the agent; return what was sealed, the oldest first.

        Calls that stand in the current conversation, the session's or the agent's, with neither a result there nor a
        record here, get a record that is sealed. With both an agent and a session only that agent's calls in that
        session are meant. Call it when nobody is at work there: a call in progress would be sealed too.

        Raises InvalidValueError when neither is given, NotFoundError for an unknown agent or session.
        """
        return dangling.settle(session, agent_id, session_id, note=note, by=by)

    @reads
    def get(
        self, session: Session, tool_call_id: str, *, agent_id: str | None = None, session_id: str | None = None
    ) -> ToolCallRecord:
        """Return the call; raise NotFoundError for an unknown one."""
        return steps.get(session, Key(tool_call_id, agent_id, session_id))

    @reads
    def find(
        self, session: Session, tool_call_id: str, *, agent_id: str | None = None, session_id: str | None = None
    ) -> ToolCallRecord | None:
        """Return the call, or None."""
        return steps.find(session, Key(tool_call_id, agent_id, session_id))

    @reads
    def exists(
        self, session: Session, tool_call_id: str, *, agent_id: str | None = None, session_id: str | None = None
    ) -> bool:
        """Tell whether there is such a call."""
        return steps.find(session, Key(tool_call_id, agent_id, session_id)) is not None

    @reads
    def list(
        self,
        session: Session,
        *,
        tool_name: str | None = None,
        state: str | None = None,
        is_error: bool | None = None,
        has_approval: bool | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        include_deleted: bool = False,
        order: str | None = None,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
        offset: int = 0,
    ) -> Page[ToolCallRecord]:
        """Return a page of calls that pass all the filters, the oldest first; ``order="-created_at"`` turns it round.

        ``is_error=False`` keeps calls that are known to have gone well. ``has_approval`` keeps calls for which an
        approval was asked for or given, or with False the others. ``created_after`` is inclusive and
        ``created_before`` is not. Calls of deleted agents and sessions are left out unless ``include_deleted``.
        """
        filters = _filters(
            include_deleted,
            is_error,
            has_approval,
            tool_name=tool_name,
            state=state,
            agent_id=agent_id,
            session_id=session_id,
            created_after=created_after,
            created_before=created_before,
        )
        return LISTING.page(session, filters, order=order, limit=limit, cursor=cursor, offset=offset)

    iterate = walks(list)

    # The name that messages and audits have for a list over everything.
    query = reads(list.body)

    @reads
    def count(
        self,
        session: Session,
        *,
        tool_name: str | None = None,
        state: str | None = None,
        is_error: bool | None = None,
        has_approval: bool | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
        created_after: dt.datetime | None = None,
        created_before: dt.datetime | None = None,
        include_deleted: bool = False,
    ) -> int:
        """Return how many calls pass the filters."""
        filters = _filters(
            include_deleted,
            is_error,
            has_approval,
            tool_name=tool_name,
            state=state,
            agent_id=agent_id,
            session_id=session_id,
            created_after=created_after,
            created_before=created_before,
        )
        return LISTING.count(session, filters)

    @reads
    def pending_approvals(
        self,
        session: Session,
        *,
        include_deleted: bool = False,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page[ToolCallRecord]:
        """Return a page of the calls that wait for approval, over all agents, the oldest first.

        Calls of deleted agents and sessions are left out unless ``include_deleted``.
        """
        filters = _filters(include_deleted, state="approval_required")
        return LISTING.page(session, filters, limit=limit, cursor=cursor)

    @reads
    def stats(
        self,
        session: Session,
        *,
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
        agent_id: str | None = None,
        session_id: str | None = None,
        tool_name: str | None = None,
        include_deleted: bool = False,
    ) -> Sequence[ToolStats]:
        """Return for each tool, by name, how often it was called, how often it failed, and how long it took.

        ``since`` is inclusive and ``until`` is not; both are about ``created_at``. The 95th percentile is by the
        nearest rank, over the calls whose duration is known.
        """
        filters = _filters(
            include_deleted,
            since=since,
            until=until,
            agent_id=agent_id,
            session_id=session_id,
            tool_name=tool_name,
        )
        return STATS.of(session, filters)


_TIME = UTCDateTime()
_ERROR = ErrorText()
_BOOLEAN = Boolean()
_BY = Text(1)
_META = JSONValue(kind="object")


def _time(value: dt.datetime | None, name: str) -> dt.datetime | None:
    return None if value is None else _TIME.check(value, name)


def _filters(
    include_deleted: bool, is_error: bool | None = None, has_approval: bool | None = None, **filters: Any
) -> dict[str, Any]:
    for name, value in (("is_error", is_error), ("has_approval", has_approval)):
        if value is not None:
            filters[f"{name}={_BOOLEAN.check(value, name)}"] = True
    return filters | {"open": None if include_deleted else True}


def _holds(condition: str) -> Filter:
    """Return a filter that has no value: it is there or it is not."""
    # Text, for a partial index serves only a condition that says what the index says.
    written: Any = text(f"{CALLS.name}.{condition}")
    return Filter(Boolean(), lambda _: written)


_OPEN = and_(
    select(dangling.AGENTS.c.deleted_at)
    .where(dangling.AGENTS.c.agent_id == CALLS.c.agent_id)
    .scalar_subquery()
    .is_(None),
    select(_SESSIONS.c.deleted_at).where(_SESSIONS.c.id == CALLS.c.session_id).scalar_subquery().is_(None),
)
_FILTERS = {
    "tool_name": equals(ToolCallRecord.tool_name),
    "state": equals(ToolCallRecord.state),
    "agent_id": equals(ToolCallRecord.agent_id),
    "session_id": equals(ToolCallRecord.session_id),
    "created_after": at_least(ToolCallRecord.created_at),
    "created_before": below(ToolCallRecord.created_at),
    "since": at_least(ToolCallRecord.created_at),
    "until": below(ToolCallRecord.created_at),
    "is_error=True": _holds("is_error"),
    "is_error=False": _holds("is_error IS FALSE"),
    "has_approval=True": _holds("approval IS NOT NULL"),
    "has_approval=False": _holds("approval IS NULL"),
    "open": Filter(Boolean(), lambda _: _OPEN),
}
LISTING = Listing(
    ToolCallRecord,
    filters=_FILTERS,
    orders={"created_at": (CALLS.c.created_at, CALLS.c.id)},
    default="created_at",
)
STATS = Stats(_FILTERS)
