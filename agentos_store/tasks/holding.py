"""What the holder of a claim does: it renews the claim, completes the task, fails it, or gives it back.

Whoever holds a task shows the token of the claim. It grows with each claim, so that a worker that was too late, or
whose task somebody paused or cancelled meanwhile, is told so and changes nothing.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import bindparam, case, func, literal, update

from agentos_store.engine.clock import from_now, seconds
from agentos_store.engine.session import Session
from agentos_store.engine.statement import Statement
from agentos_store.errors import ConflictError, InvalidValueError, LeaseLostError, NotFoundError
from agentos_store.tasks.backoff import MOST_STEPS, Backoff
from agentos_store.tasks.models import Task
from agentos_store.tasks.transition import (
    GET,
    TASKS,
    Statements,
    Step,
    moving,
    take,
    take_at,
    take_in_one,
    taken_before,
    taking,
)
from agentos_store.types import check_duration

__all__ = ["GiveBack", "HeldStep", "TryAgain", "fail", "renew", "take"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldStep(Step):
    """A step that the holder of a claim takes."""

    token: int

    def __post_init__(self) -> None:
        check_token(self.token)
        # By its name, for super() does not know the class that a dataclass with slots is made into.
        Step.__post_init__(self)

    @property
    def statements(self) -> Statements:
        """The same step, for the holder alone."""
        return _END

    @property
    def level(self) -> str:
        """A try that failed is worth a look."""
        return "info" if self.to == "completed" else "warning"

    def origins(self) -> tuple[str, ...]:
        """Return the only status in which a task is held."""
        return ("running",)

    def refuse(self, task: Task) -> None:
        """Raise unless the task is held with this token."""
        refuse_stranger(task, self.token)

    def payload(self, origin: str) -> dict[str, Any]:
        """Return what the audit entry says: which claim has ended, too."""
        return {**Step.payload(self, origin), "token": self.token}

    def values(self, time: dt.datetime) -> dict[str, Any]:
        """Return the values for both databases' statements."""
        return {**Step.values(self, time), "token": self.token}


@dataclass(frozen=True, slots=True, kw_only=True)
class TryAgain(HeldStep):
    """The task waits for its next try."""

    backoff: Backoff
    after: dt.timedelta | None
    """The wait, when it does not depend on the number of tries."""

    @property
    def statements(self) -> Statements:
        """The step for a task that has a try left."""
        return _AGAIN

    def values(self, time: dt.datetime) -> dict[str, Any]:
        """Return the values; the database knows how often it was tried."""
        backoff = self.backoff
        if self.after is not None:
            wait = self.after.total_seconds()
            return {**HeldStep.values(self, time), "base": wait, "factor": 1.0, "cap": wait, "chance": 1.0}
        facts = {"base": backoff.base.total_seconds(), "factor": float(backoff.factor)}
        facts |= {"cap": backoff.cap.total_seconds(), "chance": backoff.chance()}
        return {**HeldStep.values(self, time), **facts}


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveBack(HeldStep):
    """The task waits again as if nobody had claimed it."""

    @property
    def statements(self) -> Statements:
        """The step that does not count the try."""
        return _BACK

    @property
    def level(self) -> str:
        """Nothing went wrong."""
        return "info"


def fail(session: Session, last: HeldStep, again: TryAgain | None) -> Task:
    """Take the step to the next try when there is one left, else the last step."""
    time = session.now()
    found = taken_before(session, last.task_id, time)
    if found is not None:
        return found
    if again is not None:
        if session.capabilities.data_modifying_cte:
            moved = take_in_one(session, again, time)
            if moved is not None:
                return moved
        else:
            task = session.first(GET, {"task_id": last.task_id})
            if task is not None and task.attempts < task.max_attempts:
                wait = dt.timedelta(seconds=again.backoff.delay(task.attempts))
                return take_at(session, again if again.after is not None else replace(again, after=wait), time)
    return take_at(session, last, time)


def renew(session: Session, task_id: str, token: int, lease: dt.timedelta) -> Task:
    """Let the claim hold for ``lease`` from now."""
    check_token(token)
    check_duration("lease", lease)
    renewed = session.first(_RENEW, {"task_id": task_id, "token": token, "lease": lease.total_seconds()})
    if renewed is not None:
        return renewed
    task = session.first(GET, {"task_id": task_id})
    if task is None:
        raise NotFoundError("task", task_id)
    refuse_stranger(task, token)
    # Between the two statements it was claimed: with this token it can only be by somebody who guessed it.
    raise LeaseLostError(f"task {task_id}", token)


def refuse_stranger(task: Task, token: int) -> None:
    """Raise LeaseLostError for a claim that has ended, ConflictError for one that never was."""
    if token > task.lease_token:
        raise ConflictError("task", task.task_id, f"it was never claimed with token {token}")
    if token < task.lease_token or task.status != "running" or task.claimed_by is None:
        raise LeaseLostError(f"task {task.task_id}", token)


def check_token(token: object) -> None:
    """Refuse what is no token of any claim."""
    if isinstance(token, bool) or not isinstance(token, int) or not 1 <= token < 2**63:
        raise InvalidValueError("token", "must be the lease_token of a claim, a whole number from 1")


_TOKEN = bindparam("token", type_=TASKS.c.lease_token.type)
_HELD = (TASKS.c.lease_token == _TOKEN, TASKS.c.claimed_by.is_not(None))
_IS_LEFT = TASKS.c.attempts < TASKS.c.max_attempts
_NUMBERS = {name: seconds(name) for name in ("base", "factor", "cap", "chance")}


def _wait() -> Any:
    steps = func.least(TASKS.c.attempts - 1, literal(MOST_STEPS))
    grown = _NUMBERS["base"] * func.power(_NUMBERS["factor"], steps)
    return func.least(_NUMBERS["cap"], grown) * _NUMBERS["chance"]


_END = Statements(moving(_HELD), taking(_HELD))
_AGAIN = Statements(
    # Where the task is read first, the wait comes as a whole.
    moving((*_HELD, _IS_LEFT), {"run_after": from_now(_NUMBERS["base"])}),
    taking((*_HELD, _IS_LEFT), {"run_after": from_now(_wait())}),
)
_UNCOUNTED = {"attempts": case((TASKS.c.attempts > 0, TASKS.c.attempts - 1), else_=literal(0))}
_BACK = Statements(moving(_HELD, _UNCOUNTED), taking(_HELD, _UNCOUNTED))
_RENEW: Statement[Task] = Statement(
    update(TASKS)
    .where(
        TASKS.c.task_id == bindparam("task_id", type_=TASKS.c.task_id.type),
        TASKS.c.status == literal("running"),
        *_HELD,
    )
    # A sign of life is no change of the task: neither its version nor its time moves, which others go by.
    .values(lease_until=from_now(seconds("lease")))
    .returning(*TASKS.c),
    returns=Task,
)
