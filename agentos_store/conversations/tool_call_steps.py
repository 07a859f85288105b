"""One step of a tool call's life: a compare-and-set on its state that adds to its audit trail in the same statement."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Boolean as PlainBoolean
from sqlalchemy import ColumnElement, Float, bindparam, case, cast, extract, func, literal, null, or_, select, update
from sqlalchemy import Text as PlainText
from sqlalchemy.dialects.postgresql import ARRAY

from agentos_store.conversations.tool_call_models import TOOL_CALL_STATE, ToolCallRecord
from agentos_store.conversations.tool_call_states import ENDED, TRANSITIONS, means_error, sources
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement, plain_json
from agentos_store.errors import ConflictError, InvalidTransitionError, InvalidValueError, NotFoundError
from agentos_store.types import ExactText, JSONValue, Text, dumps_exact, to_text
from agentos_store.unset import UNSET

CALLS = ToolCallRecord.table()
ASKED = {"required": True}
"""The approval of a call for which one is asked."""

_TEXT = Text()


@dataclass(frozen=True, slots=True)
class Key:
    """What a caller names a call by."""

    tool_call_id: str
    agent_id: str | None
    session_id: str | None

    @property
    def kind(self) -> str:
        """Return which of the keys it is: the agent's, the session's, or the record's own."""
        if self.agent_id is not None:
            return "agent"
        return "record" if self.session_id is None else "session"

    def values(self) -> dict[str, Any]:
        """Return the values that the conditions take."""
        return {"tool_call_id": self.tool_call_id, "agent_id": self.agent_id, "session_id": self.session_id}


def find(session: Session, key: Key) -> ToolCallRecord | None:
    """Return the call, or None."""
    return session.first(_FIND[key.kind], key.values())


def get(session: Session, key: Key) -> ToolCallRecord:
    """Return the call; raise NotFoundError for an unknown one."""
    found = find(session, key)
    if found is None:
        raise NotFoundError(ToolCallRecord.entity, key.tool_call_id)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step that is asked for; what is UNSET stays as it is, or follows from the state."""

    key: Key
    to: str
    output: Any = UNSET
    is_error: Any = UNSET
    error_message: Any = UNSET
    duration_ms: Any = UNSET
    approval: Any = UNSET
    decision: dict[str, Any] = field(default_factory=dict)
    """What is added to the approval."""
    note: str | None = None
    by: str | None = None
    expected: str | None = None
    """Only from this state."""

    def __post_init__(self) -> None:
        TOOL_CALL_STATE.check(self.to, "state")
        if self.expected is not None:
            TOOL_CALL_STATE.check(self.expected, "expected")
        for name, type_ in _CHECKS:
            value = getattr(self, name)
            if value is not None and value is not UNSET:
                type_.check(plain_json(value) if name == "approval" else value, name)
        if self.duration_ms is not UNSET:
            check_duration(self.duration_ms)

    def origins(self) -> tuple[str, ...]:
        """Return the states from which the step is legal and asked for."""
        return tuple(state for state in sources(self.to) if self.expected in (None, state))

    def values(self, time: dt.datetime) -> dict[str, Any]:
        """Return the values that both databases' statements take."""
        said = self.is_error is not UNSET
        is_error = self.is_error if said else means_error(self.to)
        return self.key.values() | {
            "to": self.to,
            "at": time,
            "entry": entry(self.to, time, by=self.by, note=self.note),
            "gives_output": self.output is not UNSET,
            "output": _exact(self.output),
            "gives_is_error": said or is_error is not None,
            "is_error": is_error,
            "gives_error_message": self.error_message is not UNSET,
            "error_message": _or_none(self.error_message),
            "gives_approval": self.approval is not UNSET,
            "approval": plain_json(_or_none(self.approval)),
            "decision": self.decision or None,
            "duration_ms": _or_none(self.duration_ms),
            "gives_duration": self.duration_ms is not UNSET,
            "measures": self.to in MEASURED,
        }


MEASURED = ("completed", "failed")
"""The states in which a call's own end is known. How long one that was sealed would have run, nobody saw."""


def _exact(output: Any) -> ExactText | None:
    return None if output is UNSET or output is None else ExactText(dumps_exact(output, "output"))


def _or_none(value: Any) -> Any:
    return None if value is UNSET else value


def check_duration(value: object) -> float | None:
    """Return a duration in its normal form; raise InvalidValueError for one below zero."""
    if value is None:
        return None
    number: float = CALLS.c.duration_ms.type.check(value, "duration_ms")  # type: ignore[attr-defined]
    if number < 0:
        raise InvalidValueError("duration_ms", "must not be below zero")
    return number


def entry(state: str, time: dt.datetime, *, by: str | None, note: str | None) -> dict[str, Any]:
    """Return an entry of the audit trail."""
    made = {"state": state, "at": to_text(time)}
    for name, value in (("by", by), ("note", note)):
        if value is not None:
            made[name] = _TEXT.check(value, name)
    return made


_CHECKS: tuple[tuple[str, Any], ...] = (
    ("note", _TEXT),
    ("by", _TEXT),
    ("is_error", CALLS.c.is_error.type),
    ("error_message", CALLS.c.error_message.type),
    ("approval", CALLS.c.approval.type),
    ("decision", CALLS.c.approval.type),
)


def take(session: Session, step: Step, time: dt.datetime | None = None) -> ToolCallRecord:
    """Take the step and return the call as it is then; the state that it has already is no step and changes nothing.

    Of two callers that race for different steps one comes first; the other's is judged by what it finds then.
    """
    time = session.now() if time is None else time
    # Whatever cannot be stored is refused here, before the call is looked at.
    values = step.values(time)
    if session.repeated:
        # The time was drawn for this call alone, so an entry that has it tells that the step was taken.
        found = get(session, step.key)
        if any(each.get("at") == to_text(time) and each.get("state") == step.to for each in found.audit_trail):
            return found
    while True:
        if session.capabilities.data_modifying_cte and step.origins():
            moved = session.first(_TAKE[step.key.kind], values | {"origins": list(step.origins())})
            if moved is not None:
                return moved
        found = get(session, step.key)
        _refuse(step, found)
        if found.state == step.to:
            return found
        if not session.capabilities.data_modifying_cte:
            changed = session.first(_MOVE, values | _merged(step, found) | {"id": found.id})
            assert changed is not None, "nobody else can write while the queue is ours"
            return changed
        # The call was changed between the two statements, to a state from which the step is legal: try again.


def _refuse(step: Step, found: ToolCallRecord) -> None:
    if found.state != step.to and found.state not in sources(step.to):
        raise InvalidTransitionError(
            ToolCallRecord.entity,
            step.key.tool_call_id,
            current=found.state,
            requested=step.to,
            allowed=TRANSITIONS[found.state],
        )
    if step.expected is not None and found.state != step.expected:
        raise ConflictError(ToolCallRecord.entity, step.key.tool_call_id, f"it is {found.state}, not {step.expected}")


def _merged(step: Step, found: ToolCallRecord) -> dict[str, Any]:
    """Return the approval with the decision in it, where all writers stand in one queue: it was just read."""
    if not step.decision or step.approval is not UNSET:
        return {}
    approval = ASKED if found.approval is None else found.approval
    return {"gives_approval": True, "approval": approval | step.decision}


def conditions(kind: str) -> list[ColumnElement[bool]]:
    """Return the conditions on the call that a key of this kind names."""
    name = bindparam("tool_call_id", type_=CALLS.c.tool_call_id.type)
    if kind == "agent":
        return [CALLS.c.tool_call_id == name, CALLS.c.agent_id == bindparam("agent_id", type_=CALLS.c.agent_id.type)]
    if kind == "session":
        owner = bindparam("session_id", type_=CALLS.c.session_id.type)
        return [CALLS.c.tool_call_id == name, CALLS.c.session_id == owner, CALLS.c.agent_id.is_(None)]
    return [CALLS.c.id == bindparam("tool_call_id", type_=CALLS.c.id.type)]


def appended(*, operators: bool) -> ColumnElement[Any]:
    """Return the audit trail with the entry at its end, computed where the row is, so that none is lost."""
    one = bindparam("entry", type_=JSONValue(kind="object"))
    trail = CALLS.c.audit_trail
    if operators:
        return trail.op("||", return_type=trail.type)(one)
    return func.json_insert(trail, literal("$[#]"), func.json(one), type_=trail.type)


def _elapsed(at: ColumnElement[Any], *, operators: bool) -> ColumnElement[Any]:
    """Return the milliseconds since the start: by whole microseconds, so that both databases find the same number."""
    if operators:
        micros: ColumnElement[Any] = cast(extract("epoch", at - CALLS.c.started_at) * 1_000_000, Float(53))
    else:
        micros = func.round(func.agentos_seconds_between(CALLS.c.started_at, at) * 1e6)
    thousand = literal(1000.0, Float(53))
    # A clock that was set back does not make a call end before it began.
    return case(
        (CALLS.c.started_at.is_(None), null()),
        (CALLS.c.started_at > at, literal(0.0, Float(53))),
        else_=micros / thousand,
    )


def _assignments(*, operators: bool) -> dict[str, Any]:
    """Return what a step sets, in terms of the values that it is given and of the row as it was."""
    columns = CALLS.c
    to, at = bindparam("to", type_=columns.state.type), bindparam("at", type_=columns.updated_at.type)

    def unless_left_out(name: str, flag: str, otherwise: Any = None) -> Any:
        value = bindparam(name, type_=columns[name].type)
        return case((_flag(flag), value), else_=columns[name] if otherwise is None else otherwise)

    decision = bindparam("decision", type_=columns.approval.type)
    kept: Any = columns.approval
    if operators:
        asked = func.coalesce(columns.approval, literal(ASKED, columns.approval.type))
        kept = case((decision.is_not(None), asked.op("||")(decision)), else_=columns.approval)
    measured = case((_flag("measures"), _elapsed(at, operators=operators)), else_=columns.duration_ms)
    return {
        "state": to,
        "updated_at": at,
        "started_at": case((to == "executing", at), else_=columns.started_at),
        "completed_at": case((or_(*(to == state for state in ENDED)), at), else_=columns.completed_at),
        "has_output": or_(columns.has_output, _flag("gives_output")),
        "output": unless_left_out("output", "gives_output"),
        "is_error": unless_left_out("is_error", "gives_is_error"),
        "error_message": unless_left_out("error_message", "gives_error_message"),
        "approval": unless_left_out("approval", "gives_approval", kept),
        "duration_ms": unless_left_out("duration_ms", "gives_duration", measured),
        "audit_trail": appended(operators=operators),
    }


def _flag(name: str) -> Any:
    return bindparam(name, type_=PlainBoolean())


def _take(kind: str) -> Statement[ToolCallRecord]:
    """The whole step in one statement."""
    origins = bindparam("origins", type_=ARRAY(PlainText()))
    statement = (
        update(CALLS)
        .where(*conditions(kind), CALLS.c.state == func.any(origins))
        .values(_assignments(operators=True))
        .returning(*CALLS.c)
    )
    return Statement(statement, returns=ToolCallRecord)


def _move() -> Statement[ToolCallRecord]:
    """The step where all writers stand in one queue: the call has just been read and cannot have changed."""
    statement = (
        update(CALLS)
        .where(CALLS.c.id == bindparam("id", type_=CALLS.c.id.type))
        .values(_assignments(operators=False))
        .returning(*CALLS.c)
    )
    return Statement(statement, returns=ToolCallRecord)


_KINDS = ("agent", "session", "record")
_FIND: dict[str, Statement[ToolCallRecord]] = {
    kind: Statement(select(CALLS).where(*conditions(kind)), returns=ToolCallRecord) for kind in _KINDS
}
_TAKE = {kind: _take(kind) for kind in _KINDS}
_MOVE = _move()
