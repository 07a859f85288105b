"""Operations on the queue of tasks: claiming, holding, giving back."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

from agentos_store.engine.session import Session
from agentos_store.operation import F, Repository, reads_together, repeatable, writes_once
from agentos_store.tasks import claiming, holding
from agentos_store.tasks.backoff import DEFAULT_BACKOFF, Backoff
from agentos_store.tasks.models import Task
from agentos_store.tasks.queue_stats import QueueStats, queue_stats
from agentos_store.types import check_duration

FAILED = "failed"
"""The exit reason of a failure that gives none."""


class TaskQueue(Repository[F]):
    """The part of the task repository that workers use."""

    @writes_once
    @repeatable
    def claim(self, session: Session, *, by: str, lease: dt.timedelta, task_types: Sequence[str] = ()) -> Task | None:
        """Take the most urgent pending task for one worker, of equal ones the oldest; None when none is free.

        Free is a task whose ``run_after`` has come and that waits for no unfinished task (``blocks`` and ``requires``;
        only what completed is finished). The claim holds for ``lease`` from the database's clock; ``heartbeat`` renews
        it. It counts as an attempt, and its ``lease_token`` is what the worker shows to complete the task or to fail
        it. Of two workers that claim at once each gets another task: one may be passed over while another worker looks
        at it, so None and the order hold for that moment.

        A task whose worker died is free again as soon as its lease has lapsed, unless that was its last attempt: then
        it has failed. ``task_types`` keeps to some types, 50 at most.
        """
        found = claiming.claim(session, by=by, lease=lease, task_types=task_types, limit=1)
        return found[0] if found else None

    @writes_once
    @repeatable
    def claim_many(
        self, session: Session, *, by: str, lease: dt.timedelta, limit: int, task_types: Sequence[str] = ()
    ) -> Sequence[Task]:
        """Take up to ``limit`` tasks (1,000 at most) in one transaction, the most urgent first; see ``claim``."""
        return claiming.claim(session, by=by, lease=lease, task_types=task_types, limit=limit)

    @writes_once
    @repeatable
    def heartbeat(self, session: Session, task_id: str, token: int, *, lease: dt.timedelta) -> Task:
        """Let the claim hold for ``lease`` from now, also one that has lapsed when nobody took the task meanwhile.

        LeaseLostError when the claim has ended, ConflictError when there never was one with this token. A heartbeat
        moves neither ``version`` nor ``updated_at`` and leaves no audit.
        """
        return holding.renew(session, task_id, token, lease)

    @writes_once
    @repeatable
    def complete(
        self,
        session: Session,
        task_id: str,
        token: int,
        *,
        result: Any = None,
        duration: float | None = None,
        by: str | None = None,
    ) -> Task:
        """Complete a claimed task; errors as with ``heartbeat``, and then nothing is changed.

        A claim that has lapsed still counts when nobody took the task meanwhile.
        """
        step = holding.HeldStep(task_id=task_id, to="completed", token=token, result=result, duration=duration, by=by)
        return holding.take(session, step)

    @writes_once
    @repeatable
    def fail(
        self,
        session: Session,
        task_id: str,
        token: int,
        *,
        error_message: str | None = None,
        exit_reason: str = FAILED,
        retry: bool = True,
        after: dt.timedelta | None = None,
        backoff: Backoff = DEFAULT_BACKOFF,
        by: str | None = None,
    ) -> Task:
        """End a try that failed: the task is pending again, or has failed after ``max_attempts`` claims.

        The next try is not claimed before ``after``, or else before the wait that ``backoff`` gives: 1 s after the
        first try, each further one twice as long, up to 10 minutes, give or take a fifth. Without ``retry`` the task
        fails at once. Errors as with ``heartbeat``.
        """
        last = holding.HeldStep(
            task_id=task_id, to="failed", token=token, by=by, exit_reason=exit_reason, error_message=error_message
        )
        if after is not None:
            check_duration("after", after, zero_too=True)
        again = holding.TryAgain(
            task_id=task_id,
            to="pending",
            token=token,
            by=by,
            exit_reason=exit_reason,
            error_message=error_message,
            backoff=backoff,
            after=after,
        )
        return holding.fail(session, last, again if retry else None)

    @writes_once
    @repeatable
    def release(
        self, session: Session, task_id: str, token: int, *, by: str | None = None, reason: str | None = None
    ) -> Task:
        """Give a claimed task back: it is pending as before, and the claim does not count as an attempt.

        Errors as with ``heartbeat``.
        """
        step = holding.GiveBack(task_id=task_id, to="pending", token=token, by=by, exit_reason=reason)
        return holding.take(session, step)

    @writes_once
    def reclaim_lapsed(self, session: Session, *, limit: int = claiming.GIVEN_BACK_AT_ONCE) -> int:
        """Let tasks of workers that died be pending again, or failed after their last attempt; return how many.

        At most ``limit``, those that lapsed first. ``claim`` does it by itself, 100 at a time.
        """
        return claiming.give_back_lapsed(session, limit=limit)

    @reads_together
    def queue_stats(self, session: Session) -> QueueStats:
        """Return how many tasks wait, and for what, how many are being done, and how long the oldest has waited."""
        return queue_stats(session)
