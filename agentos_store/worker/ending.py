"""How a piece of work ends: what the handler returned or raised becomes a step of the task."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agentos_store.errors import (
    ConflictError,
    InvalidValueError,
    LeaseLostError,
    NotFoundError,
    StoreError,
    UnavailableError,
)
from agentos_store.store.blocking import Store
from agentos_store.worker.context import GiveUp, Retry, WorkContext
from agentos_store.worker.options import Options

log = logging.getLogger("agentos_store.worker")

RELEASED = "the worker stops"
REFUSED = "the result was refused"
RAISED = "the handler raised an error"
PAUSE = 0.2
"""Seconds before a step is tried again that found no database."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a handler: a result, or an error."""

    result: Any = None
    error: BaseException | None = None


def end(store: Store, context: WorkContext, outcome: Outcome, options: Options) -> None:
    """Complete the task or fail it; whoever has lost the claim has nothing to end.

    Nothing that a handler returns or raises makes this raise, for the thread goes on with other tasks.
    """
    try:
        _end_as_told(store, context, outcome, options)
    except (LeaseLostError, NotFoundError, ConflictError):
        context.lose()
        log.warning("task %s: the claim was lost before its end", context.task.task_id)
    except Exception as error:  # noqa: BLE001  see above
        context.lose()
        code = getattr(error, "code", None) or type(error).__name__
        log.error("task %s: its end could not be stored (%s)", context.task.task_id, code)  # noqa: TRY400


def _end_as_told(store: Store, context: WorkContext, outcome: Outcome, options: Options) -> None:
    try:
        if outcome.error is None:
            _insist(context, lambda: _complete(store, context, outcome.result))
        else:
            _end_with(store, context, outcome.error, options)
    except (LeaseLostError, NotFoundError, ConflictError, UnavailableError):
        raise
    except Exception as error:  # noqa: BLE001  a result may be anything, and its methods raise anything
        # It would be refused again, but another try may end otherwise, unless it was to be the last.
        message = str(error) if isinstance(error, InvalidValueError) else type(error).__name__
        retry = not isinstance(outcome.error, GiveUp)
        _fail(store, context, options, error_message=message, exit_reason=REFUSED, retry=retry)


def release(store: Store, context: WorkContext) -> None:
    """Give the task back, unless it has ended by itself meanwhile."""
    context.lose()
    try:
        store.tasks.release(context.task.task_id, context.token, by=context.by, reason=RELEASED)
    except (LeaseLostError, NotFoundError, ConflictError):
        return
    except StoreError as error:
        # The store may be closed, too.
        code = getattr(error, "code", None) or type(error).__name__
        log.error("task %s: it could not be given back (%s)", context.task.task_id, code)  # noqa: TRY400


def _complete(store: Store, context: WorkContext, result: Any) -> None:
    store.tasks.complete(context.task.task_id, context.token, result=result, by=context.by)


def _end_with(store: Store, context: WorkContext, error: BaseException, options: Options) -> None:
    if isinstance(error, GiveUp):
        _fail(store, context, options, error_message=None, exit_reason=error.reason, retry=False)
    elif isinstance(error, Retry):
        _fail(store, context, options, error_message=None, exit_reason=error.reason, after=error.after)
    elif isinstance(error, LeaseLostError) and context.is_lost:
        raise error
    else:
        # The message is stored with the task; the log gets only the kind of error.
        log.warning("task %s: %s", context.task.task_id, type(error).__name__)
        _fail(store, context, options, error_message=_text_of(error), exit_reason=RAISED)


def _text_of(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001  it has no text
        return type(error).__name__


def _fail(
    store: Store,
    context: WorkContext,
    options: Options,
    *,
    error_message: str | None,
    exit_reason: str,
    retry: bool = True,
    after: dt.timedelta | None = None,
) -> None:
    def fail() -> None:
        store.tasks.fail(
            context.task.task_id,
            context.token,
            error_message=error_message,
            exit_reason=exit_reason,
            retry=retry,
            after=after,
            backoff=options.backoff,
            by=context.by,
        )

    _insist(context, fail)


def _insist(context: WorkContext, step: Callable[[], None]) -> None:
    """Take the step, again while the database is away and the claim still holds."""
    while True:
        try:
            return step()
        except UnavailableError:
            if context.is_lost:
                raise
            time.sleep(PAUSE)
